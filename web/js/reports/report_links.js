/** Links to the reports that Save Search wrote, on its node. */

import { app } from "../../../../scripts/app.js";
import { api } from "../../../../scripts/api.js";

const FILES = "noise_search_files";

function addLinks(node) {
  const list = document.createElement("div");
  list.style.cssText = "display:flex;flex-wrap:wrap;gap:4px 12px;min-height:22px;font-size:12px;overflow:auto";
  const widget = node.addDOMWidget("reports", "noise_search_reports", list, { serialize: false, getMinHeight: () => 24, getValue: () => "", setValue() {} });
  widget.serialize = false;
  const before = node.onExecuted;
  node.onExecuted = function (output) {
    before?.call(this, output);
    if (output?.[FILES]) list.replaceChildren(...output[FILES].map(linkTo));
  };
}

function linkTo({ filename, subfolder, type }) {
  const link = document.createElement("a");
  link.href = api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`);
  link.download = filename;
  link.textContent = filename.split(".").at(-1).toUpperCase();
  link.title = filename;
  link.style.color = "var(--fg-color)";
  return link;
}

app.registerExtension({
  name: "noisesearch.saved",
  nodeCreated: (node) => node.comfyClass === "NSSaveSearch" && addLinks(node),
});
