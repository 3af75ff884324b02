"""Start ComfyUI inside a script of this folder, before anything of `comfy` is imported.

A script's own folder is on `sys.path`, and this one holds a `nodes.py`, as ComfyUI does: the folder makes way
for ComfyUI's, and our modules are loaded as the package `noise_search_demo`.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE = "noise_search_demo"


def load_package(name: str = PACKAGE, folder: Path = HERE) -> None:
    """Register a folder as a package, so that its modules can import each other by relative names."""
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py", submodule_search_locations=[str(folder)])
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


def load_pack() -> None:
    """Register the pack itself as package `noise_search`."""
    load_package("noise_search", HERE.parent)


def find_comfyui(given: str | None = None) -> Path:
    """Return ComfyUI's folder: the given one, COMFYUI_PATH, or the one that setup.py made."""
    folder = Path(given or os.environ.get("COMFYUI_PATH") or HERE.parent / ".comfyui" / "ComfyUI").resolve()
    if not (folder / "comfy").is_dir():
        raise FileNotFoundError(f"{folder} holds no ComfyUI: set COMFYUI_PATH, or run demo/setup.py")
    return folder


def start_comfyui(given: str | None = None, *flags: str) -> Path:
    """Put ComfyUI on the path with its command line set to `flags`, and return its folder."""
    folder = find_comfyui(given)
    sys.path[:] = [str(folder)] + [p for p in sys.path if Path(p or ".").resolve() not in (HERE, HERE.parent)]
    argv, sys.argv = sys.argv, [sys.argv[0], *flags]
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.cli_args  # noqa: F401  reads sys.argv on import
    import utils  # noqa: F401  ComfyUI's package: once its nodes.py is imported, the name would find comfy/utils.py

    sys.argv = argv
    return folder
