// The banners with most clicks, by name.

import { askJson } from "/page/api.js";
import { choose, current } from "/page/banner.js";
import { exact } from "/page/format.js";

const HOUR = 3600, DAY = 86400;
const SPANS = { "1h": HOUR, "1d": DAY, "7d": 7 * DAY, "30d": 30 * DAY };
const SHOWN = 10;
const EVERY_MS = 2000;
const SLOW_EVERY_MS = 15000;

const $ = (id) => document.getElementById(id);
let last = 0;

function row({ bannerID, name, Counts }, most) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.value = bannerID;
  button.ariaCurrent = String(bannerID === current());
  const label = document.createElement("span");
  label.className = "name";
  label.textContent = name ?? `Banner ${bannerID}`;
  if (name) label.append(Object.assign(document.createElement("small"), { textContent: bannerID }));
  const clicks = Object.assign(document.createElement("span"), { textContent: exact(Counts) });
  const bar = Object.assign(document.createElement("meter"), { min: 0, max: most, value: Counts, ariaHidden: "true" });
  button.append(label, clicks, bar);
  button.addEventListener("click", () => choose(bannerID));
  item.append(button);
  return item;
}

async function refresh() {
  last = Date.now();
  const span = SPANS[$("top-range").value];
  const to = Math.floor(Date.now() / 1000) + 1;
  // Where minutes are not kept any more, a range has to begin with a full hour.
  const early = span > DAY ? (to - span) % HOUR : 0;
  const list = await askJson("/top", { tsFrom: to - span - early, tsTo: to, limit: SHOWN }).catch(() => null);
  if (list === null) return;
  const held = document.activeElement?.closest?.("#top button")?.value;
  $("top").replaceChildren(...list.top.map((entry) => row(entry, list.top[0].Counts)));
  if (held) document.querySelector(`#top button[value="${held}"]`)?.focus();
  $("top-note").textContent = list.top.length ? `of ${exact(list.Counts)} clicks in all` : "No clicks in this range.";
  // Something to look at from the start, unless a person is about to choose.
  const free = current() === null && document.activeElement !== $("banner-id");
  if (free && list.top.length) choose(list.top[0].bannerID);
}

export function startTop() {
  $("top-range").addEventListener("change", refresh);
  document.addEventListener("beat", (event) => {
    const wait = event.detail.clicks && $("top-range").value === "1h" ? EVERY_MS : SLOW_EVERY_MS;
    if (Date.now() - last >= wait) refresh();
  });
  return refresh();
}
