"""The real ComfyUI, in this process, on the CPU.

Importing a module that starts with `inprocess.boot()` (as `toys` does) is all that a test needs. ComfyUI is
found in COMFYUI_PATH, else in `.comfyui/ComfyUI`; when it is in neither, `boot` raises: nothing is skipped.

    boot()                                   once per process, then free
    node("SamplerCustomAdvanced")            the node's class, as ComfyUI registered it
    run_node("KSampler", model=..., ...)     its outputs, as a tuple (old and new style of node alike)
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import importlib
import inspect
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def find_comfyui() -> Path:
    """Return the folder of the ComfyUI that the tests run on."""
    given = os.environ.get("COMFYUI_PATH")
    path = Path(given).resolve() if given else ROOT / ".comfyui" / "ComfyUI"
    if not (path / "main.py").exists():
        source = f"COMFYUI_PATH={given}" if given else str(path)
        raise RuntimeError(f"no ComfyUI in {source}: run `make setup`, or set COMFYUI_PATH to a checkout")
    return path


@functools.cache
def boot() -> Path:
    """Make the real ComfyUI importable, on the CPU, with a temporary base directory; return its folder."""
    path = find_comfyui()
    base = tempfile.mkdtemp(prefix="noise-search-base-")
    atexit.register(shutil.rmtree, base, ignore_errors=True)
    # First on the path: ComfyUI has modules called `server`, `nodes` and `utils`, and so may others.
    sys.path.insert(0, str(path))
    argv, sys.argv = sys.argv, ["main.py", "--cpu", "--base-directory", base, "--disable-api-nodes"]
    try:
        importlib.import_module("comfy.options").enable_args_parsing()
        importlib.import_module("comfy.cli_args")
    finally:
        sys.argv = argv
    importlib.import_module("utils.install_util")  # before `nodes` puts a second `utils` first on the path
    importlib.import_module("torch").set_num_threads(1)
    importlib.import_module("comfy.utils").set_progress_bar_enabled(False)
    return path


@functools.cache
def _nodes() -> tuple[dict[str, type], list[str]]:
    """Load all built-in nodes, the way ComfyUI does; return them and the files that did not load."""
    boot()
    nodes = importlib.import_module("nodes")

    async def load() -> list[str]:
        await nodes.init_public_apis()
        return await nodes.init_builtin_extra_nodes()

    failed = asyncio.run(load())
    return nodes.NODE_CLASS_MAPPINGS, failed


def node(node_id: str) -> type:
    """Return a built-in node's class, by its id."""
    found, failed = _nodes()
    if node_id not in found:  # newer cores have a file that needs a running server, and no nodes
        raise LookupError(f"no node {node_id} in {boot()}; files that did not load: {failed}")
    return found[node_id]


def has_node(node_id: str) -> bool:
    """Whether this ComfyUI has a built-in node."""
    return node_id in _nodes()[0]


def run_node(which: str | type, **inputs: Any) -> tuple:
    """Run a node, given by id or class, and return its outputs."""
    cls = node(which) if isinstance(which, str) else which
    if hasattr(cls, "define_schema"):
        result = cls.execute(**inputs)
        if inspect.isawaitable(result):
            result = asyncio.run(_awaited(result))
        return tuple(getattr(result, "args", result))  # some of core's nodes return a plain tuple
    return tuple(getattr(cls(), cls.FUNCTION)(**inputs))


async def _awaited(result: Any) -> Any:
    return await result
