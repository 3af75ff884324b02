"""Whole prompts on the real ComfyUI's executor, in this process: caching, lazy inputs and expansion as on the server.

runner = Runner()
ended = runner.run({"1": node("EmptyImage", width=8, ...), "2": node("PreviewAny", source=["1", 0])})
ended.outputs["2"]; ended.ran; ended.error
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import importlib.util
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from inprocess import boot
from inprocess import node as load_builtin

ROOT = Path(__file__).resolve().parent


ENDS = ("execution_success", "execution_error", "execution_interrupted")


def node(kind: str, title: str = "", /, **inputs: Any) -> dict[str, Any]:
    """A node of an API-form workflow."""
    return {"class_type": kind, "inputs": inputs, **({"_meta": {"title": title}} if title else {})}


@dataclass
class Ended:
    """How a prompt ended.

    Attributes:
        status: "execution_success", "execution_error" or "execution_interrupted".
        error: the message of its error; "" if there is none.
        error_node: the node that the error is shown on.
        outputs: what its output nodes showed, by node id.
        ran: the nodes that the executor started, in order, as (id, id of the node on the page).
        events: everything that was sent, as (type, data).
    """

    status: str
    error: str
    error_node: str | None
    outputs: dict[str, Any]
    ran: list[tuple[str, str]]
    events: list[tuple[str, Any]]


@dataclass
class _Server:
    """What the executor needs of a server."""

    client_id: str | None = "test"
    last_node_id: str | None = None
    last_prompt_id: str | None = None
    sockets_metadata: dict[str, Any] = field(default_factory=dict)
    events: list[tuple[str, Any]] = field(default_factory=list)

    def send_sync(self, event: str, data: Any, sid: str | None = None) -> None:
        self.events.append((event, data))


class Refused(RuntimeError):
    """A prompt did not pass validation."""


@functools.cache
def foreign() -> ModuleType:
    """Register this pack's nodes and those of `foreign/` with ComfyUI; return the module of the latter."""
    boot()
    load_builtin("KSampler")
    known = importlib.import_module("nodes")
    spec = importlib.util.spec_from_file_location("foreign_pack", ROOT / "foreign" / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    ours = importlib.import_module("noise_search.nodes").node_list()
    known.NODE_CLASS_MAPPINGS.update({cls.GET_SCHEMA().node_id: cls for cls in ours}, **module.NODE_CLASS_MAPPINGS)
    known.NODE_DISPLAY_NAME_MAPPINGS.update(module.NODE_DISPLAY_NAME_MAPPINGS)
    return module


class Runner:
    """An executor with its cache, which lives from prompt to prompt."""

    def __init__(self, cache: str = "CLASSIC") -> None:
        foreign()
        self.execution = importlib.import_module("execution")
        self.server = _Server()
        arguments = {"lru": 8, "ram": 0.0, "ram_inactive": 0.0}
        self.executor = self.execution.PromptExecutor(self.server, getattr(self.execution.CacheType, cache), arguments)

    def run(self, prompt: dict[str, Any]) -> Ended:
        """Validate a prompt and run all its output nodes."""
        prompt_id = str(uuid.uuid4())
        valid = asyncio.run(self.execution.validate_prompt(prompt_id, prompt, None))
        if not valid[0]:
            raise Refused(f"{valid[1]} {valid[3]}")
        self.server.events.clear()
        self.executor.execute(prompt, prompt_id, {"client_id": "test", "extra_pnginfo": {"workflow": "w"}}, valid[2])
        events = list(self.server.events)
        kind, data = [event for event in events if event[0] in ENDS][-1]
        ran = [(data["node"], data["display_node"]) for kind, data in events if kind == "executing" and data["node"]]
        outputs = getattr(self.executor, "history_result", {}).get("outputs", {})
        return Ended(kind, data.get("exception_message", "").strip(), data.get("node_id"), outputs, ran, events)
