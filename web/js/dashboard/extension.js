/** The dashboard in ComfyUI's page. The one file that touches `app` and `api`: it brings each state to its node. */

import { app } from "../../../../scripts/app.js";
import { api } from "../../../../scripts/api.js";
import { createActions } from "./actions.js";
import { Dashboard } from "./dashboard.js";
import { el } from "../common/dom.js";
import { SEARCH_TYPES } from "../reduce/replace_search.js";
import { isLive, Store } from "../state/store.js";

const EVENT = "noise_search.update";
const MARGIN = 20; // px above and below an element in the classic renderer
const NO_ID = "00000000-0000-0000-0000-000000000000"; // of a workflow in API form, until it is saved or the page reloaded
const WIDTH = 480; // px of a new node: curve and card side by side
export const store = new Store();
const boards = new WeakMap(); // dashboard by node
const fetching = new Map(); // revision that is wanted, by search

const comfy = {
  url: (path) => api.apiURL(`/noise_search${path}`),
  get: (path) => answered(api.fetchApi(`/noise_search${path}`)),
  post: (path, body) => {
    const headers = { "Content-Type": "application/json" };
    return answered(api.fetchApi(`/noise_search${path}`, { method: "POST", headers, body: JSON.stringify(body) }));
  },
  toast: (severity, detail) => app.extensionManager.toast.add({ severity, summary: "Noise Search", detail, life: 6000 }),
  confirm: (title, message) => {
    const { dialog } = app.extensionManager;
    return dialog?.confirm ? dialog.confirm({ title, message }) : window.confirm(`${title}\n${message}`);
  },
  queue: () => app.queuePrompt(0),
  siblings: ({ prompt_id, node }) => store.all().filter((state) => state.prompt_id === prompt_id && state.node === node),
  node: nodeOf,
  addNode,
  promptOf,
};

/** Wait for an answer of the server; an error carries the server's own words. */
async function answered(request) {
  const response = await request;
  if (response.ok) return response;
  const text = await response.text();
  let said = text;
  try {
    said = JSON.parse(text).error ?? text;
  } catch {
    said = text || response.statusText; // not from our routes
  }
  throw new Error(said);
}

/** What was queued under a prompt id, in API form; undefined once the server no longer knows. */
async function promptOf(id) {
  const read = async (path) => (await answered(api.fetchApi(path))).json();
  const { queue_running } = await read("/queue"); // nodes after the search may run still: the history comes at their end
  const running = queue_running.find((queued) => queued[1] === id);
  return (running ?? (await read(`/history/${encodeURIComponent(id)}`))[id]?.prompt)?.[2];
}

function rootGraph() {
  return app.rootGraph ?? app.graph;
}

/** The node of an execution id: "5", or "1:2" for node 2 within subgraph node 1. */
export function nodeOf(executionId) {
  const path = String(executionId).split(":");
  const last = path.pop();
  let graph = rootGraph();
  for (const id of path) graph = byId(graph, id)?.subgraph;
  return byId(graph, last);
}

/** The execution id of a node; of one in a subgraph that stands in the workflow several times, the first. */
export function executionIdOf(node, graph = rootGraph()) {
  for (const one of graph.nodes) {
    if (one === node) return String(one.id);
    const inner = one.subgraph && executionIdOf(node, one.subgraph);
    if (inner) return `${one.id}:${inner}`;
  }
  return null;
}

function byId(graph, id) {
  return graph?.getNodeById(Number(id)) ?? graph?.getNodeById(id);
}

function addNode(type, beside) {
  const node = LiteGraph.createNode(type);
  if (!node) throw new Error(`there is no node ${type}`);
  node.pos = [beside.pos[0] + beside.size[0] + 40, beside.pos[1]];
  beside.graph.add(node);
  app.canvas.selectNode?.(node, false);
  return node;
}

/** Whether a state belongs to the workflow in the page: the same ids occur in others. */
export function isHere(state) {
  const id = rootGraph()?.id;
  return !state.workflow || state.workflow === NO_ID || !id || state.workflow === id;
}

/** Show every node of the page the states of its latest run. */
function attachAll() {
  const latest = new Map();
  for (const state of store.all()) {
    const board = isHere(state) && boardOf(nodeOf(state.node));
    if (!board) continue;
    const states = latest.get(board) ?? [];
    latest.set(board, states[0]?.prompt_id === state.prompt_id ? [...states, state] : [state]);
  }
  for (const [board, states] of latest) states.forEach((state) => board.show(state));
}

/** The dashboard of a node; one that builds searches while it runs gets its own with the first of them. */
function boardOf(node) {
  if (!node) return null;
  if (!boards.has(node)) {
    addDashboard(node);
    setTimeout(() => showBeside(node, boards.get(node)), 1000);
  }
  return boards.get(node);
}

