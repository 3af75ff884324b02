/** The states of searches, kept up to date by the server's live events. */

/** @typedef {NoiseSearch.State} State */
/** @typedef {NoiseSearch.Candidate} Candidate */

const KEPT = 40; // searches; a page may stay open for weeks
const LOST = "The server no longer has this search. Queue again: what its journal holds is not computed again.";

/** States by search: the server's JSON object, plus `byIndex` (candidates by index) and `received` (ms). */
export class Store {
  /** Start with no search. */
  constructor() {
    /** @type {Map<string, State>} */
    this.states = new Map();
  }

  /** @returns {State[]} All states, the oldest first. */
  all() {
    return [...this.states.values()];
  }

  /**
   * Take a whole state.
   * @param {NoiseSearch.Event|State} state
   * @returns {State} The newest state of this search: this one, or one that is as new and was there already.
   */
  put(state) {
    const known = this.states.get(key(state));
    if (known && known.rev >= state.rev) return known;
    const byIndex = new Map(state.candidates.map((candidate) => [candidate.i, candidate]));
    return this.#keep(withoutChanges({ ...state, byIndex, received: performance.now() }));
  }

  /**
   * Take the server's list; from now on its order is the order of `all`.
   * @param {NoiseSearch.ServerState[]} newestFirst
   */
  putAll(newestFirst) {
    for (const state of newestFirst.toReversed()) {
      const newest = this.put(state);
      this.states.delete(key(state));
      this.states.set(key(state), newest);
    }
  }

  /**
   * Apply a live event: it has only changed candidates, those left out from now on, and the curve from one point on.
   * @param {NoiseSearch.Event} event
   * @returns {State|null} The newest state, or null if events were missed: then the whole state has to be fetched.
   */
  merge(event) {
    const from = event.curve_from ?? 0;
    const known = this.states.get(key(event));
    if (!known) return event.rev === 1 ? this.put(event) : null;
    if (known.rev > event.rev) return known;
    if (event.rev > known.rev + 1 || from > known.curve.length) return null;
    const byIndex = new Map(known.byIndex);
    for (const candidate of event.candidates) byIndex.set(candidate.i, candidate);
    for (const index of event.dropped ?? []) byIndex.delete(index);
    const curve = [...known.curve.slice(0, from), ...event.curve];
    const merged = { ...known, ...event, curve, byIndex, candidates: [...byIndex.values()], received: performance.now() };
    return this.#keep(withoutChanges(merged));
  }

  /**
   * Mark searches that the server no longer has: their last event will never come.
   * @param {State[]} states States of theirs; one that is no longer the newest of its search is left alone.
   */
  markLost(states) {
    for (const state of states) {
      if (this.states.get(key(state)) !== state) continue;
      this.#keep({ ...state, phase: "failed", left: null, question: null, words: LOST });
    }
  }

  /**
   * Delete all states of a search.
   * @param {string} id
   */
  delete(id) {
    for (const [name, state] of this.states) if (state.id === id) this.states.delete(name);
  }

  /**
   * @param {State} state
   * @returns {State}
   */
  #keep(state) {
    this.states.set(key(state), state);
    const [oldest] = this.states.keys();
    if (this.states.size > KEPT) this.states.delete(oldest);
    return state;
  }
}

/**
 * @param {State & {curve_from?: number, dropped?: number[]}} state
 * @returns {State} The state without what only an event has.
 */
function withoutChanges({ curve_from: _from, dropped: _dropped, ...state }) {
  return state;
}

/**
 * One name per search; those of the pictures of a latent batch share their run's id.
 * @param {NoiseSearch.ServerState} state
 * @returns {string}
 */
export function key(state) {
  return `${state.id}:${state.row}`;
}

/**
 * Whether a search still takes commands.
 * @param {State} state
 * @returns {boolean}
 */
export function isLive(state) {
  return ["running", "paused", "asking"].includes(state.phase);
}

/**
 * Whether a candidate can no longer win.
 * @param {Candidate} candidate
 * @returns {boolean}
 */
export function isEliminated(candidate) {
  return ["pruned", "cut off", "discarded"].includes(candidate.state);
}

/**
 * A candidate's score, or that of its latest preview or draft.
 * @param {Candidate} candidate
 * @returns {number|null} Null if there is neither.
 */
export function scoreOf(candidate) {
  return candidate.score ?? candidate.look ?? null;
}

/**
 * Candidates in the order they are shown: finished; drafts and previews; without a score yet; eliminated. In each the best first.
 * @param {State} state
 * @returns {Candidate[]}
 */
export function ranked(state) {
  const value = (/** @type {Candidate} */ candidate) => scoreOf(candidate) ?? -Infinity;
  return [...state.byIndex.values()].sort((a, b) => group(a) - group(b) || compare(value(b), value(a)) || a.i - b.i);
}

/**
 * @param {Candidate} candidate
 * @returns {number}
 */
function group(candidate) {
  if (candidate.state === "finished") return 0;
  if (isEliminated(candidate)) return 4;
  if (scoreOf(candidate) !== null) return 1;
  return candidate.state === "waiting" ? 3 : 2;
}

/**
 * @param {number} a
 * @param {number} b
 * @returns {number}
 */
function compare(a, b) {
  return a < b ? -1 : a > b ? 1 : 0; // a difference would be NaN for two infinities
}
