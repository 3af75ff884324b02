/** Keeps what a search found in its node, and reduces the search to the plain workflow that renders its winner. */

import { app } from "../../../../scripts/app.js";
import { api } from "../../../../scripts/api.js";
import { executionIdOf, isHere, nodeOf } from "../dashboard/extension.js";
import { countKept, KEY, keptAt, summaryInPicture } from "../state/recipe.js";
import { reduce, SEARCH_TYPES } from "./replace_search.js";
import { giverOf } from "../comfyui/graph_links.js";

const FOUND = "noise_search_found"; // of what a search node shows: its summary
const REDUCE = "Reduce to the plain workflow";
const FROM_PICTURE = "Take the recipe from a picture…";
const found = new Map(); // summaries whose workflow is not open, by workflow and node

function toast(severity, summary, detail) {
  app.extensionManager.toast.add({ severity, summary, detail, life: severity === "error" ? 15000 : 8000 });
}

function selectedSearch() {
  const searches = app.canvas.graph.nodes.filter((node) => SEARCH_TYPES.includes(node.comfyClass));
  const chosen = searches.filter((node) => app.canvas.selectedItems.has(node));
  const found = chosen.length ? chosen : searches;
  return found.length === 1 ? found[0] : null;
}

/** Run something on the selected search node, or the only one, and say what went wrong. */
function withSearch(action) {
  const node = selectedSearch();
  if (!node) toast("warn", "Noise Search", "Select one search node first.");
  else return said(action, node);
}

async function said(action, node) {
  try {
    await action(node);
  } catch (error) {
    toast("error", "Noise Search", error.message);
  }
}

async function reduceNode(node) {
  if (!node.properties[KEY]?.recipe && !(await takeFromPicture(node))) return;
  const summary = await oneOf(node.properties[KEY]);
  if (!summary) return;
  settle();
  app.canvas.emitBeforeChange();
  node.graph.beforeChange();
  try {
    const sampler = giverOf(nodeOf, executionIdOf(node), "sampler_name")?.widget.value;
    const { lost, removed } = reduce(node, summary, sampler);
    const lines = [lost.length && `No counterpart: ${lost.join(", ")}.`, removed.length && `No longer needed, removed: ${removed.join(", ")}.`];
    toast("success", "Reduced to the plain workflow", lines.filter(Boolean).join("\n") || "Undo brings the search back.");
  } finally {
    app.canvas.graph.afterChange();
    app.canvas.emitAfterChange();
    app.canvas.setDirty(true, true);
  }
}

/** Let the undo history take in what changed before, such as the summary of the last run. */
function settle() {
  app.canvas.emitBeforeChange();
  app.canvas.emitAfterChange();
}

/** Ask for a saved picture and keep its summary in a search node; says whether there was one. */
async function takeFromPicture(node) {
  const file = await pickFile();
  if (!file) return false;
  const carried = summaryInPicture(await file.arrayBuffer(), executionIdOf(node));
  if (!carried?.recipe) throw new Error(`${file.name}: the picture carries no recipe of Noise Search`);
  const summary = await oneOf(carried);
  if (!summary) return false;
  node.properties[KEY] = summary;
  toast("success", "Noise Search", `The recipe of ${file.name} is now that of ${node.title}.`);
  return true;
}

/** Ask which of the kept candidates is meant where a summary is of several; null if the user does not say. */
async function oneOf(summary) {
  const count = countKept(summary);
  if (count === 1) return keptAt(summary, 0);
  const message = `The search kept ${count} pictures, and this one carries the recipes of all. Which is it, from 1, the best, to ${count}?`;
  const said = await app.extensionManager.dialog.prompt({ title: "Noise Search", message, defaultValue: "1" });
  if (said === null || said === undefined) return null;
  const place = Number(said) - 1;
  if (!Number.isInteger(place) || place < 0 || place >= count) throw new Error(`there is no picture ${said}: from 1 to ${count}`);
  return keptAt(summary, place);
}

function pickFile() {
  return new Promise((resolve) => {
    const input = Object.assign(document.createElement("input"), { type: "file", accept: "image/png" });
    input.addEventListener("change", () => resolve(input.files[0]));
    input.addEventListener("cancel", () => resolve(null));
    input.click();
  });
}

/** Keep what a search node shows. Another workflow may be open by then, in which its id is another node's. */
function keep({ node, output }) {
  const summary = output?.[FOUND]?.[0];
  if (!summary) return;
  const state = output.noise_search?.[0] ?? { node };
  found.set(`${state.workflow} ${state.node}`, { state, summary });
  bringHome();
}

/** Give the nodes of the workflow that is open their summaries. */
function bringHome() {
  for (const [name, { state, summary }] of found) {
    if (!isHere(state)) continue;
    found.delete(name);
    const node = nodeOf(state.node);
    if (SEARCH_TYPES.includes(node?.comfyClass)) node.properties[KEY] = summary;
  }
}

function menuItems(node) {
  if (!SEARCH_TYPES.includes(node.comfyClass)) return [];
  return [
    null,
    { content: REDUCE, callback: () => void said(reduceNode, node) },
    { content: FROM_PICTURE, callback: () => void said(takeFromPicture, node) },
  ];
}

app.registerExtension({
  name: "noisesearch.plain",
  commands: [
    { id: "noise_search.reduce", label: `Noise Search: ${REDUCE.toLowerCase()}`, function: () => withSearch(reduceNode) },
    { id: "noise_search.recipe_of_picture", label: "Noise Search: take the recipe from a picture", function: () => withSearch(takeFromPicture) },
  ],
  setup: () => api.addEventListener("executed", ({ detail }) => keep(detail)),
  afterConfigureGraph: bringHome,
  getNodeMenuItems: menuItems,
});
