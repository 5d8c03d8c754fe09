// How to count clicks: text to copy, ticked off when its click arrives.

import { askJson, follow, Refused, ROOT } from "./api.js";
import { startAsking } from "./ask.js";
import { $ } from "./dom.js";
import { exact, timeOfDay } from "./format.js";
import { register, WAYS } from "./snippets.js";
import { startTheme } from "./theme.js";

const SILENT_MS = 2000;
const WATCH_MS = 250;
// Clicks are counted from the minute before this page learned the server's time.
const EARLIER_S = 60;

const field = $("banner", HTMLInputElement);
const address = $("address", HTMLInputElement);
/** @type {Map<string, { item: HTMLElement, codes: HTMLElement[] }>} */
const items = new Map();
// Unix seconds of the server, from its first tick on.
let since = 0;
let ticked = () => {};
const connected = /** @type {Promise<void>} */ (
  new Promise((resolve) => {
    ticked = resolve;
  })
);
let heardAt = 0;
// The way that was copied last, and the banner's clicks at that time.
/** @type {{ way: string, before: number } | null} */
let waiting = null;

/** @param {"live" | "gone"} state */
function show(state) {
  $("state").dataset.state = state;
  const text = state === "live" ? "Connected" : "Disconnected, reconnecting";
  if ($("state-text").textContent !== text) $("state-text").textContent = text;
}

/** @param {string} text */
function problem(text) {
  $("problem").hidden = !text;
  $("problem").textContent = text;
}

/** Clicks of the chosen banner since this page was opened. */
async function clicks() {
  await connected;
  const stats = await askJson(`stats/${Number(field.value)}`, { tsFrom: since, step: "1h" });
  return stats.Counts;
}

/**
 * @param {string} way
 * @param {"new" | "waiting" | "counted"} state
 * @param {string} text
 */
function mark(way, state, text) {
  const { item } = /** @type {{ item: HTMLElement }} */ (items.get(way));
  item.dataset.state = state;
  const box = /** @type {HTMLElement} */ (item.querySelector(".mark"));
  box.textContent = text;
}

/** @param {string} way */
async function wait(way) {
  if (waiting && waiting.way !== way) mark(waiting.way, "new", "");
  waiting = null;
  try {
    waiting = { way, before: await clicks() };
    mark(way, "waiting", "Waiting for its click");
    problem("");
  } catch (error) {
    problem(error instanceof Refused ? error.message : "The statistics are currently unavailable.");
  }
}

/** @param {string} at time of the server */
async function check(at) {
  const asked = waiting;
  if (asked === null) return;
  const now = await clicks().catch(() => asked.before);
  if (asked !== waiting || now <= asked.before) return;
  waiting = null;
  const number = now - asked.before;
  const text = number === 1 ? "Counted" : `${exact(number)} clicks counted`;
  mark(asked.way, "counted", `✓ ${text} at ${timeOfDay(at)}`);
}

/**
 * Copies the text, without a clipboard API, too: browsers have none on plain HTTP.
 *
 * @param {HTMLElement} code
 */
async function copy(code) {
  const range = document.createRange();
  range.selectNodeContents(code);
  getSelection()?.removeAllRanges();
  getSelection()?.addRange(range);
  await navigator.clipboard?.writeText(code.textContent ?? "").catch(() => {});
  if (!navigator.clipboard) document.execCommand("copy");
}

/**
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {object} values
 * @param {(string | Node)[]} content
 * @returns {HTMLElementTagNameMap[T]}
 */
function element(tag, values, ...content) {
  const made = Object.assign(document.createElement(tag), values);
  made.append(...content);
  return made;
}

/**
 * Text and its button.
 *
 * @param {string} what
 * @param {() => void} copied
 */
function copyable(what, copied) {
  const code = element("code", {});
  // Until there is a text to copy.
  const values = { type: "button", className: "quiet", disabled: true };
  const button = element("button", values, "Copy");
  button.ariaLabel = `Copy: ${what}`;
  button.addEventListener("click", () => copy(code).then(copied));
  // A keyboard must be able to scroll a long line.
  const text = element("pre", { tabIndex: 0, ariaLabel: what }, code);
  text.addEventListener("copy", copied);
  text.role = "region";
  return { code, box: element("div", { className: "copyable" }, text, button) };
}

/** @param {string} way */
function make(way) {
  const { name, note } = WAYS[way];
  const main = copyable(name, () => wait(way));
  const title = element("h2", {}, name);
  const state = element("p", { className: "mark", role: "status" });
  const head = element("div", { className: "head" }, title, state);
  const codes = [main.code];
  const item = element(
    "li",
    { className: "card" },
    head,
    element("p", { className: "note" }, note),
  );
  item.dataset.way = way;
  if (way === "redirect") {
    const target = copyable("the registration of a target", () => {});
    codes.push(target.code);
    item.append(target.box);
  }
  item.append(main.box);
  items.set(way, { item, codes });
  $("ways").append(item);
}

function fill() {
  if (!field.checkValidity() || !address.checkValidity()) return;
  const banner = Number(field.value);
  const base = address.value.replace(/\/+$/, "");
  for (const [way, { codes }] of items) {
    codes[0].textContent = WAYS[way].text(base, banner);
    if (codes[1]) codes[1].textContent = register(ROOT.href, banner);
  }
  for (const button of $("ways").querySelectorAll("button")) button.disabled = false;
  history.replaceState(null, "", `#banner=${banner}`);
}

// Where clicks are counted is in the API document, which the server generates from its settings.
async function findAddress() {
  const { paths } = await askJson("openapi.json");
  const [server] = paths["/counter/{banner_id}"].servers;
  address.value = server.url.replace("{host}", location.hostname);
}

/** @param {import("./api.js").ServerEvent} event */
function onEvent({ event, data }) {
  show("live");
  if (event !== "tick") return;
  since ||= Math.floor(Date.parse(data.ts) / 1000) - EARLIER_S;
  ticked();
  check(data.ts);
}

startTheme();
startAsking();
for (const way of Object.keys(WAYS)) make(way);
const wished = new URLSearchParams(location.hash.slice(1)).get("banner") ?? "";
field.value = /^\d{1,8}$/.test(wished) ? wished : "1";
$("choose").addEventListener("submit", (event) => event.preventDefault());
for (const input of [field, address]) {
  input.addEventListener("input", fill);
  input.addEventListener("change", () => {
    if (waiting) wait(waiting.way);
  });
}
await findAddress().catch(() => problem("The address of the ingest port is unknown: enter it."));
fill();
follow(
  onEvent,
  () => {
    heardAt = Date.now();
  },
  () => show("gone"),
);
setInterval(() => {
  if (heardAt && Date.now() - heardAt > SILENT_MS) show("gone");
}, WATCH_MS);
