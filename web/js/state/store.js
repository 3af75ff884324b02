/** What is known of searches, kept up to date by the server's live events. */

const KEPT = 40; // searches; a page may stay open for weeks
const LOST = "the server no longer knows it: queue again, and what is in its journal is not computed again";

/** States by search. A state is the server's JSON object, plus `byIndex` (candidates by index) and `received` (ms). */
export class Store {
  constructor() {
    this.states = new Map();
  }

  /** All states, the oldest first. */
  all() {
    return [...this.states.values()];
  }

  /**
   * Take a whole state.
   * @returns {object} What is now known: the same, or one as new that was there already.
   */
  put(state) {
    const known = this.states.get(key(state));
    if (known && known.rev >= state.rev) return known;
    const byIndex = new Map(state.candidates.map((row) => [row.i, row]));
    const taken = { ...state, byIndex, received: performance.now() };
    delete taken.curve_from;
    delete taken.dropped;
    return this.#keep(taken);
  }

  /** Take the server's list, newest first; from now on its order is the order of `all`. */
  putAll(newestFirst) {
    for (const state of newestFirst.toReversed()) {
      const taken = this.put(state);
      this.states.delete(key(state));
      this.states.set(key(state), taken);
    }
  }

  /**
   * Take a live event: only changed candidates, those no longer told of, and the curve from one point on.
   * @returns {object|null} What is now known, or null if events were missed: then the whole state has to be fetched.
   */
  merge(event) {
    const from = event.curve_from ?? 0;
    const known = this.states.get(key(event));
    if (!known) return event.rev === 1 ? this.put(event) : null;
    if (known.rev > event.rev) return known;
    if (event.rev > known.rev + 1 || from > known.curve.length) return null;
    const byIndex = new Map(known.byIndex);
    for (const row of event.candidates) byIndex.set(row.i, row);
    for (const index of event.dropped ?? []) byIndex.delete(index);
    const curve = [...known.curve.slice(0, from), ...event.curve];
    const merged = { ...known, ...event, curve, byIndex, candidates: [...byIndex.values()], received: performance.now() };
    delete merged.curve_from;
    delete merged.dropped;
    return this.#keep(merged);
  }

  /** Mark searches that the server no longer knows: their last event will never come. */
  lose(states) {
    const lost = { phase: "failed", left: null, question: null, words: LOST };
    for (const state of states) if (this.states.get(key(state)) === state) this.#keep({ ...state, ...lost });
  }

  /** Drop all that is known of a search. */
  forget(id) {
    for (const [name, state] of this.states) if (state.id === id) this.states.delete(name);
  }

  #keep(state) {
    this.states.set(key(state), state);
    if (this.states.size > KEPT) this.states.delete(this.states.keys().next().value);
    return state;
  }
}

/** One name per search; a batch of latents is several under one run. */
export function key(state) {
  return `${state.id}:${state.row}`;
}

/** Whether a search can still be told what to do. */
export function isLive(state) {
  return ["running", "paused", "asking"].includes(state.phase);
}

/** Whether a candidate is out of the race. */
export function isOut(row) {
  return ["pruned", "cut off", "discarded"].includes(row.state);
}

/** A candidate's score, or what a look at it half-way (or a draft of it) gave; null if there is neither. */
export function scoreOf(row) {
  return row.score ?? row.look ?? null;
}

/** Candidates in the order they are shown: finished, drafts and looks, without a score yet, out; in each the best first. */
export function ranked(state) {
  const value = (row) => scoreOf(row) ?? -Infinity;
  const order = (a, b) => group(a) - group(b) || compare(value(b), value(a)) || a.i - b.i;
  return [...state.byIndex.values()].sort(order);
}

function group(row) {
  if (row.state === "finished") return 0;
  if (isOut(row)) return 4;
  if (scoreOf(row) !== null) return 1;
  return row.state === "waiting" ? 3 : 2;
}

function compare(a, b) {
  return a < b ? -1 : a > b ? 1 : 0; // a difference would be NaN for two infinities
}
