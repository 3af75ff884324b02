/** The dashboard: one element that shows a search as it runs, and sends what the user wants of it. */

import { el, setAttribute, show } from "../common/dom.js";
import { mountQuestion } from "../question/question.js";
import { isEliminated, isLive, key, ranked } from "../state/store.js";
import { Card } from "./card.js";
import { ChoiceNote } from "./choice_note.js";
import { Curve } from "./curve.js";
import { Header } from "./header.js";
import { Progress } from "./progress.js";
import { SearchTabs } from "./search_tabs.js";
import { fitText, textFactor } from "./text_size.js";
import { ThumbnailStrip } from "./thumbnail_strip.js";
import { keepFromCanvas, Visibility } from "./visibility.js";

/** @typedef {NoiseSearch.State} State */
/** @typedef {import("./actions.js").Actions} Actions */
/** @typedef {import("../question/question.js").QuestionView} QuestionView */

const EVERY = 200; // ms between two redraws, at least
const IDLE_HEIGHT = 46;
const HEIGHT = 460;
const NARROW = 430; // px of width below which curve and card stand one above the other (as in dashboard.css)
const STACKED_HEIGHT = 90; // px more that this takes
const QUESTION_HEIGHT = 300;

/** One node's dashboard. `element` is put into the node; `show(state)` for every new state; `remove()` at its end. */
export class Dashboard {
  /** @type {Map<string, State>} The searches of the run that is shown, by key. */
  #states = new Map();
  /** @type {string} Key of the search that is shown. */
  #picked = "";
  /** @type {QuestionView|null} */
  #question = null;
  /** @type {ReturnType<typeof setTimeout>|null} The redraw that is due. */
  #waiting = null;
  #drawn = -EVERY; // when it was drawn, by performance.now()
  #stale = false;
  #removed = false;
  #narrow = false;
  #textFactor = 1;

