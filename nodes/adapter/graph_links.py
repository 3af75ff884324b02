"""What of a graph lies between the candidate image and a score, and what those nodes read from others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import nodes as comfy_nodes
from comfy_execution.graph import get_input_info
from comfy_execution.graph_utils import is_link

IMAGE_NODE, SCORE_NODE = "NSGraphImage", "NSScoreFromGraph"
Link = tuple[str, int]  # a node's id, and the index of its output


@dataclass(frozen=True)
class Chain:
    """What lies between the candidate image and a score.

    Attributes:
        end: The output that is the score.
        inside: The ids of the nodes that depend on the candidate image.
        pictures: The ids of the candidate image nodes.
        outside: The outputs of other nodes that ComfyUI is to evaluate before the search.
        evaluated: The ids of the nodes that ComfyUI evaluates in this prompt in any case, as far as that is known.
        example: The output that a candidate image node shows outside a search; None if there is none.
        name: The title of the node at the end.
    """

    end: Link
    inside: frozenset[str]
    pictures: frozenset[str]
    outside: tuple[Link, ...]
    evaluated: frozenset[str]
    example: Link | None
    name: str


def title(graph: Any, node_id: str) -> str:
    """Return what a node is called on the page, or else its type's name."""
    node = graph.get_node(node_id)
    kind = node["class_type"]
    return (node.get("_meta") or {}).get("title") or comfy_nodes.NODE_DISPLAY_NAME_MAPPINGS.get(kind) or kind


def class_of(graph: Any, node_id: str) -> Any:
    """Return a node's class; None if no pack has it, as may be with nodes that are not run."""
    return comfy_nodes.NODE_CLASS_MAPPINGS.get(graph.get_node(node_id)["class_type"])


def paid(graph: Any, node_id: str) -> bool:
    """Whether a node is paid for by the call."""
    return getattr(class_of(graph, node_id), "API_NODE", False)


def links(graph: Any, node_id: str, lazy: bool | None = None) -> list[Link]:
    """Return the outputs that a node's inputs are connected to; with `lazy`, those of lazy inputs, or of all others."""
    connected = {name: value for name, value in graph.get_node(node_id)["inputs"].items() if is_link(value)}
    if lazy is not None:
        kind = class_of(graph, node_id)
        connected = {name: value for name, value in connected.items() if _is_lazy(kind, name) == lazy}
    return [(value[0], value[1]) for value in connected.values()]


def capture(graph: Any, end: Any, node_id: str) -> Chain:
    """Find the chain that ends in an output.

    Args:
        graph: The prompt, as ComfyUI's `DynamicPrompt`.
        end: The link that is the score, [node id, output].
        node_id: The node that makes a verifier of the chain.

    Raises:
        ValueError: If no candidate image is there, or a node is paid for by the call.
    """
    if not is_link(end):
        raise ValueError(f"input 'score' is {end!r}; connect the output of the node that computes the score to it")
    depends = _dependent(graph, end[0])
    name = title(graph, end[0])
    if not depends[end[0]]:
        raise ValueError(
            f"input 'score' comes from '{name}' (node {end[0]}), and no Candidate Image node lies before that. Connect the"
            " image of a Candidate Image node to the nodes that compute the score"
        )
    pictures = frozenset(n for n, on in depends.items() if on and graph.get_node(n)["class_type"] == IMAGE_NODE)
    inside = frozenset(n for n, on in depends.items() if on) - pictures
    for one in sorted(inside):
        if paid(graph, one):
            raise ValueError(
                f"'{title(graph, one)}' (node {one}) is paid for by the call, and a search would call it for each"
                " candidate. Use a node that computes the score on this machine"
            )
    examples = [link for one in sorted(pictures) for link in links(graph, one)][:1]
    run_always = inside & _before(_needs(graph), [end[0]])
    needed = [link for one in sorted(run_always) for link in links(graph, one, lazy=False) if not depends[link[0]]]
    bare = Chain((end[0], end[1]), inside, pictures, (), _evaluated(graph, node_id), next(iter(examples), None), name)
    return evaluating(graph, bare, needed + examples)


def evaluating(graph: Any, chain: Chain, asked: Iterable[Link]) -> Chain:
    """Return a chain with more outputs that ComfyUI is to evaluate before the search.

    Beside those: what is read of nodes that it evaluates in any case, by nodes inside and by those that a lazy input may ask
    for in the search. So what a model loader gives is never made twice.
    """
    asked = [*chain.outside, *asked]
    evaluated = chain.evaluated | _before(_needs(graph), [source for source, _ in asked])
    outside, seen = dict.fromkeys(asked), set(chain.inside | chain.pictures)
    todo = sorted(chain.inside)
    while todo:
        for source, output in links(graph, todo.pop()):
            if source in seen:
                continue
            if source in evaluated:
                outside[source, output] = None
            else:
                seen.add(source)
                todo.append(source)
    return replace(chain, outside=tuple(outside), evaluated=evaluated)


def _dependent(graph: Any, end: str) -> dict[str, bool]:
    """Return for every node before and with `end` whether it depends on a candidate image."""
    depends: dict[str, bool] = {}

    def visit(node_id: str) -> bool:
        if node_id not in depends:
            kind = graph.get_node(node_id)["class_type"]
            depends[node_id] = False  # while its inputs are looked at; a cycle is ComfyUI's to report
            inputs = [] if kind in (IMAGE_NODE, SCORE_NODE) else links(graph, node_id)
            depends[node_id] = any([visit(source) for source, _ in inputs]) or kind == IMAGE_NODE
        return depends[node_id]

    visit(end)
    return depends


def _evaluated(graph: Any, node_id: str) -> frozenset[str]:
    """Return what must be evaluated for the output nodes that come after a node, but for what lazy inputs may ask for."""
    needs, found = _needs(graph), frozenset[str]()
    for one in needs:
        if getattr(class_of(graph, one), "OUTPUT_NODE", False):
            before = _before(needs, [one])
            found |= before if node_id in before else frozenset()
    return found


def _needs(graph: Any) -> dict[str, list[str]]:
    """Return for every node whose outputs it needs, but for what its lazy inputs may ask for."""
    known = [one for one in graph.all_node_ids() if class_of(graph, one) is not None]
    return {one: [source for source, _ in links(graph, one, lazy=False)] for one in known}


def _before(needs: Mapping[str, list[str]], node_ids: Iterable[str]) -> frozenset[str]:
    """Return nodes with all that they need."""
    found, todo = set[str](), list(node_ids)
    while todo:
        node_id = todo.pop()
        if node_id not in found:
            found.add(node_id)
            todo += needs.get(node_id, [])
    return frozenset(found)


def _is_lazy(kind: Any, name: str) -> bool:
    return bool(_info(kind, name).get("lazy"))


def _info(kind: Any, name: str) -> Mapping[str, Any]:
    return get_input_info(kind, name)[2] or {}
