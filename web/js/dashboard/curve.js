/** The curve: best score against model calls. SVG, so that it is sharp at any zoom. */

import { el, setAttribute, setText, show, svg } from "../common/dom.js";
import { formatScore } from "../common/format.js";

/** @typedef {NoiseSearch.State} State */
/** @typedef {NoiseSearch.CurvePoint} CurvePoint */
/** @typedef {{group: SVGGElement, line: SVGPathElement, label: SVGTextElement}} Marker A line with a label. */

/**
 * @typedef {object} Scale Where model calls and scores lie in the plot; in pixels.
 * @property {number} width Of the whole element.
 * @property {number} height
 * @property {number} text Of a letter.
 * @property {number} left Edges of the plot.
 * @property {number} right
 * @property {number} top
 * @property {number} bottom
 * @property {(calls: number) => number} x Place of a number of model calls.
 * @property {(score: number) => number} y Place of a score.
 * @property {{x: number[], y: number[]}} ticks
 */

const TICKS_X = 4;
const TICKS_Y = 3;

/** The plot of one search; `element` is to be put somewhere, `draw(state)` brings it up to date. */
export class Curve {
  /** Make an empty plot. */
  constructor() {
    /** @type {Scale|null} */
    this.scale = null;
    /** @type {CurvePoint[]} */
    this.points = [];
    this.drawnGrid = "";
    this.grid = svg("g", { class: "nsd-grid" });
    this.area = svg("path", { class: "nsd-area" });
    this.line = svg("path", { class: "nsd-line" });
    this.dot = svg("circle", { class: "nsd-dot", r: 3.5 });
    this.value = svg("text", { class: "nsd-value" });
    this.baseline = marker("nsd-baseline");
    this.budget = marker("nsd-budget");
    this.pointer = marker("nsd-pointer");
    const groups = [this.grid, this.area, this.baseline.group, this.budget.group, this.line, this.dot, this.value];
    const listeners = {
      onpointermove: (/** @type {PointerEvent} */ event) => this.#point(event),
      onpointerleave: () => this.#point(null),
    };
    this.plot = svg("svg", { role: "img", ...listeners }, ...groups, this.pointer.group);
    this.element = el("div", { class: "nsd-curve" }, this.plot);
  }

  /**
   * Draw a state into the room there is.
   * @param {State} state
   */
  draw(state) {
    const { clientWidth: width, clientHeight: height } = this.element;
    if (!width || !height) return;
    const text = parseFloat(getComputedStyle(this.element).fontSize);
    const scale = scaleOf(state, width, height, text);
    this.scale = scale;
    this.points = state.curve;
    setAttribute(this.plot, "viewBox", `0 0 ${width} ${height}`);
    setAttribute(this.plot, "aria-label", summary(state));
    this.#drawGrid(scale);
    this.#drawLine(scale, state.curve);
    this.#drawBest(scale, state.curve.at(-1));
    this.#drawBaseline(scale, state.baseline);
    this.#drawBudget(scale, state);
  }

  /** @param {Scale} scale */
  #drawGrid({ width, height, text, left, right, top, bottom, x, y, ticks }) {
    const wanted = JSON.stringify([width, height, text, ticks]);
    if (wanted === this.drawnGrid) return;
    this.drawnGrid = wanted;
    const lines = ticks.y.flatMap((value) => [
      svg("path", { d: `M${left} ${round(y(value))}H${right}` }),
      svg("text", { x: left - 5, y: round(y(value)) + text * 0.3, "text-anchor": "end", text: tickText(value, ticks.y) }),
    ]);
    const below = bottom + text * 1.15;
    const free = ticks.x.filter((value) => x(value) < right - text * 7.5);
    const calls = free.map((value, i) => {
      const anchor = i === 0 ? "start" : "middle";
      return svg("text", { x: round(x(value)), y: below, "text-anchor": anchor, text: String(value) });
    });
    const names = [
      svg("text", { class: "nsd-name", x: right, y: below, "text-anchor": "end", text: "model calls" }),
      svg("text", { class: "nsd-name", x: left, y: top - text * 0.55, text: "best score" }),
    ];
    this.grid.replaceChildren(...lines, ...calls, ...names);
  }

  /**
   * @param {Scale} scale
   * @param {CurvePoint[]} curve
   */
  #drawLine({ x, y, bottom }, curve) {
    const places = curve.map(([calls, best]) => [round(x(calls)), round(y(best))]);
    const line = places.map((at, i) => (i ? `H${at[0]}V${at[1]}` : `M${at[0]} ${at[1]}`)).join("");
    setAttribute(this.line, "d", line);
    setAttribute(this.area, "d", places.length ? `${line}V${bottom}H${places[0][0]}Z` : "");
  }

  /**
   * @param {Scale} scale
   * @param {CurvePoint|undefined} last
   */
  #drawBest({ x, y, right, top, text }, last) {
    show(this.dot, Boolean(last));
    show(this.value, Boolean(last));
    if (!last) return;
    const at = [round(x(last[0])), round(y(last[1]))];
    setAttribute(this.dot, "cx", at[0]);
    setAttribute(this.dot, "cy", at[1]);
    const before = at[0] > right - text * 5;
    setAttribute(this.value, "text-anchor", before ? "end" : "start");
    setAttribute(this.value, "x", at[0] + (before ? -6 : 7));
    setAttribute(this.value, "y", Math.max(top + text * 0.6, at[1] - text * 0.45));
    setText(this.value, formatScore(last[1]));
  }

  /**
   * @param {Scale} scale
   * @param {number|null} baseline
   */
  #drawBaseline({ y, left, right, bottom, text }, baseline) {
    show(this.baseline.group, baseline !== null);
    if (baseline === null) return;
    const level = round(y(baseline));
    const below = level + text * 1.15 < bottom;
    place(this.baseline, `M${left} ${level}H${right}`, right - 4, level + (below ? text * 1.05 : -text * 0.4), "end");
    setText(this.baseline.label, `your seed ${formatScore(baseline)}`);
  }

  /**
   * @param {Scale} scale
   * @param {State} state
   */
  #drawBudget({ x, y, top, bottom, text }, { cap, curve }) {
    const end = round(x(cap));
    place(this.budget, `M${end} ${top}V${bottom}`, end - 4, top + text * 0.2, "end");
    setText(this.budget.label, `budget ${cap}`);
    const last = curve.at(-1);
    const crowded = last !== undefined && x(last[0]) > end - text * 9 && y(last[1]) < top + text * 2;
    show(this.budget.label, !crowded);
  }

  /**
   * Show the best score at the model call under the mouse.
   * @param {PointerEvent|null} event Null when the mouse leaves.
   */
  #point(event) {
    const { scale } = this;
    const near = event && scale && this.points.length ? this.#pointAt(event, scale) : null;
    show(this.pointer.group, Boolean(near));
    if (!near || !scale) return;
    const { x, top, bottom, right } = scale;
    const at = round(x(near[0]));
    const before = at > right - 90;
    place(this.pointer, `M${at} ${top}V${bottom}`, at + (before ? -5 : 5), bottom - 5, before ? "end" : "start");
    setText(this.pointer.label, `${near[0]} calls: ${formatScore(near[1])}`);
  }

  /**
   * @param {PointerEvent} event
   * @param {Scale} scale
   * @returns {CurvePoint}
   */
  #pointAt(event, scale) {
    const box = this.plot.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * this.element.clientWidth;
    return this.points.findLast(([calls]) => scale.x(calls) <= at + 2) ?? this.points[0];
  }
}

