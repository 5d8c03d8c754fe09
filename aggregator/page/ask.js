// Asking for the token, once for all questions that wait for it.

import { onUnauthorized, setToken } from "/page/api.js";
import { $ } from "/page/dom.js";

/** @type {Promise<void> | null} */
let waiting = null;

/** @param {boolean} wrong whether a token was given that does not open it */
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
