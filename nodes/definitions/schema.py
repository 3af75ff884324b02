"""Schemas that load on every supported ComfyUI: what a core does not know yet is left out.

Node definitions use `schema(...)` for `io.Schema(...)` and `inp(io.Int, ...)` for `io.Int.Input(...)`. Only
the keyword arguments listed here may be dropped; a misspelt one still raises.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

from comfy_api.latest import io

# Known to newer cores only; none of them changes what a node computes.
# (Older cores hand links of undeclared names over without `accept_all_inputs`.)
NEWER_SCHEMA = frozenset({
    "search_aliases", "has_intermediate_output", "essentials_category", "is_dev_only", "accept_all_inputs",
})  # fmt: skip
NEWER_INPUT = frozenset({"advanced", "raw_link", "socketless", "gradient_stops"})


def _known(function: Callable[..., Any], kwargs: dict[str, Any], newer: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if name not in newer or name in _parameters(function)}


@cache  # a few sockets, hundreds of inputs
def _parameters(function: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)


def schema(**kwargs: Any) -> io.Schema:
    """Make an `io.Schema`, without the arguments that this ComfyUI does not know.

    Every output shows its id as its name: older cores would show its type, and three outputs called "IMAGE" cannot
    be told apart. They also refuse an output with the id of an input ("latents" in and out): such an output keeps
    its name on the node and gets an id of its own, on every core.
    """
    taken = {item.id for item in kwargs.get("inputs") or []}
    for output in kwargs.get("outputs") or []:
        output.display_name = output.display_name or output.id
        if output.id in taken:
            output.id = f"{output.id}_out"
    return io.Schema(**_known(io.Schema, kwargs, NEWER_SCHEMA))


def inp(kind: Any, id: str, **kwargs: Any) -> Any:
    """Make an input of a socket type (`io.Int`, `io.Model`, `sockets.Verifier`), likewise.

    Args:
        kind: The socket type; its `.Input` is built.
        id: The input's id.
        **kwargs: Whatever `.Input` takes in the newest ComfyUI.
    """
    return kind.Input(id, **_known(kind.Input, kwargs, NEWER_INPUT))


def prompt_input(limit: str = "", more: str = ".", image: str = "should show") -> Any:
    """Make the input `prompt` of a verifier.

    Args:
        limit: how much of it counts, "77 tokens count (about 55 words)"; empty where there is no limit to speak of.
        more: in its place, how the tooltip goes on.
        image: what the prompt says of the image.
    """
    more = f". At most {limit}; weights like (word:1.2) are read as plain text." if limit else more
    tooltip = f"What the image {image}. Connect the same text as your prompt encoder gets{more}"
    return inp(io.String, "prompt", multiline=True, default="", tooltip=tooltip)
