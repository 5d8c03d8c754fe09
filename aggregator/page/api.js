// Requests to the aggregator that serves this page, with the token if there is one.

/** @typedef {Record<string, string | number>} Params query parameters by name */
/** @typedef {{ event: string, data: any }} ServerEvent */

// A proxy may serve all of it under a path of its own.
export const ROOT = new URL("..", import.meta.url);
const TOKEN_KEY = "clickmill-token";
const RETRY_MS = 1000;
const RETRY_MOST_MS = 4000;
// The server ends streams regularly. After a stream of this length, reconnect immediately.
const LIVED_MS = 5000;
const SILENT_MOST_MS = 10000;

// The server says so in the page, so that no request has to fail first.
const tokenNeeded = document.documentElement.dataset.token === "needed";

/** @type {(wrong: boolean) => Promise<void>} */
let askForToken = async () => {};

/** @param {(wrong: boolean) => Promise<void>} ask */
export function onUnauthorized(ask) {
  askForToken = ask;
}

/** @param {string} token */
export function setToken(token) {
  sessionStorage.setItem(TOKEN_KEY, token);
}

/** @returns {Record<string, string>} */
function headers() {
  const token = sessionStorage.getItem(TOKEN_KEY);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

export class Refused extends Error {
  /**
   * @param {number} status
   * @param {{ error?: string, code?: string }} body
   */
  constructor(status, body) {
    super(body.error ?? `the server answered ${status}`);
    this.status = status;
    this.code = body.code ?? "";
  }
}

/**
 * The response for a path, which does not begin with a slash; prompts for the token until it is accepted.
 *
 * @param {string} path
 * @param {Params} [params]
 * @param {RequestInit} [options]
 */
export async function ask(path, params = {}, options = {}) {
  const url = new URL(path, ROOT);
  for (const [name, value] of Object.entries(params)) url.searchParams.set(name, `${value}`);
  if (tokenNeeded && !sessionStorage.getItem(TOKEN_KEY)) await askForToken(false);
  for (;;) {
    const answer = await fetch(url, { ...options, headers: headers() });
    if (answer.ok) return answer;
    if (answer.status !== 401)
      throw new Refused(answer.status, await answer.json().catch(() => ({})));
    await askForToken(sessionStorage.getItem(TOKEN_KEY) !== null);
  }
}

/**
 * @param {string} path
 * @param {Params} [params]
 * @param {RequestInit} [options]
 * @returns {Promise<any>}
 */
export async function askJson(path, params, options) {
  return (await ask(path, params, options)).json();
}

/**
 * One server-sent event; null for a comment.
 *
 * @param {string} block
 * @returns {ServerEvent | null}
 */
function parseEvent(block) {
  /** @type {Record<string, string>} */
  const fields = { event: "message", data: "" };
  for (const line of block.split("\n")) {
    const at = line.indexOf(":");
    if (at > 0) fields[line.slice(0, at)] = line.slice(at + 1).trimStart();
  }
  return fields.data ? { event: fields.event, data: JSON.parse(fields.data) } : null;
}

/**
 * @param {Response} answer
 * @param {(event: ServerEvent) => void} handle
 * @param {() => void} heard
 */
async function readEvents(answer, handle, heard) {
  const text = new TextDecoder();
  const reader = /** @type {ReadableStream<Uint8Array>} */ (answer.body).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    heard();
    const blocks = (rest + text.decode(value, { stream: true })).split("\n\n");
    rest = blocks.pop() ?? "";
    for (const block of blocks) {
      const event = parseEvent(block);
      if (event) handle(event);
    }
  }
}

/**
 * Reads one stream of /live to its end; aborts it after SILENT_MOST_MS without data.
 *
 * @param {(event: ServerEvent) => void} handle
 * @param {() => void} heard
 */
async function followOnce(handle, heard) {
  const given = new AbortController();
  let last = Date.now();
  const timer = setInterval(() => {
    if (Date.now() - last > SILENT_MOST_MS) given.abort();
  }, 1000);
  try {
    const answer = await ask("live", {}, { cache: "no-store", signal: given.signal });
    await readEvents(answer, handle, () => {
      last = Date.now();
      heard();
    });
  } finally {
    clearInterval(timer);
  }
}

/**
 * The events of /live, forever: the server ends a stream after a while, then the next one starts.
 * (EventSource can't send the token.)
 *
 * @param {(event: ServerEvent) => void} handle
 * @param {() => void} heard is called for all data, including comments
 * @param {() => void} lost is called when a stream breaks or can't be opened
 */
export async function follow(handle, heard, lost) {
  let wait = RETRY_MS;
  for (;;) {
    const began = Date.now();
    try {
      await followOnce(handle, heard);
      wait = RETRY_MS;
      if (Date.now() - began > LIVED_MS) continue;
    } catch {
      lost();
      wait = Math.min(wait * 2, RETRY_MOST_MS);
    }
    await new Promise((resolve) => setTimeout(resolve, wait * (0.5 + Math.random() / 2)));
  }
}
