// The top banners, with names.

import { askJson } from "./api.js";
import { choose, current } from "./banner.js";
import { onEachTick } from "./ticks.js";
import { $ } from "./dom.js";
import { exact } from "./format.js";

/** @typedef {{ bannerID: number, name: string | null, Counts: number }} Entry */

const HOUR = 3600;
const DAY = 86400;
/** @type {Record<string, number>} */
const SPANS = { "1h": HOUR, "1d": DAY, "7d": 7 * DAY, "30d": 30 * DAY };
const SHOWN = 10;
const EVERY_MS = 2000;
const SLOW_EVERY_MS = 15000;

const range = $("top-range", HTMLSelectElement);
let last = 0;

/**
 * @param {Entry} entry
 * @param {number} most clicks of the first
 */
function row({ bannerID, name, Counts }, most) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.value = `${bannerID}`;
  button.ariaCurrent = String(bannerID === current());
  const label = document.createElement("span");
  label.className = "name";
  if (name) {
    // In a <bdi>, since a name may be of any language; the ID stays in view beside a long one.
    const small = Object.assign(document.createElement("small"), { textContent: `${bannerID}` });
    label.append(Object.assign(document.createElement("bdi"), { textContent: name }), small);
    button.title = name;
  } else label.textContent = `Banner ${bannerID}`;
  const clicks = Object.assign(document.createElement("span"), { textContent: exact(Counts) });
  const bar = Object.assign(document.createElement("meter"), {
    min: 0,
    max: most,
    value: Counts,
    ariaHidden: "true",
  });
  button.append(label, clicks, bar);
  button.addEventListener("click", () => choose(bannerID));
  item.append(button);
  return item;
}

async function refresh() {
  last = Date.now();
  const span = SPANS[range.value];
  const to = Math.floor(Date.now() / 1000) + 1;
  // Where the minutes are deleted, a range must begin at a full hour.
  const early = span > DAY ? (to - span) % HOUR : 0;
  const params = { tsFrom: to - span - early, tsTo: to, limit: SHOWN };
  /** @type {{ top: Entry[], Counts: number } | null} */
  const list = await askJson("top", params).catch(() => null);
  if (list === null) return;
  const focused = $("top").querySelector("button:focus")?.getAttribute("value");
  $("top").replaceChildren(...list.top.map((entry) => row(entry, list.top[0].Counts)));
  for (const button of $("top").querySelectorAll("button"))
    if (button.value === focused) button.focus();
  $("top-note").textContent = list.top.length
    ? `of ${exact(list.Counts)} clicks in total`
    : "No clicks in this range.";
  $("empty").hidden = list.top.length > 0 || current() !== null;
  // Selects a banner at the start, unless the user is about to choose one.
  const free = current() === null && document.activeElement !== $("banner-id");
  if (free && list.top.length) choose(list.top[0].bannerID);
}

export function startTop() {
  range.addEventListener("change", refresh);
  onEachTick(({ clicks }) => {
    const wait = clicks && range.value === "1h" ? EVERY_MS : SLOW_EVERY_MS;
    if (Date.now() - last >= wait) refresh();
  });
  return refresh();
}
