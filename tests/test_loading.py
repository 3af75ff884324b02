"""The pack loads the way ComfyUI loads it, in a folder of any name, and documents every node."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from node_api import NODES, OUTPUTS, RELEASED

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ["__init__.py", "nodes", "search", "verifiers", "web", "locales", "pyproject.toml"]


def copy_pack(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in SHIPPED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, folder / name)
    return folder


def load_like_comfyui(folder: Path) -> dict[str, type]:
    """Repeat ComfyUI's loader, without the part that turns errors into log lines; return nodes by id."""
    name = str(folder).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    assert not hasattr(module, "NODE_CLASS_MAPPINGS")  # even an empty one would hide the entry point
    assert (folder / module.WEB_DIRECTORY).is_dir()

    async def nodes() -> list[type]:
        extension = await module.comfy_entrypoint()
        return await extension.get_node_list()

    return {node.GET_SCHEMA().node_id: node for node in asyncio.run(nodes())}


@cache
def pack() -> dict[str, type]:
    """The nodes of the checkout itself."""
    from inprocess import boot

    boot()
    return load_like_comfyui(ROOT)


def test_root_imports_nothing_of_comfyui(tmp_path):
    folder = copy_pack(tmp_path / "my-pack.v1 (copy)")
    program = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('pack', {str(folder / '__init__.py')!r})\n"
        "spec.loader.exec_module(importlib.util.module_from_spec(spec))\n"
        "assert not {'torch', 'comfy', 'comfy_api', 'nodes'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-I", "-c", program], check=True)


@pytest.mark.comfy
@pytest.mark.parametrize("name", ["noise-search", "my-pack.v1", "my pack 2"])
def test_loads_from_a_folder_of_any_name(tmp_path, name):
    assert set(load_like_comfyui(copy_pack(tmp_path / name))) == set(NODES)
    assert "search" not in sys.modules and "verifiers" not in sys.modules


@pytest.mark.comfy
def test_comfyui_takes_it(tmp_path):
    from inprocess import node

    node("KSampler")  # loads ComfyUI's own nodes
    import nodes

    folder = copy_pack(tmp_path / "pack-for.comfyui")
    assert asyncio.run(nodes.load_custom_node(str(folder)))
    assert set(NODES) <= set(nodes.NODE_CLASS_MAPPINGS)
    assert all(node_id in nodes.NODE_DISPLAY_NAME_MAPPINGS for node_id in NODES)


@pytest.mark.comfy
def test_ids_are_those_of_the_api():
    """If this fails: make docs"""
    assert list(pack()) == list(NODES)
    assert set(RELEASED) <= set(NODES)


@pytest.mark.comfy
@pytest.mark.parametrize("node_id", NODES)
def test_inputs_and_outputs_keep_their_order(node_id):
    schema = pack()[node_id].GET_SCHEMA()
    if NODES[node_id] is not None:
        assert [item.id for item in schema.inputs] == NODES[node_id]
    if node_id in OUTPUTS:
        assert [item.display_name or item.id for item in schema.outputs] == OUTPUTS[node_id]


@pytest.mark.comfy
@pytest.mark.parametrize("node_id", NODES)
def test_node_is_documented(node_id):
    schema = pack()[node_id].GET_SCHEMA()
    assert schema.display_name and schema.description and schema.category
    assert [item.id for item in schema.inputs or [] if not item.tooltip] == []
    if schema.category == "noise search/verifiers":
        assert [item.id for item in schema.outputs if not item.tooltip] == []
    page = ROOT / "web" / "docs" / node_id / "en.md"
    assert page.exists() and len(page.read_text(encoding="utf-8").split()) > 20


def search_aliases(node: type, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a node's aliases as it declares them: cores without a search for aliases drop them from its schema."""
    given: dict[str, Any] = {}
    module = sys.modules[node.__module__]
    with monkeypatch.context() as patch:
        make = module.schema
        patch.setattr(module, "schema", lambda **kwargs: given.update(kwargs) or make(**kwargs))
        schema = node.define_schema()
    if hasattr(schema, "search_aliases"):
        assert schema.search_aliases == given.get("search_aliases", [])
    return given.get("search_aliases", [])


INNER = "NSGraphVerifier"  # put in place by another node, of no use by itself: not to be found


@pytest.mark.comfy
@pytest.mark.parametrize("node_id", sorted(set(NODES) - {INNER}))
def test_node_is_found_by_other_words(node_id, monkeypatch):
    aliases = search_aliases(pack()[node_id], monkeypatch)
    assert len(aliases) >= 2 and len({alias.lower() for alias in aliases}) == len(aliases)
    assert all(alias and alias == alias.strip() for alias in aliases)


@pytest.mark.comfy
@pytest.mark.parametrize("words", ["best of n", "reroll", "seed search", "inference-time scaling"])
def test_what_people_call_it_finds_both_search_nodes(words, monkeypatch):
    found = {node_id for node_id, node in pack().items() if words in search_aliases(node, monkeypatch)}
    assert {"NSSearchSampler", "NSSearchSamplerAdvanced"} <= found


@pytest.mark.comfy
def test_schema_drops_only_what_an_older_core_lacks():
    from comfy_api.latest import io

    from noise_search.nodes.definitions.schema import inp, schema

    made = schema(node_id="X", search_aliases=["a"], inputs=[inp(io.Int, "n", default=1, advanced=True)])
    assert made.node_id == "X" and made.inputs[0].default == 1
    made = schema(node_id="X", inputs=[inp(io.Int, "n")], outputs=[io.Int.Output("n"), io.Int.Output("m")])
    made.validate()  # older cores refuse one id for an input and an output
    assert [out.id for out in made.outputs] == ["n_out", "m"]
    assert made.outputs[0].display_name == "n"
    with pytest.raises(TypeError):
        schema(node_id="X", misspelt=1)
    with pytest.raises(TypeError):
        inp(io.Int, "n", misspelt=1)
