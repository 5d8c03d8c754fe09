// The upper half: clicks per second, the last minutes, and the state of the pipeline.

import { follow } from "/page/api.js";
import { chart } from "/page/charts.js";
import { clock, count, exact, lasting, timeOfDay } from "/page/format.js";

const SECONDS_SHOWN = 300;
const MINUTES_SHOWN = 30;
const LATE_S = 10;

const $ = (id) => document.getElementById(id);
let seconds = [];
let minutes = new Map();
let drawSeconds, drawMinutes;

function show(state, text) {
  $("state").dataset.state = state;
  if ($("state-text").textContent !== text) $("state-text").textContent = text;
}

function showPipeline(pipeline) {
  const known = pipeline.completeThrough !== null;
  $("complete").textContent = known ? timeOfDay(pipeline.completeThrough) : "not known yet";
  $("freshness").textContent = known ? `complete but for the last ${lasting(pipeline.freshnessSeconds)}` : "waiting for the first sign of life";
  $("sources").textContent = exact(pipeline.sources);
  const silent = pipeline.silentSources;
  $("silent").textContent = silent ? `${silent} silent: completeThrough waits for them` : "workers that report";
  const late = silent > 0 || (known && pipeline.freshnessSeconds > LATE_S);
  show(late ? "late" : "live", late ? "Figures are late" : "Live");
}

function draw() {
  const now = Math.floor(Date.now() / 1000);
  seconds = seconds.filter(([at]) => at > now - SECONDS_SHOWN);
  drawSeconds.set(seconds.map((s) => s[0]), seconds.map((s) => s[1]), now - SECONDS_SHOWN, now);
  const running = Math.floor(now / 60) * 60;
  const first = running - (MINUTES_SHOWN - 1) * 60;
  for (const at of minutes.keys()) if (at < first) minutes.delete(at);
  const xs = Array.from({ length: MINUTES_SHOWN }, (_, n) => first + 60 * n);
  const ys = xs.map((at) => minutes.get(at) ?? 0);
  drawMinutes.set(xs, ys, first - 40, running + 40);
  $("half-hour").textContent = exact(ys.reduce((sum, v) => sum + v, 0));
  $("now-minute").textContent = exact(minutes.get(running) ?? 0);
}

function onEvent({ event, data }) {
  if (event === "hello") {
    seconds = data.seconds;
    minutes = new Map(data.minutes);
  } else if (event === "beat") {
    seconds.push([Date.parse(data.ts) / 1000, data.clicksPerSecond]);
    for (const [at, clicks] of data.minutes) minutes.set(at, clicks);
    $("rate").textContent = count(data.clicksPerSecond);
    document.dispatchEvent(new CustomEvent("beat", { detail: data }));
  }
  showPipeline(data.pipeline);
  draw();
}

export function startLive() {
  drawSeconds = chart($("seconds"), { label: (x, y) => `${clock(x, 1)}   ${count(y)}/s` });
  drawMinutes = chart($("minutes"), { bars: true, small: true, label: (x, y) => `${clock(x, 60)}   ${exact(y)}` });
  follow(onEvent, () => show("gone", "Connection lost, trying again"));
}