  /** @param {Actions} actions What its buttons do. */
  constructor(actions) {
    this.actions = actions;
    const thumb = (/** @type {string} */ name) => this.#thumb(name);
    this.curve = new Curve();
    this.card = new Card({ thumb, actions: this.#candidateActions(), leave: () => this.strip.focus(this.card.index) });
    this.strip = new ThumbnailStrip({
      thumb, change: () => this.#drawCard(), open: () => this.card.focus(), discard: (index) => this.#discard(index),
    });
    this.tabs = new SearchTabs((name) => this.#pick(name));
    this.header = new Header(this.tabs.element, (command) => this.#send({ command }));
    this.progress = new Progress();
    this.note = new ChoiceNote(() => void (this.state && actions.clearChoice(this.state)));
    this.container = el("div", { class: "nsd-question", hidden: "" });
    this.idle = el("div", { class: "nsd-idle", text: "Queue the workflow to watch the search here." });
    const above = [this.header.element, ...this.progress.elements, this.note.element, this.curve.element];
    this.body = el("div", { class: "nsd-body", hidden: "" }, ...above, this.container, this.strip.element, this.card.element);
    const attributes = { class: "ns-dashboard", role: "region", "aria-label": "noise search", "data-capture-wheel": "true" };
    this.element = el("div", attributes, this.idle, this.body);
    keepFromCanvas(this.element);
    this.visibility = new Visibility(this.element, {
      changed: () => this.schedule(), appeared: () => this.#stale && this.schedule(), second: () => this.#tick(),
    });
  }

  /** @returns {State|null} The search that is shown. */
  get state() {
    return this.#states.get(this.#picked) ?? null;
  }

  /** @returns {number} Height in pixels below which the parts no longer fit. */
  get minHeight() {
    if (!this.state) return IDLE_HEIGHT;
    return HEIGHT + (this.#narrow ? STACKED_HEIGHT : 0) + (this.state.question ? QUESTION_HEIGHT : 0);
  }

  /**
   * Take a new state. One of another run replaces all; those of one run are the pictures of a batch, or a loop's searches.
   * @param {State} state
   */
  show(state) {
    if (this.state?.prompt_id !== state.prompt_id) this.#states.clear();
    const known = this.#states.get(key(state));
    this.#states.set(key(state), state);
    if (!known || (state.question && !known.question)) this.#pick(key(state));
    else this.schedule();
  }

  /** Show nothing: the search was deleted. */
  clear() {
    this.#states.clear();
    this.schedule();
  }

  /** Redraw soon: at most every `EVERY` ms, and not while nobody can see it. */
  schedule() {
    this.#stale = true;
    if (this.#waiting !== null || !this.visibility.isVisible) return;
    const wait = Math.max(0, EVERY - (performance.now() - this.#drawn));
    this.#waiting = setTimeout(() => requestAnimationFrame(() => this.#draw()), wait);
  }

  /** End everything that would outlive the node. */
  remove() {
    if (this.#waiting !== null) clearTimeout(this.#waiting);
    this.#removed = true;
    this.visibility.remove();
    this.#question?.remove();
    this.element.remove();
  }

  #draw() {
    this.#waiting = null;
    if (this.#removed || !this.visibility.isInView) return;
    const { state } = this;
    this.#drawn = performance.now();
    this.#stale = false;
    this.#narrow = this.element.clientWidth < NARROW;
    show(this.idle, !state);
    show(this.body, Boolean(state));
    this.element.style.setProperty("min-height", `${this.minHeight}px`);
    this.#textFactor = fitText(this.element);
    if (state) this.#drawState(state);
  }

  /** @param {State} state */
  #drawState(state) {
    const elapsed = state.phase === "running" ? (performance.now() - state.received) / 1000 : 0;
    this.header.draw(state, elapsed);
    this.progress.draw(state, elapsed);
    this.note.draw(state, this.actions.choice(state));
    this.tabs.draw(this.#states.values(), this.#picked);
    this.#drawQuestion(state);
    this.curve.draw(state);
    this.strip.draw(state, ranked(state));
    this.#drawCard();
    setAttribute(this.element, "data-id", state.id);
    setAttribute(this.element, "data-rev", state.rev);
    setAttribute(this.element, "data-phase", state.phase);
  }

  /** @param {State} state */
  #drawQuestion(state) {
    show(this.container, Boolean(state.question));
    if (!state.question) {
      this.#question?.remove();
      this.#question = null;
    } else if (this.#question) this.#question.update(state);
    else {
      this.#question = mountQuestion(this.container, state, (answer) => this.#send(answer), (name) => this.#thumb(name));
    }
  }

  #drawCard() {
    const { state } = this;
    if (!state) return;
    // A new best must not slip under a finger that is about to press "Discard".
    const held = this.card.element.matches(":hover, :focus-within") ? this.card.index : null;
    this.card.draw(state, this.strip.shown ?? held ?? state.chosen ?? state.best);
  }

  /** @param {string} name Key of the search to show. */
  #pick(name) {
    this.#picked = name;
    this.strip.reset();
    this.schedule();
  }

  /** Redraw what changes without an event: the time, and the zoom of the canvas. */
  #tick() {
    if (this.state?.phase === "running" || this.#textFactor !== textFactor(this.element)) this.schedule();
  }

  /**
   * @param {string} name
   * @returns {string} Address of a thumbnail.
   */
  #thumb(name) {
    return this.state ? this.actions.thumb(this.state, name) : "";
  }

  /** @param {NoiseSearch.Command} command */
  async #send(command) {
    return this.state ? this.actions.send(this.state, command) : false;
  }

  /** @param {number} index */
  #discard(index) {
    const candidate = this.state?.byIndex.get(index);
    if (!this.state || !candidate || !isLive(this.state) || isEliminated(candidate)) return;
    this.#send({ command: "discard", candidate: index });
  }

  /** @returns {Record<import("./card.js").Action, (index: number) => unknown>} */
  #candidateActions() {
    const { actions } = this;
    return {
      more: (index) => this.#send({ command: "more", candidate: index }),
      discard: (index) => this.#discard(index),
      use: (index) => this.state && actions.use(this.state, index),
      copy: (index) => this.state && actions.copy(this.state, index),
      add: (index) => this.state && actions.add(this.state, index),
    };
  }
}
