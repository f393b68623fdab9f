// A service without a library: one picture from outside, and which of some labels it is.
import { post } from "./api.js";
import { el, percent } from "./dom.js";
import { form, writingTool } from "./tools.js";

const LABELS = "a cat, a dog, a person, a house, a car, food, a flower, a landscape";

/** What stands there before there is a picture. */
export function invite(host) {
  host.replaceChildren(el("div", { className: "empty" },
    el("h2", {}, "Which of your words fits a picture?"),
    el("p", {}, "Drop a picture anywhere on this page, paste one, or "),
    el("button", { type: "button", className: "main", onclick: () => document.querySelector("#file").click() }, "Choose a picture"),
    el("p", { className: "dim" }, "To search your own pictures, make a library of them and start the service with it:"),
    el("code", {}, "siglip index ~/Pictures --library pics && siglip serve pics")));
}

/** The picture with its labels; `writes` tells whether the service can also describe it. */
export function classify(host, given, writes) {
  const labels = el("textarea", { value: localStorage.getItem("labels") ?? LABELS, rows: 3, spellcheck: false });
  const list = el("ol", { className: "bars", "aria-label": "Labels, the best first" });
  const told = el("p", { role: "status", className: "dim" });
  const ask = form("Labels, between commas", labels, "Classify", told, async () => {
    const words = [...new Set(labels.value.split(/[,\n]/).map((word) => word.trim()).filter(Boolean))];
    if (!words.length) return "Write some labels first.";
    localStorage.setItem("labels", labels.value);
    const { data } = await post("/v1/classify", { images: [given.uri], labels: words, top: Math.min(20, words.length) });
    const found = data[0].labels;
    list.replaceChildren(...found.map(({ label, score }) => {
      const bar = el("span", { className: "level" });
      bar.style.width = `${100 * score}%`;
      return el("li", {}, el("span", {}, label), el("span", { className: "number" }, percent(score)), el("span", { className: "track" }, bar));
    }));
    return found[0].score < 0.05 ? "None of these fits well." : "";
  });
  const shown = el("img", { src: given.uri, alt: given.name, onerror: () => shown.classList.add("unseen") });
  host.replaceChildren(el("div", { className: "alone" }, el("figure", {}, shown, el("figcaption", { className: "dim" }, given.name)),
    el("div", {}, ask, list, writes ? writingTool(() => given.uri)(given) : null)));
  ask.requestSubmit();
}
