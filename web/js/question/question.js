/**
 * A question to the person: pictures side by side, picked with the mouse or the keys. Draws into an element from the state of a
 * search. Depends on neither ComfyUI nor the network: the dashboard, a dialog or a test can show it. Its style is question.css.
 */

import { el } from "../common/dom.js";
import { messageOf } from "../common/format.js";
import { PictureGrid } from "./picture_grid.js";

/** @typedef {NoiseSearch.State} State */
/** @typedef {NoiseSearch.Question} Question */
/** @typedef {(answer: NoiseSearch.Answer) => unknown} Send */
/** @typedef {Partial<Pick<State, "question"|"candidates"|"received">>} Asking What is read of a state. */

const TICK = 250; // milliseconds

/**
 * Show the questions of a search in an element.
 * @param {HTMLElement} container Where.
 * @param {Asking} state Of the search, with `question` and `candidates`.
 * @param {Send} send Posts an answer; may return a promise. An error, or false, means that the answer was not accepted.
 * @param {(name: string) => string} thumbUrl Address of a thumbnail, by its name.
 * @returns {QuestionView}
 */
export function mountQuestion(container, state, send, thumbUrl) {
  return new QuestionView(container, send, thumbUrl).update(state);
}

/** Shows the question of a search, if there is one, and sends the answer. */
export class QuestionView {
  /** @type {Question|null} */
  #question = null;
  /** @type {number[]|null} Candidates in the order they were clicked; null while one is to be picked. */
  #ranking = null;
  #sent = false;
  /** @type {number|null} When the time to answer ends, by performance.now(). */
  #deadline = null;
  /** @type {ReturnType<typeof setInterval>|undefined} */
  #timer;

