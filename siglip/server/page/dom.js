// Small tools of the page: elements from a call, numbers and names as people read them.

/** An element: properties that start with "on" are listeners, "data"/"aria" and other names attributes. */
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name in made && !name.includes("-") && name !== "list" && name !== "form") made[name] = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

const ICONS = {
  close: "M6 6l12 12M18 6L6 18",
  left: "M15 5l-7 7 7 7",
  right: "M9 5l7 7-7 7",
  plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
  check: "M5 12.5l4.5 4.5L19 7.5",
  alike: "M4 7h11v11H4z M9 7V4h11v11h-5",
  download: "M12 4v11m-5-5l5 5 5-5M5 20h14",
  copy: "M9 9h11v11H9z M15 9V4H4v11h5",
};

/** A line drawing that screen readers pass over. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** Fill an element anew; the focus stays on what has the same data-name, or goes to `otherwise` if that is gone. */
export function refill(host, children, otherwise = null) {
  const held = host.contains(document.activeElement) ? document.activeElement.dataset.name : undefined;
  host.replaceChildren(...children.filter(Boolean));
  if (held !== undefined) (host.querySelector(`[data-name="${CSS.escape(held)}"]`) ?? otherwise)?.focus({ preventScroll: true });
}

/** 0.8731 -> "87 %", 0.0312 -> "3.1 %", 0.00002 -> "< 0.1 %". */
export function percent(probability) {
  const value = 100 * probability;
  if (value > 0 && value < 0.05) return "< 0.1\u202f%";
  return `${value >= 9.95 ? Math.round(value) : value.toFixed(1)}\u202f%`;
}

export const count = (number) => number.toLocaleString("en");

/** "1 picture", "2,000 pictures". */
export const counted = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;

/** The last part of a path, of either kind of system. */
export const nameOf = (path) => path.split(/[/\\]/).pop() || path;

export const folderOf = (path) => path.slice(0, Math.max(0, path.length - nameOf(path).length - 1));

/** Hand a file to the person. */
export function save(blob, name) {
  const url = URL.createObjectURL(blob);
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}

/** Put text into the clipboard, also where the browser offers none (plain http from another machine). */
export async function copy(text) {
  if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
  const holder = el("textarea", { value: text, className: "away" });
  (document.querySelector("dialog[open]") ?? document.body).append(holder);
  holder.select();
  const copied = document.execCommand("copy");
  holder.remove();
  if (!copied) throw new Error("The browser does not let this page copy.");
  return undefined;
}
