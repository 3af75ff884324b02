/** Follows the searches of this page: by the server's live events, and by asking the server where events may have been missed. */

import { messageOf } from "../common/format.js";
import { api } from "../comfyui/page.js";
import { getRoute } from "../comfyui/server.js";
import { isLive, Store } from "../state/store.js";

/** @typedef {NoiseSearch.State} State */

/** The states of searches, and what brings them up to date. */
export class LiveSearches {
  /** @type {Map<string, number>} Revision that is to be fetched, by search. */
  #fetching = new Map();

  /** @param {(states: State[]) => void} changed Called with all states, the oldest first, when one is new. */
  constructor(changed) {
    this.store = new Store();
    this.changed = () => changed(this.store.all());
  }

  /**
   * Apply a live event.
   * @param {NoiseSearch.Event} event
   */
  apply(event) {
    if (this.store.merge(event)) this.changed();
    else void this.#fetch(event.id, event.rev);
  }

  /**
   * Take what nodes showed after a run: live, from the history, or of a workflow tab that is open again.
   * @param {(Comfy.NodeOutput|undefined)[]} outputs
   */
  takeOutputs(outputs) {
    const states = outputs.flatMap((output) => output?.noise_search ?? []);
    if (!states.length) return;
    states.forEach((state) => this.store.put(state));
    this.changed();
  }

  /** Ask the server for this page's searches: after a reload, or when events may have been missed. */
  async refresh() {
    this.changed();
    const client = api.clientId ?? api.initialClientId;
    if (!client) return;
    try {
      const before = this.store.all().filter(isLive);
      const response = await getRoute(`/searches?client_id=${encodeURIComponent(client)}`);
      /** @type {NoiseSearch.ServerState[]} */
      const listed = await response.json();
      this.store.markLost(before.filter(({ id }) => !listed.some((state) => state.id === id)));
      this.store.putAll(listed);
      this.changed();
    } catch (error) {
      console.warn(`Noise Search: searches of before the reload are not shown: ${messageOf(error)}`);
    }
  }

  /**
   * Fetch the whole state of a search whose events were missed.
   * @param {string} id
   * @param {number} rev The least revision that is wanted.
   */
  async #fetch(id, rev) {
    const busy = this.#fetching.has(id);
    this.#fetching.set(id, rev);
    if (busy) return;
    try {
      await this.#fetchUntilNewest(id);
      this.changed();
    } catch (error) {
      console.warn(`Noise Search: search ${id} is not shown: ${messageOf(error)}`);
    } finally {
      this.#fetching.delete(id);
    }
  }

  /** @param {string} id */
  async #fetchUntilNewest(id) {
    const wanted = () => this.#fetching.get(id) ?? 0;
    for (;;) {
      const before = wanted();
      const { rev } = this.store.put(await (await getRoute(`/searches/${encodeURIComponent(id)}`)).json());
      if (wanted() <= Math.max(before, rev)) return; // else more events came while the answer was on its way
    }
  }
}
