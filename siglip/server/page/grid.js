// An endless grid of pictures in rows of equal height. Only the rows near the window exist; the next page of pictures
// is asked for before it is needed. Keyboard: one picture is in the tab order, arrows move it.
import { el, icon, nameOf, percent } from "./dom.js";
import { thumbnail } from "./api.js";

const GAP = 6;
const AHEAD = 2; // windows of rows that are ready below and above
// pictures longer than this are shown cut
const RATIO = [0.4, 3];

export class Grid {
  /**
   * `host` is the element to fill. `open(index)` shows a picture, `chosen` is a Set of ids, `choose(index, range)`
   * turns one on or off, `failed(error)` tells that a page did not come, `grown()` that one did.
   */
  constructor(host, { open, chosen, choose, failed, grown }) {
    this.host = host;
    this.on = { open, choose, failed, grown };
    this.chosen = chosen;
    this.list = el("ul", { className: "grid", role: "list", "aria-label": "Pictures" });
    this.list.addEventListener("keydown", (event) => this.#key(event));
    this.clear();
    addEventListener("scroll", () => this.draw(), { passive: true });
    // widths below change nothing, and a scroll bar that comes must not draw twice
    new ResizeObserver(() => this.#resized()).observe(host);
  }

  clear() {
    this.items = [];
    this.rows = [];
    this.current = 0;
    this.total = null;
    this.done = true;
    this.source = null;
    this.loading = null;
    this.drawn = new Map();
    this.list.replaceChildren();
    this.list.style.height = "0px";
  }

  /** Show what `source(page)` gives: {items, total, done}. Resolves with the first page. */
  async show(source) {
    this.clear();
    this.host.replaceChildren(this.list);
    this.source = source;
    this.page = 0;
    this.done = false;
    return this.more();
  }

  /** Ask for the next page, unless it is on its way or there is none. */
  async more() {
    if (this.done || this.loading) return this.loading;
    const source = this.source;
    const work = source(this.page + 1);
    this.loading = work;
    try {
      const { items, total, done } = await work;
      if (source !== this.source) return null;
      this.page += 1;
      this.items.push(...items);
      this.total = total ?? (done ? this.items.length : null);
      this.done = done;
      this.#layOut();
      this.loading = null;
      this.draw();
      if (this.page > 1) this.on.grown();
      return items;
    } catch (error) {
      if (source !== this.source) return null;
      this.done = true; // until something is asked anew
      this.loading = null;
      if (this.page > 0) this.on.failed(error);
      else throw error;
      return null;
    }
  }

  /** Rows from the items that are not in a full row yet. */
  #layOut() {
    const width = this.host.clientWidth;
    this.width = width;
    const ideal = width < 500 ? 110 : width < 1000 ? 150 : 180;
    while (this.rows.length && !this.rows[this.rows.length - 1].full) {
      this.#forget(this.rows.length - 1);
      this.rows.pop();
    }
    const last = this.rows[this.rows.length - 1];
    let start = last ? last.end : 0;
    let top = last ? last.top + last.height + GAP : 0;
    while (start < this.items.length) {
      let sum = 0;
      let end = start;
      while (end < this.items.length && sum * ideal + GAP * (end - start - 1) < width) sum += ratio(this.items[end++]);
      const room = width - GAP * (end - start - 1);
      const full = sum * ideal >= room;
      const height = Math.max(40, full ? room / sum : ideal);
      this.rows.push({ start, end, top, height, full });
      top += height + GAP;
      start = end;
    }
    this.list.style.height = `${Math.max(0, top - GAP)}px`;
    this.list.setAttribute("aria-label", this.total === null ? "Pictures" : `${this.total} pictures`);
  }

  #resized() {
    if (!this.list.isConnected || this.host.clientWidth === this.width || !this.items.length) return;
    const at = this.rows.findIndex((row) => row.top + row.height > scrollY - this.#offset());
    const anchor = this.rows[at]?.start ?? 0;
    const held = scrollY > this.#offset();
    for (const index of [...this.drawn.keys()]) this.#forget(index);
    this.rows = [];
    this.#layOut();
    if (held) scrollTo(0, this.#offset() + this.rows[this.rowOf(anchor)].top);
    this.draw();
  }

  #offset() {
    return this.list.getBoundingClientRect().top + scrollY;
  }

  rowOf(index) {
    let low = 0;
    let high = this.rows.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.rows[middle].end > index) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  /** Make the rows near the window, remove the others, ask for more where the end comes near. */
  draw() {
    if (!this.list.isConnected) return;
    const top = scrollY - this.#offset();
    const from = top - AHEAD * innerHeight;
    const to = top + (1 + AHEAD) * innerHeight;
    const focused = this.list.contains(document.activeElement) ? this.rowOf(this.current) : -1;
    for (const index of [...this.drawn.keys()]) {
      const row = this.rows[index];
      if ((row.top + row.height < from || row.top > to) && index !== focused) this.#forget(index);
    }
    for (let index = this.#firstRow(from); index < this.rows.length && this.rows[index].top <= to; index++) {
      if (!this.drawn.has(index)) this.#make(index);
    }
    const end = this.rows.length ? this.rows[this.rows.length - 1].top : 0;
    if (!this.done && !this.loading && end < to + innerHeight) this.more();
  }

  #firstRow(from) {
    let low = 0;
    let high = this.rows.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.rows[middle].top + this.rows[middle].height < from) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #make(index) {
    const row = this.rows[index];
    const sum = this.items.slice(row.start, row.end).reduce((total, item) => total + ratio(item), 0);
    const room = this.width - GAP * (row.end - row.start - 1);
    const scale = row.full ? room / sum : row.height;
    let left = 0;
    const tiles = [];
    for (let at = row.start; at < row.end; at++) {
      const width = Math.min(ratio(this.items[at]) * scale, this.width);
      const tile = this.#tile(at);
      Object.assign(tile.style, { transform: `translate(${left}px, ${row.top}px)`, width: `${width}px`, height: `${row.height}px` });
      tiles.push(tile);
      left += width + GAP;
    }
    this.drawn.set(index, tiles);
    // reading order is that of the pictures, whichever row was made first
    const next = [...this.drawn.keys()].filter((other) => other > index).sort((a, b) => a - b)[0];
    const before = next === undefined ? null : this.drawn.get(next)[0];
    for (const tile of tiles) this.list.insertBefore(tile, before);
  }

  #forget(index) {
    for (const tile of this.drawn.get(index) ?? []) tile.remove();
    this.drawn.delete(index);
  }

  #tile(at) {
    const item = this.items[at];
    const name = nameOf(item.paths[0]);
    const first = at === this.current ? 0 : -1;
    const image = el("img", { alt: name, decoding: "async", draggable: false, onload: () => image.classList.add("there"), onerror: () => tile.classList.add("lost") });
    image.src = thumbnail(item.id);
    const score = scoreOf(item) === null ? null : el("span", { className: "score" }, scoreOf(item));
    const open = el("button", {
      type: "button", className: "open", tabIndex: first, title: item.paths[0], onclick: (event) => (event.shiftKey || event.ctrlKey || event.metaKey ? this.on.choose(at, event.shiftKey) : this.on.open(at)),
      onfocus: () => this.#move(at),
    }, image, score);
    const box = el("input", {
      type: "checkbox", tabIndex: first, checked: this.chosen.has(item.id), "aria-label": `Choose ${name}`,
      onclick: (event) => this.on.choose(at, event.shiftKey), onfocus: () => this.#move(at),
    });
    const tile = el("li", {
      className: this.chosen.has(item.id) ? "tile chosen" : "tile", "aria-posinset": String(at + 1), "aria-setsize": String(this.total ?? -1),
    }, open, el("label", { className: "tick" }, box, icon("check")));
    tile.dataset.at = String(at);
    return tile;
  }

  /** Bring the ticks in line with what is chosen. */
  mark() {
    for (const tiles of this.drawn.values()) {
      for (const tile of tiles) {
        const chosen = this.chosen.has(this.items[Number(tile.dataset.at)].id);
        tile.classList.toggle("chosen", chosen);
        tile.querySelector("input").checked = chosen;
      }
    }
  }

  // ---- the keyboard

  #move(at) {
    if (at === this.current) return;
    for (const index of [this.current, at]) {
      for (const part of this.#element(index)?.querySelectorAll("button, input") ?? []) part.tabIndex = index === at ? 0 : -1;
    }
    this.current = at;
  }

  #element(at) {
    return this.drawn.get(this.rowOf(at))?.[at - (this.rows[this.rowOf(at)]?.start ?? 0)];
  }

  /** Bring a picture into view and give it the focus. */
  focus(at) {
    if (!this.items[at]) return;
    const row = this.rows[this.rowOf(at)];
    const top = this.#offset() + row.top;
    const head = document.querySelector("header").getBoundingClientRect();
    const hidden = Math.max(0, head.bottom);
    if (top < scrollY + hidden) scrollTo(0, top - hidden - GAP);
    else if (top + row.height > scrollY + innerHeight) scrollTo(0, top + row.height - innerHeight + GAP);
    this.draw();
    this.#move(at);
    this.#element(at)?.querySelector(".open").focus({ preventScroll: true });
  }

  #key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "x" && this.items[this.current]) {
      this.on.choose(this.current, false);
      event.preventDefault();
      return;
    }
    const to = this.#target(event.key);
    if (to === null) return;
    event.preventDefault();
    this.focus(Math.max(0, Math.min(this.items.length - 1, to)));
  }

  #target(key) {
    const at = this.current;
    if (key === "ArrowRight") return at + 1;
    if (key === "ArrowLeft") return at - 1;
    if (key === "Home") return 0;
    if (key === "End") return this.items.length - 1;
    const rows = { ArrowDown: 1, ArrowUp: -1, PageDown: 3, PageUp: -3 }[key];
    if (rows === undefined) return null;
    const here = this.rowOf(at);
    const there = this.rows[Math.max(0, Math.min(this.rows.length - 1, here + rows))];
    return this.#nearest(there, this.#middle(this.rows[here], at));
  }

  /** Where the middle of a picture lies in its row, from 0 to 1. */
  #middle(row, at) {
    const widths = this.items.slice(row.start, row.end).map(ratio);
    const before = widths.slice(0, at - row.start).reduce((total, width) => total + width, 0);
    const all = row.full ? widths.reduce((total, width) => total + width, 0) : this.width / row.height;
    return (before + widths[at - row.start] / 2) / all;
  }

  #nearest(row, middle) {
    let best = row.start;
    for (let at = row.start; at < row.end; at++) {
      if (Math.abs(this.#middle(row, at) - middle) < Math.abs(this.#middle(row, best) - middle)) best = at;
    }
    return best;
  }
}

/** The model's probability, or between pictures, where it gives none, how near they are. */
function scoreOf(item) {
  if (item.probability !== undefined) return percent(item.probability);
  return item.nearness === undefined ? null : item.nearness.toFixed(2);
}

/** Width over height of a tile. */
function ratio(item) {
  if (!item.width || !item.height) return 1;
  return Math.min(RATIO[1], Math.max(RATIO[0], item.width / item.height));
}
