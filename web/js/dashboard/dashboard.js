/** The dashboard: one element that shows a search as it runs, and says what its user wants of it. Knows nothing of ComfyUI. */

import { Card } from "./card.js";
import { Curve } from "./curve.js";
import { button, duration, el, setAttribute, setText, show } from "../common/dom.js";
import { mountQuestion } from "../question/question.js";
import { isLive, isOut, key, ranked } from "../state/store.js";
import { Strip } from "./thumbnail_strip.js";

export const EVERY = 200; // ms between two redraws, at least
const IDLE_HEIGHT = 46;
const HEIGHT = 460;
const NARROW = 430; // px of width below which curve and card stand one above the other (as in dashboard.css)
const STACKED_HEIGHT = 90; // px more that this takes
const QUESTION_HEIGHT = 300;
const FAR = 1.5; // times larger letters: then only what matters is shown
const PHASES = {
  running: "Searching", paused: "Paused", asking: "Your turn", ended: "Done", failed: "Failed", cancelled: "Cancelled",
};

/** One node's dashboard. `element` is put into the node; `show(state)` for every new state; `remove()` at its end. */
export class Dashboard {
  /** @param {object} actions What the user's wishes lead to: see actions.js. */
  constructor(actions) {
    this.actions = actions;
    this.states = new Map();
    this.state = null;
    this.curve = new Curve();
    this.card = new Card({
      ...this.#candidateActions(),
      thumb: (name) => this.#thumb(name),
      leave: () => this.strip.focus(this.card.index),
    });
    this.strip = new Strip({
      thumb: (name) => this.#thumb(name),
      hover: () => this.#drawCard(),
      select: () => this.#drawCard(),
      open: () => this.card.focus(),
      discard: (index) => this.#discard(index),
    });
    this.#build();
    this.#watch();
  }

  /** Height in pixels below which the parts no longer fit. */
  get minHeight() {
    if (!this.state) return IDLE_HEIGHT;
    return HEIGHT + (this.narrow ? STACKED_HEIGHT : 0) + (this.state.question ? QUESTION_HEIGHT : 0);
  }

  /** Take a new state. One of another run replaces all; those of one run are the pictures of a batch, or a loop's searches. */
  show(state) {
    if (this.state?.prompt_id !== state.prompt_id) this.states.clear();
    const known = this.states.get(key(state));
    this.states.set(key(state), state);
    if (!known || (state.question && !known.question)) {
      this.picked = key(state);
      this.strip.reset();
    }
    this.state = this.states.get(this.picked);
    this.schedule();
  }

  /** Show nothing: the search was forgotten. */
  clear() {
    this.states.clear();
    this.state = null;
    this.schedule();
  }

