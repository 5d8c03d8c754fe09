// Distributes the server's tick, about once a second, to all parts of the page.

/**
 * @typedef {object} Pipeline
 * @property {string | null} completeThrough
 * @property {number | null} freshnessSeconds
 * @property {number} sources
 * @property {number} silentSources
 */

/**
 * @typedef {object} Tick
 * @property {string} ts
 * @property {number} clicks
 * @property {number | null} clicksPerSecond null while unknown
 * @property {Record<string, number>} banners clicks per second by banner ID
 * @property {[number, number][]} minutes (Unix seconds, clicks) of the last minutes
 * @property {Pipeline} pipeline
 */

/** @type {((tick: Tick) => void)[]} */
const listeners = [];

/** @param {(tick: Tick) => void} listener */
export function onEachTick(listener) {
  listeners.push(listener);
}

/** @param {Tick} tick */
export function notify(tick) {
  for (const listener of listeners) listener(tick);
}
