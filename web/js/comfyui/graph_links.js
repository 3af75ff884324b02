/** Taking over the links and widget values of one node of a graph for others; inside subgraphs too. */

/**
 * What an input of a node gets.
 * @returns {{value?: *, node?: object, index?: number, slot?: object}|null} A widget's value, another node's output, or a
 *   subgraph's own input; null for nothing.
 */
export function sourceOf(node, name) {
  const graph = node.graph;
  const link = linkTo(node, name);
  if (!link) {
    const widget = node.widgets?.find((one) => one.name === name);
    return widget ? { value: widget.value } : null;
  }
  if (link.origin_id === graph.inputNode?.id) return { slot: graph.inputNode.slots[link.origin_slot] };
  const origin = graph.getNodeById(link.origin_id);
  return origin && { node: origin, index: link.origin_slot };
}

/**
 * The widget that gives an input its value: the node's own, or that of a primitive or a subgraph node it is connected to.
 * @param {(id: string) => object} nodeOf Finds a node by its execution id.
 * @param {string} id Execution id of the node: a subgraph may stand in the workflow several times.
 * @returns {{node: object, widget: object}|null} Null if another node computes it, or there is no such input.
 */
export function giverOf(nodeOf, id, name) {
  const node = nodeOf(id);
  const link = node && linkTo(node, name);
  if (!link) {
    const widget = node?.widgets?.find((one) => one.name === name);
    return widget ? { node, widget } : null;
  }
  if (link.origin_id === node.graph.inputNode?.id) {
    const outer = id.slice(0, id.lastIndexOf(":"));
    return giverOf(nodeOf, outer, nodeOf(outer).inputs[link.origin_slot].name);
  }
  const origin = node.graph.getNodeById(link.origin_id);
  return origin?.type === "PrimitiveNode" ? { node: origin, widget: origin.widgets[0] } : null;
}

/** Give an input of a node what `sourceOf` said; nothing for null. */
export function feed(source, node, name) {
  if (!source) return;
  if ("value" in source) {
    setWidget(node, name, source.value);
    return;
  }
  const index = node.inputs.findIndex((input) => input.name === name);
  if (index < 0) throw new Error(`${node.type} has no input ${name}`);
  if (source.slot) source.slot.connect(node.inputs[index], node);
  else source.node.connect(source.index, node, index);
}

export function setWidget(node, name, value) {
  const widget = node.widgets?.find((one) => one.name === name);
  if (!widget) throw new Error(`${node.type} has no widget ${name}`);
  widget.value = value;
  widget.callback?.(value);
}

/** The links that leave an output. */
export function linksFrom(node, index) {
  return linksOf(node.graph).filter((link) => isId(link.origin_id, node.id) && link.origin_slot === index);
}

/** The link that an input of a node gets its value by; undefined without one. */
export function linkTo(node, name) {
  const index = node.inputs?.findIndex((input) => input.name === name) ?? -1;
  return linksOf(node.graph).find((link) => isId(link.target_id, node.id) && link.target_slot === index);
}

/** The links of a graph. Slots know theirs too, but newer frontends warn whoever reads them there. */
function linksOf(graph) {
  return [...graph.links.values()];
}

function isId(one, other) {
  return String(one) === String(other); // numbers or texts, by the frontend
}

/** Let whatever an output feeds be fed by another. */
export function moveLinks(node, index, source) {
  const graph = node.graph;
  for (const link of linksFrom(node, index)) {
    if (link.target_id === graph.outputNode?.id) graph.outputNode.slots[link.target_slot].connect(source.node.outputs[source.index], source.node);
    else source.node.connect(source.index, graph.getNodeById(link.target_id), link.target_slot);
  }
}

/** The nodes that feed a node. */
export function originsOf(node) {
  const links = linksOf(node.graph).filter((link) => isId(link.target_id, node.id)).sort((a, b) => a.target_slot - b.target_slot);
  return [...new Set(links.map((link) => node.graph.getNodeById(link.origin_id)).filter(Boolean))];
}

/** Remove nodes that feed nothing, and then what fed only them; returns the titles of what is gone. */
export function prune(graph, nodes) {
  const gone = [];
  const left = [...nodes];
  while (left.length) {
    const node = left.pop();
    const useful = !node.outputs?.length || node.outputs.some((_, index) => linksFrom(node, index).length);
    if (node.graph !== graph || useful || isOutput(node)) continue;
    left.push(...originsOf(node));
    gone.push(titleOf(node));
    graph.remove(node);
  }
  return gone;
}

/** Whether a node is run for what it shows or saves. */
export function isOutput(node) {
  return Boolean(node.constructor.nodeData?.output_node);
}

export function titleOf(node) {
  return node.title || node.type;
}
