/** The thumbnail strip: one thumbnail per candidate, best first; each moves to its new place when the order changes. */

import { closest, el, setAttribute } from "../common/dom.js";
import { family, links } from "../state/lineage.js";
import { isEliminated } from "../state/store.js";
import { LineageArrows } from "./lineage_arrows.js";
import { Tile } from "./tile.js";

/** @typedef {NoiseSearch.State} State */
/** @typedef {NoiseSearch.Candidate} Candidate */
/** @typedef {import("../state/lineage.js").Family} Family */

/**
 * @typedef {object} Handlers Called for what the user does.
 * @property {(name: string) => string} thumb Address of a thumbnail, by its name.
 * @property {() => void} change Another candidate is looked at.
 * @property {() => void} open The keys Enter or Space.
 * @property {(index: number) => void} discard The key Delete.
 */

const SIZES = [132, 116, 100, 88, 76]; // px at least; the largest with which all are in view, else the smallest
const GAP = 6;
const RIM = 2; // px of padding, for the frame of the best
/** @type {Record<string, (columns: number) => number>} */
const STEPS = { ArrowLeft: () => -1, ArrowRight: () => 1, ArrowUp: (columns) => -columns, ArrowDown: (columns) => columns };

/**
 * Only what is in view exists in the page, whatever the number of candidates; only what changed is touched.
 * A tile is placed absolutely and moved by a transform, so that it keeps its identity and its focus, and its move is animated.
 */
export class ThumbnailStrip {
  /** @type {State|null} */
  #state = null;
  /** @type {Candidate[]} In the order they are shown. */
  #order = [];
  /** @type {Map<number, number>} Places in the order, by candidate. */
  #places = new Map();
  /** @type {Map<number, Tile>} What is in the page, by candidate. */
  #tiles = new Map();
  /** @type {number|null} */
  #selected = null;
  /** @type {number|null} */
  #hovered = null;
  #columns = 1;
  #size = SIZES[0]; // px of a tile

  /** @param {Handlers} handlers */
  constructor(handlers) {
    this.handlers = handlers;
    this.arrows = new LineageArrows();
    this.content = el("div", { class: "nsd-content" }, this.arrows.element);
    this.element = el("div", {
      class: "nsd-strip", role: "listbox", "aria-label": "candidates, best first", "aria-orientation": "horizontal",
      onscroll: () => this.#layOut(),
      onkeydown: (/** @type {KeyboardEvent} */ event) => this.#key(event),
      onpointerover: (/** @type {PointerEvent} */ event) => this.#hover(indexOf(event)),
      onpointerleave: () => this.#hover(null),
      onclick: (/** @type {MouseEvent} */ event) => this.#select(indexOf(event)),
      onfocusin: (/** @type {FocusEvent} */ event) => this.#focused(indexOf(event)),
    }, this.content);
  }

  /** @returns {number|null} The candidate that is looked at: under the mouse, else the selected one; null for none. */
  get shown() {
    return this.#hovered ?? this.#selected;
  }

