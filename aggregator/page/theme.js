// The colors: light, dark or the system's choice; stored in the browser.

import { recolour } from "./charts.js";

const KEY = "clickmill-theme";
const ORDER = ["auto", "light", "dark"];
/** @type {Record<string, string>} */
const TITLES = { auto: "system", light: "light", dark: "dark" };
const system = matchMedia("(prefers-color-scheme: dark)");

function apply() {
  const wish = localStorage.getItem(KEY) ?? "auto";
  const dark = wish === "dark" || (wish === "auto" && system.matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  const button = document.getElementById("theme");
  if (button) {
    button.textContent = wish[0].toUpperCase() + wish.slice(1);
    button.title = `Colors: ${TITLES[wish]}`;
  }
  recolour();
}

export function startTheme() {
  apply();
  system.addEventListener("change", apply);
  document.getElementById("theme")?.addEventListener("click", () => {
    const wish = localStorage.getItem(KEY) ?? "auto";
    localStorage.setItem(KEY, ORDER[(ORDER.indexOf(wish) + 1) % ORDER.length]);
    apply();
  });
}
