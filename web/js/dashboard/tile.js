/** One thumbnail of the strip, with what stands on it. */

import { el, setAttribute, setText, show } from "../common/dom.js";
import { formatScore } from "../common/format.js";
import { scoreOf } from "../state/store.js";

/** @typedef {NoiseSearch.Candidate} Candidate */

/**
 * @typedef {object} Placement
 * @property {number} x Left edge, in pixels.
 * @property {number} y Upper edge, in pixels.
 * @property {number} size Of an edge, in pixels.
 * @property {number} place In the order of all, from 0.
 * @property {number} count Of all.
 */

/** Shows a candidate; `element` is to be put into the strip. Only what differs is changed. */
export class Tile {
  /** @type {Candidate|null} What is drawn. */
  #candidate = null;
  #isBest = false;

  /** @param {number} index Of the candidate. */
  constructor(index) {
    this.picture = el("img", { alt: "", loading: "lazy", decoding: "async", draggable: "false", hidden: "" });
    this.picture.addEventListener("load", () => this.picture.classList.add("nsd-loaded"));
    this.badge = el("span", { class: "nsd-badge", hidden: "" });
    this.score = el("span", { class: "nsd-score" });
    const number = el("span", { class: "nsd-number", text: `#${index}` });
    const attributes = { role: "option", "data-candidate": index };
    this.element = el("div", attributes, this.picture, number, this.badge, this.score);
  }

  /**
   * Put it to its place.
   * @param {Placement} placement
   */
  move({ x, y, size, place, count }) {
    const { style } = this.element;
    const where = `translate(${x}px, ${y}px)`;
    if (style.transform !== where) style.transform = where;
    if (style.width !== `${size}px`) style.width = style.height = `${size}px`;
    setAttribute(this.element, "aria-posinset", place + 1);
    setAttribute(this.element, "aria-setsize", count);
  }

  /**
   * Set its classes.
   * @param {string} names
   * @param {boolean} selected
   */
  mark(names, selected) {
    if (this.element.className !== names) this.element.className = names;
    setAttribute(this.element, "aria-selected", selected);
  }

  /**
   * Show a candidate.
   * @param {Candidate} candidate
   * @param {boolean} isBest
   * @param {(name: string) => string} thumb Address of a thumbnail, by its name.
   */
  draw(candidate, isBest, thumb) {
    if (this.#candidate === candidate && this.#isBest === isBest) return;
    this.#candidate = candidate;
    this.#isBest = isBest;
    show(this.picture, Boolean(candidate.thumb));
    if (candidate.thumb) setAttribute(this.picture, "src", thumb(candidate.thumb));
    const badge = badgeOf(candidate, isBest);
    setText(this.badge, badge);
    show(this.badge, Boolean(badge));
    setText(this.score, scoreText(candidate));
    setAttribute(this.element, "aria-label", label(candidate, badge));
  }
}

/**
 * @param {Candidate} candidate
 * @returns {string} Its score; with "≈" that of a preview or draft.
 */
function scoreText(candidate) {
  const value = scoreOf(candidate);
  if (value === null) return candidate.state === "running" ? "…" : "";
  return (candidate.score === null ? "≈ " : "") + formatScore(value);
}

/**
 * @param {Candidate} candidate
 * @param {string} badge
 * @returns {string} For screen readers.
 */
function label(candidate, badge) {
  const value = scoreOf(candidate);
  const score = value === null ? "no score yet" : `score ${formatScore(value)}`;
  const parts = [`candidate ${candidate.i}`, score, candidate.i === 0 ? "your seed" : "", badge || candidate.state];
  return parts.filter(Boolean).join(", ");
}

/**
 * @param {Candidate} candidate
 * @param {boolean} isBest
 * @returns {string} What is special about it; "" for nothing.
 */
function badgeOf(candidate, isBest) {
  if (isBest) return "best";
  if (candidate.state === "running") return candidate.look === null ? "" : "preview";
  if (["draft", "pruned", "cut off", "discarded"].includes(candidate.state)) return candidate.state;
  return candidate.i === 0 ? "your seed" : "";
}