  /**
   * Show a state's candidates.
   * @param {State} state
   * @param {Candidate[]} order All of them, in the order they are shown.
   */
  draw(state, order) {
    this.#state = state;
    this.#order = order;
    this.#places = new Map(order.map((candidate, place) => [candidate.i, place]));
    if (this.#selected !== null && !this.#places.has(this.#selected)) this.#selected = null;
    if (this.#hovered !== null && !this.#places.has(this.#hovered)) this.#hovered = null;
    this.#layOut();
  }

  /** Deselect, and scroll back: another search is shown. */
  reset() {
    this.#selected = this.#hovered = null;
    this.element.scrollTop = 0;
  }

  /**
   * Bring a candidate into view and give it the keyboard's focus.
   * @param {number|null} index Nothing is done for null.
   */
  focus(index) {
    const place = index === null ? undefined : this.#places.get(index);
    if (index === null || place === undefined) return;
    const [top, height] = [this.#at(place)[1], this.element.clientHeight];
    const scroll = this.element.scrollTop;
    if (top < scroll) this.element.scrollTop = top;
    else if (top + this.#size > scroll + height) this.element.scrollTop = top + this.#size - height;
    this.#selected = index;
    this.#layOut();
    this.#tiles.get(index)?.element.focus({ preventScroll: true });
  }

  #layOut() {
    const { clientWidth: width, clientHeight: height } = this.element;
    if (!this.#state || !width || !height) return;
    this.#fit(width - 2 * RIM, height - 2 * RIM);
    const rows = Math.ceil(this.#order.length / this.#columns);
    const full = `${Math.max(0, rows * this.#pitch - GAP)}px`;
    if (this.content.style.height !== full) this.content.style.height = full;
    const candidates = this.#inView(height);
    this.#keepOnly(new Set(candidates.map(({ i }) => i)));
    const kin = this.shown === null ? null : family(this.#state.byIndex, this.shown);
    for (const candidate of candidates) this.#drawTile(this.#state, candidate, kin);
    this.#drawArrows(kin);
    this.#setTabStop();
  }

  /** @returns {number} Pixels from one tile to the next. */
  get #pitch() {
    return this.#size + GAP;
  }

  /**
   * Choose the columns, and the size of tiles.
   * @param {number} width
   * @param {number} height
   */
  #fit(width, height) {
    const count = this.#order.length;
    const layouts = SIZES.map((wanted) => {
      const columns = Math.max(1, Math.floor((width + GAP) / (wanted + GAP)));
      const size = count < columns ? wanted : Math.floor((width + GAP) / columns) - GAP; // no gap at the right
      return { columns, size, height: Math.ceil(count / columns) * (size + GAP) - GAP };
    });
    const layout = layouts.find((each) => each.height <= height) ?? layouts[layouts.length - 1];
    this.#columns = layout.columns;
    this.#size = layout.size;
  }

  /**
   * @param {number} height Of the strip.
   * @returns {Candidate[]} Those in view, and the selected one, which may have the focus.
   */
  #inView(height) {
    const first = Math.max(0, Math.floor(this.element.scrollTop / this.#pitch) - 1) * this.#columns;
    const last = Math.ceil((this.element.scrollTop + height) / this.#pitch + 1) * this.#columns;
    const candidates = this.#order.slice(first, last);
    const place = this.#selected === null ? undefined : this.#places.get(this.#selected);
    if (place !== undefined && (place < first || place >= last)) candidates.push(this.#order[place]);
    return candidates;
  }

  /**
   * @param {number} place
   * @returns {[number, number]} Left and upper edge of a tile.
   */
  #at(place) {
    return [(place % this.#columns) * this.#pitch, Math.floor(place / this.#columns) * this.#pitch];
  }

  /** @param {Set<number>} wanted */
  #keepOnly(wanted) {
    for (const [index, tile] of this.#tiles) {
      if (wanted.has(index)) continue;
      tile.element.remove();
      this.#tiles.delete(index);
    }
  }

  /**
   * @param {State} state
   * @param {Candidate} candidate
   * @param {Family|null} kin Of the candidate that is looked at.
   */
  #drawTile(state, candidate, kin) {
    const index = candidate.i;
    let tile = this.#tiles.get(index);
    if (!tile) {
      tile = new Tile(index);
      this.#tiles.set(index, tile);
      this.content.append(tile.element);
    }
    const place = this.#places.get(index) ?? 0;
    const [x, y] = this.#at(place);
    tile.move({ x, y, size: this.#size, place, count: this.#order.length });
    tile.mark(this.#classes(state, candidate, kin), index === this.#selected);
    tile.draw(candidate, index === state.best, this.handlers.thumb);
  }

  /**
   * @param {State} state
   * @param {Candidate} candidate
   * @param {Family|null} kin
   * @returns {string} The classes of its tile.
   */
  #classes({ best, chosen }, candidate, kin) {
    const index = candidate.i;
    const flags = Object.entries({
      "nsd-best": index === best, "nsd-chosen": index === chosen, "nsd-out": isEliminated(candidate),
      "nsd-selected": index === this.#selected, "nsd-shown": index === this.shown,
      "nsd-ancestor": kin?.ancestors.includes(index), "nsd-child": kin?.children.includes(index),
    });
    const names = flags.filter(([, holds]) => holds).map(([name]) => name);
    return ["nsd-tile", `nsd-is-${candidate.state.replace(" ", "-")}`, ...names].join(" ");
  }

  /**
   * Draw an arrow from each parent to its child, in the family of the candidate that is looked at.
   * @param {Family|null} kin
   */
  #drawArrows(kin) {
    const isKnown = (/** @type {number} */ index) => this.#places.has(index);
    const all = kin && this.shown !== null ? links(this.shown, kin) : [];
    const wanted = all.filter(([from, to]) => isKnown(from) && isKnown(to));
    setAttribute(this.element, "data-links", wanted.map((pair) => pair.join(">")).join(" "));
    this.arrows.draw(wanted.map(([from, to]) => ({ from: this.#middle(from), to: this.#middle(to) })));
  }

  /**
   * @param {number} index
   * @returns {[number, number]}
   */
  #middle(index) {
    const [x, y] = this.#at(this.#places.get(index) ?? 0);
    return [x + this.#size / 2, y + this.#size / 2];
  }

  /** The strip is one stop of the Tab key: the selected candidate, else the first. */
  #setTabStop() {
    const stop = this.#selected ?? this.#order[0]?.i;
    for (const [index, tile] of this.#tiles) setAttribute(tile.element, "tabindex", index === stop ? "0" : "-1");
  }

  /** @param {number|null} index */
  #hover(index) {
    if (index === this.#hovered) return;
    this.#hovered = index;
    this.#layOut();
    this.handlers.change();
  }

  /** @param {number|null} index */
  #select(index) {
    if (index === null) return;
    this.focus(index);
    this.handlers.change();
  }

  /** @param {number|null} index */
  #focused(index) {
    if (index === null || index === this.#selected) return;
    this.#selected = index;
    this.#layOut();
    this.handlers.change();
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const index = this.#selected;
    const place = index === null ? undefined : this.#places.get(index);
    if (index === null || place === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = STEPS[event.key]?.(this.#columns);
    if (step !== undefined) this.#goTo(place + step);
    else if (event.key === "Home") this.#goTo(0);
    else if (event.key === "End") this.#goTo(this.#order.length - 1);
    else if (event.key === "Enter" || event.key === " ") this.handlers.open();
    else if (event.key === "Delete") this.handlers.discard(index);
    else if (event.key === "Escape") this.#deselect(index);
    else return;
    event.preventDefault();
  }

  /** @param {number} place */
  #goTo(place) {
    const candidate = this.#order[place];
    if (candidate) this.#select(candidate.i);
  }

  /** @param {number} index The selected one. */
  #deselect(index) {
    this.#tiles.get(index)?.element.blur();
    this.#selected = null;
    this.#layOut();
    this.handlers.change();
  }
}

/**
 * @param {Event} event
 * @returns {number|null} The candidate whose tile it happened in.
 */
function indexOf(event) {
  const tile = closest(event, ".nsd-tile");
  return tile ? Number(tile.dataset.candidate) : null;
}
