// Copies: files that hold the same picture, the one to keep first. Nothing is deleted here; paths can be copied.
import { address, get, picture, thumbnail } from "./api.js";
import { copy, count, counted, el, folderOf, icon, nameOf } from "./dom.js";

const TOP = 30;

/** Fill `host` with the groups; `said(...parts)` gets the line above. Rejects where the first page does not come. */
export async function showDuplicates(host, said, signal) {
  said("Looking for copies ...");
  const first = await get("/v1/duplicates", { top: TOP }, signal);
  if (!first.total) {
    host.replaceChildren(el("div", { className: "empty" }, el("h2", {}, "No copies"), el("p", {}, "No two files of the library hold the same picture.")));
    said("");
    return;
  }
  said(el("span", {}, `${counted(first.total, "picture")} with copies, the file to keep first`),
    el("span", { className: "links" }, el("a", { href: address("/v1/duplicates", { top: TOP }) }, "JSON")));
  const list = el("ol", { className: "groups", "aria-label": "Pictures with copies" }, first.data.map(group));
  const more = el("button", { type: "button" }, "Show more");
  let page = 1;
  more.addEventListener("click", async () => {
    page += 1;
    more.disabled = true;
    const { data } = await get("/v1/duplicates", { top: TOP, page }, signal);
    const made = data.map(group);
    list.append(...made);
    made[0]?.querySelector("button")?.focus();
    more.disabled = false;
    more.hidden = page * TOP >= first.total;
  });
  more.hidden = TOP >= first.total;
  host.replaceChildren(list, more);
}

function group({ exact, copies }) {
  const others = copies.slice(1).map((one) => one.path);
  const button = el("button", {
    type: "button",
    onclick: async () => {
      await copy(others.join("\n"));
      button.replaceChildren(icon("check"), "Copied");
    },
  }, icon("copy"), `Copy the ${others.length === 1 ? "other path" : `${others.length} other paths`}`);
  return el("li", {},
    el("p", { className: "kind" }, exact ? "The same file" : "The same picture in different files", button),
    el("ul", {}, copies.map((one, at) => el("li", {},
      el("a", { href: picture(one.id), target: "_blank" }, el("img", { src: thumbnail(one.id), alt: `${nameOf(one.path)}, opens large`, loading: "lazy" })),
      el("div", {}, el("strong", {}, nameOf(one.path)), at === 0 ? el("span", { className: "keep" }, "keep") : null,
        el("div", { className: "dim" }, `${one.width} \u00d7 ${one.height}, ${size(one.bytes)}`), el("div", { className: "dim path" }, folderOf(one.path)))))));
}

const size = (bytes) => (bytes < 1e6 ? `${count(Math.max(1, Math.round(bytes / 1e3)))} kB` : `${(bytes / 1e6).toFixed(1)} MB`);
