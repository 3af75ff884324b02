"""A workflow in ComfyUI's API form, as the template of a benchmark's runs."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from pathlib import Path
from typing import Any

SEARCH_NODES = ("NSSearchSampler", "NSSearchSamplerAdvanced")
REPORT_OUTPUT = 7  # of both search nodes; see nodes/definitions/search.py
REPORT_PREFIX = "bench_report_"
SAVERS, PREVIEWS = ("SaveImage",), ("PreviewImage",)
Workflow = dict[str, dict[str, Any]]


class WorkflowError(ValueError):
    """A workflow cannot be used; says why and what to do."""


def load_workflow(path: Path) -> Workflow:
    """Read a workflow in API form, node id to {"class_type", "inputs"}; titles are left out.

    Raises:
        WorkflowError: If the file is no such workflow; the form that the page saves is named as such.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise WorkflowError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise WorkflowError(f"{path}: not JSON: {error}") from error
    if isinstance(found, dict) and isinstance(found.get("nodes"), list):
        raise WorkflowError(f"{path}: this is the page's own form; export it with Workflow > Export (API)")
    if not isinstance(found, dict) or not found:
        raise WorkflowError(f"{path}: expected a JSON object of nodes by id")
    for node_id, node in found.items():
        if not isinstance(node, dict) or not isinstance(node.get("inputs"), dict) or "class_type" not in node:
            raise WorkflowError(f"{path}: node {node_id!r} lacks 'class_type' or 'inputs'")
    return {node_id: {"class_type": n["class_type"], "inputs": n["inputs"]} for node_id, n in found.items()}


def with_settings(workflow: Workflow, settings: list[str]) -> Workflow:
    """Return the workflow with inputs set by texts NODE.INPUT=VALUE.

    A value that is JSON (a number, true, "text", ["4", 0]) is taken as such, any other as text.

    Raises:
        WorkflowError: For another form, and for a node or input that is not there: ComfyUI would ignore it.
    """
    workflow = copy.deepcopy(workflow)
    for setting in settings:
        place, equals, value = setting.partition("=")
        node_id, dot, name = place.strip().partition(".")
        if not (equals and dot and node_id and name):
            raise WorkflowError(f"--set {setting!r}: expected NODE.INPUT=VALUE, such as 8.steps=30")
        if node_id not in workflow:
            raise WorkflowError(f"--set {setting!r}: no node {node_id!r}; there are {', '.join(workflow)}")
        inputs = workflow[node_id]["inputs"]
        if name not in inputs:
            raise WorkflowError(f"--set {setting!r}: node {node_id!r} has no input {name!r}; it has {', '.join(inputs)}")
        try:
            inputs[name] = json.loads(value)
        except ValueError:
            inputs[name] = value
    return workflow


def placeholders(workflow: Workflow) -> set[str]:
    """Return the names between per cent signs that its inputs' texts hold: {"prompt", "seed"}."""
    return {name for text in _texts(workflow) for name in re.findall(r"%(\w+)%", text)}


def fill(workflow: Workflow, values: dict[str, str | int]) -> Workflow:
    """Return the workflow with every %name% replaced, in one pass: a prompt that holds "%seed%" stays as it is.

    Args:
        workflow: The template.
        values: By name. A text that is nothing but "%seed%" becomes the value itself, a number stays a number.
    """
    pattern = re.compile("%(" + "|".join(map(re.escape, values)) + ")%")

    def filled(value: Any) -> Any:
        if isinstance(value, str):
            whole = pattern.fullmatch(value)
            return values[whole[1]] if whole else pattern.sub(lambda found: str(values[found[1]]), value)
        if isinstance(value, list):
            return [filled(item) for item in value]
        if isinstance(value, dict):
            return {key: filled(item) for key, item in value.items()}
        return value

    return {node_id: {**node, "inputs": filled(node["inputs"])} for node_id, node in workflow.items()}


def with_reports(workflow: Workflow) -> tuple[Workflow, dict[str, str]]:
    """Return the workflow with a stock PreviewAny on the report of every search node, and their ids by its id.

    The searches take nothing from earlier ones: what is measured is what they cost.
    """
    searches = [node_id for node_id, node in workflow.items() if node["class_type"] in SEARCH_NODES]
    added = {
        REPORT_PREFIX + node_id: {"class_type": "PreviewAny", "inputs": {"source": [node_id, REPORT_OUTPUT]}}
        for node_id in searches
    }
    anew = {node_id: {**workflow[node_id], "inputs": {**workflow[node_id]["inputs"], "resume": "off"}} for node_id in searches}
    return {**workflow, **anew, **added}, {REPORT_PREFIX + node_id: node_id for node_id in searches}


def picture_node(workflow: Workflow, given: str | None = None) -> str | None:
    """Return the node whose pictures are kept: the given one, the one SaveImage, else the one PreviewImage.

    Returns:
        Its id; None if the workflow has neither, so that another saving node has to show itself when it runs.

    Raises:
        WorkflowError: If the given node is not there, or there are several to choose from.
    """
    if given is not None:
        if given not in workflow:
            raise WorkflowError(f"--picture-node {given!r}: no such node; there are {', '.join(workflow)}")
        return given
    for kinds in (SAVERS, PREVIEWS):
        found = [node_id for node_id, node in workflow.items() if node["class_type"] in kinds]
        if len(found) > 1:
            raise WorkflowError(f"the workflow has several {kinds[0]} nodes ({', '.join(found)}): choose --picture-node")
        if found:
            return found[0]
    return None


def search_behind(workflow: Workflow, node_id: str) -> str | None:
    """Return the search node nearest upstream of a node; None if there is none."""
    level, seen = [node_id], set()
    while level:
        found = [one for one in level if workflow[one]["class_type"] in SEARCH_NODES]
        if found:
            return found[0]
        seen.update(level)
        links = [value[0] for one in level for value in workflow[one]["inputs"].values() if _is_link(workflow, value)]
        level = [one for one in dict.fromkeys(links) if one not in seen]
    return None


def workflow_hash(workflow: Workflow, settings: dict[str, Any] | None = None) -> str:
    """Return 16 hexadecimal digits that differ if the workflow, or further settings of the run, differ."""
    text = json.dumps([workflow, settings or {}], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _is_link(workflow: Workflow, value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and value[0] in workflow and isinstance(value[1], int)


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for item in items for text in _texts(item)]
