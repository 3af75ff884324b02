/** Recipes of candidates. Does not depend on ComfyUI. */

/** @typedef {NoiseSearch.Recipe | NoiseSearch.Recipe[]} Recipes A recipe, or those of a latent batch. */

/**
 * What it takes to render a recipe again.
 * @param {Recipes} recipe
 * @returns {"stock"|"noise"|"render"} "stock": its seed; "noise": noise of its own; "render": the node Render Candidate, since
 *   its run branched, or its noise is the connected one's.
 */
export function recipeKind(recipe) {
  const all = [recipe].flat();
  if (!all.length || !all.every((each) => each?.noise_search === 1)) {
    throw new Error("this is not a recipe of this version of Noise Search");
  }
  if (all.some((each) => each.cuts?.length || /^given(@|$)/.test(each.noise))) return "render";
  const [first] = all;
  const plain = all.length === 1 && !first.moves?.length && first.noise === first.seed && isSafeSeed(first.seed);
  return plain ? "stock" : "noise";
}

/**
 * Whether any recipe has a text embedding of its own.
 * @param {Recipes} recipe
 * @returns {boolean}
 */
export function isJittered(recipe) {
  return [recipe].flat().some((each) => each.jitter);
}

/**
 * Whether a seed, which is written as text, is a number that JavaScript does not round.
 * @param {unknown} seed
 * @returns {boolean}
 */
export function isSafeSeed(seed) {
  return typeof seed === "string" && /^\d+$/.test(seed) && Number.isSafeInteger(Number(seed));
}

/**
 * The seed of a recipe's first run.
 * @param {Recipes} recipe
 * @returns {string}
 */
export function firstSeed(recipe) {
  return [recipe].flat()[0].seed;
}

/**
 * The step seed of a recipe's last run: after its last branch point, if it has any.
 * @param {Recipes} recipe
 * @returns {string}
 */
export function stepSeed(recipe) {
  const [first] = [recipe].flat();
  return first.cuts?.at(-1)?.seed ?? first.seed;
}
