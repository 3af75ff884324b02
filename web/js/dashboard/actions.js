/** What the user can have done with a search and its candidates, for one node. */

import { messageOf } from "../common/format.js";
import { inputWidget, setWidget, setWidgetValue } from "../comfyui/graph_links.js";
import { addNodeBeside, findNode } from "../comfyui/graph_nodes.js";
import { app, confirmed, showMessage } from "../comfyui/page.js";
import { getRoute, postRoute, readPrompt, routeURL } from "../comfyui/server.js";
import { choiceFor, withChoice } from "../state/choice.js";
import { recipeKind } from "../state/recipe.js";

/** @typedef {NoiseSearch.State} State */
/** @typedef {ReturnType<typeof createActions>} Actions */

/**
 * The actions of one node's dashboard. None of them throws: an error is shown as a message, and the answer is false.
 * @param {Comfy.Node} node The search node.
 * @param {(state: State) => State[]} siblings All searches of a search's node in the same run, itself included.
 */
export function createActions(node, siblings) {
  const addTo = (/** @type {State} */ state, /** @type {number} */ index) => addRecipeNode(node, state, index);
  return {
    thumb: thumbURL,
    choice: currentChoice,
    send: guarded("The search refused the command", send),
    use: guarded("Use as output", (/** @type {State} */ state, /** @type {number} */ index) => use(siblings, state, index)),
    clearChoice: guarded("Back to best", (/** @type {State} */ state) => setChoice(siblings, state, "")),
    copy: guarded("Copy recipe", copyRecipe),
    add: guarded("Add recipe node", addTo),
    forget: guarded("Forget this search", forget),
  };
}

/**
 * @template {any[]} A
 * @param {string} name Of the action, for its error message.
 * @param {(...args: A) => Promise<boolean|void>} action
 * @returns {(...args: A) => Promise<boolean>} The action; false if it failed or was not confirmed.
 */
function guarded(name, action) {
  return async (...args) => {
    try {
      return (await action(...args)) ?? true;
    } catch (error) {
      showMessage("error", `${name}: ${messageOf(error)}`);
      return false;
    }
  };
}

/**
 * Address of a thumbnail.
 * @param {State} state
 * @param {string} name
 * @returns {string}
 */
function thumbURL(state, name) {
  return routeURL(`/thumbs/${encodeURIComponent(state.place)}/${encodeURIComponent(name)}`);
}

/**
 * The recipe that the node's input `choose` names for a search; "" for none.
 * @param {State} state
 * @returns {string}
 */
function currentChoice(state) {
  return choiceFor(inputWidget(state.node, "choose")?.widget.value ?? "", state.search);
}

/**
 * @param {State} state
 * @param {NoiseSearch.Command} body
 */
async function send(state, body) {
  await postRoute(`/searches/${encodeURIComponent(state.id)}/commands`, body);
}

/**
 * Fill (or clear) the `choose` input and queue: the search is read from its journal, so nothing is computed again.
 * @param {(state: State) => State[]} siblings
 * @param {State} state
 * @param {string} recipe "" for the best.
 */
async function setChoice(siblings, state, recipe) {
  const input = inputWidget(state.node, "choose");
  if (!input) throw new Error(`${whyNoChoice(findNode(state.node))}. Use Copy recipe and the node Render Candidate instead`);
  const several = state.search !== state.node || siblings(state).length > 1;
  setAndRedraw(input.node, input.widget, withChoice(input.widget.value, state.search, recipe, several));
  await app.queuePrompt(0);
}

/**
 * @param {Comfy.Node|null} node
 * @returns {string} Why its input `choose` cannot be filled.
 */
function whyNoChoice(node) {
  if (node?.inputs?.some(({ name }) => name === "choose")) return "the input 'choose' is another node's output";
  return `the node ${node?.title ?? ""} has no input 'choose' (reload the page if the pack was updated)`;
}

/**
 * Make a candidate the node's output.
 * @param {(state: State) => State[]} siblings
 * @param {State} state
 * @param {number} index
 */
async function use(siblings, state, index) {
  const recipe = await readRecipe(state, index);
  const prompt = state.prompt_id === null ? undefined : await readPrompt(state.prompt_id);
  if (restoreSeeds(prompt ?? (await promptOfSeed(state)))) {
    showMessage("info", "The seeds of this search are back in their nodes and fixed, so that the same search runs again.");
  }
  await setChoice(siblings, state, recipe);
}

