/** The strip: one thumbnail per candidate, best first, gliding to its new place when the order changes. */

import { el, score, setAttribute, setText, show, svg } from "../common/dom.js";
import { family, links } from "../state/lineage.js";
import { isOut, scoreOf } from "../state/store.js";

const SIZES = [132, 116, 100, 88, 76]; // px at least; the largest with which all are in view, else the smallest
const GAP = 6;
const RIM = 2; // px of padding, for the frame of the best
const STEPS = { ArrowLeft: () => -1, ArrowRight: () => 1, ArrowUp: (columns) => -columns, ArrowDown: (columns) => columns };

/**
 * Only what is in view exists in the page, whatever the number of candidates; only what changed is touched.
 * A tile is placed by hand (absolute, moved by a transform): so it keeps its identity, its focus and its place in time.
 */
export class Strip {
  /**
   * @param {object} on `thumb(name)` gives a picture's address; `hover(index|null)`, `select(index|null)`,
   *   `open(index)` and `discard(index)` are called for what the user does.
   */
  constructor(on) {
    this.on = on;
    this.tiles = new Map();
    this.order = [];
    this.selected = null;
    this.hovered = null;
    this.arrow = `nsd-arrow-${(Strip.count = (Strip.count ?? 0) + 1)}`; // ids are the whole page's
    this.lines = svg("svg", { class: "nsd-lines", "aria-hidden": "true" }, arrowHead(this.arrow));
    this.content = el("div", { class: "nsd-content" }, this.lines);
    this.element = el("div", {
      class: "nsd-strip", role: "listbox", "aria-label": "candidates, best first", "aria-orientation": "horizontal",
      onscroll: () => this.#layOut(),
      onkeydown: (event) => this.#key(event),
      onpointerover: (event) => this.#hover(this.#indexOf(event)),
      onpointerleave: () => this.#hover(null),
      onclick: (event) => this.#select(this.#indexOf(event)),
      onfocusin: (event) => this.#focused(this.#indexOf(event)),
    }, this.content);
  }

  /** The candidate that is looked at: under the mouse, else the selected one; null for none. */
  get shown() {
    return this.hovered ?? this.selected;
  }

  /** Show a state's candidates in an order. */
  draw(state, order) {
    this.state = state;
    this.order = order;
    this.places = new Map(order.map((row, place) => [row.i, place]));
    if (!this.places.has(this.selected)) this.selected = null;
    if (!this.places.has(this.hovered)) this.hovered = null;
    this.#layOut();
  }

  /** Forget what was selected: another search is shown. */
  reset() {
    this.selected = this.hovered = null;
    this.element.scrollTop = 0;
  }

  /** Bring a candidate into view and give it the keyboard's focus. */
  focus(index) {
    const place = this.places.get(index);
    if (place === undefined) return;
    const [top, height] = [this.#at(place)[1], this.element.clientHeight];
    const scroll = this.element.scrollTop;
    if (top < scroll) this.element.scrollTop = top;
    else if (top + this.size > scroll + height) this.element.scrollTop = top + this.size - height;
    this.selected = index;
    this.#layOut();
    this.tiles.get(index).focus({ preventScroll: true });
  }

  #layOut() {
    const { clientWidth: width, clientHeight: height } = this.element;
    if (!this.state || !width || !height) return;
    this.#fit(width - 2 * RIM, height - 2 * RIM);
    const rows = Math.ceil(this.order.length / this.columns);
    const full = `${Math.max(0, rows * this.pitch - GAP)}px`;
    if (this.content.style.height !== full) this.content.style.height = full;
    const tall = this.size + GAP;
    const first = Math.max(0, Math.floor(this.element.scrollTop / tall) - 1) * this.columns;
    const last = Math.ceil((this.element.scrollTop + height) / tall + 1) * this.columns;
    const wanted = new Set(this.order.slice(first, last).map((row) => row.i));
    if (this.selected !== null) wanted.add(this.selected); // it may hold the focus
    this.#keepOnly(wanted);
    const kin = this.shown === null ? null : family(this.state.byIndex, this.shown);
    for (const index of wanted) this.#show(index, kin);
    this.#drawLines(kin);
    this.#setTabStop();
  }

