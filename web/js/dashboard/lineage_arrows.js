/** Arrows from parents to children, drawn over the thumbnails. */

import { svg } from "../common/dom.js";

/** @typedef {[number, number]} Point In pixels of the strip's content. */

let made = 0; // so far, for ids

/** Draws arrows; `element` is to be put over the thumbnails. */
export class LineageArrows {
  #drawn = "";

  /** Draw none yet. */
  constructor() {
    this.id = `nsd-arrow-${++made}`; // ids are the whole page's
    this.head = arrowHead(this.id);
    this.element = svg("svg", { class: "nsd-lines", "aria-hidden": "true" }, this.head);
  }

  /**
   * Draw these arrows, and no others.
   * @param {{from: Point, to: Point}[]} arrows
   */
  draw(arrows) {
    const paths = arrows.map(({ from, to }) => pathBetween(from, to));
    const drawn = paths.join("|");
    if (drawn === this.#drawn) return;
    this.#drawn = drawn;
    const lines = paths.map((d) => svg("path", { d, "marker-end": `url(#${this.id})` }));
    this.element.replaceChildren(this.head, ...lines);
  }
}

/**
 * @param {Point} from
 * @param {Point} to
 * @returns {string}
 */
function pathBetween([x1, y1], [x2, y2]) {
  const bend = Math.min(40, Math.hypot(x2 - x1, y2 - y1) * 0.25);
  const [mx, my] = [(x1 + x2) / 2, (y1 + y2) / 2 - bend];
  return `M${Math.round(x1)} ${Math.round(y1)}Q${Math.round(mx)} ${Math.round(my)} ${Math.round(x2)} ${Math.round(y2)}`;
}

/**
 * @param {string} id
 * @returns {SVGDefsElement}
 */
function arrowHead(id) {
  const head = svg("path", { d: "M0 0L8 4L0 8Z" });
  const shape = { id, viewBox: "0 0 8 8", refX: 6, refY: 4, markerWidth: 5, markerHeight: 5, orient: "auto" };
  return svg("defs", {}, svg("marker", shape, head));
}
