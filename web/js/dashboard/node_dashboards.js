/** The dashboards of the nodes in the page. */

import { el } from "../common/dom.js";
import { findNode, isInOpenWorkflow } from "../comfyui/graph_nodes.js";
import { app } from "../comfyui/page.js";
import { createActions } from "./actions.js";
import { Dashboard } from "./dashboard.js";

/** @typedef {NoiseSearch.State} State */
/** @typedef {import("../state/store.js").Store} Store */

const MARGIN = 20; // px above and below an element in the classic renderer
const WIDTH = 480; // px of a new node: curve and card side by side
const DRAWN = 1000; // ms after which a node has drawn its widgets

/** One dashboard per node that searches. */
export class NodeDashboards {
  /** @type {WeakMap<Comfy.Node, Dashboard>} */
  #dashboards = new WeakMap();

  /** @param {Store} store The states of all searches. */
  constructor(store) {
    this.store = store;
  }

  /**
   * Show every node of the open workflow the states of its latest run.
   * @param {State[]} states The oldest first.
   */
  showAll(states) {
    /** @type {Map<Dashboard, State[]>} */
    const latest = new Map();
    for (const state of states) {
      const node = isInOpenWorkflow(state) ? findNode(state.node) : null;
      if (!node) continue;
      const dashboard = this.#of(node);
      const shown = latest.get(dashboard) ?? [];
      latest.set(dashboard, shown[0]?.prompt_id === state.prompt_id ? [...shown, state] : [state]);
    }
    for (const [dashboard, shown] of latest) shown.forEach((state) => dashboard.show(state));
  }

  /**
   * Add a dashboard to a node.
   * @param {Comfy.Node} node
   * @returns {Dashboard}
   */
  add(node) {
    const dashboard = new Dashboard(createActions(node, (state) => this.#siblings(state)));
    this.#dashboards.set(node, dashboard);
    addWidget(node, dashboard);
    const removed = node.onRemoved;
    node.onRemoved = (...args) => {
      dashboard.remove();
      this.#dashboards.delete(node);
      return removed?.apply(node, args);
    };
    if (!app.collectNodeMenuItems) this.#addMenu(node);
    return dashboard;
  }

  /**
   * The entries of a node's context menu.
   * @param {Comfy.Node} node
   * @returns {Comfy.MenuItem[]}
   */
  menuItems(node) {
    const dashboard = this.#dashboards.get(node);
    if (!dashboard?.state) return [];
    return [null, { content: "Forget this search (delete its journal)", callback: () => void this.#forget(dashboard) }];
  }

  /**
   * The dashboard of a node; a node that only builds searches while it runs gets one with the first of them.
   * @param {Comfy.Node} node
   * @returns {Dashboard}
   */
  #of(node) {
    const known = this.#dashboards.get(node);
    if (known) return known;
    const added = this.add(node);
    setTimeout(() => showBeside(node, added), DRAWN);
    return added;
  }

  /**
   * @param {State} searched
   * @returns {State[]} All searches of the same node in the same run.
   */
  #siblings({ prompt_id, node }) {
    return this.store.all().filter((state) => state.prompt_id === prompt_id && state.node === node);
  }

  /** @param {Dashboard} dashboard */
  async #forget(dashboard) {
    const { state } = dashboard;
    if (!state || !(await dashboard.actions.forget(state))) return;
    this.store.delete(state.id);
    dashboard.clear();
  }

  /**
   * Add the menu entries in frontends without `getNodeMenuItems`, which ask the node itself.
   * @param {Comfy.Node} node
   */
  #addMenu(node) {
    const before = node.getExtraMenuOptions;
    node.getExtraMenuOptions = (canvas, options) => {
      const all = before?.apply(node, [canvas, options]);
      options.push(...this.menuItems(node));
      return all;
    };
  }
}

/**
 * @param {Comfy.Node} node
 * @param {Dashboard} dashboard
 */
function addWidget(node, dashboard) {
  dashboard.element.classList.add("widget-expands"); // early Nodes 2.0 stretches only what has this class
  const getMinHeight = () => dashboard.minHeight + MARGIN;
  const options = { getValue: () => "", setValue() {}, serialize: false, hideOnZoom: false, getMinHeight };
  const widget = node.addDOMWidget("noise_search", "noise_search", dashboard.element, options);
  widget.serialize = false; // not in the saved workflow; `options.serialize` is for the prompt
  node.setSize([Math.max(node.size[0], WIDTH), Math.max(node.size[1], node.computeSize()[1])]);
}

/**
 * Show a dashboard in a corner of the page where its node does not: early Nodes 2.0 draws no widget that is added later.
 * @param {Comfy.Node} node
 * @param {Dashboard} dashboard
 */
function showBeside(node, dashboard) {
  if (dashboard.element.isConnected || node.graph !== app.canvas.graph) return;
  const title = el("summary", { text: node.title });
  document.body.append(el("details", { class: "nsd-beside", open: "" }, title, dashboard.element));
}