  #fit(width, height) {
    const count = this.order.length;
    const layouts = SIZES.map((wanted) => {
      const columns = Math.max(1, Math.floor((width + GAP) / (wanted + GAP)));
      const size = count < columns ? wanted : Math.floor((width + GAP) / columns) - GAP; // no gap at the right
      return { columns, size, height: Math.ceil(count / columns) * (size + GAP) - GAP };
    });
    const layout = layouts.find((each) => each.height <= height) ?? layouts.at(-1);
    [this.columns, this.size, this.pitch] = [layout.columns, layout.size, layout.size + GAP];
  }

  #at(place) {
    return [(place % this.columns) * this.pitch, Math.floor(place / this.columns) * this.pitch];
  }

  #keepOnly(wanted) {
    for (const [index, tile] of this.tiles) {
      if (wanted.has(index)) continue;
      tile.remove();
      this.tiles.delete(index);
    }
  }

  #show(index, kin) {
    let tile = this.tiles.get(index);
    if (!tile) {
      tile = newTile(index);
      this.tiles.set(index, tile);
      this.content.append(tile);
    }
    const place = this.places.get(index);
    const row = this.state.byIndex.get(index);
    const [x, y] = this.#at(place);
    const where = `translate(${x}px, ${y}px)`;
    if (tile.style.transform !== where) tile.style.transform = where;
    if (tile.style.width !== `${this.size}px`) tile.style.width = tile.style.height = `${this.size}px`;
    const looks = this.#looks(row, kin);
    if (tile.className !== looks) tile.className = looks;
    setAttribute(tile, "aria-posinset", place + 1);
    setAttribute(tile, "aria-setsize", this.order.length);
    setAttribute(tile, "aria-selected", index === this.selected);
    const mark = index === this.state.best ? "best" : "";
    if (tile.row === row && tile.mark === mark) return;
    [tile.row, tile.mark] = [row, mark];
    fillTile(tile, row, mark, row.thumb && this.on.thumb(row.thumb));
  }

  #looks(row, kin) {
    const { best, chosen } = this.state;
    const index = row.i;
    const flags = {
      "nsd-best": index === best, "nsd-chosen": index === chosen, "nsd-out": isOut(row),
      "nsd-selected": index === this.selected, "nsd-shown": index === this.shown,
      "nsd-ancestor": kin?.ancestors.includes(index), "nsd-child": kin?.children.includes(index),
    };
    const names = Object.keys(flags).filter((name) => flags[name]);
    return ["nsd-tile", `nsd-is-${row.state.replace(" ", "-")}`, ...names].join(" ");
  }

  /** Draw an arrow from each parent to its child, in the family of the candidate that is looked at. */
  #drawLines(kin) {
    const known = (index) => this.places.has(index);
    const wanted = kin ? links(this.shown, kin).filter(([from, to]) => known(from) && known(to)) : [];
    const paths = wanted.map(([from, to]) => curveBetween(this.#middle(from), this.#middle(to)));
    const drawn = paths.join("|");
    setAttribute(this.element, "data-links", wanted.map((pair) => pair.join(">")).join(" "));
    if (drawn === this.drawnLines) return;
    this.drawnLines = drawn;
    const arrows = paths.map((d) => svg("path", { d, "marker-end": `url(#${this.arrow})` }));
    this.lines.replaceChildren(this.lines.firstChild, ...arrows);
  }

  #middle(index) {
    return this.#at(this.places.get(index)).map((edge) => edge + this.size / 2);
  }

  /** The strip is one stop of the Tab key: the selected candidate, else the first. */
  #setTabStop() {
    const stop = this.selected ?? this.order[0]?.i;
    for (const [index, tile] of this.tiles) setAttribute(tile, "tabindex", index === stop ? "0" : "-1");
  }

  #indexOf(event) {
    const tile = event.target.closest(".nsd-tile");
    return tile ? Number(tile.dataset.candidate) : null;
  }

  #hover(index) {
    if (index === this.hovered) return;
    this.hovered = index;
    this.#layOut();
    this.on.hover(index);
  }

  #select(index) {
    if (index === null) return;
    this.focus(index);
    this.on.select(index);
  }

  #focused(index) {
    if (index === null || index === this.selected) return;
    this.selected = index;
    this.#layOut();
    this.on.select(index);
  }

  #key(event) {
    const place = this.places?.get(this.selected);
    if (place === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = STEPS[event.key]?.(this.columns);
    if (step !== undefined) this.#goTo(place + step);
    else if (event.key === "Home") this.#goTo(0);
    else if (event.key === "End") this.#goTo(this.order.length - 1);
    else if (event.key === "Enter" || event.key === " ") this.on.open(this.selected);
    else if (event.key === "Delete") this.on.discard(this.selected);
    else if (event.key === "Escape") this.#clear();
    else return;
    event.preventDefault();
  }

  #goTo(place) {
    const row = this.order[place];
    if (row) this.#select(row.i);
  }

  #clear() {
    this.element.querySelector(".nsd-tile:focus")?.blur();
    this.selected = null;
    this.#layOut();
    this.on.select(null);
  }
}

