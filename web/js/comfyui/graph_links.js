/** Links and widget values of a graph's nodes: read them, and let other nodes take them over. Inside subgraphs too. */

import { findNode, graphOf } from "./graph_nodes.js";

/** @typedef {{node: Comfy.Node, index: number}} OutputSource An output of a node. */
/** @typedef {{slot: Comfy.SubgraphSlot}} SlotSource An input of the subgraph. */
/** @typedef {{value: unknown}} ValueSource The value of a widget. */
/** @typedef {OutputSource|SlotSource|ValueSource} Source What an input gets its value from. */

/**
 * What an input of a node gets its value from.
 * @param {Comfy.Node} node
 * @param {string} name Name of the input.
 * @returns {Source|null} Null for nothing.
 */
export function inputSource(node, name) {
  const graph = graphOf(node);
  const link = linkTo(node, name);
  if (!link) {
    const widget = findWidget(node, name);
    return widget ? { value: widget.value } : null;
  }
  if (graph.inputNode && link.origin_id === graph.inputNode.id) return { slot: graph.inputNode.slots[link.origin_slot] };
  const origin = graph.getNodeById(link.origin_id);
  return origin ? { node: origin, index: link.origin_slot } : null;
}

/**
 * The widget that gives an input its value: the node's own, or that of a primitive or a subgraph node it is connected to.
 * @param {string} id Execution id of the node: its subgraph may stand in the workflow several times.
 * @param {string} name Name of the input.
 * @returns {{node: Comfy.Node, widget: Comfy.Widget}|null} Null if another node computes it, or there is no such input.
 */
export function inputWidget(id, name) {
  const node = findNode(id);
  if (!node) return null;
  const link = linkTo(node, name);
  if (!link) {
    const widget = findWidget(node, name);
    return widget ? { node, widget } : null;
  }
  const graph = graphOf(node);
  if (graph.inputNode && link.origin_id === graph.inputNode.id) {
    const outer = id.slice(0, id.lastIndexOf(":"));
    const input = findNode(outer)?.inputs?.[link.origin_slot];
    return input ? inputWidget(outer, input.name) : null;
  }
  const origin = graph.getNodeById(link.origin_id);
  return origin?.type === "PrimitiveNode" && origin.widgets ? { node: origin, widget: origin.widgets[0] } : null;
}

/**
 * Give an input of a node its value.
 * @param {Source|null} source From `inputSource`; nothing is done for null.
 * @param {Comfy.Node} node
 * @param {string} name Name of the input.
 */
export function connectInput(source, node, name) {
  if (!source) return;
  if ("value" in source) {
    setWidget(node, name, source.value);
    return;
  }
  const inputs = node.inputs ?? [];
  const index = inputs.findIndex((input) => input.name === name);
  if (index < 0) throw new Error(`${node.type} has no input ${name}`);
  if ("slot" in source) source.slot.connect(inputs[index], node);
  else source.node.connect(source.index, node, index);
}

/**
 * @param {Comfy.Node} node
 * @param {string} name
 * @returns {Comfy.Widget|undefined}
 */
export function findWidget(node, name) {
  return node.widgets?.find((widget) => widget.name === name);
}

/**
 * Set the widget of a node by its name.
 * @param {Comfy.Node} node
 * @param {string} name
 * @param {unknown} value
 */
export function setWidget(node, name, value) {
  const widget = findWidget(node, name);
  if (!widget) throw new Error(`${node.type} has no widget ${name}`);
  setWidgetValue(widget, value);
}

/**
 * Set a widget's value as the user would: who listens to it is told.
 * @param {Comfy.Widget} widget
 * @param {unknown} value
 */
export function setWidgetValue(widget, value) {
  widget.value = value;
  widget.callback?.(value);
}

/**
 * The links that leave an output.
 * @param {Comfy.Node} node
 * @param {number} index Of the output.
 * @returns {Comfy.Link[]}
 */
export function linksFrom(node, index) {
  return linksOf(graphOf(node)).filter((link) => isSameId(link.origin_id, node.id) && link.origin_slot === index);
}

/**
 * The link that gives an input its value.
 * @param {Comfy.Node} node
 * @param {string} name Name of the input.
 * @returns {Comfy.Link|undefined} Undefined without one.
 */
function linkTo(node, name) {
  const index = node.inputs?.findIndex((input) => input.name === name) ?? -1;
  return linksOf(graphOf(node)).find((link) => isSameId(link.target_id, node.id) && link.target_slot === index);
}

/**
 * The links of a graph. Slots have them too, but newer frontends warn about reading them there.
 * @param {Comfy.Graph} graph
 * @returns {Comfy.Link[]}
 */
function linksOf(graph) {
  return [...graph.links.values()];
}

/**
 * @param {Comfy.Id} one
 * @param {Comfy.Id} other
 * @returns {boolean}
 */
function isSameId(one, other) {
  return String(one) === String(other); // numbers or texts, by the frontend
}

/**
 * Connect whatever an output feeds to another output.
 * @param {Comfy.Node} node
 * @param {number} index Of the output.
 * @param {OutputSource} source The other output.
 */
export function moveLinks(node, index, source) {
  const graph = graphOf(node);
  for (const link of linksFrom(node, index)) {
    if (graph.outputNode && link.target_id === graph.outputNode.id) {
      const output = source.node.outputs?.[source.index];
      if (output) graph.outputNode.slots[link.target_slot].connect(output, source.node);
      continue;
    }
    const target = graph.getNodeById(link.target_id);
    if (target) source.node.connect(source.index, target, link.target_slot);
  }
}

/**
 * The nodes that feed a node, in the order of its inputs.
 * @param {Comfy.Node} node
 * @returns {Comfy.Node[]}
 */
export function sourceNodes(node) {
  const graph = graphOf(node);
  const links = linksOf(graph).filter((link) => isSameId(link.target_id, node.id)).sort((a, b) => a.target_slot - b.target_slot);
  return [...new Set(links.flatMap((link) => graph.getNodeById(link.origin_id) ?? []))];
}

/**
 * Remove those of the nodes that feed nothing, and then what fed only them.
 * @param {Comfy.Graph} graph
 * @param {Comfy.Node[]} nodes
 * @returns {string[]} The titles of the removed nodes.
 */
export function removeUnused(graph, nodes) {
  /** @type {string[]} */
  const removed = [];
  const open = [...nodes];
  for (let node = open.pop(); node; node = open.pop()) {
    if (node.graph !== graph || isOutputNode(node) || !node.outputs?.length || isUsed(node)) continue;
    open.push(...sourceNodes(node));
    removed.push(titleOf(node));
    graph.remove(node);
  }
  return removed;
}

/**
 * Whether a node feeds others.
 * @param {Comfy.Node} node
 * @returns {boolean}
 */
export function isUsed(node) {
  return Boolean(node.outputs?.some((_, index) => linksFrom(node, index).length));
}

/**
 * Whether a node is run for what it shows or saves.
 * @param {Comfy.Node} node
 * @returns {boolean}
 */
export function isOutputNode(node) {
  return Boolean(node.constructor.nodeData?.output_node);
}

/**
 * The name that a user sees on a node.
 * @param {Comfy.Node} node
 * @returns {string}
 */
export function titleOf(node) {
  return node.title || node.type;
}
