/** The card: one candidate from near, and what can be done with it. */

import { button, el, score, setAttribute, setText, show } from "../common/dom.js";
import { family, inWords } from "../state/lineage.js";
import { isLive, isOut, scoreOf } from "../state/store.js";

const NAMES = {
  more: "More like this", discard: "Discard", use: "Use as output", copy: "Copy recipe", add: "Add recipe node",
};
const TITLES = {
  more: "Search on around this candidate: new ones are made from it",
  discard: "Drop this candidate: it cannot win, and nothing is made from it (Delete)",
  use: "Make this candidate the node's output: queues again, and nothing is searched anew",
  copy: "Copy the short text that makes this candidate again",
  add: "Put a node beside this one that makes this candidate again from its recipe",
};

/** Shows one candidate of a state. */
export class Card {
  /**
   * @param {object} on `thumb(name)` gives a picture's address; `more`, `discard`, `use`, `copy` and `add` are
   *   called with a candidate's index when its button is pressed; `leave()` when Escape is.
   */
  constructor(on) {
    this.on = on;
    this.picture = el("img", { alt: "", class: "nsd-picture", hidden: "", draggable: "false" });
    this.title = el("div", { class: "nsd-title" });
    this.value = el("div", { class: "nsd-big" });
    this.gain = el("div", { class: "nsd-dim" });
    this.parts = el("dl", { class: "nsd-parts" });
    this.calls = el("div", { class: "nsd-dim" });
    this.family = el("div", { class: "nsd-family" });
    this.buttons = {};
    for (const [what, name] of Object.entries(NAMES)) {
      this.buttons[what] = button(name, () => on[what](this.index), TITLES[what]);
      this.buttons[what].dataset.do = what;
    }
    const facts = [this.title, this.value, this.gain, this.parts, this.calls, this.family];
    this.actions = el("div", { class: "nsd-actions" }, ...Object.values(this.buttons));
    this.element = el(
      "div",
      { class: "nsd-card", role: "group", onkeydown: (event) => event.key === "Escape" && on.leave() },
      el("div", { class: "nsd-frame" }, this.picture),
      el("div", { class: "nsd-facts" }, ...facts),
      this.actions,
    );
  }

  /** Give the keyboard's focus to the first button. */
  focus() {
    this.actions.querySelector("button:not([hidden]):not(:disabled)")?.focus();
  }

  /** Show a candidate of a state; `index` null for none. */
  draw(state, index) {
    const row = state.byIndex.get(index);
    this.index = row ? index : null;
    setAttribute(this.element, "data-candidate", row ? index : null);
    setAttribute(this.element, "aria-label", row ? `candidate ${index}` : "no candidate yet");
    this.#drawButtons(state, row);
    show(this.picture, Boolean(row?.thumb));
    if (row?.thumb) setAttribute(this.picture, "src", this.on.thumb(row.thumb));
    if (row) this.#drawFacts(state, row);
    else for (const line of [this.title, this.value, this.gain, this.parts, this.calls, this.family]) setText(line, "");
  }

  #drawFacts(state, row) {
    const value = scoreOf(row);
    setText(this.title, [`#${row.i}`, ...remarks(state, row)].join(" · "));
    setText(this.value, value === null ? "no score yet" : (row.score === null ? "≈ " : "") + score(value));
    setText(this.gain, gain(state, row));
    setText(this.calls, row.calls === 1 ? "1 model call" : `${row.calls} model calls`);
    setText(this.family, inWords(family(state.byIndex, row.i)).filter(Boolean).join("; "));
    this.#drawParts(state.parts, row.scores ?? []);
  }

  /** The score of each part of the verifier; nothing where there is only one, which is the score itself. */
  #drawParts(names, values) {
    const wanted = names.length > 1 ? names.slice(0, values.length) : [];
    const drawn = JSON.stringify([wanted, values]);
    if (drawn === this.drawnParts && this.parts.childElementCount === 2 * wanted.length) return;
    this.drawnParts = drawn;
    const pairs = wanted.flatMap((name, i) => [el("dt", { text: name, title: name }), el("dd", { text: score(values[i]) })]);
    this.parts.replaceChildren(...pairs);
  }

  #drawButtons(state, row) {
    const live = isLive(state);
    const made = Boolean(row?.name ?? row?.thumb);
    const wanted = {
      more: live && row && scoreOf(row) !== null && row.state !== "discarded",
      discard: live && row && !isOut(row),
      use: !live && made && row.score !== null && row.i !== (state.chosen ?? state.best),
      copy: made && row.score !== null,
      add: !live && made && row.score !== null,
    };
    for (const [what, is] of Object.entries(wanted)) show(this.buttons[what], Boolean(is));
  }
}

function remarks(state, row) {
  const all = [
    row.i === state.best && "best", row.i === state.chosen && "your choice", row.i === 0 && "your seed",
    row.state !== "finished" && row.state,
  ];
  return all.filter(Boolean);
}

function gain(state, row) {
  if (row.score === null || state.baseline === null || row.i === 0) return "";
  const more = row.score - state.baseline;
  return `${more < 0 ? "−" : "+"}${score(Math.abs(more))} vs your seed`;
}
