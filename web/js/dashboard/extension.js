/** The dashboard in ComfyUI's page: connects the server's events, the nodes and their dashboards. */

import { addStylesheet } from "../common/dom.js";
import { findWidget } from "../comfyui/graph_links.js";
import { isSearchNode } from "../comfyui/graph_nodes.js";
import { api, app } from "../comfyui/page.js";
import { LiveSearches } from "./live_searches.js";
import { NodeDashboards } from "./node_dashboards.js";

const STYLESHEETS = ["dashboard.css", "../question/question.css"];
const EVENT = "noise_search.update";

export const searches = new LiveSearches((states) => dashboards.showAll(states));
const dashboards = new NodeDashboards(searches.store);

/**
 * Keep the seed of a new node from run to run: with another seed, the search that is queued next finds nothing in its journal.
 * @param {Comfy.Node} node
 */
function fixSeed(node) {
  const control = findWidget(node, "control_after_generate");
  if (control) control.value = "fixed"; // a saved workflow's own value is set after this
}

app.registerExtension({
  name: "noisesearch.dashboard",
  setup() {
    for (const name of STYLESHEETS) addStylesheet(new URL(name, import.meta.url));
    api.addEventListener(EVENT, ({ detail }) => searches.apply(detail));
    api.addEventListener("executed", ({ detail }) => searches.takeOutputs([detail.output]));
    api.addEventListener("reconnected", () => void searches.refresh());
  },
  nodeCreated(node) {
    if (!isSearchNode(node)) return;
    fixSeed(node);
    dashboards.add(node);
  },
  afterConfigureGraph: () => void searches.refresh(), // not awaited: the page must not wait for us
  onNodeOutputsUpdated: (outputs) => searches.takeOutputs(Object.values(outputs)),
  getNodeMenuItems: (node) => dashboards.menuItems(node),
});