  /** Redraw soon: at most every `EVERY` ms, and not while nobody can see it. */
  schedule() {
    this.stale = true;
    if (this.waiting || !this.visible || document.hidden) return;
    const wait = Math.max(0, EVERY - (performance.now() - (this.drawn ?? -EVERY)));
    this.waiting = setTimeout(() => requestAnimationFrame(() => this.#draw()), wait);
  }

  /** Let go of everything that would outlive the node. */
  remove() {
    clearTimeout(this.waiting);
    clearInterval(this.clock);
    this.removed = true;
    this.sizes.disconnect();
    this.sight.disconnect();
    document.removeEventListener("visibilitychange", this.awake);
    this.question?.remove();
    this.element.remove();
  }

  #build() {
    this.phase = el("span", { class: "nsd-phase" });
    this.words = el("div", { class: "nsd-words", "aria-live": "polite" });
    this.pause = button("Pause", () => this.#command(this.state.phase === "paused" ? "resume" : "pause", this.pause));
    const title = "End the search here; the workflow goes on with the best so far";
    this.finish = button("Keep best & finish", () => this.#command("finish", this.finish), title);
    this.finish.classList.add("nsd-primary");
    this.tabs = el("div", { class: "nsd-tabs", role: "group", "aria-label": "searches of this run" });
    this.numbers = el("div", { class: "nsd-numbers" });
    this.bar = el("div", { class: "nsd-bar", role: "progressbar", "aria-label": "model calls", "aria-valuemin": 0 });
    this.done = el("div", { class: "nsd-done" });
    this.bar.append(this.done);
    this.noteText = el("span");
    this.noteButton = button("", () => this.actions.clearChoice(this.state));
    this.note = el("div", { class: "nsd-note", hidden: "" }, this.noteText, this.noteButton);
    this.container = el("div", { class: "nsd-question", hidden: "" });
    this.left = el("span", { class: "nsd-left" });
    this.head = el("div", { class: "nsd-head" }, this.phase, this.left, this.tabs, this.pause, this.finish);
    this.idle = el("div", { class: "nsd-idle", text: "Queue the workflow to watch the search here." });
    const above = [this.head, this.words, this.bar, this.numbers, this.note];
    const parts = [...above, this.curve.element, this.container, this.strip.element, this.card.element];
    this.body = el("div", { class: "nsd-body" }, ...parts);
    const named = { class: "ns-dashboard", role: "region", "aria-label": "noise search", "data-capture-wheel": "true" };
    this.element = el("div", named, this.idle, this.body);
    show(this.body, false);
  }

  /** Keep the canvas from taking what is meant for the dashboard, and follow size, sight and time. */
  #watch() {
    const interactive = "button, .nsd-strip, .nsd-curve, .nsd-question, .nsd-picture";
    const stop = (event) => event.target.closest(interactive) && event.stopPropagation();
    const kinds = ["pointerdown", "pointerup", "pointermove", "mousedown", "click", "dblclick"];
    for (const kind of kinds) this.element.addEventListener(kind, stop);
    // Delete would delete the node, Space would grab the canvas; shortcuts with Ctrl are ComfyUI's.
    this.element.addEventListener("keydown", (event) => event.ctrlKey || event.metaKey || event.stopPropagation());
    this.element.addEventListener("wheel", (event) => this.#wheel(event), { passive: true });
    this.sizes = new ResizeObserver(() => this.schedule());
    this.sizes.observe(this.element);
    this.sight = new IntersectionObserver((entries) => this.#seen(entries.at(-1).isIntersecting));
    this.sight.observe(this.element);
    this.awake = () => this.stale && this.schedule();
  }

  /** Follow time only while it is in the page: graphs that are replaced do not say goodbye to the nodes in their subgraphs. */
  #seen(visible) {
    this.visible = visible;
    clearInterval(this.clock);
    document.removeEventListener("visibilitychange", this.awake);
    if (!visible) return;
    this.clock = setInterval(() => this.#tick(), 1000);
    document.addEventListener("visibilitychange", this.awake);
    if (this.stale) this.schedule();
  }

  /** The strip scrolls under the mouse; anywhere else, and where there is nothing to scroll, the canvas zooms. */
  #wheel(event) {
    const area = event.target.closest(".nsd-strip, .nsd-question");
    if (area && area.scrollHeight > area.clientHeight && !event.ctrlKey && !event.metaKey) event.stopPropagation();
  }

  #draw() {
    this.waiting = null;
    if (this.removed || !this.visible) return;
    this.drawn = performance.now();
    this.stale = false;
    this.narrow = this.element.clientWidth < NARROW;
    show(this.idle, !this.state);
    show(this.body, Boolean(this.state));
    this.element.style.setProperty("min-height", `${this.minHeight}px`);
    this.#fitText();
    if (!this.state) return;
    this.#drawHead();
    this.#drawNumbers();
    this.#drawNote();
    this.#drawTabs();
    this.#drawQuestion();
    this.curve.draw(this.state);
    this.strip.draw(this.state, ranked(this.state));
    this.#drawCard();
    for (const name of ["id", "rev", "phase"]) setAttribute(this.element, `data-${name}`, this.state[name]);
  }

  /** Larger letters when the canvas is zoomed out. */
  #fitText() {
    this.textFactor = this.#wantedFactor();
    this.element.style.setProperty("--nsd-text", this.textFactor);
    setAttribute(this.element, "data-far", this.textFactor >= FAR ? "" : null);
    setAttribute(this.element, "data-light", isDark(getComputedStyle(this.element).color) ? "" : null);
  }

  #wantedFactor() {
    const zoom = this.element.getBoundingClientRect().width / this.element.offsetWidth || 1;
    return Math.min(2, Math.max(1, Math.round((0.7 / zoom) * 4) / 4));
  }

