/** Nodes of the workflow that is open in the page; inside subgraphs too. */

import { app } from "./page.js";

export const SEARCH_TYPES = ["NSSearchSampler", "NSSearchSamplerAdvanced"];
const NO_ID = "00000000-0000-0000-0000-000000000000"; // of a workflow in API form, until it is saved or the page reloaded
const GAP = 40; // px between a node and one that is added beside it

/** @returns {Comfy.Graph} The graph that holds all others. */
function rootGraph() {
  return app.rootGraph ?? app.graph;
}

/**
 * Whether a node is one that searches.
 * @param {Comfy.Node|null|undefined} node
 * @returns {node is Comfy.Node}
 */
export function isSearchNode(node) {
  return SEARCH_TYPES.includes(node?.comfyClass ?? "");
}

/**
 * Find a node by its execution id.
 * @param {string} executionId "5", or "1:2" for node 2 within subgraph node 1.
 * @returns {Comfy.Node|null} The node; null if the workflow that is open has none.
 */
export function findNode(executionId) {
  const ids = executionId.split(":");
  const last = ids.pop() ?? "";
  /** @type {Comfy.Graph|undefined} */
  let graph = rootGraph();
  for (const id of ids) graph = nodeById(graph, id)?.subgraph;
  return nodeById(graph, last);
}

/**
 * @param {Comfy.Graph|undefined} graph
 * @param {string} id
 * @returns {Comfy.Node|null}
 */
function nodeById(graph, id) {
  return graph?.getNodeById(Number(id)) ?? graph?.getNodeById(id) ?? null; // numbers or texts, by the frontend
}

/**
 * The execution id of a node; where its subgraph stands in the workflow several times, the first.
 * @param {Comfy.Node} node
 * @param {Comfy.Graph} [graph] Where to look for it.
 * @returns {string|null} Null if the node is not in the graph.
 */
export function executionIdOf(node, graph = rootGraph()) {
  for (const each of graph.nodes) {
    if (each === node) return String(each.id);
    const inner = each.subgraph && executionIdOf(node, each.subgraph);
    if (inner) return `${each.id}:${inner}`;
  }
  return null;
}

/**
 * Whether a search belongs to the workflow that is open: another workflow may have nodes with the same ids.
 * @param {{workflow?: string|null}} state State of the search.
 * @returns {boolean}
 */
export function isInOpenWorkflow({ workflow }) {
  const id = rootGraph()?.id;
  return !workflow || workflow === NO_ID || !id || workflow === id;
}

/**
 * The graph that a node is in.
 * @param {Comfy.Node} node
 * @returns {Comfy.Graph} An error if the node was removed.
 */
export function graphOf(node) {
  if (!node.graph) throw new Error(`the node ${node.title} is no longer in the workflow`);
  return node.graph;
}

/**
 * Make a node that is in no graph yet.
 * @param {string} type Node id.
 * @returns {Comfy.Node}
 */
export function createNode(type) {
  const node = LiteGraph.createNode(type);
  if (!node) throw new Error(`this ComfyUI has no node ${type}`);
  return node;
}

/**
 * Add a node at the right of another one, and select it.
 * @param {string} type Node id.
 * @param {Comfy.Node} neighbor The other one.
 * @returns {Comfy.Node} The new node.
 */
export function addNodeBeside(type, neighbor) {
  const node = createNode(type);
  node.pos = [neighbor.pos[0] + neighbor.size[0] + GAP, neighbor.pos[1]];
  graphOf(neighbor).add(node);
  app.canvas.selectNode?.(node, false);
  return node;
}
