// The page: what is asked stands in the address, so that back, forward and bookmarks work; everything else follows.
import * as api from "./api.js";
import { count, counted, el, icon, percent } from "./dom.js";
import { drawTools, EMPTY, whereOf } from "./filters.js";
import { Grid } from "./grid.js";
import { drawChips, parse, written } from "./query.js";
import { Selection } from "./selection.js";
import { takePictures } from "./uploads.js";
import { Viewer } from "./viewer.js";

const TOP = 100;
const at = (id) => document.getElementById(id);
const state = { query: "", pictures: [], filters: { ...EMPTY }, order: "newest", view: "pictures", asked: false };
let routes = new Set();
let contents = { folders: {}, formats: {}, years: {} };
let running = null;

const selection = new Selection(at("selection"), { changed: () => grid?.mark(), failed: tell });
const grid = new Grid(at("view"), {
  open: (index) => viewer.open(grid, index),
  chosen: selection,
  choose: (index, range) => selection.choose(grid.items, index, range),
  failed: (error) => tell(error, () => again()),
  grown: () => say(),
});
const viewer = new Viewer({
  actions: [
    { label: "More like this", key: "m", icon: "alike", closes: true, run: (item) => ask({ query: "", pictures: [alike(item, 1)] }) },
    { label: "Add to question", key: "+", icon: "plus", closes: true, run: (item) => ask({ pictures: [...state.pictures, alike(item, 1)] }) },
    { label: "Take away", key: "-", icon: "minus", closes: true, run: (item) => ask({ pictures: [...state.pictures, alike(item, -0.5)] }) },
  ],
  tools: [],
  chosen: selection,
  choose: (index) => selection.choose(grid.items, index, false),
  closed: (index) => grid.focus(index),
});

const alike = (item, weight) => ({ id: item.id, name: item.paths[0].split("/").pop(), weight });

// ---- the address

function readAddress() {
  const given = new URLSearchParams(location.search);
  state.query = given.get("query") ?? "";
  state.order = given.get("order") ?? "newest";
  state.view = given.get("view") ?? "pictures";
  state.filters = Object.fromEntries(Object.keys(EMPTY).map((name) => [name, given.get(name) ?? ""]));
  const kept = history.state?.pictures ?? [];
  const named = given.getAll("like").map((word) => {
    const [weight, id] = word.split(":");
    return { id, weight: Number(weight) || 1, name: "picture" };
  });
  // an uploaded picture lives as long as the page that took it
  state.pictures = kept.length ? kept : named;
}

function addressOf() {
  const words = new URLSearchParams();
  if (state.query) words.set("query", state.query);
  for (const picture of state.pictures) if (picture.id) words.append("like", `${picture.weight}:${picture.id}`);
  for (const [name, value] of Object.entries(state.filters)) if (value) words.set(name, value);
  if (state.order !== "newest") words.set("order", state.order);
  if (state.view !== "pictures") words.set("view", state.view);
  return words.size ? `/?${words}` : "/";
}

/** Change what is asked, remember it, and show the answer. */
function ask(change, { replace = false } = {}) {
  Object.assign(state, change);
  const keep = { pictures: state.pictures.map(({ id, name, weight, uri }) => (id ? { id, name, weight } : { name, weight, uri })) };
  history[replace ? "replaceState" : "pushState"](small(keep), "", addressOf());
  scrollTo(0, 0);
  show();
}

/** What the history can hold: browsers refuse states of many megabytes. */
function small(keep) {
  return JSON.stringify(keep).length < 8e6 ? keep : null;
}

// ---- the answer

function bodyOf(page) {
  const body = { top: TOP, page };
  const where = whereOf(state.filters);
  if (where) body.where = where;
  const words = state.query.trim();
  if (words) body.query = words;
  if (!words && state.pictures.length === 1 && state.pictures[0].id && state.pictures[0].weight > 0) {
    body.similar_to = state.pictures[0].id;
    return body;
  }
  const named = (sign) => state.pictures.filter((picture) => Math.sign(picture.weight) === sign).map((picture) => picture.uri ?? `id:${picture.id}`);
  if (named(1).length) body.like = named(1);
  if (named(-1).length) body.not_like = named(-1);
  return body;
}

function sourceOf(signal) {
  if (state.asked) {
    const calibrated = state.pictures.length === 0;
    return async (page) => {
      const { data } = await api.post("/v1/search", bodyOf(page), signal);
      // between pictures the model gives no probability, only how near they are
      const items = calibrated ? data : data.map(({ probability, ...item }) => ({ ...item, nearness: item.score }));
      return { items, done: data.length < TOP };
    };
  }
  const where = whereOf(state.filters);
  return async (page) => {
    const { data, total } = await api.get("/v1/pictures", { where, order: state.order, top: TOP, page }, signal);
    return { items: data, total, done: page * TOP >= total };
  };
}

