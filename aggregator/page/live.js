// The upper half: clicks per second, the last minutes, and the state of the pipeline.

import { follow } from "/page/api.js";
import { tell } from "/page/beats.js";
import { chart } from "/page/charts.js";
import { $ } from "/page/dom.js";
import { clock, count, exact, lasting, timeOfDay } from "/page/format.js";

/** @typedef {import("/page/beats.js").Beat} Beat */
/** @typedef {import("/page/beats.js").Pipeline} Pipeline */
/** @typedef {[number, number]} Sample Unix seconds and what was then */

/**
 * @typedef {object} Hello
 * @property {Sample[]} seconds clicks per second; seconds that are not known are missing
 * @property {Sample[] | null} minutes clicks; null while they are not known
 * @property {Pipeline} pipeline
 */

const SECONDS_SHOWN = 300;
const MINUTES_SHOWN = 30;
const LATE_S = 10;
// Known seconds are one apart; what lies between two that are farther apart is not known.
const GAP_S = 3;
// The server sends something each second, or more often: after so much silence it is gone.
const SILENT_MS = 2000;
const WITHOUT_BEAT_MS = 4000;
const WATCH_MS = 250;
const REDRAW_MS = 1000;

/** @type {Sample[]} */
let seconds = [];
/** @type {Map<number, number> | null} */
let minutes = null;
// When something came from the server last, when a beat did, and when it was drawn; 0: never.
let heardAt = 0;
let beatAt = 0;
let drawnAt = 0;
let known = false;
/** @type {import("/page/charts.js").Chart} */
let drawSeconds;
/** @type {import("/page/charts.js").Chart} */
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
  $("complete").textContent =
    completeThrough === null ? "not known yet" : timeOfDay(completeThrough);
  $("freshness").textContent =
    behind === null
      ? "waiting for the first heartbeat"
      : `complete but for the last ${lasting(behind)}`;
  $("sources").textContent = exact(sources);
  $("silent").textContent = silentSources
    ? `${silentSources} silent: completeThrough waits for them`
    : "workers that report";
  const late = silentSources > 0 || (behind !== null && behind > LATE_S);
  show(late ? "late" : "live", late ? "Figures are late" : "Live");
}

/**
 * Nothing is known of this moment: no number may stand there that was true a while ago.
 *
 * @param {"late" | "gone"} state
 * @param {string} text
 */
function showUnknown(state, text) {
  show(state, text);
  if (!known) return;
  known = false;
  $("complete").textContent = "not known";
  $("freshness").textContent = `nothing is known since ${timeOfDay(beatAt)}`;
  for (const id of ["rate", "sources"]) $(id).textContent = "–";
  $("silent").textContent = "workers that report";
  draw();
}

/**
 * Times and values: a line leads only from a known second to the next, the others are a gap in it.
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
    minutes === null || at > beatAt / 1000 ? null : (minutes.get(at) ?? 0);
  const ys = xs.map(clicks);
  drawMinutes.set(xs, ys, first - 40, running + 40);
  const sure = known && minutes !== null;
  const total = ys.reduce((/** @type {number} */ sum, v) => sum + (v ?? 0), 0);
  $("half-hour").textContent = sure ? exact(total) : "–";
  $("now-minute").textContent = sure ? exact(clicks(running) ?? 0) : "–";
}

/**
 * What the server knows of the past, and before that what this page has seen itself.
 *
 * @param {Hello} hello
 */
function takeHistory({ seconds: told, minutes: before }) {
  const since = told.length ? told[0][0] : Infinity;
  seconds = [...seconds.filter(([at]) => at < since), ...told];
  minutes = before === null ? null : new Map(before);
}

/** @param {Beat} beat */
function takeBeat(beat) {
  const rate = beat.clicksPerSecond;
  if (rate !== null) seconds.push([Date.parse(beat.ts) / 1000, rate]);
  for (const [at, clicks] of beat.minutes) minutes?.set(at, clicks);
  $("rate").textContent = rate === null ? "–" : count(rate);
  tell(beat);
}

/** @param {import("/page/api.js").ServerEvent} event */
function onEvent({ event, data }) {
  beatAt = Date.now();
  known = true;
  if (event === "hello") takeHistory(data);
  else if (event === "beat") takeBeat(data);
  showPipeline(data.pipeline);
  draw();
}

function lost() {
  heardAt = 0;
  showUnknown("gone", "Disconnected, trying again");
}

// Looks at the clock, because neither a dead network nor a hanging server says anything.
function watch() {
  const now = Date.now();
  if (heardAt && now - heardAt > SILENT_MS) lost();
  else if (heardAt && beatAt && now - beatAt > WITHOUT_BEAT_MS)
    showUnknown("late", "Figures are late");
  if (beatAt && now - drawnAt >= REDRAW_MS) draw();
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
