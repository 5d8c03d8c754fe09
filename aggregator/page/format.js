// Numbers and times as people here write them.

const whole = new Intl.NumberFormat();
const short = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });
const seconds = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const minutes = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
const days = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const fullDay = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });

export const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";

/** @param {number} number */
export function exact(number) {
  return whole.format(number);
}

/** @param {number} number */
export function count(number) {
  return number >= 10000 ? short.format(number) : whole.format(Math.round(number * 10) / 10);
}

/**
 * A time on an axis whose marks are `step` seconds apart.
 *
 * @param {number} unix
 * @param {number} step
 */
export function clock(unix, step) {
  const date = new Date(unix * 1000);
  if (step >= 86400) return days.format(date);
  const midnight = date.getHours() === 0 && date.getMinutes() === 0;
  if (step >= 60) return midnight && step >= 3600 ? days.format(date) : minutes.format(date);
  return seconds.format(date);
}

/**
 * @param {number} unix
 * @param {number} step
 */
export function moment(unix, step) {
  return (step >= 86400 ? fullDay : full).format(new Date(unix * 1000));
}

/** @param {string | number} iso */
export function timeOfDay(iso) {
  return seconds.format(new Date(iso));
}

/** @param {number} span */
export function lasting(span) {
  if (span < 60) return `${span.toFixed(1)} s`;
  if (span < 7200) return `${Math.round(span / 60)} min`;
  return `${Math.round(span / 3600)} h`;
}
