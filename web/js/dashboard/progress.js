/** How far a search is: a line of text, a bar, and numbers. */

import { el, setAttribute, setText } from "../common/dom.js";
import { formatDuration } from "../common/format.js";
import { isLive } from "../state/store.js";

/** Shows the progress of a search; `elements` are to be put one below the other. */
export class Progress {
  /** Show nothing yet. */
  constructor() {
    this.words = el("div", { class: "nsd-words", "aria-live": "polite" });
    this.done = el("div", { class: "nsd-done" });
    const attributes = { class: "nsd-bar", role: "progressbar", "aria-label": "model calls", "aria-valuemin": 0 };
    this.bar = el("div", attributes, this.done);
    this.numbers = el("div", { class: "nsd-numbers" });
    this.elements = [this.words, this.bar, this.numbers];
  }

  /**
   * Bring it up to date.
   * @param {NoiseSearch.State} state
   * @param {number} elapsed Seconds since the state was received, while the search runs.
   */
  draw(state, elapsed) {
    const { words, stopped, calls, cap, restored, seconds } = state;
    const known = isLive(state) || words.includes(stopped);
    const text = known ? words : [words, stopped].filter(Boolean).join(" · ");
    setText(this.words, text);
    setAttribute(this.words, "title", text);
    const numbers = [`${calls} of ${cap} model calls`];
    if (restored) numbers.push(`${restored} of them restored from the journal`);
    numbers.push(formatDuration(seconds + elapsed));
    setText(this.numbers, numbers.join(" · "));
    setAttribute(this.bar, "aria-valuemax", cap);
    setAttribute(this.bar, "aria-valuenow", calls);
    const share = `${Math.round((1000 * Math.min(calls, cap)) / Math.max(cap, 1)) / 10}%`;
    if (this.done.style.width !== share) this.done.style.width = share;
  }
}
