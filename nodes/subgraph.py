"""A part of the user's graph, run again for each picture: the nodes between a candidate image and a score.

ComfyUI runs a node once for each prompt. Here the nodes that depend on the candidate image are run as often as there are
candidates, by ComfyUI's own functions for one node (`execution.get_input_data`, `_async_map_node_over_list`), in the order
of their links: lists, lazy inputs, hidden inputs, async nodes, old and new nodes behave as they do in the graph. What
does not depend on the candidate (model loaders, prompts) is ComfyUI's to evaluate: once, cached, before the search.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import comfy.model_management as mm
import comfy.utils
import execution
import nodes as comfy_nodes
import torch
from comfy_api.internal import first_real_override
from comfy_api.latest import io
from comfy_execution import progress
from comfy_execution.graph import ExecutionBlocker, get_input_info
from comfy_execution.graph_utils import is_link
from comfy_execution.utils import get_executing_context
from torch import Tensor

IMAGE_NODE, SCORE_NODE = "NSGraphImage", "NSScoreFromGraph"
Link = tuple[str, int]  # a node's id, and the index of its output


@dataclass(frozen=True)
class Chain:
    """What lies between the candidate image and a score.

    Attributes:
        end: The output that is the score.
        inside: The ids of the nodes that depend on the candidate image.
        pictures: The ids of the candidate image nodes.
        outside: The outputs of other nodes that those inside read.
        example: The output that a candidate image node shows outside a search; None if there is none.
        name: The title of the node at the end.
    """

    end: Link
    inside: frozenset[str]
    pictures: frozenset[str]
    outside: tuple[Link, ...]
    example: Link | None
    name: str


def title(graph: Any, node_id: str) -> str:
    """Return what a node is called on the page, or else its type's name."""
    node = graph.get_node(node_id)
    kind = node["class_type"]
    return (node.get("_meta") or {}).get("title") or comfy_nodes.NODE_DISPLAY_NAME_MAPPINGS.get(kind) or kind


def links(graph: Any, node_id: str) -> list[Link]:
    """Return the outputs that a node's inputs are connected to."""
    return [(value[0], value[1]) for value in graph.get_node(node_id)["inputs"].values() if is_link(value)]


def capture(graph: Any, end: Any) -> Chain:
    """Find the chain that ends in an output.

    Args:
        graph: The prompt, as ComfyUI's `DynamicPrompt`.
        end: The link that is the score, [node id, output].

    Raises:
        ValueError: If no candidate image is there, or a node is paid for by the call.
    """
    if not is_link(end):
        raise ValueError(f"input 'score' is {end!r}; connect the output of the node that computes the score to it")
    depends: dict[str, bool] = {}

    def visit(node_id: str) -> bool:
        if node_id not in depends:
            kind = graph.get_node(node_id)["class_type"]
            depends[node_id] = False  # while its inputs are looked at; a cycle is ComfyUI's to report
            inputs = [] if kind in (IMAGE_NODE, SCORE_NODE) else links(graph, node_id)
            depends[node_id] = any([visit(source) for source, _ in inputs]) or kind == IMAGE_NODE
        return depends[node_id]

    name = title(graph, end[0])
    if not visit(end[0]):
        raise ValueError(
            f"input 'score' comes from '{name}' (node {end[0]}), and no Candidate Image node lies before that. Connect the"
            " image of a Candidate Image node to the nodes that compute the score"
        )
    pictures = frozenset(n for n, on in depends.items() if on and graph.get_node(n)["class_type"] == IMAGE_NODE)
    inside = frozenset(n for n, on in depends.items() if on) - pictures
    for node_id in sorted(inside):
        if getattr(comfy_nodes.NODE_CLASS_MAPPINGS[graph.get_node(node_id)["class_type"]], "API_NODE", False):
            raise ValueError(
                f"'{title(graph, node_id)}' (node {node_id}) is paid for by the call, and a search would call it for each"
                " candidate. Use a node that computes the score on this machine"
            )
    read = [link for node_id in sorted(inside) for link in links(graph, node_id) if not depends[link[0]]]
    examples = [link for node_id in sorted(pictures) for link in links(graph, node_id)]
    outside = tuple(dict.fromkeys(read + examples[:1]))
    return Chain((end[0], end[1]), inside, pictures, outside, examples[0] if examples else None, name)


