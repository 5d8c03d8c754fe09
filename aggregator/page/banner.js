// The chosen banner over the chosen range.

import { ask, askJson, Refused } from "/page/api.js";
import { chart } from "/page/charts.js";
import { exact, moment, zone } from "/page/format.js";

const SPANS = { "1h": 3600, "6h": 21600, "1d": 86400, "7d": 604800, "30d": 2592000, "365d": 31536000 };
const STEPS = { "1m": 60, "5m": 300, "15m": 900, "1h": 3600, "1d": 86400 };
const MOST_POINTS = 420;
const REDRAW_MS = 900;
const SLOW_REDRAW_MS = 10000;
const HOUR = STEPS["1h"];
const MOST_SUGGESTED = 50;

const $ = (id) => document.getElementById(id);
const names = new Map();
let reading = null, namesKnown = false;
let chosen = null;
let span = "1h";
let step = "1m";
let finest, tz;
let draw, last = 0, asking = null;

function range() {
  if (span !== "own") {
    const to = Math.floor(Date.now() / 1000) + 1;
    return [to - SPANS[span], to];
  }
  const bound = (id) => Math.floor(new Date($(id).value).getTime() / 1000);
  return [bound("own-from"), bound("own-to")];
}

function stepFor(seconds) {
  return Object.keys(STEPS).find((name) => STEPS[name] >= finest && seconds / STEPS[name] <= MOST_POINTS) ?? "1d";
}

function problem(text) {
  $("banner-problem").hidden = !text;
  $("banner-problem").textContent = text;
}

function parameters() {
  const [from, to] = range();
  if (Number.isNaN(from) || Number.isNaN(to)) return null;
  step = stepFor(to - from);
  // Where minutes are not kept any more, a range has to begin with a full hour.
  const early = span === "own" || STEPS[step] < HOUR ? 0 : from % HOUR;
  return { tsFrom: from - early, tsTo: to, step, tz };
}

// Draws by the minute again, in days of this place.
function finer() {
  [finest, tz] = [STEPS["1m"], zone];
}

// Where minutes are not kept any more, there are hours, and days of UTC; false if it is neither.
function coarser(error) {
  if (error.code !== "too_fine" || (STEPS[step] >= HOUR && tz === "UTC")) return false;
  if (STEPS[step] < HOUR) finest = HOUR;
  else tz = "UTC";
  return true;
}

// Asks and draws; an answer that a newer question has overtaken is dropped.
export async function redraw() {
  const params = parameters();
  if (chosen === null || params === null) return;
  last = Date.now();
  asking?.abort();
  const mine = (asking = new AbortController());
  try {
    const stats = await askJson(`/stats/${chosen}`, { ...params, fill: "zero" }, { signal: mine.signal });
    if (mine !== asking) return;
    problem("");
    const xs = stats.stats.map((point) => Date.parse(point.ts) / 1000);
    const half = STEPS[step] / 2;
    draw.set(xs, stats.stats.map((point) => point.v), (xs[0] ?? 0) - half, (xs.at(-1) ?? 1) + half);
    $("banner-total").textContent = exact(stats.Counts);
    $("series").dataset.banner = chosen;
    $("step").textContent = `by ${{ "1m": "minute", "5m": "5 minutes", "15m": "15 minutes", "1h": "hour", "1d": "day" }[step]}, ${tz}`;
  } catch (error) {
    if (mine === asking && coarser(error)) await redraw();
    else if (error.name !== "AbortError" && mine === asking) problem(error instanceof Refused ? error.message : "The statistics can't be reached just now.");
  }
}

function title() {
  const name = names.get(chosen);
  $("banner-title").textContent = name ? `${name} (banner ${chosen})` : `Banner ${chosen}`;
}

function remember() {
  history.replaceState(null, "", `#banner=${chosen}&range=${span}`);
}

export function choose(banner) {
  chosen = banner;
  finer();
  $("banner-id").value = banner;
  title();
  remember();
  for (const button of document.querySelectorAll("#top button")) button.ariaCurrent = String(Number(button.value) === banner);
  redraw();
}

export function current() {
  return chosen;
}

// A typed ID, or a name of the register.
function typed() {
  const text = $("banner-id").value.trim();
  if (/^\d+$/.test(text)) return Number(text);
  for (const [id, name] of names) if (name.toLowerCase() === text.toLowerCase()) return id;
  return null;
}

async function submit(event) {
  event?.preventDefault();
  if (typed() === null) await reading;
  const banner = typed();
  if (banner === null) problem("No banner has this name: type its ID, or a name from the register.");
  else choose(banner);
}

// Names that have in them what is typed.
function suggest() {
  const text = $("banner-id").value.trim().toLowerCase();
  const options = [];
  for (const [id, name] of names) {
    if (options.length === MOST_SUGGESTED) break;
    if (name.toLowerCase().includes(text)) options.push(new Option(name, id));
  }
  $("known").replaceChildren(...options);
}

// The whole register, a page after the other.
async function readNames() {
  for (let params = {}; params; ) {
    const { banners, next } = await askJson("/banners", params);
    for (const { id, name } of banners) if (name) names.set(id, name);
    if (chosen !== null) title();
    params = next === null ? null : { after: next };
  }
  namesKnown = true;
}

export function loadNames() {
  reading ??= readNames().catch(() => {}).finally(() => (reading = null));
}

async function download() {
  const params = parameters();
  if (chosen === null || params === null) return;
  const table = await (await ask(`/stats/${chosen}`, { ...params, format: "csv" })).blob();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(table);
  link.download = `banner-${chosen}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function rangeChosen(event) {
  span = event.target.value;
  $("own").hidden = span !== "own";
  if (span !== "own") submit();
}

function beat(event) {
  if (!namesKnown) loadNames();
  if (span === "own" || chosen === null) return;
  const clicked = String(chosen) in event.detail.banners;
  const wait = clicked && step !== "1d" ? REDRAW_MS : SLOW_REDRAW_MS;
  if (Date.now() - last >= wait) redraw();
}

export function startBanner() {
  draw = chart($("series"), { bars: true, label: (x, y) => `${moment(x, STEPS[step])}   ${exact(y)}` });
  $("choose").addEventListener("submit", submit);
  $("banner-id").addEventListener("change", submit);
  $("banner-id").addEventListener("focus", () => $("banner-id").select());
  for (const change of ["focus", "input"]) $("banner-id").addEventListener(change, suggest);
  for (const radio of document.getElementsByName("range")) radio.addEventListener("change", rangeChosen);
  for (const id of ["own-from", "own-to"]) $(id).addEventListener("change", submit);
  $("csv").addEventListener("click", download);
  document.addEventListener("beat", beat);
  const hash = new URLSearchParams(location.hash.slice(1));
  if (hash.get("range") in SPANS) {
    span = hash.get("range");
    document.querySelector(`input[name=range][value="${span}"]`).checked = true;
  }
  if (/^\d{1,8}$/.test(hash.get("banner") ?? "")) choose(Number(hash.get("banner")));
}