  #drawHead() {
    const { phase, words, stopped } = this.state;
    const live = isLive(this.state);
    setText(this.phase, PHASES[phase] ?? phase);
    const told = live || words.includes(stopped) ? words : [words, stopped].filter(Boolean).join(" · ");
    setText(this.words, told);
    setAttribute(this.words, "title", told);
    show(this.pause, live);
    show(this.finish, live);
    setText(this.pause, phase === "paused" ? "Resume" : "Pause");
  }

  #drawNumbers() {
    const { calls, cap, restored, left } = this.state;
    const live = this.state.phase === "running";
    const gone = live ? (performance.now() - this.state.received) / 1000 : 0;
    const all = [`${calls} of ${cap} model calls`];
    if (restored) all.push(`${restored} of them restored from the journal`);
    all.push(duration(this.state.seconds + gone));
    setText(this.left, isLive(this.state) && left !== null ? `about ${duration(left - gone)} left` : "");
    setText(this.numbers, all.join(" · "));
    setAttribute(this.bar, "aria-valuemax", cap);
    setAttribute(this.bar, "aria-valuenow", calls);
    const share = `${Math.round((1000 * Math.min(calls, cap)) / Math.max(cap, 1)) / 10}%`;
    if (this.done.style.width !== share) this.done.style.width = share;
  }

  /** What the node's `choose` input means for this search. */
  #drawNote() {
    const { chosen, best } = this.state;
    const told = Boolean(this.actions.choice(this.state)) && !isLive(this.state); // before the end, it may still come up
    show(this.note, told);
    if (!told) return;
    setText(this.noteButton, chosen === null ? "Clear the choice" : "Back to best");
    if (chosen === null) setText(this.noteText, "The chosen candidate is not among these: the output is the best.");
    else setText(this.noteText, `The output is #${chosen}, your choice${chosen === best ? "" : `; the best is #${best}`}.`);
  }

  /** A batch of latents is one search per picture, and a loop is one for each turn, the newest first: a button for each. */
  #drawTabs() {
    const states = [...this.states.values()].sort((a, b) => numberOf(b) - numberOf(a) || a.row - b.row);
    const turns = new Set(states.map(numberOf)).size > 1;
    show(this.tabs, states.length > 1);
    while (this.tabs.childElementCount > states.length) this.tabs.lastChild.remove();
    states.forEach((state, place) => {
      const tab = this.tabs.children[place] ?? this.tabs.appendChild(button("", () => this.#pick(tab.dataset.key)));
      tab.dataset.key = key(state);
      const picture = state.rows > 1 || !turns ? `picture ${state.row + 1} of ${state.rows}` : "";
      setText(tab, [turns && numberOf(state), picture && state.row + 1].filter(Boolean).join("."));
      setAttribute(tab, "aria-label", [turns && `search ${numberOf(state)}`, picture].filter(Boolean).join(", "));
      setAttribute(tab, "data-phase", state.phase);
      setAttribute(tab, "aria-pressed", key(state) === this.picked);
    });
  }

  #pick(name) {
    this.picked = name;
    this.state = this.states.get(name);
    this.strip.reset();
    this.schedule();
  }

  #drawQuestion() {
    const asked = Boolean(this.state.question);
    show(this.container, asked);
    if (asked && !this.question) {
      const send = (body) => this.actions.send(this.state, body);
      this.question = mountQuestion(this.container, this.state, send, (name) => this.#thumb(name));
    } else if (asked) this.question.update(this.state);
    else if (this.question) {
      this.question.remove();
      this.question = null;
    }
  }

  #drawCard() {
    if (!this.state) return;
    // A new best must not slip under a finger that is about to press "Discard".
    const held = this.card.element.matches(":hover, :focus-within") ? this.card.index : null;
    this.card.draw(this.state, this.strip.shown ?? held ?? this.state.chosen ?? this.state.best);
  }

  /** Seconds go by, and the canvas is zoomed, without an event. */
  #tick() {
    if (!this.state || !this.visible || document.hidden) return;
    if (this.state.phase === "running" || this.textFactor !== this.#wantedFactor()) this.schedule();
  }

  async #command(command, pressed) {
    pressed.disabled = true;
    await this.actions.send(this.state, { command });
    pressed.disabled = false;
  }

  #discard(index) {
    const row = this.state.byIndex.get(index);
    if (isLive(this.state) && row && !isOut(row)) this.actions.send(this.state, { command: "discard", candidate: index });
  }

  #candidateActions() {
    const { actions } = this;
    return {
      more: (index) => actions.send(this.state, { command: "more", candidate: index }),
      discard: (index) => this.#discard(index),
      use: (index) => actions.use(this.state, index),
      copy: (index) => actions.copy(this.state, index),
      add: (index) => actions.add(this.state, index),
    };
  }

  #thumb(name) {
    return this.actions.thumb(this.state, name);
  }
}

/** Whether a color, "rgb(...)", is dark: dark letters tell a light theme, which newer frontends mark by no class. */
function isDark(color) {
  const [red, green, blue] = /^rgb/.test(color) ? color.match(/[\d.]+/g).map(Number) : [255, 255, 255];
  return 0.3 * red + 0.6 * green + 0.1 * blue < 128;
}

/** The how-manieth run of its node in one prompt a search belongs to. */
function numberOf(state) {
  return state.number ?? 1;
}