class SubGraph:
    """A chain, ready to run. Its nodes' objects live as long as it does, so that what they keep is kept.

    Call it with pictures (n, H, W, 3): it returns the list of values of the chain's end.
    """

    def __init__(self, chain: Chain, values: Sequence[list[Any]], graph: Any, extra_pnginfo: Any = None) -> None:
        """Prepare.

        Args:
            chain: what to run.
            values: for each of the chain's `outside`, the list of values of that output.
            graph: the prompt, as ComfyUI's `DynamicPrompt`.
            extra_pnginfo: what nodes get that ask for the hidden input of that name.
        """
        self.chain, self.graph = chain, graph
        self.extra = {"extra_pnginfo": extra_pnginfo}
        self.given: dict[str, dict[int, list[Any]]] = {}
        for (node_id, output), value in zip(chain.outside, values, strict=True):
            self.given.setdefault(node_id, {})[output] = value
        self.objects: dict[str, Any] = {}

    def __call__(self, images: Tensor) -> list[Any]:
        """Run the chain on pictures (n, H, W, 3).

        Raises:
            ValueError: If a node fails, gives nothing, or cannot be run here; names it.
        """
        node_id, output = self.chain.end
        with quiet_progress(self.graph):
            found = _Run(self, images.to(mm.intermediate_device())).outputs(node_id)
        values = found[output] if output < len(found) else []
        blocked = next((value for value in values if isinstance(value, ExecutionBlocker)), None)
        if blocked is not None or not values:
            why = f": {blocked.message}" if blocked is not None and blocked.message else ""
            raise ValueError(f"{self.named(node_id)} gave no score; it, or a node before it, blocked the picture{why}")
        return values

    def named(self, node_id: str) -> str:
        """Name a node for messages."""
        return f"node '{title(self.graph, node_id)}' (id {node_id}, {self.graph.get_node(node_id)['class_type']})"


