/** Whether a dashboard can be seen, and what of the user's input is meant for it rather than for the canvas. */

import { closest } from "../common/dom.js";

const INTERACTIVE = "button, .nsd-strip, .nsd-curve, .nsd-question, .nsd-picture";
const SCROLLING = ".nsd-strip, .nsd-question";
const POINTER_EVENTS = ["pointerdown", "pointerup", "pointermove", "mousedown", "click", "dblclick"];

/**
 * @typedef {object} Listeners
 * @property {() => void} changed Called when the element has another size.
 * @property {() => void} appeared Called when the element can be seen again.
 * @property {() => void} second Called every second while the element can be seen.
 */

/**
 * Follows whether an element can be seen. Its clock runs only while the element is in view: graphs that are replaced do not
 * tell the nodes in their subgraphs that they are removed.
 */
export class Visibility {
  /** @type {ReturnType<typeof setInterval>|undefined} */
  #clock;

  /**
   * @param {HTMLElement} element
   * @param {Listeners} listeners
   */
  constructor(element, listeners) {
    this.listeners = listeners;
    this.isInView = false;
    this.sizes = new ResizeObserver(() => listeners.changed());
    this.sizes.observe(element);
    this.sight = new IntersectionObserver((entries) => this.#seen(entries[entries.length - 1].isIntersecting));
    this.sight.observe(element);
  }

  /** @returns {boolean} Whether the element can be seen: in view, in a page that is not in the background. */
  get isVisible() {
    return this.isInView && !document.hidden;
  }

  /** Stop following. */
  remove() {
    this.sizes.disconnect();
    this.sight.disconnect();
    this.#stop();
  }

  #stop() {
    clearInterval(this.#clock);
    document.removeEventListener("visibilitychange", this.listeners.appeared);
  }

  /** @param {boolean} isInView */
  #seen(isInView) {
    this.isInView = isInView;
    this.#stop();
    if (!isInView) return;
    this.#clock = setInterval(() => this.isVisible && this.listeners.second(), 1000);
    document.addEventListener("visibilitychange", this.listeners.appeared);
    this.listeners.appeared();
  }
}

/**
 * Keep the canvas from taking the input that is meant for a dashboard.
 * @param {HTMLElement} element
 */
export function keepFromCanvas(element) {
  for (const type of POINTER_EVENTS) {
    element.addEventListener(type, (event) => closest(event, INTERACTIVE) && event.stopPropagation());
  }
  // Delete would delete the node, Space would grab the canvas; shortcuts with Ctrl are ComfyUI's.
  element.addEventListener("keydown", (event) => event.ctrlKey || event.metaKey || event.stopPropagation());
  element.addEventListener("wheel", keepScrolling, { passive: true });
}

/**
 * The strip scrolls under the mouse; anywhere else, and where there is nothing to scroll, the canvas zooms.
 * @param {WheelEvent} event
 */
function keepScrolling(event) {
  const area = closest(event, SCROLLING);
  if (area && area.scrollHeight > area.clientHeight && !event.ctrlKey && !event.metaKey) event.stopPropagation();
}
