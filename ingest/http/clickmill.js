// Counts a click on whatever has data-banner="ID":
//   <a href="https://example.org/sale" data-banner="17">
// With its redirect as href it counts without JavaScript, too; with JavaScript data-href is followed:
//   <a href="https://clicks.example.org/click/17" data-banner="17" data-href="https://example.org/sale">
((/** @type {any} */ window, /** @type {any} */ script) => {
  // Included twice, it counts once.
  if (window.clickmill) return;
  window.clickmill = script;
  const address = (/** @type {string} */ path) => new URL(path, script.src).href;
  const counted = new WeakMap();

  const count = (/** @type {any} */ event) => {
    const element = event.composedPath().find((/** @type {any} */ node) => node.dataset?.banner);
    if (!element || event.button > 1) return;
    const { banner, href } = element.dataset;
    const before = element.getAttribute("href");
    if (href && href !== before) {
      // For this click alone: a link that is copied or dragged stays the redirect.
      element.setAttribute("href", href);
      setTimeout(() => element.setAttribute("href", before));
    }
    // The redirect counts by itself.
    if (!href && `${element.href}`.startsWith(address("click/"))) return;
    // A double click, or an event that a library fires again.
    if (event.timeStamp - counted.get(element) < 500) return;
    counted.set(element, event.timeStamp);
    const url = address(`counter/${banner}`);
    if (!navigator.sendBeacon?.(url))
      fetch(url, { method: "POST", mode: "no-cors", keepalive: true }).catch(() => {});
  };

  // On the window, before any listener that could stop the event; auxclick is the middle button.
  for (const type of ["click", "auxclick"]) window.addEventListener(type, count, true);
})(window, document.currentScript);
