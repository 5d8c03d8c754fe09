// The upper half: clicks per second, the last minutes, and the state of the pipeline.

import { follow } from "./api.js";
import { notify } from "./ticks.js";
import { chart } from "./charts.js";
import { $ } from "./dom.js";
import { clock, count, exact, lasting, timeOfDay } from "./format.js";

/** @typedef {import("./ticks.js").Tick} Tick */
/** @typedef {import("./ticks.js").Pipeline} Pipeline */
/** @typedef {[number, number]} Sample Unix seconds and the value at that time */

/**
 * @typedef {object} Snapshot
 * @property {Sample[]} seconds clicks per second; unknown seconds are missing
 * @property {Sample[] | null} minutes clicks; null while unknown
 * @property {Pipeline} pipeline
 */

const SECONDS_SHOWN = 300;
const MINUTES_SHOWN = 30;
const LATE_S = 10;
// Known seconds are one second apart. A longer distance means that the seconds between are unknown.
const GAP_S = 3;
// The server sends something at least once a second. After this long without data it is gone.
const SILENT_MS = 2000;
const WITHOUT_TICK_MS = 4000;
const WATCH_MS = 250;
const REDRAW_MS = 1000;

/** @type {Sample[]} */
let seconds = [];
/** @type {Map<number, number> | null} */
let minutes = null;
// When data last came from the server, when a tick did, and when it was drawn; 0: never.
let heardAt = 0;
let tickAt = 0;
let drawnAt = 0;
let known = false;
/** @type {import("./charts.js").Chart} */
let drawSeconds;
/** @type {import("./charts.js").Chart} */
let drawMinutes;

/**
 * @param {"live" | "late" | "gone"} state
 * @param {string} text
 */
function show(state, text) {
  $("state").dataset.state = state;
  if ($("state-text").textContent !== text) $("state-text").textContent = text;
}

/** @param {Pipeline} pipeline */
function showPipeline({ completeThrough, freshnessSeconds, sources, silentSources }) {
  const behind = completeThrough === null ? null : freshnessSeconds;
  $("complete").textContent = completeThrough === null ? "unknown" : timeOfDay(completeThrough);
  $("freshness").textContent =
    behind === null ? "waiting for the first heartbeat" : `all but the last ${lasting(behind)}`;
  $("sources").textContent = exact(sources);
  $("silent").textContent = silentSources
    ? `${silentSources} silent, holding back completeThrough`
    : "workers that report";
  const late = silentSources > 0 || (behind !== null && behind > LATE_S);
  show(late ? "late" : "live", late ? "Statistics are late" : "Live");
}

/**
 * The current state is unknown: clears all numbers, which may be outdated.
 *
 * @param {"late" | "gone"} state
 * @param {string} text
 */
function showUnknown(state, text) {
  show(state, text);
  if (!known) return;
  known = false;
  $("complete").textContent = "unknown";
  $("freshness").textContent = `unknown since ${timeOfDay(tickAt)}`;
  for (const id of ["rate", "sources"]) $(id).textContent = "–";
  $("silent").textContent = "workers that report";
  draw();
}

/**
 * Times and values. Unknown seconds are a gap in the line.
 *
 * @param {Sample[]} samples
 * @returns {[number[], (number | null)[]]}
 */
function withGaps(samples) {
  /** @type {[number, number | null][]} */
  const points = [];
  let before = Infinity;
  for (const [at, rate] of samples) {
    if (at - before > GAP_S) points.push([before + 1, null]);
    points.push([at, rate]);
    before = at;
  }
  return [points.map(([at]) => at), points.map(([, rate]) => rate)];
}

function draw() {
  drawnAt = Date.now();
  const now = Math.floor(drawnAt / 1000);
  seconds = seconds.filter(([at]) => at > now - SECONDS_SHOWN);
  const [times, rates] = withGaps(seconds);
  drawSeconds.set(times, rates, now - SECONDS_SHOWN, now);
  const running = Math.floor(now / 60) * 60;
  const first = running - (MINUTES_SHOWN - 1) * 60;
  const xs = Array.from({ length: MINUTES_SHOWN }, (_, n) => first + 60 * n);
  const clicks = (/** @type {number} */ at) =>
    minutes === null || at > tickAt / 1000 ? null : (minutes.get(at) ?? 0);
  const ys = xs.map(clicks);
  drawMinutes.set(xs, ys, first - 40, running + 40);
  const sure = known && minutes !== null;
  const total = ys.reduce((/** @type {number} */ sum, v) => sum + (v ?? 0), 0);
  $("half-hour").textContent = sure ? exact(total) : "–";
  $("now-minute").textContent = sure ? exact(clicks(running) ?? 0) : "–";
}

/**
 * The history from the server, preceded by what this page has received before.
 *
 * @param {Snapshot} snapshot
 */
function takeHistory(snapshot) {
  const since = snapshot.seconds[0]?.[0] ?? Infinity;
  seconds = [...seconds.filter(([at]) => at < since), ...snapshot.seconds];
  minutes = snapshot.minutes === null ? null : new Map(snapshot.minutes);
}

/** @param {Tick} tick */
function takeTick(tick) {
  const rate = tick.clicksPerSecond;
  if (rate !== null) seconds.push([Date.parse(tick.ts) / 1000, rate]);
  for (const [at, clicks] of tick.minutes) minutes?.set(at, clicks);
  $("rate").textContent = rate === null ? "–" : count(rate);
  notify(tick);
}

/** @param {import("./api.js").ServerEvent} event */
function onEvent({ event, data }) {
  tickAt = Date.now();
  known = true;
  if (event === "snapshot") takeHistory(data);
  else if (event === "tick") takeTick(data);
  showPipeline(data.pipeline);
  draw();
}

function lost() {
  heardAt = 0;
  showUnknown("gone", "Disconnected, reconnecting");
}

// Checks the clock, because neither a dead network nor a server that hangs raises an event.
function watch() {
  const now = Date.now();
  if (heardAt && now - heardAt > SILENT_MS) lost();
  else if (heardAt && tickAt && now - tickAt > WITHOUT_TICK_MS)
    showUnknown("late", "Statistics are late");
  if (tickAt && now - drawnAt >= REDRAW_MS) draw();
}

export function startLive() {
  drawSeconds = chart($("seconds"), { label: (x, y) => `${clock(x, 1)}   ${count(y)}/s` });
  drawMinutes = chart($("minutes"), {
    bars: true,
    small: true,
    label: (x, y) => `${clock(x, 60)}   ${exact(y)}`,
  });
  follow(
    onEvent,
    () => {
      heardAt = Date.now();
    },
    lost,
  );
  setInterval(watch, WATCH_MS);
}
