// Asking for the token, once for all questions that wait for it.

import { onUnauthorized, setToken } from "/page/api.js";

let waiting = null;

function prompt(wrong) {
  const dialog = document.getElementById("ask");
  document.getElementById("ask-problem").hidden = !wrong;
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const field = document.getElementById("token");
      setToken(field.value.trim());
      field.value = "";
      waiting = null;
      resolve();
    }, { once: true });
  });
}

export function startAsking() {
  document.getElementById("ask").addEventListener("cancel", (event) => event.preventDefault());
  onUnauthorized((wrong) => (waiting ??= prompt(wrong)));
}
