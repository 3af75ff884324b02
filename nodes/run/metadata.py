"""What pictures carry of the search that found them, in ComfyUI's standard metadata."""

from __future__ import annotations

import json
from typing import Any

from comfy.cli_args import args
from comfy_api.latest import io
from PIL.PngImagePlugin import PngInfo

from ...search.reporting.report import carried_summary, winner_summary
from ..adapter.prompt_context import PromptContext

KEY = "noise_search"  # of the text chunk, of `extra_pnginfo`, and of the search node's properties in the workflow
FOUND = "noise_search_found"  # of what a search node shows: its summary, which the page keeps in the node
REPORT_OUTPUT = 7  # of the search nodes
SEARCH_NODES = ("NSSearchSampler", "NSSearchSamplerAdvanced")


def keep_found(output: io.NodeOutput, caller: PromptContext, reports: list[dict[str, Any]]) -> io.NodeOutput:
    """Have a search node's output, and the pictures that are saved later in the run, tell what was found."""
    carry(caller.extra, caller.node, carried_summary(reports), caller.display)
    shown: dict[str, Any] = output.ui or {}
    output.ui = {**shown, FOUND: [winner_summary(reports)]}
    return output


def carry(extra_pnginfo: Any, node_id: str, summary: dict[str, Any], shown: str = "") -> None:
    """Have every picture that is saved later in this run, by whatever node, carry a search's summary.

    It stands under a key of its own, by node, and in the properties of the search node in the workflow, so that the
    page finds it there when the picture is dropped on it.

    Args:
        extra_pnginfo: the hidden input of that name, a dict that all nodes of a run share, unless a client sent something else.
        node_id: execution id of the search node, as in "5", or "1:2" inside a subgraph.
        summary: from `search.reports.carried_summary`.
        shown: id by which the page knows the node, if another: it stands under both, the latest search of a loop under this.
    """
    if not isinstance(extra_pnginfo, dict):
        return
    found, shown = extra_pnginfo.get(KEY), shown or node_id
    extra_pnginfo[KEY] = {**(found if isinstance(found, dict) else {}), node_id: summary, shown: summary}
    if (node := find_node(extra_pnginfo.get("workflow"), shown)) is not None:
        _keep_in(node, summary)


def find_node(workflow: Any, node_id: str) -> dict[str, Any] | None:
    """Return the search node of an execution id in a UI-form workflow; None where there is no such node.

    A subgraph that stands in the workflow twice is written down once: both have the same nodes.
    """
    graph, found = workflow, None
    definitions = workflow.get("definitions") if isinstance(workflow, dict) else None
    subgraphs = {str(one.get("id")): one for one in _dicts(definitions, "subgraphs")}
    for place in str(node_id).split(":"):
        found = next((node for node in _dicts(graph, "nodes") if str(node.get("id")) == place), None)
        graph = subgraphs.get(str(found.get("type"))) if found else None
    return found if found and found.get("type") in SEARCH_NODES else None


def png_info(hidden: Any, summary: dict[str, Any]) -> PngInfo | None:
    """Return the text chunks of a picture: ComfyUI's own, and the summary; None if metadata are switched off.

    Args:
        hidden: the saving node's hidden inputs `unique_id`, `prompt`, `extra_pnginfo` and, if it has it, `dynprompt`.
        summary: of this picture. Dropped on the page, the picture reduces to itself: its recipe stands in the search
            node of its workflow, where the report comes straight from one.
    """
    if args.disable_metadata:
        return None
    info = PngInfo()
    if hidden.prompt is not None:
        info.add_text("prompt", json.dumps(hidden.prompt))
    extra = hidden.extra_pnginfo if isinstance(hidden.extra_pnginfo, dict) else {}
    node = find_node(extra.get("workflow"), _search_of(hidden))
    before = None if node is None else node.get("properties")
    if node is not None:
        _keep_in(node, summary)
    for name, value in {**extra, KEY: summary}.items():
        info.add_text(name, json.dumps(value))
    if node is not None:
        node["properties"] = before  # pictures that other nodes save carry what all of them have in common
    return info


def _search_of(hidden: Any) -> str:
    """Return the page's id of the node whose report output is connected to a saving node; "" if it is not a search node's."""
    caller = PromptContext.told(hidden)
    link = (caller.prompt.get(caller.node) or {}).get("inputs", {}).get("report")
    return caller.shown(str(link[0])) if isinstance(link, list) and len(link) == 2 and link[1] == REPORT_OUTPUT else ""


def _keep_in(node: dict[str, Any], summary: dict[str, Any]) -> None:
    """Put a summary into a workflow's node, in place: every queued run has a workflow of its own."""
    properties = node.get("properties")
    node["properties"] = {**(properties if isinstance(properties, dict) else {}), KEY: summary}


def _dicts(data: Any, name: str) -> list[dict[str, Any]]:
    values = data.get(name) if isinstance(data, dict) else None
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []
