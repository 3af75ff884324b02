"""Who runs a node: the prompt around it, as ComfyUI's hidden inputs tell."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from comfy_api.latest import io
from server import PromptServer

HIDDEN = [io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo]  # for the schema of a node that wants to know


def server() -> Any:
    """Return the running server; None in tools and tests."""
    return getattr(PromptServer, "instance", None)


@dataclass(frozen=True)
class Caller:
    """What is known of the prompt that a node runs in; nothing if it was called without one.

    Attributes:
        node: execution id of the node; empty if not known.
        prompt: the whole prompt in API form.
        extra: what pictures carry beside the prompt, the workflow among it; ComfyUI's own dict, shared by all nodes.
    """

    node: str = ""
    prompt: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(node: type[io.ComfyNode]) -> Caller:
        """Read the hidden inputs of a node's class, inside its `execute`."""
        hidden = node.hidden
        if hidden is None:
            return Caller()
        extra = {} if hidden.extra_pnginfo is None else hidden.extra_pnginfo
        return Caller(str(hidden.unique_id or ""), hidden.prompt or {}, extra)
