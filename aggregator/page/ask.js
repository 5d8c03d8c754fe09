// Prompts for the token, once for all requests that wait for it.

import { onUnauthorized, setToken } from "./api.js";
import { $ } from "./dom.js";

/** @type {Promise<void> | null} */
let waiting = null;

/** @param {boolean} wrong whether the last token was invalid */
function prompt(wrong) {
  const dialog = $("ask", HTMLDialogElement);
  $("ask-problem").hidden = !wrong;
  dialog.showModal();
  return /** @type {Promise<void>} */ (
    new Promise((resolve) => {
      dialog.addEventListener(
        "close",
        () => {
          const field = $("token", HTMLInputElement);
          setToken(field.value.trim());
          field.value = "";
          waiting = null;
          resolve();
        },
        { once: true },
      );
    })
  );
}

export function startAsking() {
  $("ask").addEventListener("cancel", (event) => event.preventDefault());
  onUnauthorized((wrong) => (waiting ??= prompt(wrong)));
}
