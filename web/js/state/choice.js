/**
 * The input `choose` of a search node: nothing, for the best; a recipe, for whatever search has it; or recipes by the names of
 * searches, where a node searches several times in one run (in a loop, or for a batch). Does not depend on ComfyUI.
 */

/**
 * The recipe that is chosen for a search.
 * @param {string} text What the input holds.
 * @param {string} search The search's name.
 * @returns {string} The recipe as text; "" for the best.
 */
export function choiceFor(text, search) {
  const all = choicesBySearch(text);
  if (!all) return text;
  return search in all ? JSON.stringify(all[search]) : "";
}

/**
 * The input's text with another choice for one search.
 * @param {string} text What the input holds now.
 * @param {string} search The search's name.
 * @param {string} recipe What is chosen; "" for the best.
 * @param {boolean} several Whether the node has other searches in the same run, whose choices stay what they are.
 * @returns {string}
 */
export function withChoice(text, search, recipe, several) {
  const all = choicesBySearch(text);
  if (!several && !all) return recipe;
  const { [search]: _replaced, ...others } = all ?? {};
  const choices = recipe ? { ...others, [search]: JSON.parse(recipe) } : others;
  return Object.keys(choices).length ? JSON.stringify(choices) : "";
}

/**
 * Read recipes by the names of searches.
 * @param {string} text What the input holds.
 * @returns {Record<string, object>|null} Null if it holds something else.
 */
function choicesBySearch(text) {
  try {
    const all = JSON.parse(text);
    const values = all && typeof all === "object" && !Array.isArray(all) ? Object.values(all) : [];
    return values.length && values.every((recipe) => recipe && typeof recipe === "object") ? all : null;
  } catch {
    return null; // no JSON: the server says what is wrong with it
  }
}
