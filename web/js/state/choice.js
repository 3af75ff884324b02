/**
 * The input `choose`: nothing, for the best; a recipe, for whatever search has it; or recipes by the names of searches, where a
 * node searches several times in one run (in a loop, or for a batch). Knows nothing of ComfyUI.
 */

/** The recipe, as text, that is chosen for a search; "" for its best. */
export function choiceFor(text, search) {
  const all = bySearch(text);
  if (!all) return text;
  return search in all ? JSON.stringify(all[search]) : "";
}

/**
 * The input's text with another choice for one search.
 * @param {string} text What it is now.
 * @param {string} search The search's name.
 * @param {string} recipe What is chosen; "" for the best.
 * @param {boolean} several Whether its node searches for others in the same run, whose choices stay what they are.
 */
export function withChoice(text, search, recipe, several) {
  const all = bySearch(text);
  if (!several && !all) return recipe;
  const { [search]: gone, ...others } = all ?? {};
  const chosen = recipe ? { ...others, [search]: JSON.parse(recipe) } : others;
  return Object.keys(chosen).length ? JSON.stringify(chosen) : "";
}

/** Recipes by the names of searches; null if the text holds something else. */
function bySearch(text) {
  try {
    const all = JSON.parse(text);
    const values = all && typeof all === "object" && !Array.isArray(all) ? Object.values(all) : [];
    return values.length && values.every((one) => one && typeof one === "object") ? all : null;
  } catch {
    return null; // no JSON: the server says what is wrong with it
  }
}