function newTile(index) {
  const tile = el("div", { role: "option", "data-candidate": index });
  tile.picture = el("img", { alt: "", loading: "lazy", decoding: "async", draggable: "false", hidden: "" });
  tile.picture.addEventListener("load", () => tile.picture.classList.add("nsd-loaded"));
  tile.number = el("span", { class: "nsd-number", text: `#${index}` });
  tile.badge = el("span", { class: "nsd-badge", hidden: "" });
  tile.score = el("span", { class: "nsd-score" });
  tile.append(tile.picture, tile.number, tile.badge, tile.score);
  return tile;
}

function fillTile(tile, row, mark, picture) {
  show(tile.picture, Boolean(picture));
  if (picture) setAttribute(tile.picture, "src", picture);
  const badge = stateBadge(row, mark);
  setText(tile.badge, badge);
  show(tile.badge, Boolean(badge));
  const value = scoreOf(row);
  const known = (row.score === null ? "≈ " : "") + score(value);
  const unknown = row.state === "running" ? "…" : "";
  setText(tile.score, value === null ? unknown : known);
  const told = value === null ? "no score yet" : `score ${score(value)}`;
  const label = [`candidate ${row.i}`, told, row.i === 0 ? "your seed" : "", badge || row.state];
  setAttribute(tile, "aria-label", label.filter(Boolean).join(", "));
}

/** The word on a thumbnail: what is special about it. */
export function stateBadge(row, mark = "") {
  if (mark) return mark;
  if (row.state === "running") return row.look === null ? "" : "look";
  if (["draft", "pruned", "cut off", "discarded"].includes(row.state)) return row.state;
  return row.i === 0 ? "your seed" : "";
}

function curveBetween([x1, y1], [x2, y2]) {
  const bend = Math.min(40, Math.hypot(x2 - x1, y2 - y1) * 0.25);
  const [mx, my] = [(x1 + x2) / 2, (y1 + y2) / 2 - bend];
  return `M${Math.round(x1)} ${Math.round(y1)}Q${Math.round(mx)} ${Math.round(my)} ${Math.round(x2)} ${Math.round(y2)}`;
}

function arrowHead(id) {
  const head = svg("path", { d: "M0 0L8 4L0 8Z" });
  const shape = { id, viewBox: "0 0 8 8", refX: 6, refY: 4, markerWidth: 5, markerHeight: 5, orient: "auto" };
  return svg("defs", {}, svg("marker", shape, head));
}
