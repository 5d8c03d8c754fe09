// Asking the aggregator: every request goes to this host, with the token where one is set.

const TOKEN_KEY = "clickmill-token";
const RETRY_MS = 1000;
const RETRY_MOST_MS = 8000;

// Said by the server with the page, so that no request has to fail first.
const tokenNeeded = document.documentElement.dataset.token === "needed";

let askForToken = async () => {};

export function onUnauthorized(ask) {
  askForToken = ask;
}

export function setToken(token) {
  sessionStorage.setItem(TOKEN_KEY, token);
}

function headers() {
  const token = sessionStorage.getItem(TOKEN_KEY);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

export class Refused extends Error {
  constructor(status, body) {
    super(body.error ?? `the server answered ${status}`);
    this.status = status;
    this.code = body.code ?? "";
  }
}

// The answer of a path; asks for the token as often as it takes.
export async function ask(path, params = {}, options = {}) {
  const query = new URLSearchParams(params).toString();
  if (tokenNeeded && !sessionStorage.getItem(TOKEN_KEY)) await askForToken(false);
  for (;;) {
    const answer = await fetch(query ? `${path}?${query}` : path, { ...options, headers: headers() });
    if (answer.ok) return answer;
    if (answer.status !== 401) throw new Refused(answer.status, await answer.json().catch(() => ({})));
    await askForToken(sessionStorage.getItem(TOKEN_KEY) !== null);
  }
}

export async function askJson(path, params, options) {
  return (await ask(path, params, options)).json();
}

// One server-sent event as {event, data}; null for a comment.
function parseEvent(block) {
  const fields = { event: "message", data: "" };
  for (const line of block.split("\n")) {
    const at = line.indexOf(":");
    if (at > 0) fields[line.slice(0, at)] = line.slice(at + 1).trimStart();
  }
  return fields.data ? { event: fields.event, data: JSON.parse(fields.data) } : null;
}

async function readEvents(answer, handle) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const event = parseEvent(block);
      if (event) handle(event);
    }
  }
}

// The events of /live, for ever: the server ends a stream after a while, then the next begins.
// (Not EventSource: that one can't send the token.)
export async function follow(handle, stateChanged) {
  let wait = RETRY_MS;
  for (;;) {
    try {
      const answer = await ask("/live", {}, { cache: "no-store" });
      wait = RETRY_MS;
      await readEvents(answer, handle);
    } catch (error) {
      stateChanged("gone", error);
      wait = Math.min(wait * 2, RETRY_MOST_MS);
    }
    await new Promise((resolve) => setTimeout(resolve, wait * (0.5 + Math.random() / 2)));
  }
}
