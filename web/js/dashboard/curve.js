/** The curve: best score against model calls. SVG, so that it is sharp at any zoom. */

import { score, setAttribute, setText, show, svg } from "../common/dom.js";

const TICKS_X = 4;
const TICKS_Y = 3;

/** The plot of one search; `element` is to be put somewhere, `draw(state)` brings it up to date. */
export class Curve {
  constructor() {
    this.grid = svg("g", { class: "nsd-grid" });
    this.area = svg("path", { class: "nsd-area" });
    this.line = svg("path", { class: "nsd-line" });
    this.dot = svg("circle", { class: "nsd-dot", r: 3.5 });
    this.value = svg("text", { class: "nsd-value" });
    this.baseline = marker("nsd-baseline");
    this.budget = marker("nsd-budget");
    this.pointer = marker("nsd-pointer");
    const groups = [this.grid, this.area, this.baseline.group, this.budget.group, this.line, this.dot, this.value];
    this.plot = svg("svg", { role: "img", onpointermove: (e) => this.#point(e), onpointerleave: () => this.#point(null) });
    this.plot.append(...groups, this.pointer.group);
    this.element = document.createElement("div");
    this.element.className = "nsd-curve";
    this.element.append(this.plot);
  }

  /** Draw a state into the room there is. */
  draw(state) {
    const { clientWidth: width, clientHeight: height } = this.element;
    if (!width || !height) return;
    const text = parseFloat(getComputedStyle(this.element).fontSize);
    this.scale = scales(state, width, height, text);
    this.points = state.curve;
    setAttribute(this.plot, "viewBox", `0 0 ${width} ${height}`);
    setAttribute(this.plot, "aria-label", summary(state));
    this.#drawGrid(width, height, text);
    this.#drawLine(state);
    this.#drawMarks(state, text);
  }

  #drawGrid(width, height, text) {
    const { x, y, left, right, top, bottom, ticks } = this.scale;
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

  #drawLine({ curve }) {
    const { x, y, bottom } = this.scale;
    const steps = curve.map(([calls, best], i) => {
      const at = [round(x(calls)), round(y(best))];
      return i ? `H${at[0]}V${at[1]}` : `M${at[0]} ${at[1]}`;
    });
    const line = steps.join("");
    const ends = curve.length ? [round(x(curve[0][0])), round(x(curve.at(-1)[0]))] : [0, 0];
    setAttribute(this.line, "d", line);
    setAttribute(this.area, "d", curve.length ? `${line}V${bottom}H${ends[0]}Z` : "");
  }

  #drawMarks(state, text) {
    const { x, y, left, right, top, bottom } = this.scale;
    const last = state.curve.at(-1);
    show(this.dot, Boolean(last));
    show(this.value, Boolean(last));
    if (last) {
      const at = [round(x(last[0])), round(y(last[1]))];
      setAttribute(this.dot, "cx", at[0]);
      setAttribute(this.dot, "cy", at[1]);
      const before = at[0] > right - text * 5;
      setAttribute(this.value, "text-anchor", before ? "end" : "start");
      setAttribute(this.value, "x", at[0] + (before ? -6 : 7));
      setAttribute(this.value, "y", Math.max(top + text * 0.6, at[1] - text * 0.45));
      setText(this.value, score(last[1]));
    }
    show(this.baseline.group, state.baseline !== null);
    if (state.baseline !== null) {
      const level = round(y(state.baseline));
      const below = level + text * 1.15 < bottom;
      place(this.baseline, `M${left} ${level}H${right}`, right - 4, level + (below ? text * 1.05 : -text * 0.4), "end");
      setText(this.baseline.label, `your seed ${score(state.baseline)}`);
    }
    const end = round(x(state.cap));
    place(this.budget, `M${end} ${top}V${bottom}`, end - 4, top + text * 0.2, "end");
    setText(this.budget.label, `budget ${state.cap}`);
    const crowded = last && x(last[0]) > end - text * 9 && y(last[1]) < top + text * 2;
    show(this.budget.label, !crowded);
  }

  /** Say what the best score was at the model call under the mouse. */
  #point(event) {
    const near = event && this.points?.length ? this.#pointAt(event) : null;
    show(this.pointer.group, Boolean(near));
    if (!near) return;
    const { x, top, bottom, right } = this.scale;
    const at = round(x(near[0]));
    const before = at > right - 90;
    place(this.pointer, `M${at} ${top}V${bottom}`, at + (before ? -5 : 5), bottom - 5, before ? "end" : "start");
    setText(this.pointer.label, `${near[0]} calls: ${score(near[1])}`);
  }

  #pointAt(event) {
    const box = this.plot.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * this.element.clientWidth;
    return this.points.findLast(([calls]) => this.scale.x(calls) <= at + 2) ?? this.points[0];
  }
}

/** Where model calls and scores lie in a plot of `width` by `height` pixels with letters of `text` pixels. */
function scales(state, width, height, text) {
  const scores = state.curve.map((point) => point[1]);
  if (state.baseline !== null) scores.push(state.baseline);
  const [low, high] = scores.length ? [Math.min(...scores), Math.max(...scores)] : [0, 1];
  const room = (high - low || Math.abs(high) || 1) * 0.15;
  const floor = low - room;
  const ceiling = high + room;
  const calls = Math.max(state.cap, state.curve.at(-1)?.[0] ?? 0, 1);
  const yTicks = ticks(floor, ceiling, TICKS_Y);
  const letters = Math.max(...yTicks.map((value) => tickText(value, yTicks).length), 3);
  const [left, right] = [letters * text * 0.56 + 8, width - 10];
  const [top, bottom] = [text * 1.9, height - text * 1.6];
  return {
    left, right, top, bottom,
    x: (value) => left + (value / calls) * (right - left),
    y: (value) => bottom - ((value - floor) / (ceiling - floor)) * (bottom - top),
    ticks: { x: ticks(0, calls, TICKS_X), y: yTicks },
  };
}

/** About `count` round numbers between two values. */
export function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

function tickText(value, all) {
  const digits = Math.max(...all.map((tick) => String(tick).split(".")[1]?.length ?? 0));
  return value.toFixed(Math.min(digits, 6));
}

function summary({ curve, baseline, cap }) {
  const last = curve.at(-1);
  const best = last ? `best score ${score(last[1])} after ${last[0]} of ${cap} model calls` : "no score yet";
  return baseline === null ? best : `${best}; your own seed ${score(baseline)}`;
}

function marker(name) {
  const [line, label] = [svg("path"), svg("text")];
  return { group: svg("g", { class: name, hidden: "" }, line, label), line, label };
}

function place({ group, line, label }, path, x, y, anchor) {
  show(group, true);
  setAttribute(line, "d", path);
  setAttribute(label, "x", round(x));
  setAttribute(label, "y", round(y));
  setAttribute(label, "text-anchor", anchor);
}

function round(value) {
  return Math.round(value * 10) / 10;
}
