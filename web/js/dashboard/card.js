/** The card: one candidate in detail, and what can be done with it. */

import { button, el, setAttribute, setText, show } from "../common/dom.js";
import { formatScore } from "../common/format.js";
import { describeFamily, family } from "../state/lineage.js";
import { isEliminated, isLive, scoreOf } from "../state/store.js";

/** @typedef {NoiseSearch.State} State */
/** @typedef {NoiseSearch.Candidate} Candidate */
/** @typedef {"more"|"discard"|"use"|"copy"|"add"} Action */

/**
 * @typedef {object} Handlers What the buttons do.
 * @property {(name: string) => string} thumb Address of a thumbnail, by its name.
 * @property {Record<Action, (index: number) => unknown>} actions By button; called with the candidate that is shown.
 * @property {() => void} leave Called for the key Escape.
 */

/** @type {Record<Action, {name: string, title: string}>} */
const BUTTONS = {
  more: {
    name: "More like this",
    title: "Continue the search around this candidate: new candidates are derived from it",
  },
  discard: {
    name: "Discard",
    title: "Drop this candidate: it cannot win, and no new candidates are derived from it (Delete)",
  },
  use: {
    name: "Use as output",
    title: "Make this candidate the node's output: queues the workflow again, without searching again",
  },
  copy: { name: "Copy recipe", title: "Copy the recipe: a short text that reproduces this candidate" },
  add: { name: "Add recipe node", title: "Add a node beside this one that reproduces this candidate from its recipe" },
};

const NAMES = /** @type {Action[]} */ (Object.keys(BUTTONS));

/** Shows one candidate of a state. */
export class Card {
  /** @param {Handlers} handlers */
  constructor(handlers) {
    this.handlers = handlers;
    /** @type {number|null} The candidate that is shown. */
    this.index = null;
    this.drawnParts = "";
    this.picture = el("img", { alt: "", class: "nsd-picture", hidden: "", draggable: "false" });
    this.title = el("div", { class: "nsd-title" });
    this.value = el("div", { class: "nsd-big" });
    this.gain = el("div", { class: "nsd-dim" });
    this.parts = el("dl", { class: "nsd-parts" });
    this.calls = el("div", { class: "nsd-dim" });
    this.family = el("div", { class: "nsd-family" });
    this.facts = [this.title, this.value, this.gain, this.parts, this.calls, this.family];
    this.buttons = new Map(NAMES.map((action) => [action, this.#button(action)]));
    this.actions = el("div", { class: "nsd-actions" }, ...this.buttons.values());
    const onkeydown = (/** @type {KeyboardEvent} */ event) => event.key === "Escape" && handlers.leave();
    this.element = el(
      "div",
      { class: "nsd-card", role: "group", onkeydown },
      el("div", { class: "nsd-frame" }, this.picture),
      el("div", { class: "nsd-facts" }, ...this.facts),
      this.actions,
    );
  }

  /**
   * @param {Action} action
   * @returns {HTMLButtonElement}
   */
  #button(action) {
    const { name, title } = BUTTONS[action];
    const made = button(name, () => this.index !== null && this.handlers.actions[action](this.index), title);
    made.dataset.do = action;
    return made;
  }

  /** Give the keyboard's focus to the first button. */
  focus() {
    const first = this.actions.querySelector("button:not([hidden]):not(:disabled)");
    if (first instanceof HTMLElement) first.focus();
  }

  /**
   * Show a candidate of a state.
   * @param {State} state
   * @param {number|null} index Null for none.
   */
  draw(state, index) {
    const candidate = index === null ? undefined : state.byIndex.get(index);
    this.index = candidate?.i ?? null;
    setAttribute(this.element, "data-candidate", this.index);
    setAttribute(this.element, "aria-label", candidate ? `candidate ${index}` : "no candidate yet");
    this.#drawButtons(state, candidate);
    show(this.picture, Boolean(candidate?.thumb));
    if (candidate?.thumb) setAttribute(this.picture, "src", this.handlers.thumb(candidate.thumb));
    if (candidate) this.#drawFacts(state, candidate);
    else for (const line of this.facts) setText(line, "");
  }

  /**
   * @param {State} state
   * @param {Candidate} candidate
   */
  #drawFacts(state, candidate) {
    const value = scoreOf(candidate);
    setText(this.title, [`#${candidate.i}`, ...remarks(state, candidate)].join(" · "));
    setText(this.value, value === null ? "no score yet" : (candidate.score === null ? "≈ " : "") + formatScore(value));
    setText(this.gain, gain(state, candidate));
    setText(this.calls, candidate.calls === 1 ? "1 model call" : `${candidate.calls} model calls`);
    setText(this.family, describeFamily(family(state.byIndex, candidate.i)));
    this.#drawParts(state.parts, candidate.scores ?? []);
  }

  /**
   * Show the score of each part of the verifier; nothing where there is only one, which is the score itself.
   * @param {string[]} names
   * @param {(number|null)[]} values
   */
  #drawParts(names, values) {
    const wanted = names.length > 1 ? names.slice(0, values.length) : [];
    const drawn = JSON.stringify([wanted, values]);
    if (drawn === this.drawnParts && this.parts.childElementCount === 2 * wanted.length) return;
    this.drawnParts = drawn;
    const terms = wanted.map((name, i) => [el("dt", { text: name, title: name }), el("dd", { text: formatScore(values[i]) })]);
    this.parts.replaceChildren(...terms.flat());
  }

  /**
   * @param {State} state
   * @param {Candidate|undefined} candidate
   */
  #drawButtons(state, candidate) {
    const possible = candidate ? possibleActions(state, candidate) : [];
    for (const [action, element] of this.buttons) show(element, possible.includes(action));
  }
}

/**
 * @param {State} state
 * @param {Candidate} candidate
 * @returns {Action[]}
 */
function possibleActions(state, candidate) {
  const live = isLive(state);
  const renderable = Boolean(candidate.name ?? candidate.thumb) && candidate.score !== null;
  /** @type {Record<Action, boolean>} */
  const possible = {
    more: live && scoreOf(candidate) !== null && candidate.state !== "discarded",
    discard: live && !isEliminated(candidate),
    use: !live && renderable && candidate.i !== (state.chosen ?? state.best),
    copy: renderable,
    add: !live && renderable,
  };
  return NAMES.filter((action) => possible[action]);
}

/**
 * @param {State} state
 * @param {Candidate} candidate
 * @returns {string[]} What is special about a candidate.
 */
function remarks(state, candidate) {
  const all = [
    candidate.i === state.best && "best", candidate.i === state.chosen && "your choice", candidate.i === 0 && "your seed",
    candidate.state !== "finished" && candidate.state,
  ];
  return all.filter((remark) => remark !== false);
}

/**
 * @param {State} state
 * @param {Candidate} candidate
 * @returns {string} How much better a candidate is than the user's own seed; "" where that is not known.
 */
function gain(state, candidate) {
  if (candidate.score === null || state.baseline === null || candidate.i === 0) return "";
  const more = candidate.score - state.baseline;
  return `${more < 0 ? "−" : "+"}${formatScore(Math.abs(more))} vs your seed`;
}
