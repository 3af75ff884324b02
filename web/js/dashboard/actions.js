/** What the user's wishes lead to, for one node. Everything of ComfyUI's comes in through `comfy` (see extension.js). */

import { choiceFor, withChoice } from "../state/choice.js";
import { kindOf } from "../state/recipe.js";
import { giverOf } from "../comfyui/graph_links.js";

/**
 * The actions of one node's dashboard. None of them throws: what goes wrong is shown as a toast.
 * @param {object} comfy ComfyUI, as far as it is needed.
 * @param {object} node The search node.
 */
export function createActions(comfy, node) {
  const guarded = (what, action) => async (...args) => {
    try {
      return await action(...args);
    } catch (error) {
      comfy.toast("error", `${what}: ${error.message}`);
      return false;
    }
  };
  const send = async (state, body) => {
    await comfy.post(`/searches/${encodeURIComponent(state.id)}/commands`, body);
    return true;
  };
  return {
    thumb: (state, name) => comfy.url(`/thumbs/${encodeURIComponent(state.place)}/${encodeURIComponent(name)}`),
    choice: (state) => choiceFor(giverOf(comfy.node, state.node, "choose")?.widget.value ?? "", state.search),
    send: guarded("The search did not take that", send),
    use: guarded("Use as output", (state, index) => use(comfy, state, index)),
    clearChoice: guarded("Back to best", (state) => setChoice(comfy, state, "")),
    copy: guarded("Copy recipe", (state, index) => copy(comfy, state, index)),
    add: guarded("Add recipe node", (state, index) => add(comfy, node, state, index)),
    forget: guarded("Forget this search", (state) => forget(comfy, state)),
  };
}

/** Fill (or clear) the `choose` input and queue: the search comes from its journal, so nothing is computed anew. */
async function setChoice(comfy, state, recipe) {
  const giver = giverOf(comfy.node, state.node, "choose");
  if (!giver) throw new Error(`${whyNot(comfy.node(state.node))}: Copy recipe takes it to Render Candidate`);
  const several = state.search !== state.node || comfy.siblings(state).length > 1;
  setWidget(giver.node, giver.widget, withChoice(giver.widget.value, state.search, recipe, several));
  await comfy.queue();
}

function whyNot(node) {
  const has = node?.inputs?.some(({ name }) => name === "choose");
  if (has) return "the input 'choose' is another node's output";
  return `the node ${node?.title ?? ""} has no input 'choose' (reload the page if the pack was updated)`;
}

async function use(comfy, state, index) {
  const recipe = await recipeOf(comfy, state, index);
  const fixed = restoreSeeds(comfy, (await comfy.promptOf(state.prompt_id)) ?? (await seedOnly(comfy, state)));
  if (fixed) comfy.toast("info", "The seeds of this search are back in their nodes, and fixed: so it is the same search.");
  await setChoice(comfy, state, recipe);
}

/**
 * Give every seed, changed by itself or by hand, the value it had in a prompt, and fix it: another seed is another search.
 * @returns {boolean} Whether any was changed.
 */
function restoreSeeds(comfy, prompt) {
  let changed = false;
  for (const [id, { inputs }] of Object.entries(prompt)) {
    const node = comfy.node(id);
    for (const widget of node?.widgets ?? []) {
      const giver = giverOf(comfy.node, id, widget.name);
      const control = giver && (controlOf(giver.node, giver.widget) ?? controlOf(node, widget));
      const used = inputs[widget.name];
      if (!control || typeof used !== "number" || (control.value === "fixed" && giver.widget.value === used)) continue;
      setWidget(giver.node, giver.widget, used);
      setWidget(node, control, "fixed");
      changed = true;
    }
  }
  return changed;
}

/** What changes a widget's value after each run, if anything does. */
function controlOf(node, widget) {
  const all = node.type === "PrimitiveNode" ? node.widgets : widget.linkedWidgets;
  return all?.find(({ name }) => name === "control_after_generate");
}

/** As much of a prompt as the search itself remembers: its seed, where it is the page's node that got it. */
async function seedOnly(comfy, state) {
  if (state.search !== state.node) return {};
  return { [state.node]: { inputs: { seed: Number(JSON.parse(await recipeOf(comfy, state, 0)).seed) } } };
}

function setWidget(node, widget, value) {
  widget.value = value;
  widget.callback?.(value);
  node.setDirtyCanvas?.(true, true);
}

async function copy(comfy, state, index) {
  await toClipboard(await recipeOf(comfy, state, index));
  comfy.toast("success", `The recipe of #${index} is in the clipboard.`);
}

async function toClipboard(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // Browsers have no clipboard object on a page served over plain HTTP from another machine.
  const field = document.createElement("textarea");
  field.value = text;
  document.body.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  if (!copied) throw new Error("the browser refused; the 'recipe' output has the winner's");
}

async function add(comfy, node, state, index) {
  const recipe = await recipeOf(comfy, state, index);
  const type = kindOf(JSON.parse(recipe)) === "render" ? "NSRenderCandidate" : "NSNoiseFromRecipe";
  const added = comfy.addNode(type, node);
  setWidget(added, added.widgets.find(({ name }) => name === "recipe"), recipe);
}

async function recipeOf(comfy, state, index) {
  const { name, thumb } = state.byIndex.get(index); // `name` where there is no picture
  return (await comfy.get(`/recipes/${encodeURIComponent(state.place)}/${encodeURIComponent(name ?? thumb)}`)).text();
}

async function forget(comfy, state) {
  const what = "Its journal and thumbnails are deleted: queued again, it starts from nothing.";
  const sure = await comfy.confirm("Forget this search?", what);
  if (!sure) return false;
  await comfy.post("/forget", { id: state.id });
  comfy.toast("success", "The search is forgotten.");
  return true;
}
