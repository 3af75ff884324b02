/** Keeps what a search found in its node, and reduces the search to the plain workflow that renders its winner. */

import { messageOf } from "../common/format.js";
import { inputWidget } from "../comfyui/graph_links.js";
import { executionIdOf, findNode, graphOf, isInOpenWorkflow, isSearchNode } from "../comfyui/graph_nodes.js";
import { api, app, askForText, showMessage } from "../comfyui/page.js";
import { countKept, keptAt, summaryInPicture } from "../state/summary.js";
import { replaceSearch } from "./replace_search.js";

/** @typedef {NoiseSearch.Summary} Summary */

const REDUCE = "Reduce to the plain workflow";
const FROM_PICTURE = "Take the recipe from a picture…";
const LONG = 8000; // ms that a message is shown
const LONGER = 15000;

/** @type {Map<string, {state: {workflow?: string|null, node: string}, summary: Summary}>} */
const waiting = new Map(); // summaries whose workflow is not open, by workflow and node

/** @returns {Comfy.Node|null} The selected search node, or the only one; null if there is none, or more than one. */
function selectedSearch() {
  const searches = app.canvas.graph.nodes.filter(isSearchNode);
  const selected = searches.filter((node) => app.canvas.selectedItems.has(node));
  const candidates = selected.length ? selected : searches;
  return candidates.length === 1 ? candidates[0] : null;
}

/**
 * Run an action on the selected search node, or the only one.
 * @param {(node: Comfy.Node) => Promise<unknown>} action
 */
async function runOnSelected(action) {
  const node = selectedSearch();
  if (node) await run(action, node);
  else showMessage("warn", "Select one search node first.", { life: LONG });
}

/**
 * Run an action on a node; show a message if it fails.
 * @param {(node: Comfy.Node) => Promise<unknown>} action
 * @param {Comfy.Node} node
 */
async function run(action, node) {
  try {
    await action(node);
  } catch (error) {
    showMessage("error", messageOf(error), { life: LONGER });
  }
}

/** @param {Comfy.Node} node A search node. */
async function reduceNode(node) {
  if (!node.properties.noise_search?.recipe && !(await takeFromPicture(node))) return;
  const summary = await chooseKept(node.properties.noise_search ?? {});
  if (!summary) return;
  recordChanges();
  app.canvas.emitBeforeChange();
  graphOf(node).beforeChange();
  try {
    const sampler = inputWidget(executionIdOf(node) ?? "", "sampler_name")?.widget.value;
    showResult(replaceSearch(node, summary, sampler));
  } finally {
    app.canvas.graph.afterChange();
    app.canvas.emitAfterChange();
    app.canvas.setDirty(true, true);
  }
}

/** @param {import("./replace_search.js").Replaced} replaced */
function showResult({ lost, removed }) {
  const lines = [
    lost.length && `No counterpart: ${lost.join(", ")}.`,
    removed.length && `No longer needed, removed: ${removed.join(", ")}.`,
  ];
  const detail = lines.filter(Boolean).join("\n") || "Undo brings the search back.";
  showMessage("success", detail, { title: "Reduced to the plain workflow", life: LONG });
}

/** Let the undo history record what changed before, such as the summary of the last run. */
function recordChanges() {
  app.canvas.emitBeforeChange();
  app.canvas.emitAfterChange();
}

/**
 * Ask for a saved picture, and keep its summary in a search node.
 * @param {Comfy.Node} node
 * @returns {Promise<boolean>} Whether there was one.
 */
async function takeFromPicture(node) {
  const file = await pickFile();
  if (!file) return false;
  const carried = summaryInPicture(await file.arrayBuffer(), executionIdOf(node));
  if (!carried?.recipe) throw new Error(`${file.name}: the picture carries no recipe of Noise Search`);
  const summary = await chooseKept(carried);
  if (!summary) return false;
  node.properties.noise_search = summary;
  showMessage("success", `The recipe of ${file.name} is now that of ${node.title}.`, { life: LONG });
  return true;
}

/**
 * Ask which of the kept candidates is meant, where a summary describes several.
 * @param {Summary} summary
 * @returns {Promise<Summary|null>} Null if the user cancelled.
 */
async function chooseKept(summary) {
  const count = countKept(summary);
  if (count === 1) return keptAt(summary, 0);
  const kept = `The search kept ${count} pictures, and this one carries the recipes of all.`;
  const text = await askForText(`${kept} Which is it, from 1, the best, to ${count}?`, "1");
  if (text === null) return null;
  const place = Number(text) - 1;
  if (!Number.isInteger(place) || place < 0 || place >= count) throw new Error(`there is no picture ${text}: from 1 to ${count}`);
  return keptAt(summary, place);
}

/** @returns {Promise<File|null>} A PNG file of the user's; null if the user cancelled. */
function pickFile() {
  return new Promise((resolve) => {
    const input = Object.assign(document.createElement("input"), { type: "file", accept: "image/png" });
    input.addEventListener("change", () => resolve(input.files?.[0] ?? null));
    input.addEventListener("cancel", () => resolve(null));
    input.click();
  });
}

/**
 * Keep what a search node found. By then another workflow may be open, in which its id is another node's.
 * @param {Comfy.Executed} executed
 */
function keepSummary({ node, output }) {
  const summary = output?.noise_search_found?.[0];
  if (!summary) return;
  /** @type {{workflow?: string|null, node: string}} */
  const state = output.noise_search?.[0] ?? { node };
  waiting.set(`${state.workflow} ${state.node}`, { state, summary });
  assignSummaries();
}

/** Give the nodes of the workflow that is open their summaries. */
function assignSummaries() {
  for (const [name, { state, summary }] of waiting) {
    if (!isInOpenWorkflow(state)) continue;
    waiting.delete(name);
    const node = findNode(state.node);
    if (isSearchNode(node)) node.properties.noise_search = summary;
  }
}

/**
 * @param {Comfy.Node} node
 * @returns {Comfy.MenuItem[]} Entries of its context menu.
 */
function menuItems(node) {
  if (!isSearchNode(node)) return [];
  return [
    null,
    { content: REDUCE, callback: () => void run(reduceNode, node) },
    { content: FROM_PICTURE, callback: () => void run(takeFromPicture, node) },
  ];
}

app.registerExtension({
  name: "noisesearch.reduce",
  commands: [
    { id: "noise_search.reduce", label: `Noise Search: ${REDUCE.toLowerCase()}`, function: () => runOnSelected(reduceNode) },
    {
      id: "noise_search.recipe_of_picture", label: "Noise Search: take the recipe from a picture",
      function: () => runOnSelected(takeFromPicture),
    },
  ],
  setup: () => api.addEventListener("executed", ({ detail }) => keepSummary(detail)),
  afterConfigureGraph: assignSummaries,
  getNodeMenuItems: menuItems,
});
