"""A part of the user's graph, run again for each picture: the nodes between a candidate image and a score.

ComfyUI runs a node once for each prompt. Here the nodes that depend on the candidate image are run as often as there are
candidates, by ComfyUI's own functions for one node (`execution.get_input_data`, `_async_map_node_over_list`), in the order
of their links: lists, lazy inputs, hidden inputs, async nodes, old and new nodes behave as they do in the graph. What
does not depend on the candidate (model loaders, prompts) is ComfyUI's to evaluate: once, cached, before the search. Only
what a node asks for in view of the candidate, by a lazy input, is evaluated here, when it is first asked for, and kept.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import comfy.model_management as mm
import comfy.utils
import execution
import torch
from comfy_api.internal import first_real_override
from comfy_api.latest import io
from comfy_execution import progress
from comfy_execution.graph import ExecutionBlocker
from comfy_execution.graph_utils import is_link
from comfy_execution.utils import get_executing_context
from torch import Tensor

from ...search.base.text import cut
from .graph_links import Chain, Link, class_of, links, paid, title


class SubGraph:
    """A chain, ready to run. Its nodes' objects live as long as it does, so that what they keep is kept.

    Attributes:
        given: the outputs that ComfyUI evaluated, by node.
        kept: the outputs of nodes outside that a candidate asked for, by node.

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
        self.kept: dict[str, Sequence[Any]] = {}
        self.objects: dict[str, Any] = {}

    def foreseen(self) -> tuple[Link, ...]:
        """Return the outputs outside that lazy inputs are sure to ask for, whatever the candidate, and that are not given."""
        run, asked = _Run(self, None), dict[Link, None]()
        reached = {self.chain.end[0]}
        todo = list(reached)
        while todo:
            for source, output in run.foreseen(todo.pop()):
                if source in self.chain.inside:
                    todo += {source} - reached
                    reached.add(source)
                elif source not in self.given and source not in self.chain.pictures:
                    asked[source, output] = None
        return tuple(asked)

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

    def __init__(self, sub: SubGraph, images: Tensor | None) -> None:
        """Prepare a run; without images, one that only asks what its nodes will ask for."""
        self.sub = sub
        self.done: dict[str, Sequence[Any] | _Slots] = {node_id: _Slots(slots) for node_id, slots in sub.given.items()}
        self.done.update(sub.kept)
        self.done.update({node_id: [[images]] for node_id in sub.chain.pictures if images is not None})
        self.linked: set[tuple[str, str]] = set()  # which node gets the outputs of which

    def get_cache(self, from_node_id: str, to_node_id: str) -> Any:
        """Give `execution.get_input_data` the outputs that a node needs or asked for, as its execution list does."""
        outputs = self.done.get(from_node_id) if (from_node_id, to_node_id) in self.linked else None
        return None if outputs is None else SimpleNamespace(outputs=outputs)

    def outputs(self, node_id: str) -> Sequence[Any] | _Slots:
        """Return a node's outputs, one list of values each."""
        if node_id not in self.done:
            for source, _ in links(self.sub.graph, node_id, lazy=False):
                self._link(source, node_id)
            while wanted := self._wanted(node_id):
                for source, _ in wanted:
                    self._link(source, node_id)
            self.done[node_id] = self._execute(node_id)
            if node_id not in self.sub.chain.inside:
                self.sub.kept[node_id] = self.done[node_id]
        return self.done[node_id]

    def foreseen(self, node_id: str) -> list[Link]:
        """Return the outputs that a node inside needs or asks for, as far as the candidate has no say in it."""
        needed = links(self.sub.graph, node_id, lazy=False)
        asked: list[Link] = []
        while all(source in self.done for source, _ in needed + asked):
            self.linked.update((source, node_id) for source, _ in needed + asked)
            wanted = self._wanted(node_id)
            if not wanted:
                break
            asked += wanted
        return needed + asked

    def _link(self, source: str, node_id: str) -> None:
        self.outputs(source)
        self.linked.add((source, node_id))

    def _node(self, node_id: str) -> tuple[dict[str, Any], type]:
        return self.sub.graph.get_node(node_id)["inputs"], class_of(self.sub.graph, node_id)

    def _data(self, node_id: str) -> tuple[dict[str, Any], dict[str, Any], Any]:
        """Return ComfyUI's input data of a node, which inputs are missing, and what only new nodes get."""
        inputs, kind = self._node(node_id)
        return execution.get_input_data(inputs, kind, node_id, self, self.sub.graph, self.sub.extra)

    def _wanted(self, node_id: str) -> list[Link]:
        """Return what is connected to the lazy inputs that a node asks for and has not got yet."""
        inputs, kind = self._node(node_id)
        new = issubclass(kind, io.ComfyNode)
        asks = first_real_override(kind, "check_lazy_status") if new else getattr(kind, "check_lazy_status", None)
        if asks is None:
            return []
        data, missing, hidden = self._data(node_id)
        answers = self._call(node_id, data, "check_lazy_status", {**(hidden or {}), "create_dynamic_tuple": True})
        names = {name for answer in answers if isinstance(answer, list) for name in answer}
        there = {name for name in names if name in data and name not in missing}
        values = [inputs[name] for name in sorted(names - there) if name in inputs]
        asked = [(value[0], value[1]) for value in values if is_link(value)]
        return [link for link in asked if (link[0], node_id) not in self.linked]

    def _execute(self, node_id: str) -> Sequence[Any]:
        if paid(self.sub.graph, node_id):
            raise ValueError(
                f"{self.sub.named(node_id)} is paid for by the call, and is asked for only by some candidates, in the search."
                " Connect it to an input that is not lazy, or use a node that computes its value on this machine"
            )
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
            raise ValueError(f"{self.sub.named(node_id)} failed: {type(error).__name__}: {cut(str(error))}") from error


class _Slots:
    """Outputs of a node of which only some are known, as a sequence."""

    def __init__(self, slots: Mapping[int, list[Any]]) -> None:
        self.slots = slots

    def __len__(self) -> int:
        return max(self.slots) + 1

    def __getitem__(self, index: int) -> list[Any]:
        return self.slots[index]


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
