// Charts: a thin layer over uPlot that takes colours from the style sheet and follows its box.

import uPlot from "./lib/uPlot.esm.js";
import { count, clock } from "./format.js";

/**
 * @typedef {object} Chart
 * @property {(xs: number[], ys: (number | null)[], from?: number, to?: number) => void} set
 *   draws these values; null is an unknown value
 */

/** @typedef {(x: number, y: number) => string} Label what the tip says of a value */

/** @type {Set<uPlot>} */
const charts = new Set();
// With more values than this bars would run together: a line it is.
const MOST_BARS = 100;
// Marks of the time axis, in seconds: never finer than a minute.
const INCREMENTS = [
  1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 10080, 20160, 43200, 129600,
].map((n) => n * 60);

/** @param {string} name */
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/**
 * @param {Label} label
 * @returns {uPlot.Plugin}
 */
function tooltip(label) {
  const box = document.createElement("div");
  box.className = "tip";
  box.hidden = true;
  return {
    hooks: {
      init: (u) => u.over.append(box),
      setCursor: (u) => {
        const { idx, left } = u.cursor;
        const value = idx == null ? null : u.data[1][idx];
        box.hidden = idx == null || value == null || left === undefined || left < 0;
        if (idx == null || value == null || left === undefined || left < 0) return;
        box.textContent = label(u.data[0][idx], value);
        const room = u.over.clientWidth - box.offsetWidth;
        box.style.left = `${Math.max(0, Math.min(left + 10, room))}px`;
        box.style.top = "4px";
      },
    },
  };
}

/**
 * @param {boolean} small
 * @returns {uPlot.Axis[]}
 */
function axes(small) {
  if (small) return [{ show: false }, { show: false }];
  /** @type {uPlot.Axis} */
  const common = {
    stroke: () => colour("--soft"),
    font: "12px Inter, system-ui, sans-serif",
    ticks: { show: false },
  };
  return [
    {
      ...common,
      grid: { show: false },
      size: 28,
      gap: 6,
      space: 64,
      incrs: INCREMENTS,
      values: (_, marks, __, ___, step) => marks.map((t) => clock(t, step)),
    },
    {
      ...common,
      gap: 6,
      grid: { stroke: () => colour("--line"), width: 1 },
      size: 52,
      space: 36,
      values: (_, marks) => marks.map(count),
    },
  ];
}

/**
 * A chart in `box`.
 *
 * @param {HTMLElement} box
 * @param {object} options
 * @param {boolean} [options.bars] one bar for each value instead of a line
 * @param {boolean} [options.small] without axes
 * @param {Label} [options.label]
 * @returns {Chart}
 */
export function chart(
  box,
  { bars = false, small = false, label = (x, y) => `${clock(x, 1)}  ${count(y)}` } = {},
) {
  const size = () => ({ width: Math.max(box.clientWidth, 60), height: box.clientHeight });
  const asBars = (/** @type {uPlot} */ u) => bars && (u.data?.[0]?.length ?? 0) <= MOST_BARS;
  const bar = uPlot.paths.bars?.({ size: [0.72, 40], radius: 0.15 });
  const line = uPlot.paths.linear?.();
  /** @type {uPlot.Series} */
  const series = {
    stroke: () => colour("--accent"),
    fill: (u) => colour(asBars(u) ? "--accent" : "--accent-soft"),
    width: 2,
    points: { show: false },
    paths: (u, ...rest) => (asBars(u) ? bar : line)?.(u, ...rest) ?? null,
  };
  const plot = new uPlot(
    {
      ...size(),
      padding: small ? [4, 0, 2, 0] : [10, 22, 0, 0],
      cursor: { y: false, points: { size: 7 }, drag: { setScale: false, x: false } },
      scales: { x: { time: true }, y: { range: (_, __, most) => [0, Math.max(most * 1.12, 1)] } },
      axes: axes(small),
      series: [{}, series],
      plugins: [tooltip(label)],
    },
    [[], []],
    box,
  );
  new ResizeObserver(() => plot.setSize(size())).observe(box);
  charts.add(plot);
  return {
    set(xs, ys, from, to) {
      box.dataset.points = `${xs.length}`;
      box.dataset.gaps = `${ys.filter((y) => y === null).length}`;
      plot.series[1].width = bars && xs.length <= MOST_BARS ? 0 : 2;
      plot.setData([xs, ys], false);
      plot.batch(() => {
        plot.setScale("x", { min: from ?? xs[0] ?? 0, max: to ?? xs.at(-1) ?? 1 });
      });
    },
  };
}

export function recolour() {
  for (const plot of charts) plot.redraw();
}
