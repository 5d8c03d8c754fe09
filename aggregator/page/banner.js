// The selected banner in the selected range.

import { ask, askJson, Refused } from "./api.js";
import { onEachTick } from "./ticks.js";
import { chart } from "./charts.js";
import { $ } from "./dom.js";
import { exact, moment, zone } from "./format.js";

/** @type {Record<string, number>} */
const SPANS = {
  "1h": 3600,
  "6h": 21600,
  "1d": 86400,
  "7d": 604800,
  "30d": 2592000,
  "365d": 31536000,
};
/** @type {Record<string, number>} */
const STEPS = {
  "1m": 60,
  "5m": 300,
  "15m": 900,
  "1h": 3600,
  "1d": 86400,
  "1w": 7 * 86400,
  "1mo": 31 * 86400,
};
/** @type {Record<string, string>} */
const STEP_NAMES = {
  "1m": "minute",
  "5m": "5 minutes",
  "15m": "15 minutes",
  "1h": "hour",
  "1d": "day",
  "1w": "week",
  "1mo": "month",
};
const MOST_POINTS = 420;
const REDRAW_MS = 900;
const SLOW_REDRAW_MS = 10000;
const MOST_SUGGESTED = 50;
const HOUR = STEPS["1h"];

/** @type {Map<number, string>} */
const names = new Map();
/** @type {Promise<void> | null} */
let reading = null;
let namesKnown = false;
/** @type {number | null} */
let chosen = null;
let span = "1h";
let step = "1m";
// Coarser where the minutes are deleted.
let finest = STEPS["1m"];
let tz = zone;
/** @type {import("./charts.js").Chart} */
let draw;
let last = 0;
/** @type {AbortController | null} */
let asking = null;

const field = $("banner-id", HTMLInputElement);
const by = $("by", HTMLSelectElement);

function range() {
  if (span !== "custom") {
    const to = Math.floor(Date.now() / 1000) + 1;
    return [to - SPANS[span], to];
  }
  const bound = (/** @type {string} */ id) =>
    Math.floor(new Date($(id, HTMLInputElement).value).getTime() / 1000);
  return [bound("custom-from"), bound("custom-to")];
}

/** @param {number} seconds */
function stepFor(seconds) {
  if (STEPS[by.value] >= finest) return by.value;
  const fits = (/** @type {string} */ name) =>
    STEPS[name] >= finest && seconds / STEPS[name] <= MOST_POINTS;
  return Object.keys(STEPS).find(fits) ?? "1mo";
}

/** @param {string} text */
function problem(text) {
  $("banner-problem").hidden = !text;
  $("banner-problem").textContent = text;
}

function parameters() {
  const [from, to] = range();
  if (Number.isNaN(from) || Number.isNaN(to)) return null;
  step = stepFor(to - from);
  // Where the minutes are deleted, a range must begin at a full hour.
  const early = span === "custom" || STEPS[step] < HOUR ? 0 : from % HOUR;
  return { tsFrom: from - early, tsTo: to, step, tz };
}

// Draws minutes again, with days of the local time zone.
function finer() {
  finest = STEPS["1m"];
  tz = zone;
}

/**
 * Changes to hours or to days of UTC, where the minutes are deleted; false if neither helps.
 *
 * @param {unknown} error
 */
function coarser(error) {
  const tooFine = error instanceof Refused && error.code === "too_fine";
  if (!tooFine || (STEPS[step] >= HOUR && tz === "UTC")) return false;
  if (STEPS[step] < HOUR) finest = HOUR;
  else tz = "UTC";
  return true;
}

/** @typedef {{ ts: string, v: number }} Point */

// Requests and draws the statistics; drops the response if there is a newer request.
export async function redraw() {
  const params = parameters();
  if (chosen === null || params === null) return;
  last = Date.now();
  asking?.abort();
  const mine = new AbortController();
  asking = mine;
  try {
    const stats = await askJson(
      `stats/${chosen}`,
      { ...params, fill: "zero" },
      { signal: mine.signal },
    );
    if (mine !== asking) return;
    problem("");
    /** @type {Point[]} */
    const points = stats.stats;
    const xs = points.map((point) => Date.parse(point.ts) / 1000);
    const half = STEPS[step] / 2;
    draw.set(
      xs,
      points.map((point) => point.v),
      (xs[0] ?? 0) - half,
      (xs.at(-1) ?? 1) + half,
    );
    $("banner-total").textContent = exact(stats.Counts);
    $("series").dataset.banner = `${chosen}`;
    $("step").textContent = `by ${STEP_NAMES[step]}, ${tz}`;
  } catch (error) {
    if (mine !== asking) return; // aborted for a newer one
    if (coarser(error)) return redraw();
    problem(error instanceof Refused ? error.message : "The statistics are currently unavailable.");
    if (!(error instanceof Refused)) last = 0; // retried at the next tick
  }
}