async function show() {
  state.asked = Boolean(state.query.trim() || state.pictures.length);
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  at("query").value = state.query;
  document.title = state.query ? `${state.query} - siglip` : "siglip";
  tell(null);
  drawChips(at("chips"), parse(state.query), state.pictures, weighed);
  drawTools(at("tools"), contents, state, views(), (change) => ask(change));
  at("view").setAttribute("aria-busy", "true");
  at("view").classList.add("waiting");
  try {
    const first = await grid.show(sourceOf(signal));
    if (first === null) return;
    say();
  } catch (error) {
    if (error.name === "AbortError") return;
    at("view").replaceChildren();
    at("said").replaceChildren();
    tell(error, () => show());
  } finally {
    if (!signal.aborted) {
      at("view").removeAttribute("aria-busy");
      at("view").classList.remove("waiting");
    }
  }
}

function views() {
  const offered = [["pictures", "Pictures"]];
  if (routes.has("/v1/duplicates")) offered.push(["duplicates", "Duplicates"]);
  return offered;
}

let weighing = 0;

function weighed(terms, pictures, settled) {
  clearTimeout(weighing);
  state.query = written(terms);
  state.pictures = pictures;
  at("query").value = state.query;
  weighing = setTimeout(() => ask({}, { replace: !settled }), settled ? 0 : 200);
}

/** One line above the pictures: how many, how sure, and where the same is as JSON. */
function say() {
  const { items, total, done } = grid;
  const said = [];
  if (!items.length) {
    at("view").replaceChildren(nothing());
  } else if (!state.asked) {
    said.push(counted(total, "picture"));
  } else {
    const best = items[0];
    const sure = best.confidence;
    if (sure !== null && sure !== undefined && sure < 0.5) said.push(el("strong", {}, "Nothing matches."), " The nearest pictures:");
    else if (sure !== null && sure !== undefined && sure < 0.9) said.push("Perhaps, best ", percent(best.probability));
    else said.push(best.probability === undefined ? "Most alike first" : `Best ${percent(best.probability)}`);
    said.push(el("span", { className: "dim" }, ` ${done ? counted(items.length, "picture") : `${count(items.length)} so far`}`));
  }
  at("said").replaceChildren(...said);
}

function nothing() {
  const filtered = Object.values(state.filters).some(Boolean);
  return el("div", { className: "empty" },
    el("h2", {}, filtered ? "No picture passes these filters" : "No pictures yet"),
    filtered ? el("button", { type: "button", onclick: () => ask({ filters: { ...EMPTY } }) }, "Clear filters")
      : el("p", {}, "Add a folder from a terminal; it may run while this page is open:"),
    filtered ? null : el("code", {}, "siglip index ~/Pictures"));
}

/** An error in words, with a way on; null takes it away. */
function tell(error, retry = null) {
  const notice = at("notice");
  notice.hidden = error === null;
  if (error === null) return;
  notice.setAttribute("role", "alert");
  notice.replaceChildren(el("p", {}, error.message), error.id && error.status >= 500 ? el("p", { className: "dim" }, `Request ${error.id} in the log`) : "",
    retry ? el("button", { type: "button", onclick: retry }, "Try again") : "",
    el("button", { type: "button", className: "quiet round", "aria-label": "Dismiss", onclick: () => tell(null) }, icon("close")));
}

function again() {
  tell(null);
  grid.done = false;
  grid.more();
}

// ---- the start

function listen() {
  at("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    ask({ query: at("query").value.trim(), view: "pictures" });
  });
  addEventListener("popstate", () => {
    readAddress();
    show();
  });
  addEventListener("keydown", (event) => {
    if (event.key === "/" && !event.target.matches("input, textarea, select") && !document.querySelector("dialog[open]")) {
      event.preventDefault();
      at("query").select();
    }
  });
  takePictures({
    taken: (picture) => ask({ query: "", pictures: [{ ...picture, weight: 1 }], view: "pictures" }),
    failed: (error) => tell(error),
  });
}

async function start() {
  listen();
  readAddress();
  try {
    routes = await api.offered();
    if (routes.has("/v1/pictures")) {
      at("query").hidden = at("go").hidden = false;
      show();
      contents = await api.get("/v1/library/contents");
      drawTools(at("tools"), contents, state, views(), (change) => ask(change));
    }
  } catch (error) {
    tell(error, () => location.reload());
  }
}

start();
