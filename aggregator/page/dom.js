// The elements of the page.

/**
 * The element with this ID: a missing one is a mistake in the page, not a case.
 *
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id
 * @param {new () => T} [kind] what it is, where more than an HTMLElement is needed
 * @returns {T}
 */
export function $(id, kind) {
  const found = document.getElementById(id);
  if (!(found instanceof (kind ?? HTMLElement))) throw new Error(`the page lacks #${id}`);
  return /** @type {T} */ (found);
}
