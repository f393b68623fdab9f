// The schema of the service -> a list of its routes, each with its fields and a way to try it.
import { el } from "./dom.js";

const EXAMPLES = {
  "/v1/embeddings": { input: ["a cat", "a dog"], encoding_format: "float" },
  "/v1/search": { query: "a cat - 0.5:a sofa", top: 5 },
  "/v1/rerank": { query: "a cat", documents: [{ image: "data:image/jpeg;base64,..." }] },
  "/v1/explain": { image: "data:image/jpeg;base64,...", texts: ["a cat"] },
  "/v1/ask": { images: ["data:image/jpeg;base64,..."], question: "what is it?" },
};
const PICTURE = ["data:image/jpeg;base64,..."];
const SHOWN = 20000;

/** What a part of the schema allows, in a few words. */
function kind(schema, parts) {
  if (!schema) return "";
  if (schema.$ref) return kind(parts[schema.$ref.split("/").pop()], parts);
  const some = schema.anyOf || schema.oneOf;
  if (some) return [...new Set(some.filter((one) => one.type !== "null").map((one) => kind(one, parts)))].join(" or ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  if (schema.type === "array") return `list of ${kind(schema.items, parts)}`;
  if (schema.properties) return `{${Object.keys(schema.properties).join(", ")}}`;
  const least = schema.minimum ?? schema.exclusiveMinimum;
  const range = least === undefined && schema.maximum === undefined ? "" : ` ${least ?? ""}..${schema.maximum ?? ""}`;
  return (schema.type || "anything") + range;
}

function table(rows) {
  const head = el("tr", {}, ["field", "type", "default"].map((name) => el("th", { scope: "col" }, name)));
  const cells = (row) => [el("th", { scope: "row" }, el("code", {}, row[0])), el("td", {}, row[1]), el("td", {}, row[2])];
  return el("table", {}, el("thead", {}, head), el("tbody", {}, rows.map((row) => el("tr", {}, cells(row)))));
}

const standard = (schema, needed) => (needed ? "must be given" : schema?.default === undefined ? "" : JSON.stringify(schema.default));

function fields(route, parts) {
  const rows = (route.parameters || []).map((one) => [one.name, kind(one.schema, parts), standard(one.schema, one.required)]);
  const body = bodyOf(route, parts);
  for (const [name, schema] of Object.entries(body?.properties || {})) {
    rows.push([name, kind(schema, parts), standard(schema, body.required?.includes(name))]);
  }
  return rows;
}

function bodyOf(route, parts) {
  const schema = route.requestBody?.content["application/json"]?.schema;
  return schema?.$ref ? parts[schema.$ref.split("/").pop()] : schema;
}

function example(path, body) {
  const needed = (body.required || []).map((name) => [name, name === "images" ? PICTURE : ["a cat"]]);
  return EXAMPLES[path] || Object.fromEntries(needed);
}

/** Sends what stands in the field and shows what comes back. */
function trial(method, path, body) {
  const ask = el("textarea", { spellcheck: false, ariaLabel: `What to send to ${path}` });
  ask.value = body ? JSON.stringify(example(path, body), null, 1) : path;
  const told = el("pre", { hidden: true, tabIndex: 0, ariaLabel: "The answer" });
  async function send() {
    told.hidden = false;
    told.textContent = "...";
    try {
      const options = { method, headers: { "Content-Type": "application/json" }, body: ask.value };
      const answer = await fetch(body ? path : ask.value.trim(), body ? options : { method });
      const type = answer.headers.get("content-type") || "";
      const text = type.startsWith("image/") || type.includes("zip") ? `(${type})` : await answer.text();
      const shown = type.includes("json") ? JSON.stringify(JSON.parse(text), null, 1) : text;
      told.textContent = `${answer.status}\n${shown.length > SHOWN ? `${shown.slice(0, SHOWN)}\n(cut here)` : shown}`;
    } catch (error) {
      told.textContent = `The service did not answer: ${error.message}`;
    }
  }
  return [ask, el("button", { type: "button", onclick: send }, "Send"), told];
}

async function draw() {
  const said = document.getElementById("said");
  const schema = await (await fetch("/openapi.json")).json();
  const parts = schema.components?.schemas || {};
  const routes = Object.entries(schema.paths).flatMap(([path, ways]) => Object.entries(ways).map(([way, route]) => [path, way, route]));
  for (const [path, way, route] of routes) {
    const method = way.toUpperCase();
    const rows = fields(route, parts);
    const inside = el("div", { className: "inside" }, rows.length ? table(rows) : null, trial(method, path, bodyOf(route, parts)));
    const head = el("summary", {}, el("b", {}, method), el("code", {}, path), el("span", { className: "dim" }, route.description || ""));
    document.getElementById("routes").append(el("details", {}, head, inside));
  }
  said.textContent = `${routes.length} routes, siglip ${schema.info.version}`;
}

draw().catch((error) => {
  document.getElementById("said").textContent = `The schema cannot be read: ${error.message}`;
});