/**
 * @param {State} state
 * @param {number} width Of the plot, in pixels.
 * @param {number} height Of the plot, in pixels.
 * @param {number} text Size of the letters, in pixels.
 * @returns {Scale}
 */
function scaleOf(state, width, height, text) {
  const scores = state.curve.map((point) => point[1]);
  if (state.baseline !== null) scores.push(state.baseline);
  const [low, high] = scores.length ? [Math.min(...scores), Math.max(...scores)] : [0, 1];
  const margin = (high - low || Math.abs(high) || 1) * 0.15;
  const floor = low - margin;
  const ceiling = high + margin;
  const calls = Math.max(state.cap, state.curve.at(-1)?.[0] ?? 0, 1);
  const yTicks = ticks(floor, ceiling, TICKS_Y);
  const letters = Math.max(...yTicks.map((value) => tickText(value, yTicks).length), 3);
  const [left, right] = [letters * text * 0.56 + 8, width - 10];
  const [top, bottom] = [text * 1.9, height - text * 1.6];
  return {
    width, height, text, left, right, top, bottom,
    x: (value) => left + (value / calls) * (right - left),
    y: (value) => bottom - ((value - floor) / (ceiling - floor)) * (bottom - top),
    ticks: { x: ticks(0, calls, TICKS_X), y: yTicks },
  };
}

/**
 * Round numbers between two values.
 * @param {number} low
 * @param {number} high
 * @param {number} count About how many.
 * @returns {number[]}
 */
function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const factor = [1, 2, 5].find((each) => each * power >= rough * 0.999) ?? 10;
  const step = power * factor;
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

/**
 * @param {number} value
 * @param {number[]} all The ticks of its axis.
 * @returns {string} The value, with as many digits as all of them need.
 */
function tickText(value, all) {
  const digits = Math.max(...all.map((tick) => String(tick).split(".")[1]?.length ?? 0));
  return value.toFixed(Math.min(digits, 6));
}

/**
 * @param {State} state
 * @returns {string} The curve as text, for screen readers.
 */
function summary({ curve, baseline, cap }) {
  const last = curve.at(-1);
  const best = last ? `best score ${formatScore(last[1])} after ${last[0]} of ${cap} model calls` : "no score yet";
  return baseline === null ? best : `${best}; your own seed ${formatScore(baseline)}`;
}

/**
 * @param {string} name Its class.
 * @returns {Marker}
 */
function marker(name) {
  const [line, label] = [svg("path"), svg("text")];
  return { group: svg("g", { class: name, hidden: "" }, line, label), line, label };
}

/**
 * Show a marker.
 * @param {Marker} marker
 * @param {string} path Of its line.
 * @param {number} x Of its label.
 * @param {number} y Of its label.
 * @param {"start"|"end"} anchor Of its label.
 */
function place({ group, line, label }, path, x, y, anchor) {
  show(group, true);
  setAttribute(line, "d", path);
  setAttribute(label, "x", round(x));
  setAttribute(label, "y", round(y));
  setAttribute(label, "text-anchor", anchor);
}

/**
 * @param {number} value
 * @returns {number} With one decimal.
 */
function round(value) {
  return Math.round(value * 10) / 10;
}
