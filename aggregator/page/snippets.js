// Every way to count a click, as text to copy. Pure.

/**
 * @typedef {object} Way
 * @property {string} name
 * @property {string} note
 * @property {(address: string, banner: number) => string} text
 */

/** @type {Record<string, Way>} */
export const WAYS = {
  script: {
    name: "Script",
    note: "For a link on your page. The click arrives although the visitor leaves.",
    text: (address, banner) =>
      `<script src="${address}/clickmill.js" async></script>\n` +
      `<a href="https://example.org/" data-banner="${banner}">My link</a>`,
  },
  redirect: {
    name: "Redirect",
    note: "For emails and pages without JavaScript. First register the target (with a write token, add -H 'Authorization: Bearer TOKEN'):",
    text: (address, banner) => `<a href="${address}/click/${banner}">My link</a>`,
  },
  pixel: {
    name: "Pixel",
    note: "Counts a view of a page or an email.",
    text: (address, banner) =>
      `<img src="${address}/pixel/${banner}.gif" width="1" height="1" alt="">`,
  },
  fetch: {
    name: "JavaScript",
    note: "Where your own code decides what a click is.",
    text: (address, banner) =>
      `fetch("${address}/counter/${banner}", { method: "POST", keepalive: true });`,
  },
  curl: {
    name: "curl",
    note: "In a shell.",
    text: (address, banner) => `curl -X POST ${address}/counter/${banner}`,
  },
  python: {
    name: "Python",
    note: "With nothing but the standard library.",
    text: (address, banner) =>
      "import urllib.request\n" +
      `urllib.request.urlopen("${address}/counter/${banner}", data=b"").close()`,
  },
};

/**
 * The command that registers a target.
 *
 * @param {string} statistics address of the statistics port
 * @param {number} banner
 */
export function register(statistics, banner) {
  return (
    `curl -X PUT ${statistics}banners/${banner} -H 'Content-Type: application/json' ` +
    `-d '{"target_url": "https://example.org/"}'`
  );
}
