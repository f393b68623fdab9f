// Filters and views: what can be left out, in the library's own filter language, and which way round pictures stand.
import { count, el, refill } from "./dom.js";

const SIZES = [["", "Any size"], ["640", "640 px and more"], ["1024", "1,024 px and more"], ["2048", "2,048 px and more"]];
const ORDERS = [["newest", "Newest first"], ["oldest", "Oldest first"], ["name", "By name"], ["largest", "Largest files first"]];
export const EMPTY = { folder: "", format: "", from: "", to: "", size: "", where: "" };

const quoted = (text) => `'${text.replaceAll("'", "''")}'`;

/** {folder: "/a", from: "2024-05-01"} -> "path >= '/a/' and path < '/a0' and (taken >= ...)"; "" where nothing is chosen. */
export function whereOf({ folder, format, from, to, size, where }) {
  const parts = [];
  // all that lies below: "0" follows "/", and no sign of LIKE in the name can be taken for another
  if (folder) parts.push(`path >= ${quoted(`${folder}/`)} and path < ${quoted(`${folder}0`)}`);
  if (format) parts.push(`format = ${quoted(format)}`);
  if (from) parts.push(`(taken >= '${from}' or (taken is null and modified >= '${from}'))`);
  if (to) parts.push(`(taken <= '${to}' or (taken is null and modified <= '${to}'))`);
  if (size) parts.push(`(width >= ${size} or height >= ${size})`);
  if (where) parts.push(`(${where})`);
  return parts.join(" and ");
}

/** Every folder that holds pictures or folders with pictures, with all that lie below, in the order of a tree. */
export function tree(folders) {
  const sums = new Map();
  for (const [path, number] of Object.entries(folders)) {
    const parts = path.split("/");
    for (let depth = 1; depth <= parts.length; depth++) {
      const above = parts.slice(0, depth).join("/");
      if (above) sums.set(above, (sums.get(above) ?? 0) + number);
    }
  }
  const all = Object.values(folders).reduce((sum, number) => sum + number, 0);
  const paths = [...sums.keys()].sort();
  // what holds everything leaves nothing out; the last such folder is where the tree begins
  const root = paths.filter((path) => sums.get(path) === all).pop() ?? "";
  return paths.filter((path) => path.startsWith(`${root}/`)).slice(0, 500).map((path) => {
    const rest = path.slice(root.length + 1).split("/");
    return { path, number: sums.get(path), label: `${"\u2003".repeat(rest.length - 1)}${rest[rest.length - 1]}` };
  });
}

/**
 * Draw the row. `state` has filters, order and view; `changed(part)` gets what is to be different, `views` are the
 * [view, label] pairs that this service offers.
 */
export function drawTools(nav, contents, state, views, changed) {
  const { filters } = state;
  const set = (name) => ({ target: { type, value } }) => {
    if (type === "date" && value && value < "1000") return; // a year that is still being typed
    changed({ filters: { ...state.filters, [name]: value } });
  };
  const choice = (name, label, options) => field(label, el("select", { "data-name": name, onchange: set(name) }, ...options.map(([value, text]) =>
    el("option", { value, selected: value === filters[name] }, text))));
  const folders = tree(contents.folders).map(({ path, number, label }) => [path, `${label} (${count(number)})`]);
  const formats = Object.entries(contents.formats).map(([name, number]) => [name, `${name} (${count(number)})`]);
  const years = Object.keys(contents.years).sort();
  const limits = years.length ? { min: `${years[0]}-01-01`, max: `${years[years.length - 1]}-12-31` } : {};
  const day = (name, label) => field(label, el("input", { type: "date", "data-name": name, value: filters[name], ...limits, onchange: set(name) }));
  const chosen = Object.entries(filters).filter(([, value]) => value);
  const clear = el("button", { type: "button", className: "quiet", onclick: () => changed({ filters: { ...EMPTY } }) }, "Clear filters");
  const expert = field("More", el("input", {
    type: "text", "data-name": "where", value: filters.where, placeholder: "camera like '%Canon%' and width > 1000", spellcheck: false, onchange: set("where"),
  }));
  expert.classList.add("expert");
  const inside = el("div", { className: "filters" },
    folders.length ? choice("folder", "Folder", [["", "All folders"], ...folders]) : null,
    choice("format", "Kind", [["", "All kinds"], ...formats]), day("from", "From"), day("to", "To"), choice("size", "Size", SIZES), expert,
    chosen.length ? clear : null);
  const wide = matchMedia("(min-width: 60rem)").matches;
  const open = nav.querySelector("details")?.open ?? (chosen.length > 0 && wide);
  refill(nav, [
    el("div", { className: "views" }, ...views.map(([view, label]) => el("a", {
      href: view === "pictures" ? "/" : `/?view=${view}`, "data-name": view, "aria-current": view === state.view ? "page" : null,
      onclick: (event) => {
        if (event.ctrlKey || event.metaKey || event.shiftKey) return;
        event.preventDefault();
        changed({ view });
      },
    }, label))),
    state.view === "pictures" ? el("details", { open }, el("summary", { "data-name": "filters" }, chosen.length ? `Filters (${chosen.length})` : "Filters"), inside) : null,
    state.view === "pictures" && !state.asked ? field("Order", el("select", { "data-name": "order", onchange: (event) => changed({ order: event.target.value }) },
      ...ORDERS.map(([value, text]) => el("option", { value, selected: value === state.order }, text)))) : null,
  ], nav.querySelector("summary"));
  nav.hidden = false;
}

function field(label, control) {
  return el("label", { className: "field" }, el("span", {}, label), control);
}