function title() {
  const name = chosen === null ? undefined : names.get(chosen);
  if (!name) $("banner-title").textContent = `Banner ${chosen}`;
  else {
    const isolated = Object.assign(document.createElement("bdi"), { textContent: name });
    $("banner-title").replaceChildren(isolated, ` (banner ${chosen})`);
  }
}

function remember() {
  history.replaceState(null, "", `#banner=${chosen}&range=${span}`);
}

/** @param {number} banner */
export function choose(banner) {
  chosen = banner;
  finer();
  field.value = `${banner}`;
  title();
  remember();
  for (const button of $("top").querySelectorAll("button"))
    button.ariaCurrent = String(Number(button.value) === banner);
  redraw();
}

export function current() {
  return chosen;
}

// The ID that was typed, or the ID of the name.
function typed() {
  const text = field.value.trim();
  if (/^\d+$/.test(text)) return Number(text);
  for (const [id, name] of names) if (name.toLowerCase() === text.toLowerCase()) return id;
  return null;
}

/** @param {Event} [event] */
async function submit(event) {
  event?.preventDefault();
  if (typed() === null) await reading;
  const banner = typed();
  if (banner === null) problem("No banner has this name: enter an ID or a registered name.");
  else choose(banner);
}

// Names that contain the typed text.
function suggest() {
  const text = field.value.trim().toLowerCase();
  const options = [];
  for (const [id, name] of names) {
    if (options.length === MOST_SUGGESTED) break;
    if (name.toLowerCase().includes(text)) options.push(new Option(name, `${id}`));
  }
  $("known").replaceChildren(...options);
}

// The whole register, page by page.
async function readNames() {
  /** @type {import("./api.js").Params | null} */
  let params = {};
  while (params) {
    /** @type {{ banners: { id: number, name: string | null }[], next: number | null }} */
    const { banners, next } = await askJson("banners", params);
    for (const { id, name } of banners) if (name) names.set(id, name);
    if (chosen !== null) title();
    if (document.activeElement === field) suggest();
    params = next === null ? null : { after: next };
  }
  namesKnown = true;
}

export function loadNames() {
  reading ??= readNames()
    .catch(() => {}) // retried at the next tick
    .finally(() => {
      reading = null;
    });
}

async function download() {
  const params = parameters();
  if (chosen === null || params === null) return;
  const table = await (await ask(`stats/${chosen}`, { ...params, format: "csv" })).blob();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(table);
  link.download = `banner-${chosen}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/** @param {string} range */
function rangeChosen(range) {
  span = range;
  $("custom").hidden = span !== "custom";
  if (span !== "custom") submit();
}

/** @param {import("./ticks.js").Tick} tick */
function onTick({ banners }) {
  if (!namesKnown) loadNames();
  if (span === "custom" || chosen === null) return;
  const clicked = String(chosen) in banners;
  const wait = clicked && STEPS[step] < STEPS["1d"] ? REDRAW_MS : SLOW_REDRAW_MS;
  if (Date.now() - last >= wait) redraw();
}

function ranges() {
  return $("choose").querySelectorAll(/** @type {"input"} */ ("input[name=range]"));
}

export function startBanner() {
  draw = chart($("series"), {
    bars: true,
    label: (x, y) => `${moment(x, STEPS[step])}   ${exact(y)}`,
  });
  $("choose").addEventListener("submit", submit);
  field.addEventListener("change", submit);
  field.addEventListener("focus", () => field.select());
  for (const change of ["focus", "input"]) field.addEventListener(change, suggest);
  for (const radio of ranges()) radio.addEventListener("change", () => rangeChosen(radio.value));
  for (const id of ["custom-from", "custom-to", "by"]) $(id).addEventListener("change", submit);
  $("csv").addEventListener("click", download);
  onEachTick(onTick);
  const hash = new URLSearchParams(location.hash.slice(1));
  const range = hash.get("range") ?? "";
  if (range in SPANS) {
    span = range;
    for (const radio of ranges()) radio.checked = radio.value === span;
  }
  if (/^\d{1,8}$/.test(hash.get("banner") ?? "")) choose(Number(hash.get("banner")));
}