class _Run:
    """One run of a sub-graph on pictures. Each node runs at most once, when its outputs are first asked for."""

    def __init__(self, sub: SubGraph, images: Tensor) -> None:
        self.sub = sub
        self.done: dict[str, Sequence[Any]] = {node_id: _Slots(slots) for node_id, slots in sub.given.items()}
        self.done.update({node_id: [[images]] for node_id in sub.chain.pictures})

    def get_cache(self, from_node_id: str, to_node_id: str) -> Any:
        """Give `execution.get_input_data` the outputs that are there, as its execution list does."""
        outputs = self.done.get(from_node_id)
        return None if outputs is None else SimpleNamespace(outputs=outputs)

    def outputs(self, node_id: str) -> Sequence[Any]:
        """Return a node's outputs, one list of values each."""
        if node_id not in self.done:
            inputs, kind = self._node(node_id)
            for name, value in inputs.items():
                if is_link(value) and not _info(kind, name).get("lazy"):
                    self.outputs(value[0])
            while wanted := self._wanted(node_id):
                for name in wanted:
                    self.outputs(inputs[name][0])
            self.done[node_id] = self._execute(node_id)
        return self.done[node_id]

    def _node(self, node_id: str) -> tuple[dict[str, Any], type]:
        node = self.sub.graph.get_node(node_id)
        return node["inputs"], comfy_nodes.NODE_CLASS_MAPPINGS[node["class_type"]]

    def _data(self, node_id: str) -> tuple[dict[str, Any], dict[str, Any], Any]:
        """Return ComfyUI's input data of a node, which inputs are missing, and what only new nodes get."""
        inputs, kind = self._node(node_id)
        return execution.get_input_data(inputs, kind, node_id, self, self.sub.graph, self.sub.extra)

    def _wanted(self, node_id: str) -> list[str]:
        """Return the lazy inputs that a node asks for and that are not there yet."""
        inputs, kind = self._node(node_id)
        new = issubclass(kind, io.ComfyNode)
        asks = first_real_override(kind, "check_lazy_status") if new else getattr(kind, "check_lazy_status", None)
        if asks is None:
            return []
        data, missing, hidden = self._data(node_id)
        answers = self._call(node_id, data, "check_lazy_status", {**(hidden or {}), "create_dynamic_tuple": True})
        names = {name for answer in answers if isinstance(answer, list) for name in answer}
        there = {name for name in names if name in data and name not in missing}
        return sorted(name for name in names - there if is_link(inputs.get(name)) and inputs[name][0] not in self.done)

    def _execute(self, node_id: str) -> Sequence[Any]:
        data, _, hidden = self._data(node_id)
        kind = self._node(node_id)[1]
        answers = self._call(node_id, data, kind.FUNCTION, hidden)
        outputs, _, expands = execution.get_output_from_returns(answers, self._object(node_id))
        if expands:
            raise ValueError(
                f"{self.sub.named(node_id)} builds further nodes while it runs (a loop, perhaps), which cannot be done for"
                " each candidate. Take it out of the nodes between Candidate Image and 'score'"
            )
        return outputs

    def _object(self, node_id: str) -> Any:
        if node_id not in self.sub.objects:
            self.sub.objects[node_id] = self._node(node_id)[1]()
        return self.sub.objects[node_id]

    def _call(self, node_id: str, data: dict[str, Any], function: str, hidden: Any) -> list[Any]:
        """Call a node's function as ComfyUI does, once or once for each item of lists; return what it returned."""
        context = get_executing_context()
        prompt_id = context.prompt_id if context is not None else ""

        async def call() -> list[Any]:
            answers = await execution._async_map_node_over_list(
                prompt_id, node_id, self._object(node_id), data, function, True, None, None, hidden
            )
            return await execution.resolve_map_node_over_list_results(answers)

        try:
            return finished(call(), inspect.iscoroutinefunction(getattr(self._node(node_id)[1], function)))
        except mm.InterruptProcessingException:  # an Exception on older cores
            raise
        except Exception as error:
            raise ValueError(f"{self.sub.named(node_id)} failed: {type(error).__name__}: {error}") from error


class _Slots:
    """Outputs of a node of which only some are known, as a sequence."""

    def __init__(self, slots: Mapping[int, list[Any]]) -> None:
        self.slots = slots

    def __len__(self) -> int:
        return max(self.slots) + 1

    def __getitem__(self, index: int) -> list[Any]:
        return self.slots[index]


def _info(kind: type, name: str) -> Mapping[str, Any]:
    return get_input_info(kind, name)[2] or {}


def finished(work: Coroutine[Any, Any, Any], waits: bool) -> Any:
    """Run a coroutine to its end, inside ComfyUI's event loop, which stands still meanwhile.

    Args:
        work: what to run.
        waits: whether it may wait for something; it then gets a thread and an event loop of its own.
    """
    if not waits:
        try:
            work.send(None)
        except StopIteration as end:
            return end.value
        work.close()
        raise RuntimeError("a node that is not async waited for an event")
    inference = torch.is_inference_mode_enabled()

    def run() -> Any:
        with torch.inference_mode(inference):
            return asyncio.run(work)

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(contextvars.copy_context().run, run).result()


@contextmanager
def quiet_progress(graph: Any) -> Iterator[None]:
    """Keep the nodes' progress from the page, where the search's is shown; Cancel is still noticed."""
    hook, registry = comfy.utils.PROGRESS_BAR_HOOK, progress.get_progress_state()

    def only_cancel(*args: Any, **kwargs: Any) -> None:
        mm.throw_exception_if_processing_interrupted()

    comfy.utils.set_progress_bar_global_hook(only_cancel)
    progress.global_progress_registry = progress.ProgressRegistry(registry.prompt_id, graph)
    try:
        yield
    finally:
        comfy.utils.set_progress_bar_global_hook(hook)
        progress.global_progress_registry = registry
