"""Who runs a node: the prompt around it, as ComfyUI's hidden inputs tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from comfy_api.latest import io
from server import PromptServer

# for the schema of a node that wants to know
HIDDEN = [io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo, io.Hidden.dynprompt]


def server() -> Any:
    """Return the running server; None in tools and tests."""
    return getattr(PromptServer, "instance", None)


class RunningPrompt(Mapping[str, Mapping[str, Any]]):
    """All nodes of a prompt by their execution ids: those that were queued, and those that nodes built while it ran (loops)."""

    def __init__(self, graph: Any) -> None:
        """Look at ComfyUI's `DynamicPrompt`, which may still grow."""
        self._graph = graph

    def __getitem__(self, node: str) -> Mapping[str, Any]:
        if not self._graph.has_node(node):
            raise KeyError(node)
        return self._graph.get_node(node)

    def __iter__(self) -> Iterator[str]:
        return iter(self._graph.all_node_ids())

    def __len__(self) -> int:
        return len(self._graph.all_node_ids())

    def builder(self, node: str) -> str | None:
        """Return the node that built a node; None for one that was queued."""
        return self._graph.get_parent_node_id(node)

    def shown(self, node: str) -> str:
        """Return the node of the page that a node is shown at."""
        return self._graph.get_display_node_id(node)


@dataclass(frozen=True)
class PromptContext:
    """What is known of the prompt that a node runs in; nothing if it was called without one.

    Attributes:
        node: execution id of the node; empty if not known.
        prompt: the whole prompt in API form; a `RunningPrompt` inside ComfyUI.
        extra: what pictures carry beside the prompt, the workflow among it; ComfyUI's own dict, shared by all nodes.
    """

    node: str = ""
    prompt: Mapping[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(node: type[io.ComfyNode]) -> PromptContext:
        """Read the hidden inputs of a node's class, inside its `execute`."""
        return PromptContext() if node.hidden is None else PromptContext.told(node.hidden)

    @staticmethod
    def told(hidden: Any) -> PromptContext:
        """Read hidden inputs."""
        extra = {} if hidden.extra_pnginfo is None else hidden.extra_pnginfo
        graph = getattr(hidden, "dynprompt", None)
        return PromptContext(str(hidden.unique_id or ""), (hidden.prompt or {}) if graph is None else RunningPrompt(graph), extra)

    def shown(self, node: str) -> str:
        """Return the id by which the page knows a node: of one that another node built, that one's or the one it copies."""
        return self.prompt.shown(node) if isinstance(self.prompt, RunningPrompt) else node

    @property
    def display(self) -> str:
        """The id by which the page knows this node."""
        return self.shown(self.node)
