"""Run workflows with ComfyUI's own executor in this process: no server, and verifiers of this process can take part."""

from __future__ import annotations

import asyncio
import importlib
import tempfile
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .prompt_server import BackendGone, PromptError, failure, refusal
from .prompt_workflow import SEARCH_NODES

ROOT = Path(__file__).resolve().parent.parent
HANDOVER = "NSBenchVerifier"


class _NoServer:
    """What the executor expects of a server, for one that nobody listens to."""

    client_id = last_node_id = last_prompt_id = None

    def __init__(self) -> None:
        self.sockets_metadata: dict[str, Any] = {}

    def send_sync(self, event: str, data: Any, sid: str | None = None) -> None:
        """Nobody listens."""


class InProcessBackend:
    """ComfyUI in this process, with its built-in nodes, this pack, and further node folders.

    Other packs of the user's ComfyUI are not loaded: many need a running server.
    """

    def __init__(self, comfyui: str | None = None, cpu: bool = False, packs: Sequence[Path] = ()) -> None:
        """Start ComfyUI; once per process.

        Args:
            comfyui: Its folder; None for COMFYUI_PATH, or the one that demo/setup.py made.
            cpu: Use no GPU.
            packs: Further folders of nodes, such as this repository's `demo`.

        Raises:
            FileNotFoundError: If there is no ComfyUI.
            BackendGone: If a pack does not load.
        """
        from bootstrap import start_comfyui

        start_comfyui(comfyui, *(["--cpu"] if cpu else []), "--disable-api-nodes")
        importlib.import_module("utils.install_util")  # before `nodes` puts a second `utils` first on the path
        import execution
        import folder_paths
        import nodes

        self._temp = tempfile.TemporaryDirectory(prefix="noise-search-bench-")
        folder_paths.set_output_directory(str(Path(self._temp.name, "output")))
        folder_paths.set_temp_directory(str(Path(self._temp.name, "temp")))
        self._folder_paths, self._execution, self.types = folder_paths, execution, nodes.NODE_CLASS_MAPPINGS
        asyncio.run(_load(nodes, [ROOT, *packs]))
        self.types[HANDOVER] = Handover
        self._executor = execution.PromptExecutor(
            _NoServer(), cache_type=execution.CacheType.CLASSIC, cache_args={"lru": 0, "ram": 0.0, "ram_inactive": 0.0}
        )

    def unknown(self, types: Iterable[str]) -> list[str]:
        """Return which node types there are not."""
        return [kind for kind in types if kind not in self.types]

    def run(self, workflow: dict[str, Any]) -> dict[str, Any]:
        """Run a workflow; return what its output nodes showed, by node id.

        Raises:
            PromptError: If it was refused or failed.
        """
        prompt_id = uuid.uuid4().hex
        valid, error, outputs, node_errors = asyncio.run(self._execution.validate_prompt(prompt_id, workflow, None))
        if not valid or node_errors:
            raise PromptError(refusal({"error": error, "node_errors": node_errors}))
        self._executor.execute(workflow, prompt_id, {}, outputs)
        if not self._executor.success:
            raise PromptError(failure(self._executor.status_messages))
        return self._executor.history_result["outputs"]

    def picture(self, entry: dict[str, str]) -> bytes:
        """Return the file of one entry of an output's `images`."""
        folder = Path(self._folder_paths.get_directory_by_type(entry["type"]))
        path = folder / entry.get("subfolder", "") / entry["filename"]
        return path.read_bytes()

    def close(self) -> None:
        """Delete the temporary files."""
        self._temp.cleanup()


async def _load(nodes: Any, packs: Sequence[Path]) -> None:
    await nodes.init_public_apis()
    await nodes.init_builtin_extra_nodes()
    for folder in packs:
        if not await nodes.load_custom_node(str(folder)):
            raise BackendGone(f"{folder} did not load as a node pack; see the log above")


class Handover:
    """A node that brings a verifier of this process into a workflow."""

    verifiers: dict[str, Any] = {}
    RETURN_TYPES = ("NS_VERIFIER",)
    FUNCTION = "get"
    CATEGORY = "noise search/bench"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802  ComfyUI's name
        """Return the inputs: which verifier, and for which run."""
        return {"required": {"key": ("STRING", {}), "run": ("STRING", {})}}

    def get(self, key: str, run: str) -> tuple[Any]:
        """Return the verifier; `run` only keeps ComfyUI from using an earlier run's."""
        return (self.verifiers[key],)


def connect_verifiers(workflow: dict[str, Any], run: str, **verifiers: Any) -> dict[str, Any]:
    """Return a workflow whose search nodes get these verifiers, in the place of what is connected there.

    Args:
        workflow: In API form, with at least one search node.
        run: Differs for every run whose verifiers differ.
        **verifiers: By input name, `verifier` or `held_out`; None leaves the input as it is.
    """
    given = {name: verifier for name, verifier in verifiers.items() if verifier is not None}
    Handover.verifiers.update(given)
    sources = {
        f"bench_{name}": {"class_type": HANDOVER, "inputs": {"key": name, "run": run}} for name in given
    }  # fmt: skip
    links = {name: [f"bench_{name}", 0] for name in given}
    connected = {
        node_id: {**node, "inputs": {**node["inputs"], **links}} if node["class_type"] in SEARCH_NODES else node
        for node_id, node in workflow.items()
    }
    return {**connected, **sources}
