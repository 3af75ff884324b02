/** The first line of a dashboard: what the search does, the time left, and the buttons for the search as a whole. */

import { button, el, setText, show } from "../common/dom.js";
import { formatDuration } from "../common/format.js";
import { isLive } from "../state/store.js";

/** @typedef {NoiseSearch.State} State */

/** @type {Record<NoiseSearch.Phase, string>} */
const PHASES = {
  running: "Searching", paused: "Paused", asking: "Your turn", ended: "Done", failed: "Failed", cancelled: "Cancelled",
};
const FINISH = "End the search now; the workflow continues with the best candidate so far";

/** Shows the phase of a search; `element` is to be put somewhere. */
export class Header {
  /**
   * @param {HTMLElement} tabs What stands before the buttons.
   * @param {(command: "pause"|"resume"|"finish") => Promise<unknown>} send Called when a button is pressed.
   */
  constructor(tabs, send) {
    this.phase = el("span", { class: "nsd-phase" });
    this.left = el("span", { class: "nsd-left" });
    this.paused = false;
    this.pause = button("Pause", () => this.#press(this.pause, () => send(this.paused ? "resume" : "pause")));
    this.finish = button("Keep best & finish", () => this.#press(this.finish, () => send("finish")), FINISH);
    this.finish.classList.add("nsd-primary");
    this.element = el("div", { class: "nsd-head" }, this.phase, this.left, tabs, this.pause, this.finish);
  }

  /**
   * Bring it up to date.
   * @param {State} state
   * @param {number} elapsed Seconds since the state was received, while the search runs.
   */
  draw(state, elapsed) {
    const live = isLive(state);
    this.paused = state.phase === "paused";
    setText(this.phase, PHASES[state.phase] ?? state.phase);
    setText(this.left, live && state.left !== null ? `about ${formatDuration(state.left - elapsed)} left` : "");
    show(this.pause, live);
    show(this.finish, live);
    setText(this.pause, this.paused ? "Resume" : "Pause");
  }

  /**
   * @param {HTMLButtonElement} pressed Disabled until the server has answered.
   * @param {() => Promise<unknown>} send
   */
  async #press(pressed, send) {
    pressed.disabled = true;
    await send();
    pressed.disabled = false;
  }
}
