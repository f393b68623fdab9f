// What models tell of one picture: where it matches words, a caption, an answer. Each is offered where the service can.
import { post } from "./api.js";
import { el, percent } from "./dom.js";

/** A box for words that are looked for in the picture; the heat is drawn over it. `words()` is what was asked. */
export function heatTool(words) {
  return (item, viewer) => {
    const input = el("input", { type: "text", value: words(), placeholder: "a word or two", "data-name": "heat", maxLength: 500 });
    const told = el("p", { className: "dim", role: "status" });
    return form("Where in the picture is", input, "Show", told, async () => {
      viewer.frame.querySelector("canvas")?.remove();
      if (!input.value.trim()) return "";
      const { data } = await post("/v1/explain", { image: `id:${item.id}`, texts: [input.value.trim()] });
      const [{ heat }] = data;
      if (viewer.item !== item) return "";
      const top = Math.max(...heat.flat());
      if (top <= 0) return "No place says more of it than another.";
      viewer.frame.append(heated(heat, top));
      return "The brighter a place, the more the answer rests on it.";
    });
  };
}

/** Rows of shares as a small canvas that the browser blows up softly: what is cold grows dark, what is hot stays clear. */
function heated(heat, top) {
  const canvas = el("canvas", { className: "heat", width: heat[0].length, height: heat.length, "aria-hidden": "true" });
  const drawing = canvas.getContext("2d");
  const pixels = drawing.createImageData(canvas.width, canvas.height);
  heat.flat().forEach((share, at) => {
    const level = Math.sqrt(share / top);
    pixels.data.set([255 * level, 140 * level, 24 * (1 - level), 185 - 140 * level], 4 * at);
  });
  drawing.putImageData(pixels, 0, 0);
  return canvas;
}

/** A button for a caption and a box for a question; `source(item)` is how the service knows the picture. */
export function writingTool(source) {
  return (item) => {
    const caption = el("p", { role: "status", className: "written" });
    const answer = el("p", { role: "status", className: "written" });
    const question = el("input", { type: "text", placeholder: "What is on the table?", "data-name": "ask", maxLength: 1000 });
    const describe = el("button", { type: "button", "data-name": "describe" }, "Describe it");
    describe.addEventListener("click", () => worked(describe, caption, async () => {
      const { data } = await post("/v1/caption", { images: [source(item)] });
      return data[0].text ?? data[0].error.message;
    }));
    return el("div", { className: "tool" }, describe, caption, form("Ask about it", question, "Ask", answer, async () => {
      if (!question.value.trim()) return "";
      const { data } = await post("/v1/ask", { images: [source(item)], question: question.value.trim() });
      const best = data[0].answers?.[0];
      return best ? `${best.answer} (${percent(best.probability)})` : data[0].error.message;
    }));
  };
}

export function form(label, input, verb, told, run) {
  const button = el("button", { type: "submit" }, verb);
  return el("form", {
    className: "tool",
    onsubmit: (event) => {
      event.preventDefault();
      worked(button, told, run);
    },
  }, el("label", { className: "field" }, el("span", {}, label), input), button, told);
}

/** Run, with the button off meanwhile, and tell what came of it. */
async function worked(button, told, run) {
  button.disabled = true;
  told.classList.remove("wrong");
  told.textContent = "...";
  try {
    told.textContent = await run();
  } catch (error) {
    told.textContent = error.message;
    told.classList.add("wrong");
  }
  button.disabled = false;
}
