"""Rings of tests, by marker: pure (none), `comfy` (in process), `server` (over HTTP), `browser`.

A module whose every test needs ComfyUI says so in one line at its top level: `pytestmark = pytest.mark.comfy`
(or `server`, `browser`). `pytest --pure` then does not even import it: the pure ring runs without ComfyUI.
Tests write `from noise_search.search.x import y` for the pack, whatever its folder is called, and
`from toys import toy_model` for toy models (which boots the real ComfyUI on first import: see inprocess.py; a
test module that imports `comfy` itself does so after `toys` or `inprocess.boot()`). Tests marked `comfy` run
under `torch.inference_mode()`, as nodes do.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ["NOISE_SEARCH_JOURNAL_MB"] = "0"  # no test goes on with the searches of another, unless it wants to
ROOT = Path(__file__).resolve().parent.parent
NEEDS_COMFYUI = re.compile(r"^pytestmark\s*=.*\.(comfy|server|browser)\b", re.MULTILINE)


def _register_pack() -> None:
    """Load the repository's root as package `noise_search`."""
    spec = importlib.util.spec_from_file_location("noise_search", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    module = importlib.util.module_from_spec(spec)
    sys.modules["noise_search"] = module
    spec.loader.exec_module(module)


_register_pack()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pure", action="store_true", help="only tests that need no ComfyUI; import no others")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if config.getoption("--pure") and collection_path.suffix == ".py":
        return bool(NEEDS_COMFYUI.search(collection_path.read_text(encoding="utf-8"))) or None
    return None


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("server") or item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.xdist_group("server"))  # one server for all who need one
    if not config.getoption("--pure"):
        return
    rings = ("comfy", "server", "browser")
    dropped = [item for item in items if any(item.get_closest_marker(ring) for ring in rings)]
    config.hook.pytest_deselected(items=dropped)
    items[:] = [item for item in items if item not in dropped]


@pytest.fixture(autouse=True)
def _as_comfyui_runs_nodes(request: pytest.FixtureRequest) -> Iterator[None]:
    """Boot ComfyUI for tests marked `comfy`, and run them in inference mode."""
    if request.node.get_closest_marker("comfy") is None:
        yield
        return
    from inprocess import boot

    boot()
    import torch

    with torch.inference_mode():
        yield


@pytest.fixture(scope="session")
def server() -> Iterator[Any]:
    """A running ComfyUI with this pack in it (see live.py). One for the whole session."""
    from live import Server

    with Server() as running:
        yield running


@pytest.fixture
def model_files(server: Any) -> Iterator[None]:
    """The files that the examples name, models without content, so that they can be chosen in their nodes."""
    from examples import NAMES, user_form
    from tiny_files import write_input_picture

    write_input_picture(server.base)

    models = {m["name"]: m["directory"] for name in NAMES for node in user_form(name)["nodes"]
              for m in node["properties"].get("models", [])}  # fmt: skip
    paths = [server.base / "models" / folder / name for name, folder in models.items()]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    yield
    for path in paths:
        path.unlink()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless browser. Not for the whole session: while it runs, `asyncio.run` cannot be used."""
    from webui import BROWSERS, FLAGS, find_browser

    if (path := find_browser()) is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed; `make browser` installs one where it can")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(params=[False, True], ids=["litegraph", "nodes2"])
def page(request: pytest.FixtureRequest, server: Any, browser: Any) -> Iterator[Any]:
    """ComfyUI's page, once in each of its two renderers (see webui.py)."""
    from webui import WebUI

    context = browser.new_context(viewport={"width": 1600, "height": 1000})
    yield WebUI(context.new_page(), server, nodes2=request.param)
    context.close()
