/** Puts the few nodes that render a search's winner once in the place of the search node. */

import {
  isOutputNode, isUsed, linksFrom, moveLinks, removeUnused, sourceNodes, titleOf,
} from "../comfyui/graph_links.js";
import { graphOf } from "../comfyui/graph_nodes.js";
import { WorkflowBuilder } from "./workflow_builder.js";

/**
 * @typedef {object} Replaced
 * @property {string[]} lost Links that have no counterpart in the plain workflow.
 * @property {string[]} removed Titles of nodes that are no longer needed.
 */

/** Outputs of a search node, in their order. */
const OUTPUTS = /** @type {const} */ (["images", "latents", "noise", "sigmas", "seed", "score", "recipe", "report", "plot"]);

/**
 * Replace a search node.
 * @param {Comfy.Node} node The search node.
 * @param {NoiseSearch.Summary} summary What it found: `recipe`, and `sigmas` where they are known.
 * @param {string|undefined} samplerName Of its sampler; undefined if that is not known before the workflow runs.
 * @returns {Replaced}
 */
export function replaceSearch(node, summary, samplerName) {
  const graph = graphOf(node);
  const builder = new WorkflowBuilder(node, summary, samplerName);
  /** @type {Partial<Record<typeof OUTPUTS[number], () => import("../comfyui/graph_links.js").OutputSource>>} */
  const outputs = builder.build();
  const sources = sourceNodes(node);
  OUTPUTS.forEach((name, index) => {
    const output = outputs[name];
    if (output && linksFrom(node, index).length) moveLinks(node, index, output());
  });
  const { lost, targets } = lostLinks(node);
  const savers = saversOf(node);
  graph.remove(node);
  savers.forEach((saver) => builder.replaceSaver(saver));
  return { lost, removed: [...removeUnused(graph, sources), ...removeViewers(graph, targets)] };
}

/**
 * The links that still leave a search node after those with a counterpart were moved.
 * @param {Comfy.Node} node
 * @returns {{lost: string[], targets: Set<Comfy.Node>}} The links as text, and the nodes that they feed.
 */
function lostLinks(node) {
  const lost = [];
  /** @type {Set<Comfy.Node>} */
  const targets = new Set();
  for (const [index, name] of OUTPUTS.entries()) {
    for (const link of linksFrom(node, index)) {
      const target = graphOf(node).getNodeById(link.target_id);
      if (target?.type === "NSSaveSearch") continue; // becomes a Save Image
      lost.push(`${name} → ${target ? titleOf(target) : "output of the subgraph"}`);
      if (target) targets.add(target);
    }
  }
  return { lost, targets };
}

/**
 * @param {Comfy.Node} node A search node.
 * @returns {Comfy.Node[]} The nodes that save its report.
 */
function saversOf(node) {
  const links = linksFrom(node, OUTPUTS.indexOf("report"));
  const targets = links.flatMap((link) => graphOf(node).getNodeById(link.target_id) ?? []);
  return targets.filter((target) => target.type === "NSSaveSearch");
}

/**
 * Remove nodes that only showed what the search put out.
 * @param {Comfy.Graph} graph
 * @param {Set<Comfy.Node>} nodes
 * @returns {string[]} The titles of the removed nodes.
 */
function removeViewers(graph, nodes) {
  const idle = [...nodes].filter((node) => isOutputNode(node) && !sourceNodes(node).length && !isUsed(node));
  idle.forEach((node) => graph.remove(node));
  return idle.map(titleOf);
}
