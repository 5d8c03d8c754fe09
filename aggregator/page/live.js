// The upper half: clicks per second, the last minutes, and the state of the pipeline.

import { follow } from "/page/api.js";
import { chart } from "/page/charts.js";
import { clock, count, exact, lasting, timeOfDay } from "/page/format.js";

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

const $ = (id) => document.getElementById(id);
let seconds = [];
let minutes = null;
// When something came from the server last, when a beat did, and when it was drawn; 0: never.
let heardAt = 0, beatAt = 0, drawnAt = 0;
let known = false;
let drawSeconds, drawMinutes;

function show(state, text) {
  $("state").dataset.state = state;
  if ($("state-text").textContent !== text) $("state-text").textContent = text;
}

function showPipeline(pipeline) {
  const through = pipeline.completeThrough;
  $("complete").textContent = through === null ? "not known yet" : timeOfDay(through);
  $("freshness").textContent = through === null ? "waiting for the first heartbeat" : `complete but for the last ${lasting(pipeline.freshnessSeconds)}`;
  $("sources").textContent = exact(pipeline.sources);
  const silent = pipeline.silentSources;
  $("silent").textContent = silent ? `${silent} silent: completeThrough waits for them` : "workers that report";
  const late = silent > 0 || (through !== null && pipeline.freshnessSeconds > LATE_S);
  show(late ? "late" : "live", late ? "Figures are late" : "Live");
}

// Nothing is known of this moment: no number may stand there that was true a while ago.
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

// A line leads only from a known second to the next: the others are a gap in it.
function withGaps(points) {
  const [xs, ys] = [[], []];
  for (const [at, rate] of points) {
    if (xs.length && at - xs.at(-1) > GAP_S) {
      xs.push(xs.at(-1) + 1);
      ys.push(null);
    }
    xs.push(at);
    ys.push(rate);
  }
  return [xs, ys];
}

function draw() {
  drawnAt = Date.now();
  const now = Math.floor(drawnAt / 1000);
  seconds = seconds.filter(([at]) => at > now - SECONDS_SHOWN);
  drawSeconds.set(...withGaps(seconds), now - SECONDS_SHOWN, now);
  const running = Math.floor(now / 60) * 60;
  const first = running - (MINUTES_SHOWN - 1) * 60;
  const xs = Array.from({ length: MINUTES_SHOWN }, (_, n) => first + 60 * n);
  const ys = xs.map((at) => (minutes === null || at > beatAt / 1000 ? null : minutes.get(at) ?? 0));
  drawMinutes.set(xs, ys, first - 40, running + 40);
  const sure = known && minutes !== null;
  $("half-hour").textContent = sure ? exact(ys.reduce((sum, v) => sum + v, 0)) : "–";
  $("now-minute").textContent = sure ? exact(minutes.get(running) ?? 0) : "–";
}

// What the server knows of the past, and before that what this page has seen itself.
function takeHistory({ seconds: told, minutes: before }) {
  const since = told.length ? told[0][0] : Infinity;
  seconds = [...seconds.filter(([at]) => at < since), ...told];
  minutes = before === null ? null : new Map(before);
}

function takeBeat(data) {
  const rate = data.clicksPerSecond;
  if (rate !== null) seconds.push([Date.parse(data.ts) / 1000, rate]);
  for (const [at, clicks] of data.minutes) minutes?.set(at, clicks);
  $("rate").textContent = rate === null ? "–" : count(rate);
  document.dispatchEvent(new CustomEvent("beat", { detail: data }));
}

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
  else if (heardAt && beatAt && now - beatAt > WITHOUT_BEAT_MS) showUnknown("late", "Figures are late");
  if (beatAt && now - drawnAt >= REDRAW_MS) draw();
}

export function startLive() {
  drawSeconds = chart($("seconds"), { label: (x, y) => `${clock(x, 1)}   ${count(y)}/s` });
  drawMinutes = chart($("minutes"), { bars: true, small: true, label: (x, y) => `${clock(x, 60)}   ${exact(y)}` });
  follow(onEvent, () => (heardAt = Date.now()), lost);
  setInterval(watch, WATCH_MS);
}
