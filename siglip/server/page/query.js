// The question: words in the library's language, each part a chip with sign and weight, and pictures beside them.
import { el, icon, refill } from "./dom.js";
import { thumbnail } from "./api.js";

const SIGN = /(?:^|(?<=\s))([+-])\s+/;
const WEIGHT = /^(\d+\.?\d*|\.\d+):\s*(?=\S)/;

/** "2:a dog - fence" -> [{text: "a dog", weight: 2}, {text: "fence", weight: -1}]; as siglip.search.query reads it. */
export function parse(text) {
  const quoted = [];
  const plain = text.replace(/"([^"]*)"/g, (_, inside) => `\0${quoted.push(inside) - 1}\0`);
  const pieces = plain.split(SIGN);
  const terms = [];
  for (let at = 0; at < pieces.length; at += 2) {
    const sign = at === 0 || pieces[at - 1] === "+" ? 1 : -1;
    const piece = pieces[at].trim();
    const weight = WEIGHT.exec(piece);
    const words = (weight ? piece.slice(weight[0].length) : piece).replace(/\0(\d+)\0/g, (_, number) => quoted[number]);
    if (words.trim()) terms.push({ text: words.trim().split(/\s+/).join(" "), weight: sign * (weight ? Number(weight[1]) : 1) });
  }
  return terms;
}

/** The other way round; what would be read as something else goes into quotes. */
export function written(terms) {
  return terms.map(({ text, weight }, at) => {
    const size = Math.abs(weight);
    const odd = !text.includes('"') && (SIGN.test(text) || WEIGHT.test(text) || /^(\.{0,2}[/\\]|~|[A-Za-z]:[/\\]|https?:\/\/)/i.test(text));
    const words = `${size === 1 ? "" : `${Number(size.toFixed(2))}:`}${odd ? `"${text}"` : text}`;
    if (at === 0) return weight < 0 ? `- ${words}` : words;
    return `${weight < 0 ? "-" : "+"} ${words}`;
  }).join(" ");
}

/** Draw the chips. `changed(terms, pictures, settled)` is called when one was moved; not settled while it is dragged. */
export function drawChips(list, terms, pictures, changed) {
  const parts = [...terms, ...pictures];
  const told = (settled) => changed(terms.filter((part) => !part.gone), pictures.filter((part) => !part.gone), settled);
  // nothing to weigh where there is one text alone
  const shown = pictures.length > 0 || parts.length > 1 || parts.some((part) => part.weight !== 1);
  list.hidden = !shown;
  refill(list, shown ? parts.map((part, at) => chip(part, at, told)) : [], document.querySelector("#query"));
}

function chip(part, at, told) {
  const name = part.text ?? part.name;
  const value = el("output", {}, weightOf(part));
  const slider = el("input", {
    type: "range", "data-name": `weight ${at}`, min: "0.1", max: "3", step: "0.1", value: String(Math.abs(part.weight)), "aria-label": `Weight of ${name}`,
    oninput: () => {
      part.weight = Math.sign(part.weight) * Number(slider.value);
      value.textContent = weightOf(part);
      told(false);
    },
    onchange: () => told(true),
  });
  const sign = el("button", {
    type: "button", className: "sign", "data-name": `sign ${at}`, title: part.weight < 0 ? "Taken away; press to add" : "Added; press to take away",
    "aria-label": part.weight < 0 ? `${name} is taken away: add it` : `${name} is added: take it away`,
    onclick: () => {
      // a whole negative term often takes away more than is meant
      part.weight = part.weight > 0 && part.weight === 1 ? -0.5 : -part.weight;
      if (part.weight === 0.5) part.weight = 1;
      told(true);
    },
  }, icon(part.weight < 0 ? "minus" : "plus"));
  const remove = el("button", {
    type: "button", className: "remove", "data-name": `remove ${at}`, "aria-label": `Remove ${name}`,
    onclick: () => {
      part.gone = true;
      told(true);
    },
  }, icon("close"));
  const face = part.text === undefined ? el("img", { src: part.uri ?? thumbnail(part.id), alt: part.name }) : null;
  return el("li", { className: part.weight < 0 ? "chip minus" : "chip" }, sign, face, part.text === undefined ? null : el("span", {}, part.text),
    slider, value, remove);
}

const weightOf = (part) => Math.abs(part.weight).toFixed(1);
