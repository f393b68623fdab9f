// Questions to the service that this page came from, and to nobody else.

/** What went wrong, in a sentence for the person; `status` is 0 where the service was not reached. */
export class Failure extends Error {
  constructor(message, status, id) {
    super(message);
    this.status = status;
    this.id = id;
  }
}

async function sent(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("The service cannot be reached. Is it still running?", 0);
  }
  if (response.ok) return response;
  let told = null;
  try {
    told = (await response.json()).error;
  } catch {
    told = null;
  }
  throw new Failure(told?.message ?? `The service answered with ${response.status}.`, response.status,
    response.headers.get("x-request-id"));
}

/** The JSON behind an address; `parameters` that are empty are left out. */
export async function get(path, parameters = {}, signal = undefined) {
  return (await sent(address(path, parameters), { signal })).json();
}

/** The JSON that answers a JSON body. */
export async function post(path, body, signal = undefined) {
  return (await posted(path, body, signal)).json();
}

/** The answer to a JSON body, whatever it is. */
export function posted(path, body, signal = undefined) {
  return sent(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal });
}

/** A path with its parameters, as a link. */
export function address(path, parameters) {
  const kept = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return kept.length ? `${path}?${new URLSearchParams(kept)}` : path;
}

/** Which routes this service has. */
export async function offered() {
  return new Set(Object.keys((await get("/openapi.json")).paths));
}

export const thumbnail = (id) => `/v1/thumbnails/${id}`;
export const picture = (id) => `/v1/pictures/${id}`;

/** A file as a data URI, the only form in which the service takes pictures. */
export function dataUri(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Failure(`${file.name || "The picture"} cannot be read.`, 0));
    reader.readAsDataURL(file);
  });
}
