"""The pack and its test helpers made importable for a tool: `noise_search`, `inprocess`, `toys`, `live`, `webui`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from source import ROOT


def use_test_helpers(root: Path = ROOT) -> None:
    """Make the helpers of a checkout's tests importable."""
    for folder in (root / "tests" / "core", root / "tests"):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))


def load_pack(root: Path = ROOT) -> ModuleType:
    """Import a checkout as the package `noise_search`, whatever its folder is called, and return it; once."""
    if "noise_search" not in sys.modules:  # the tests' conftest has done it already
        spec = importlib.util.spec_from_file_location(
            "noise_search", root / "__init__.py", submodule_search_locations=[str(root)]
        )
        assert spec is not None and spec.loader is not None
        sys.modules["noise_search"] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules["noise_search"]


def node_classes(root: Path = ROOT) -> list[Any]:
    """Boot ComfyUI in this process and return the class of every node of the pack, in menu order."""
    use_test_helpers(root)
    importlib.import_module("inprocess").boot()
    load_pack(root)
    return importlib.import_module("noise_search.nodes").node_list()
