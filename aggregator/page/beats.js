// What the server says each second, for all parts of the page that go with it.

/**
 * @typedef {object} Pipeline
 * @property {string | null} completeThrough
 * @property {number | null} freshnessSeconds
 * @property {number} sources
 * @property {number} silentSources
 */

/**
 * @typedef {object} Beat
 * @property {string} ts
 * @property {number} clicks
 * @property {number | null} clicksPerSecond null while it is not known
 * @property {Record<string, number>} banners clicks per second by banner ID
 * @property {[number, number][]} minutes (Unix seconds, clicks) of the last minutes
 * @property {Pipeline} pipeline
 */

/** @type {((beat: Beat) => void)[]} */
const listeners = [];

/** @param {(beat: Beat) => void} listener */
export function onEachBeat(listener) {
  listeners.push(listener);
}

/** @param {Beat} beat */
export function tell(beat) {
  for (const listener of listeners) listener(beat);
}
