// The page: what is asked stands in the address, so that back, forward and bookmarks work; everything else follows.
import { classify, invite } from "./alone.js";
import * as api from "./api.js";
import { count, counted, el, icon, nameOf, percent } from "./dom.js";
import { showDuplicates } from "./duplicates.js";
import { drawTools, EMPTY, whereOf } from "./filters.js";
import { Grid } from "./grid.js";
import { helpDialog } from "./help.js";
import { drawChips, parse, written } from "./query.js";
import { Selection } from "./selection.js";
import { heatTool, writingTool } from "./tools.js";
import { takePictures } from "./uploads.js";
import { Viewer } from "./viewer.js";

const TOP = 100;
const BUSY_MS = 2000;
const IDLE_MS = 15000;
const at = (id) => document.getElementById(id);
const state = { query: "", pictures: [], filters: { ...EMPTY }, order: "newest", view: "pictures", asked: false };
let routes = new Set();
let writes = false;
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

const alike = (item, weight) => ({ id: item.id, name: nameOf(item.paths[0]), weight });

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
function ask(change, { replace = false, chips = true } = {}) {
  Object.assign(state, change);
  const keep = { pictures: state.pictures.map(({ id, name, weight, uri }) => (id ? { id, name, weight } : { name, weight, uri })) };
  history[replace ? "replaceState" : "pushState"](small(keep), "", addressOf());
  scrollTo(0, 0);
  if (document.activeElement === document.body) at("results").focus({ preventScroll: true });
  show({ chips });
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
  const named = (sign) => state.pictures.filter(({ weight }) => Math.sign(weight) === sign)
    .map(({ uri, id, weight }) => ({ image: uri ?? `id:${id}`, weight: Math.abs(weight) }));
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

async function show({ chips = true } = {}) {
  state.asked = Boolean(state.query.trim() || state.pictures.length);
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  at("query").value = state.query;
  document.title = state.query ? `${state.query} - siglip` : "siglip";
  tell(null);
  // a slider that is being dragged must stay the same
  if (chips) drawChips(at("chips"), parse(state.query), state.pictures, weighed);
  drawTools(at("tools"), contents, state, views(), (change) => ask(change));
  at("view").setAttribute("aria-busy", "true");
  at("view").classList.add("waiting");
  try {
    if (state.view === "duplicates") {
      await showDuplicates(at("view"), (...parts) => at("said").replaceChildren(...parts), signal);
    } else if (await grid.show(sourceOf(signal)) !== null) {
      say();
    }
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
  weighing = setTimeout(() => ask({}, { replace: !settled, chips: settled }), settled ? 0 : 200);
}

/** One line above the pictures: how sure, how many, all of them chosen, and the same as JSON. */
function say() {
  const { items, done } = grid;
  if (!items.length) {
    at("said").replaceChildren();
    at("view").replaceChildren(nothing());
    return;
  }
  const said = [];
  if (!state.asked) {
    said.push(el("span", {}, counted(grid.total, "picture")));
  } else {
    const [best] = items;
    // what the library is not sure of begins somewhere; of pictures alone it cannot tell
    const unsure = best.confidence === null || best.confidence === undefined ? -1 : items.findIndex((item) => !item.sure);
    if (unsure === 0) said.push(el("strong", {}, "Nothing matches."), " The pictures that come nearest:");
    else if (unsure > 0) said.push(`${counted(unsure, "picture")} ${unsure === 1 ? "matches" : "match"}, the best with `, percent(best.probability), "; the others come near");
    else said.push(best.probability === undefined ? "The most alike first" : `The best fits with ${percent(best.probability)}`);
    said.push(el("span", { className: "dim" }, done ? counted(items.length, "picture") : `${count(items.length)} so far`));
  }
  const json = jsonAddress();
  at("said").replaceChildren(...said, el("span", { className: "links" },
    el("button", { type: "button", className: "quiet", onclick: () => selection.add(items) }, "Choose all shown"),
    json ? el("a", { href: json }, "JSON") : null));
}

/** The same answer for programs; none where pictures were sent. */
function jsonAddress() {
  const where = whereOf(state.filters);
  if (!state.asked) return api.address("/v1/pictures", { where, order: state.order, top: TOP });
  const { like, not_like: unlike, page, ...body } = bodyOf(1);
  return like || unlike ? null : api.address("/v1/search", body);
}

function nothing() {
  const filtered = Object.values(state.filters).some(Boolean);
  return el("div", { className: "empty" },
    el("h2", {}, filtered ? "No picture passes these filters" : "No pictures yet"),
    filtered ? el("button", { type: "button", onclick: () => ask({ filters: { ...EMPTY } }) }, "Clear filters")
      : el("p", {}, "Add a folder from a terminal, with the library that this service was started with. Pictures show here as they come:"),
    filtered ? null : el("code", {}, "siglip index ~/Pictures --library LIBRARY"));
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

// ---- indexing, while it goes on

async function watch() {
  let wait = IDLE_MS;
  try {
    if (!document.hidden) {
      const { indexing } = await api.get("/v1/library");
      wait = indexing ? BUSY_MS : IDLE_MS;
      await progressed(indexing);
    }
  } catch {
    wait = IDLE_MS; // what is asked next will tell
  }
  setTimeout(watch, wait);
}

async function progressed(indexing) {
  const bar = at("progress");
  const before = bar.hidden ? null : bar.querySelector("progress")?.value;
  const ended = before !== null && before !== undefined && !indexing;
  if (indexing && before !== indexing.done) {
    bar.replaceChildren(el("label", {}, `Indexing: ${count(indexing.done)} of ${counted(indexing.total, "file")} `,
      el("progress", { value: indexing.done, max: indexing.total })));
    bar.hidden = false;
  }
  if (!indexing && !ended) return;
  const { total } = await api.get("/v1/pictures", { where: whereOf(state.filters), top: 1 });
  const shown = state.asked || state.view !== "pictures" ? total : grid.total ?? 0;
  if (!shown && total && !state.asked) show();
  if (ended || (total !== shown && !bar.querySelector("button"))) {
    contents = await api.get("/v1/library/contents");
    const fresh = el("button", {
      type: "button",
      onclick: () => {
        fresh.remove();
        bar.hidden = !bar.querySelector("progress");
        show();
      },
    }, "Show what is new");
    if (ended) bar.replaceChildren("Indexing is done. ");
    if (total !== shown) bar.append(fresh);
    else if (ended) bar.hidden = true;
  }
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
    if (event.key === "?" && !event.target.matches("input, textarea")) at("help").click();
    if (event.key === "/" && !event.target.matches("input, textarea, select") && !document.querySelector("dialog[open]")) {
      event.preventDefault();
      at("query").select();
    }
  });
  takePictures({
    taken: (picture) => {
      tell(null);
      if (routes.has("/v1/search")) ask({ query: "", pictures: [{ ...picture, weight: 1 }], view: "pictures" });
      else classify(at("view"), picture, writes);
    },
    failed: (error) => tell(error),
  });
  const help = helpDialog();
  at("help").addEventListener("click", () => document.querySelector("dialog[open]") ?? help());
}

async function start() {
  listen();
  readAddress();
  try {
    const [known, models] = await Promise.all([api.offered(), api.get("/v1/models")]);
    routes = known;
    writes = models.data.length > 1; // the model that compares, and one that writes
    if (!routes.has("/v1/search")) {
      invite(at("view"));
      return;
    }
    const asked = () => parse(state.query).filter(({ weight }) => weight > 0).map(({ text }) => text)[0] ?? "";
    viewer.tools.push(heatTool(asked));
    if (writes) viewer.tools.push(writingTool((item) => `id:${item.id}`));
    at("query").hidden = at("go").hidden = false;
    show();
    contents = await api.get("/v1/library/contents");
    drawTools(at("tools"), contents, state, views(), (change) => ask(change));
    watch();
  } catch (error) {
    tell(error, () => location.reload());
  }
}

start();
