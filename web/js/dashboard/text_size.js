/** Letters and colors that fit the page: larger letters where the canvas is zoomed out. */

import { setAttribute } from "../common/dom.js";

const READABLE = 0.7; // zoom below which letters are enlarged
const LARGEST = 2; // times
const FAR = 1.5; // times larger letters: then only what matters is shown

/**
 * How much larger the letters of an element have to be.
 * @param {HTMLElement} element
 * @returns {number} From 1 to 2, in quarters.
 */
export function textFactor(element) {
  const zoom = element.getBoundingClientRect().width / element.offsetWidth || 1;
  return Math.min(LARGEST, Math.max(1, Math.round((READABLE / zoom) * 4) / 4));
}

/**
 * Fit the letters of a dashboard to the zoom, and its colors to the theme.
 * @param {HTMLElement} element
 * @returns {number} How much larger the letters are.
 */
export function fitText(element) {
  const factor = textFactor(element);
  element.style.setProperty("--nsd-text", String(factor));
  setAttribute(element, "data-far", factor >= FAR ? "" : null);
  setAttribute(element, "data-light", isDark(getComputedStyle(element).color) ? "" : null);
  return factor;
}

/**
 * Whether a color is dark: dark letters belong to a light theme, which newer frontends mark by no class.
 * @param {string} color Such as "rgb(1, 2, 3)".
 * @returns {boolean}
 */
function isDark(color) {
  const [red, green, blue] = (/^rgb/.test(color) && color.match(/[\d.]+/g)?.map(Number)) || [255, 255, 255];
  return 0.3 * red + 0.6 * green + 0.1 * blue < 128;
}
