// What can be typed and pressed, in a dialog.
import { el, icon } from "./dom.js";

const WORDS = [
  ["a dog on the beach", "words, as you would say them"],
  ["a dog + snow", "both"],
  ["a dog - 0.5:fence", "one, and half as much less of the other"],
  ["\"a - b\"", "in quotes everything is words"],
];
const KEYS = [
  ["/", "to the question"],
  ["\u2190 \u2192 \u2191 \u2193", "among pictures; Home, End, Page Up and Down too"],
  ["Enter", "the picture large; there \u2190 and \u2192 go on, Esc closes"],
  ["x", "choose a picture, or not; Shift and a click choose all between"],
  ["m, +, -", "in the large view: more like it, add it to the question, take it away"],
  ["?", "this help"],
];

/** Make the dialog; gives the function that opens it. */
export function helpDialog() {
  const table = (rows) => el("dl", { className: "keys" }, rows.flatMap(([name, text]) => [el("dt", {}, el("kbd", {}, name)), el("dd", {}, text)]));
  const dialog = el("dialog", { className: "help", "aria-labelledby": "help-name" },
    el("button", { type: "button", className: "quiet round close", "aria-label": "Close", onclick: () => dialog.close() }, icon("close")),
    el("h2", { id: "help-name" }, "Questions"), table(WORDS),
    el("p", {}, "A picture can be part of the question: drop it on the page, paste it, or choose one of the library."),
    el("h2", {}, "Keys"), table(KEYS),
    el("h2", {}, "Numbers"),
    el("p", {}, "The percentage is the model's own probability that picture and words belong together. Between pictures there is none; they show how near they are, at most 1."));
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  document.body.append(dialog);
  return () => dialog.showModal();
}
