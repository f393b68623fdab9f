// One picture large, over everything: what is known of it, and what can be done with it. Arrows go on, Escape closes.
import { copy, count, el, folderOf, icon, nameOf, percent, refill } from "./dom.js";
import { picture, thumbnail } from "./api.js";

export class Viewer {
  /**
   * `actions` are {label, key, icon, run(item)}; `tools` are functions of (item, viewer) that give an element for the
   * side, or null; `closed(index)` is told where it ended.
   */
  constructor({ actions, tools, chosen, choose, closed }) {
    this.on = { closed, choose };
    this.chosen = chosen;
    this.actions = actions;
    this.tools = tools;
    this.stage = el("div", { className: "stage" });
    this.side = el("div", { className: "side" });
    const step = (by, name) => el("button", {
      type: "button", className: `step ${name}`, "aria-label": by < 0 ? "Previous picture" : "Next picture", onclick: () => this.step(by),
    }, icon(name));
    const close = el("button", { type: "button", className: "quiet round close", "aria-label": "Close", title: "Close (Esc)", onclick: () => this.dialog.close() }, icon("close"));
    this.back = step(-1, "left");
    this.forth = step(1, "right");
    this.dialog = el("dialog", { className: "viewer", "aria-labelledby": "shown-name" },
      el("div", { className: "screen" }, this.stage, this.back, this.forth, close), this.side);
    this.dialog.addEventListener("keydown", (event) => this.#key(event));
    this.dialog.addEventListener("close", () => this.on.closed(this.index));
    document.body.append(this.dialog);
  }

  /** Show picture `index` of a grid, which brings more when the end comes near. */
  open(grid, index) {
    this.grid = grid;
    this.index = index;
    this.#draw();
    if (!this.dialog.open) this.dialog.showModal();
  }

  get item() {
    return this.grid.items[this.index];
  }

  async step(by) {
    const to = this.index + by;
    if (to >= this.grid.items.length) await this.grid.more();
    if (to < 0 || to >= this.grid.items.length || !this.dialog.open) return;
    this.index = to;
    this.#draw();
  }

  #key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || event.target.matches("input:not([type=checkbox]), textarea")) return;
    if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
      event.preventDefault();
      this.step(event.key === "ArrowRight" ? 1 : -1);
    } else if (event.key === "x") {
      this.on.choose(this.index, false);
      this.#drawSide();
    } else {
      const action = this.actions.find((one) => one.key === event.key);
      if (action) this.#run(action);
    }
  }

  #run(action) {
    if (action.closes) this.dialog.close();
    action.run(this.item);
  }

  #draw() {
    const item = this.item;
    this.back.disabled = this.index === 0;
    this.forth.disabled = this.grid.done && this.index === this.grid.items.length - 1;
    const name = nameOf(item.paths[0]);
    // the small one, blurred, until the large one is there
    const small = el("img", { className: "small", src: thumbnail(item.id), alt: "" });
    const large = el("img", {
      className: "large", alt: name, decoding: "async", onload: () => large.classList.add("there"),
      onerror: () => {
        small.classList.add("sharp");
        this.frame.classList.add("lost");
      },
    });
    large.src = picture(item.id);
    this.frame = el("div", { className: "frame" }, small, large);
    if (item.width && item.height) {
      this.frame.style.setProperty("--ratio", `${item.width / item.height}`);
      this.frame.style.setProperty("--width", `${Math.max(item.width, 480)}px`);
      // what is much smaller than the window is not blown up beyond recognition
      this.frame.classList.toggle("tiny", Math.max(item.width, item.height) < 480);
    }
    this.stage.replaceChildren(this.frame);
    for (const by of [1, -1]) {
      const next = this.grid.items[this.index + by];
      if (next) new Image().src = picture(next.id);
    }
    this.#drawSide();
  }

  #drawSide() {
    const item = this.item;
    const chosen = this.chosen.has(item.id);
    const buttons = [
      ...this.actions.map((action) => el("button", {
        type: "button", "data-name": action.label, title: action.key ? `${action.label} (${action.key})` : action.label, onclick: () => this.#run(action),
      }, icon(action.icon), action.label)),
      el("button", {
        type: "button", "data-name": "choose", "aria-pressed": String(chosen), title: "Choose (x)",
        onclick: () => {
          this.on.choose(this.index, false);
          this.#drawSide();
        },
      }, icon("check"), chosen ? "Chosen" : "Choose"),
      el("a", { className: "button", href: picture(item.id), download: nameOf(item.paths[0]) }, icon("download"), "Download"),
    ];
    const place = this.grid.total ?? this.grid.items.length;
    refill(this.side, [
      el("p", { className: "place" }, `${count(this.index + 1)} of ${count(place)}${this.grid.total === null ? "+" : ""}`),
      el("h2", { id: "shown-name" }, nameOf(item.paths[0])),
      el("div", { className: "buttons" }, ...buttons),
      ...this.tools.map((tool) => tool(item, this)).filter(Boolean),
      facts(item),
    ], this.dialog);
  }
}

function facts(item) {
  const rows = [];
  if (item.probability !== undefined) rows.push(["Fits the question", percent(item.probability)]);
  if (item.nearness !== undefined) rows.push(["Nearness, at most 1", item.nearness.toFixed(2)]);
  if (item.width && item.height) rows.push(["Size", `${item.width} \u00d7 ${item.height}${item.format ? `, ${item.format}` : ""}`]);
  if (item.taken) rows.push(["Taken", item.taken.replace("T", " ").slice(0, 16)]);
  if (item.camera) rows.push(["Camera", item.camera]);
  return el("dl", {},
    ...rows.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]),
    el("dt", {}, item.paths.length > 1 ? `Lies in ${item.paths.length} places` : "Lies in"),
    ...item.paths.map((path) => el("dd", { className: "path" }, el("span", {}, folderOf(path)), copyButton(path))));
}

function copyButton(path) {
  const button = el("button", {
    type: "button", className: "quiet", "aria-label": `Copy the path ${path}`,
    onclick: async () => {
      await copy(path);
      button.replaceChildren(icon("check"), "Copied");
      button.setAttribute("aria-label", "Copied");
    },
  }, icon("copy"), "Copy");
  return button;
}
