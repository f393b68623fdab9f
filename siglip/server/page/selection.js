// Pictures that were chosen: what can be done with all of them at once.
import { posted } from "./api.js";
import { copy, counted, el, icon, refill, save } from "./dom.js";

const MOST = 1000; // files of one zip

export class Selection {
  /** `bar` is the element to fill; `changed()` is called whenever it has; `failed(error)` tells what went wrong. */
  constructor(bar, { changed, failed }) {
    this.bar = bar;
    this.on = { changed, failed };
    this.items = new Map();
    this.last = null;
  }

  has(id) {
    return this.items.has(id);
  }

  /** Turn picture `at` of `all` on or off; with `range` all from the last one to it become what that one is. */
  choose(all, at, range) {
    const from = range && this.last !== null && this.last < all.length ? this.last : at;
    const on = from === at ? !this.has(all[at].id) : this.has(all[from].id);
    for (let each = Math.min(from, at); each <= Math.max(from, at); each++) this.#set(all[each], on);
    this.last = at;
    this.draw();
  }

  add(all) {
    for (const item of all) this.#set(item, true);
    this.draw();
  }

  clear() {
    this.items.clear();
    this.last = null;
    this.draw();
  }

  #set(item, on) {
    if (on) this.items.set(item.id, item);
    else this.items.delete(item.id);
  }

  draw() {
    const number = this.items.size;
    this.bar.hidden = number === 0;
    document.body.classList.toggle("choosing", number > 0);
    const button = (label, name, run) => {
      const made = el("button", { type: "button", "data-name": label, onclick: () => this.#run(made, label, run) }, icon(name), label);
      return made;
    };
    refill(this.bar, [
      el("strong", { role: "status" }, `${counted(number, "picture")} chosen`),
      button("Copy paths", "copy", async () => {
        await copy([...this.items.values()].map((item) => item.paths[0]).join("\n"));
        return "Copied";
      }),
      button("Zip", "download", () => this.#zip()),
      button("JSON", "download", async () => {
        const records = JSON.stringify([...this.items.values()], null, 1);
        save(new Blob([records], { type: "application/json" }), "pictures.json");
        return "Saved";
      }),
      button("Clear", "close", async () => {
        this.clear();
        document.querySelector("#results").focus({ preventScroll: true });
        return null;
      }),
    ]);
    this.on.changed();
  }

  async #zip() {
    const ids = [...this.items.keys()];
    if (ids.length > MOST) throw new Error(`A zip holds at most ${counted(MOST, "picture")}, and ${ids.length} are chosen. Choose fewer.`);
    save(await (await posted("/v1/pictures/zip", { ids })).blob(), "pictures.zip");
    return "Saved";
  }

  async #run(button, label, run) {
    button.disabled = true;
    try {
      const told = await run();
      if (told) {
        button.lastChild.textContent = told;
        setTimeout(() => { button.lastChild.textContent = label; }, 2000);
      }
    } catch (error) {
      this.on.failed(error);
    }
    button.disabled = false;
  }
}