  /**
   * @param {HTMLElement} container
   * @param {Send} send
   * @param {(name: string) => string} thumbUrl
   */
  constructor(container, send, thumbUrl) {
    this.send = send;
    this.grid = new PictureGrid((index) => this.#pick(index), thumbUrl);
    this.title = el("span", { class: "ns-title" });
    this.left = el("span", { class: "ns-left", role: "timer" });
    this.note = el("span", { class: "ns-note", role: "status" });
    const rankTitle = "Put several in order instead of picking one (R)";
    this.rank = commandButton("Rank", rankTitle, () => this.#toggleRanking());
    this.done = commandButton("Done", "Send the order", () => this.#answer({ ranking: this.#ranking ?? [] }));
    this.bad = commandButton("All bad", "None of these is good enough (0)", () => this.#answer({ ranking: [] }));
    this.large = commandButton("Enlarge", "Show them as large as the window (E)", () => this.#enlarge(!this.#isLarge));
    this.model = commandButton("Let the model take over", "", () => this.#answer({ take_over: true }));
    this.sizes = new ResizeObserver(() => this.grid.layOut()); // observes while the question fills the window
    this.root = el(
      "section",
      { class: "ns-choice", "aria-label": "Your choice" },
      el("div", { class: "ns-row" }, this.title, this.left),
      this.grid.element,
      el("div", { class: "ns-row" }, this.rank, this.done, this.bad, this.large, this.model, this.note),
    );
    this.large.hidden = !this.root.showPopover; // older browsers
    container.append(this.root);
    this.root.addEventListener("keydown", (event) => this.#key(event));
    // The graph below must not be dragged, nor its keys pressed, by what is meant for the question.
    for (const type of ["pointerdown", "dblclick"]) this.root.addEventListener(type, (event) => event.stopPropagation());
  }

  /**
   * Show the question of a new state, or none.
   * @param {Asking} state
   * @returns {this}
   */
  update(state) {
    const question = state?.question ?? null;
    this.root.hidden = !question;
    if (!question) {
      this.#clear();
      return this;
    }
    if (question.id !== this.#question?.id) this.#show(question, state.candidates ?? []);
    this.#question = question;
    const { seconds_left } = question;
    this.#deadline = seconds_left == null ? null : (state.received ?? performance.now()) + 1000 * seconds_left;
    this.#refresh(question);
    return this;
  }

  /** Remove it from the page. */
  remove() {
    this.#clear();
    this.root.remove();
  }

  #clear() {
    clearInterval(this.#timer);
    this.#enlarge(false);
    this.#timer = undefined;
    this.#question = null;
    this.grid.clear();
  }

  /**
   * @param {Question} question A new one.
   * @param {NoiseSearch.Candidate[]} candidates
   */
  #show(question, candidates) {
    const hadFocus = this.root.contains(document.activeElement);
    this.#ranking = null;
    this.#sent = false;
    this.#say("");
    this.grid.show(question, candidates);
    if (this.#isLarge) this.grid.layOut();
    if (hadFocus) this.grid.focus();
  }

  get #isLarge() {
    return this.root.popover !== undefined && this.root.matches(":popover-open");
  }

  /**
   * Fill the window, above everything, whatever the node's size and the graph's zoom; or go back into the node.
   * @param {boolean} on
   */
  #enlarge(on) {
    if (!this.root.showPopover || on === this.#isLarge) return;
    const focused = document.activeElement;
    if (on) {
      this.root.popover = "manual";
      this.root.showPopover();
      this.sizes.observe(this.grid.element);
    } else {
      this.sizes.disconnect();
      this.root.hidePopover();
      this.root.removeAttribute("popover");
      this.grid.resetLayout();
    }
    this.large.textContent = on ? "Shrink" : "Enlarge";
    if (focused instanceof HTMLElement && this.root.contains(focused)) focused.focus();
  }

  /** @param {number} index A candidate whose picture was clicked. */
  #pick(index) {
    if (!this.#ranking) {
      this.#answer({ ranking: [index] });
      return;
    }
    const place = this.#ranking.indexOf(index);
    if (place < 0) this.#ranking.push(index);
    else this.#ranking.splice(place, 1);
    if (this.#question) this.#refresh(this.#question);
  }

  #toggleRanking() {
    this.#ranking = this.#ranking ? null : [];
    if (this.#question) this.#refresh(this.#question);
  }

  /** @param {{ranking: number[]}|{take_over: true}} answer */
  async #answer(answer) {
    const question = this.#question;
    if (this.#sent || !question) return;
    this.#sent = true;
    this.#say("The search continues.");
    this.#refresh(question);
    try {
      const accepted = await this.send({ command: "answer", question: question.id, ...answer });
      if (accepted === false) this.#reopen(question, "The answer was not accepted.");
    } catch (error) {
      this.#reopen(question, messageOf(error));
    }
  }

  /**
   * Let a question that is still open be answered again.
   * @param {Question} asked The question whose answer was not accepted.
   * @param {string} why
   */
  #reopen(asked, why) {
    if (this.#question?.id !== asked.id) return;
    this.#sent = false;
    this.#say(why, true);
    this.#refresh(this.#question);
  }

  /**
   * @param {string} text
   * @param {boolean} [isError]
   */
  #say(text, isError = false) {
    this.note.textContent = text;
    this.note.classList.toggle("ns-error", isError);
  }

  /**
   * Bring everything but the pictures up to date.
   * @param {Question} question
   */
  #refresh(question) {
    const ranking = this.#ranking;
    const title = ranking ? "Click them in order, best first" : "Which is the best?";
    this.title.textContent = title;
    this.grid.element.setAttribute("aria-label", title);
    for (const each of [this.rank, this.bad, this.model]) each.disabled = this.#sent;
    this.grid.refresh(ranking, this.#sent);
    this.rank.setAttribute("aria-pressed", String(Boolean(ranking)));
    this.done.hidden = !ranking;
    this.done.disabled = this.#sent || !ranking?.length;
    this.model.hidden = !question.model_ready;
    this.model.title = question.accuracy ? `The model of your choices answers from now on: ${question.accuracy}` : "";
    if (!this.note.textContent && question.model_ready) this.#say(`The model of your choices: ${question.accuracy}`);
    this.#tick();
    clearInterval(this.#timer);
    this.#timer = this.#deadline === null ? undefined : setInterval(() => this.#tick(), TICK);
  }

  #tick() {
    const left = this.#deadline === null ? null : Math.max(0, Math.ceil((this.#deadline - performance.now()) / 1000));
    const text = left === null ? "" : `${left} s left`;
    if (this.left.textContent !== text) this.left.textContent = text;
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    event.stopPropagation();
    if (event.ctrlKey || event.metaKey || event.altKey || this.#sent || !this.#question) return;
    if (this.#act(event.key)) event.preventDefault();
  }

  /**
   * Do what a key stands for.
   * @param {string} key
   * @returns {boolean} Whether it stands for anything.
   */
  #act(key) {
    if (/^[1-9]$/.test(key)) return this.grid.click(Number(key) - 1);
    if (key === "0") this.bad.click();
    else if (key.toLowerCase() === "r") this.#toggleRanking();
    else if (key.toLowerCase() === "e") this.#enlarge(!this.#isLarge);
    else if (key === "Escape" && this.#isLarge) this.#enlarge(false);
    else if (key === "ArrowLeft") this.grid.moveFocus(-1);
    else if (key === "ArrowRight") this.grid.moveFocus(1);
    else if (key === "ArrowUp") this.grid.moveFocus(-this.grid.columns());
    else if (key === "ArrowDown") this.grid.moveFocus(this.grid.columns());
    else return false;
    return true;
  }
}

/**
 * @param {string} text
 * @param {string} title Its tooltip.
 * @param {() => unknown} onclick
 * @returns {HTMLButtonElement}
 */
function commandButton(text, title, onclick) {
  return el("button", { type: "button", text, title, onclick });
}
