/** A note that the node puts out a candidate which the user chose, not the best one. */

import { button, el, setText, show } from "../common/dom.js";
import { isLive } from "../state/store.js";

/** Says what the node's input `choose` means for a search; `element` is to be put somewhere. */
export class ChoiceNote {
  /** @param {() => void} clear Called when the choice is to be cleared. */
  constructor(clear) {
    this.text = el("span");
    this.button = button("", clear);
    this.element = el("div", { class: "nsd-note", hidden: "" }, this.text, this.button);
  }

  /**
   * Bring it up to date.
   * @param {NoiseSearch.State} state
   * @param {string} choice The recipe that is chosen; "" for none.
   */
  draw(state, choice) {
    const visible = Boolean(choice) && !isLive(state); // before the end, the chosen candidate may still be found
    show(this.element, visible);
    if (!visible) return;
    const { chosen, best } = state;
    setText(this.button, chosen === null ? "Clear the choice" : "Back to best");
    if (chosen === null) setText(this.text, "The chosen candidate is not in this search: the output is the best candidate.");
    else setText(this.text, `The output is #${chosen}, your choice${chosen === best ? "" : `; the best is #${best}`}.`);
  }
}
