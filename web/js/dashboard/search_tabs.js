/** A button for each search of a run: one per picture of a latent batch, one per turn of a loop (the newest first). */

import { button, el, setAttribute, setText, show } from "../common/dom.js";
import { key } from "../state/store.js";

/** @typedef {NoiseSearch.State} State */

/** Shows the searches of a run; `element` is to be put somewhere. */
export class SearchTabs {
  /** @param {(name: string) => void} pick Called with the key of the search whose button is pressed. */
  constructor(pick) {
    this.pick = pick;
    this.element = el("div", { class: "nsd-tabs", role: "group", "aria-label": "searches of this run" });
    /** @type {HTMLButtonElement[]} */
    this.tabs = [];
  }

  /**
   * Bring them up to date; a single search has no button.
   * @param {Iterable<State>} searches Of the run, in any order.
   * @param {string} picked Key of the one that is shown.
   */
  draw(searches, picked) {
    const states = [...searches].sort((a, b) => turnOf(b) - turnOf(a) || a.row - b.row);
    const isLoop = new Set(states.map(turnOf)).size > 1;
    show(this.element, states.length > 1);
    for (const tab of this.tabs.splice(states.length)) tab.remove();
    states.forEach((state, place) => {
      const tab = this.tabs[place] ?? this.#add();
      drawTab(tab, state, isLoop);
      setAttribute(tab, "aria-pressed", key(state) === picked);
    });
  }

  /** @returns {HTMLButtonElement} */
  #add() {
    const tab = button("", () => this.pick(tab.dataset.key ?? ""));
    this.tabs.push(tab);
    this.element.append(tab);
    return tab;
  }
}

/**
 * @param {HTMLButtonElement} tab
 * @param {State} state
 * @param {boolean} isLoop Whether the run has several turns.
 */
function drawTab(tab, state, isLoop) {
  const isBatch = state.rows > 1 || !isLoop;
  const names = [isLoop && `search ${turnOf(state)}`, isBatch && `picture ${state.row + 1} of ${state.rows}`];
  const numbers = [isLoop && turnOf(state), isBatch && state.row + 1];
  tab.dataset.key = key(state);
  setText(tab, numbers.filter(Boolean).join("."));
  setAttribute(tab, "aria-label", names.filter(Boolean).join(", "));
  setAttribute(tab, "data-phase", state.phase);
}

/**
 * @param {State} state
 * @returns {number} Of its node's runs within one prompt, which one the search belongs to: from 1.
 */
function turnOf(state) {
  return state.number ?? 1;
}
