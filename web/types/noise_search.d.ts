/** What the server sends of searches (JSON), and what the page keeps of them. */

declare namespace NoiseSearch {
  type Phase = "running" | "paused" | "asking" | "ended" | "failed" | "cancelled";

  type CandidateState = "waiting" | "running" | "draft" | "finished" | "pruned" | "cut off" | "discarded";

  interface Candidate {
    i: number; // index
    parent: number | null;
    state: CandidateState;
    score: number | null;
    scores: (number | null)[]; // by part of the verifier
    calls: number; // of the model
    look: number | null; // score of its latest preview or draft
    thumb: string | null; // name of its thumbnail and recipe
    name?: string; // name of its recipe where there is no thumbnail
  }

  /** A question to the person: which of these candidates is the best? */
  interface Question {
    id: string;
    kind: "pick";
    candidates: number[];
    best: number | null;
    seconds_left: number | null;
    asked: number;
    model_ready: boolean; // whether the model of the person's choices may answer
    accuracy: string; // of that model, as a sentence
  }

  /** A point of the curve: model calls, best score. */
  type CurvePoint = [number, number];

  /** A search as the server sends it. */
  interface ServerState {
    version: number;
    id: string;
    rev: number; // goes up by 1 with each event
    node: string; // execution id of its node
    search: string; // what tells it from the other searches of its prompt
    number?: number; // of this run of its node within the prompt, from 1
    workflow: string | null;
    prompt_id: string | null;
    place: string; // where its thumbnails and recipes are found
    phase: Phase;
    row: number; // of the latent batch
    rows: number;
    words: string; // what it does now
    stopped: string; // why it ended; "" while it runs
    method: string;
    verifier: string;
    parts: string[]; // of the verifier
    calls: number; // of the model, so far
    cap: number; // model calls at most
    restored: number; // model calls whose results came from the journal
    seconds: number; // that it has run
    left: number | null; // seconds, estimated
    best: number | null; // candidate
    chosen: number | null; // candidate that the node puts out in place of the best
    baseline: number | null; // score of the user's own seed
    budget: number; // whole images
    curve: CurvePoint[];
    candidates: Candidate[];
    question: Question | null;
  }

  /** A change of a search: changed candidates only, the indices of those left out from now on, and the curve from a point on. */
  interface Event extends ServerState {
    curve_from?: number;
    dropped?: number[];
  }

  /** A search as the page keeps it. */
  interface State extends ServerState {
    byIndex: Map<number, Candidate>;
    received: number; // performance.now() of its latest event
  }

  /** What the server is told of a search. */
  type Command =
    | { command: "pause" | "resume" | "finish" }
    | { command: "more" | "discard"; candidate: number }
    | Answer;

  type Answer = { command: "answer"; question: string } & ({ ranking: number[] } | { take_over: true });

  /** What makes a candidate again: see the documentation of recipes. */
  interface Recipe {
    noise_search: number; // version
    noise: string; // a seed, "given", or "given@" and a seed
    seed: string; // of the steps
    moves?: unknown[];
    cuts?: { seed: string }[];
    jitter?: unknown;
  }

  /** What a search found, as its node and saved pictures carry it. */
  interface Summary {
    recipe?: Recipe | Recipe[];
    sigmas?: number[];
    kept?: Partial<Summary>[]; // of each kept candidate, the best first
  }
}
