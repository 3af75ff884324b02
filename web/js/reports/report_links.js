/** Links to the reports that Save Search wrote, on its node. */

import { el } from "../common/dom.js";
import { api, app } from "../comfyui/page.js";

const STYLE = "display:flex;flex-wrap:wrap;gap:4px 12px;min-height:22px;font-size:12px;overflow:auto";
const OPTIONS = { serialize: false, getMinHeight: () => 24, getValue: () => "", setValue() {} };

/** @param {Comfy.Node} node A Save Search. */
function addLinks(node) {
  const list = el("div", { style: STYLE });
  const widget = node.addDOMWidget("reports", "noise_search_reports", list, OPTIONS);
  widget.serialize = false;
  const before = node.onExecuted;
  node.onExecuted = function (output) {
    before?.call(this, output);
    const files = output?.noise_search_files;
    if (files) list.replaceChildren(...files.map(linkTo));
  };
}

/**
 * @param {Comfy.SavedFile} file
 * @returns {HTMLAnchorElement}
 */
function linkTo({ filename, subfolder, type }) {
  const href = api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`);
  const text = filename.slice(filename.lastIndexOf(".") + 1).toUpperCase();
  return el("a", { href, download: filename, title: filename, text, style: "color:var(--fg-color)" });
}

app.registerExtension({
  name: "noisesearch.reports",
  nodeCreated(node) {
    if (node.comfyClass === "NSSaveSearch") addLinks(node);
  },
});