/** Show a dashboard in a corner of the page where the node does not: early Nodes 2.0 draws no widget that comes later. */
function showBeside(node, board) {
  if (!board || board.element.isConnected || node.graph !== app.canvas.graph) return;
  document.body.append(el("details", { class: "nsd-beside", open: "" }, el("summary", { text: node.title }), board.element));
}

/** Ask the server for this page's searches: after a reload, or when events may have been missed. */
async function refresh() {
  attachAll();
  const client = api.clientId ?? api.initialClientId;
  if (!client) return;
  try {
    const before = store.all().filter(isLive);
    const listed = await (await comfy.get(`/searches?client_id=${encodeURIComponent(client)}`)).json();
    store.lose(before.filter(({ id }) => !listed.some((state) => state.id === id)));
    store.putAll(listed);
    attachAll();
  } catch (error) {
    console.warn(`Noise Search: searches of before the reload are not shown: ${error.message}`);
  }
}

function take({ detail }) {
  if (store.merge(detail)) attachAll();
  else fetchWhole(detail);
}

async function fetchWhole({ id, rev }) {
  const busy = fetching.has(id);
  fetching.set(id, rev);
  if (busy) return;
  try {
    let state, wanted;
    do {
      wanted = fetching.get(id);
      state = store.put(await (await comfy.get(`/searches/${encodeURIComponent(id)}`)).json());
    } while (fetching.get(id) > Math.max(wanted, state.rev)); // more came while the answer was on its way
    attachAll();
  } catch (error) {
    console.warn(`Noise Search: search ${id} is not shown: ${error.message}`);
  } finally {
    fetching.delete(id);
  }
}

/** Take what nodes showed after a run: live, from the history, or of a workflow tab that is open again. */
function takeOutputs(outputs) {
  const states = outputs.flatMap((output) => output?.noise_search ?? []);
  if (!states.length) return;
  states.forEach((state) => store.put(state));
  attachAll();
}

/** Keep the seed of a new node: with another one, the search that is queued next finds nothing to go on from. */
function fixSeed(node) {
  const control = node.widgets?.find(({ name }) => name === "control_after_generate");
  if (control) control.value = "fixed"; // a saved workflow's own value comes after this
}

function addDashboard(node) {
  const actions = createActions(comfy, node);
  const board = new Dashboard(actions);
  boards.set(node, board);
  board.element.classList.add("widget-expands"); // early Nodes 2.0 stretches only what has this class
  const nothing = { getValue: () => "", setValue() {}, serialize: false };
  const options = { ...nothing, hideOnZoom: false, getMinHeight: () => board.minHeight + MARGIN };
  const widget = node.addDOMWidget("noise_search", "noise_search", board.element, options);
  widget.serialize = false; // not in the saved workflow; `options.serialize` is for the prompt
  node.setSize([Math.max(node.size[0], WIDTH), Math.max(node.size[1], node.computeSize()[1])]);
  const removed = node.onRemoved;
  node.onRemoved = function (...args) {
    board.remove();
    boards.delete(node);
    return removed?.apply(this, args);
  };
  if (!app.collectNodeMenuItems) addOldMenu(node);
}

function menuItems(node) {
  const board = boards.get(node);
  if (!board?.state) return [];
  const forget = async () => {
    const { state } = board;
    if (!(await board.actions.forget(state))) return;
    store.forget(state.id);
    board.clear();
  };
  return [null, { content: "Forget this search (delete its journal)", callback: () => void forget() }];
}

/** Frontends without `getNodeMenuItems` ask the node itself. */
function addOldMenu(node) {
  const before = node.getExtraMenuOptions;
  node.getExtraMenuOptions = function (canvas, options) {
    const all = before?.apply(this, [canvas, options]);
    options.push(...menuItems(node));
    return all;
  };
}

app.registerExtension({
  name: "noisesearch.dashboard",
  setup() {
    document.head.append(el("link", { rel: "stylesheet", href: new URL("dashboard.css", import.meta.url).href }));
    api.addEventListener(EVENT, take);
    api.addEventListener("executed", ({ detail }) => takeOutputs([detail.output]));
    api.addEventListener("reconnected", refresh);
  },
  nodeCreated(node) {
    if (!SEARCH_TYPES.includes(node.comfyClass)) return;
    fixSeed(node);
    addDashboard(node);
  },
  afterConfigureGraph: () => void refresh(), // not awaited: the page must not wait for us
  onNodeOutputsUpdated: (outputs) => takeOutputs(Object.values(outputs)),
  getNodeMenuItems: (node) => menuItems(node),
});