/**
 * Give every seed, changed by itself or by hand, the value it had in a prompt, and fix it: another seed is another search.
 * @param {Comfy.Prompt} prompt
 * @returns {boolean} Whether any was changed.
 */
function restoreSeeds(prompt) {
  let changed = false;
  for (const [id, { inputs }] of Object.entries(prompt)) {
    const node = findNode(id);
    for (const widget of node?.widgets ?? []) {
      if (node && restoreSeed(id, node, widget, inputs[widget.name])) changed = true;
    }
  }
  return changed;
}

/**
 * @param {string} id Execution id of the node.
 * @param {Comfy.Node} node
 * @param {Comfy.Widget} widget Any of its widgets: only those with a control are seeds.
 * @param {unknown} used Its value in the prompt.
 * @returns {boolean} Whether it was changed.
 */
function restoreSeed(id, node, widget, used) {
  const input = inputWidget(id, widget.name);
  const control = input && (controlOf(input.node, input.widget) ?? controlOf(node, widget));
  if (!input || !control || typeof used !== "number") return false;
  if (control.value === "fixed" && input.widget.value === used) return false;
  setAndRedraw(input.node, input.widget, used);
  setAndRedraw(node, control, "fixed");
  return true;
}

/**
 * What changes a widget's value after each run.
 * @param {Comfy.Node} node
 * @param {Comfy.Widget} widget
 * @returns {Comfy.Widget|undefined} Undefined if nothing does.
 */
function controlOf(node, widget) {
  const all = node.type === "PrimitiveNode" ? node.widgets : widget.linkedWidgets;
  return all?.find(({ name }) => name === "control_after_generate");
}

/**
 * As much of a prompt as the search itself has: its seed, where its node in the page is the one that got it.
 * @param {State} state
 * @returns {Promise<Comfy.Prompt>}
 */
async function promptOfSeed(state) {
  if (state.search !== state.node) return {};
  return { [state.node]: { inputs: { seed: Number(JSON.parse(await readRecipe(state, 0)).seed) } } };
}

/**
 * @param {Comfy.Node} node
 * @param {Comfy.Widget} widget
 * @param {unknown} value
 */
function setAndRedraw(node, widget, value) {
  setWidgetValue(widget, value);
  node.setDirtyCanvas?.(true, true);
}

/**
 * @param {State} state
 * @param {number} index
 */
async function copyRecipe(state, index) {
  await toClipboard(await readRecipe(state, index));
  showMessage("success", `The recipe of #${index} is in the clipboard.`);
}

/** @param {string} text */
async function toClipboard(text) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return;
  }
  // Browsers have no clipboard object on a page served over plain HTTP from another machine.
  const field = document.createElement("textarea");
  field.value = text;
  document.body.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  if (!copied) throw new Error("the browser refused; the node's output 'recipe' has the recipe of the winner");
}

/**
 * Add a node that renders a candidate again.
 * @param {Comfy.Node} node The search node.
 * @param {State} state
 * @param {number} index
 */
async function addRecipeNode(node, state, index) {
  const recipe = await readRecipe(state, index);
  const type = recipeKind(JSON.parse(recipe)) === "render" ? "NSRenderCandidate" : "NSNoiseFromRecipe";
  const added = addNodeBeside(type, node);
  setWidget(added, "recipe", recipe);
  added.setDirtyCanvas?.(true, true);
}

/**
 * @param {State} state
 * @param {number} index
 * @returns {Promise<string>} The recipe of a candidate.
 */
async function readRecipe(state, index) {
  const candidate = state.byIndex.get(index);
  const name = candidate?.name ?? candidate?.thumb; // `name` where there is no picture
  return (await getRoute(`/recipes/${encodeURIComponent(state.place)}/${encodeURIComponent(String(name))}`)).text();
}

/**
 * @param {State} state
 * @returns {Promise<boolean>} Whether the user confirmed.
 */
async function forget(state) {
  const message = "Its journal and thumbnails are deleted: queued again, it starts from the beginning.";
  if (!(await confirmed("Forget this search?", message))) return false;
  await postRoute("/forget", { id: state.id });
  showMessage("success", "The search is forgotten.");
  return true;
}
