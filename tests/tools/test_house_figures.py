"""The figures of the architecture, counted in small checkouts of known content."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from figures.arrows import cycles, file_arrows, package_arrows
from figures.assignments import foreign_assignments
from figures.members import members_of
from house_figures import figures
from source import Module, functions, parameters, product_code

TOOL = Path(__file__).resolve().parent.parent.parent / "tools" / "house_figures.py"
FILES = {
    "nodes/__init__.py": "from . import search\n",
    "nodes/search.py": "from ..search.core.search import Search\nfrom ..search import budget\n",
    "search/budget.py": "",
    "search/core/__init__.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .search import Search\n",
    "search/core/base.py": "def f():\n    from .search import Search\n    from ..budget import A, B\n",
    "search/core/search.py": "from .base import Base\nfrom . import base\nfrom . import VERSION\n\nclass Search(Base): ...\n",
}


def checkout(folder: Path, files: dict[str, str] = FILES) -> Path:
    """Write files of product code and return their folder."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_arrows_are_distinct_pairs_of_modules(tmp_path):
    modules = product_code(checkout(tmp_path))
    run = file_arrows(modules, typing_too=False)
    assert run == {
        ("nodes", "nodes.search"), ("nodes.search", "search.core.search"), ("nodes.search", "search.budget"),
        ("search.core.base", "search.core.search"), ("search.core.base", "search.budget"),
        ("search.core.search", "search.core.base"), ("search.core.search", "search.core"),
    }  # fmt: skip
    assert file_arrows(modules, typing_too=True) - run == {("search.core", "search.core.search")}
    assert package_arrows(modules, run) == {("nodes", "search.core"), ("nodes", "search"), ("search.core", "search")}


def test_cycles_are_groups_that_reach_one_another():
    assert cycles([("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("e", "f"), ("f", "e"), ("d", "e")]) == [
        ["a", "b", "c"], ["e", "f"],
    ]  # fmt: skip
    assert cycles([("a", "b"), ("b", "c"), ("a", "c")]) == []


@pytest.mark.parametrize(
    ("body", "places"),
    [
        ("self.x = 1; cls.y = 2", []),
        ("other.x = 1; other.x += 1", ["f: other.x"]),
        ("self.part.x = 1", ["f: self.part.x"]),
        ("made = Made(); made.x = 1", []),
        ("made = Made(); made.part.x = 1", ["f: made.part.x"]),
        ("found = find(); found.x = 1", ["f: found.x"]),
        ("twin = copy.copy(other); twin.x = 1", []),
        ("a.x, (b.y, *c.z) = 1, (2, 3)", ["f: a.x", "f: b.y", "f: c.z"]),
        ("for a.x in y: del a.z", ["f: a.x", "f: a.z"]),
        ("a[0] = 1; b = 2; a.x[0] = 3", []),
    ],
)
def test_assignments_to_attributes_of_others(body, places):
    assert foreign_assignments(ast.parse(f"def f(self, other):\n    {body}")) == places


def test_an_inner_function_is_a_place_of_its_own_and_a_method_may_call_itself_anything():
    source = "class A:\n def f(me):\n  me.x = 1\n  def g(it): it.x = 2\n"
    assert foreign_assignments(ast.parse(source)) == ["A.f.g: it.x"]


def test_members_are_those_of_the_bases_too():
    search = "class Base(Protocol): ...\nclass Search(core.Helm):\n    wave: int = 1\n    def f(me): me.budget, self.no = 1, 2\n"
    helm = "class Helm:\n    KIND = 1\n    def look(self):\n        self._runs += 1\n        self.budget.x = 1\n"
    modules = [Module(Path("search/a.py"), search), Module(Path("search/b/c.py"), helm)]
    assert members_of("Search", modules, "search") == ["KIND", "_runs", "budget", "f", "look", "wave"]
    with pytest.raises(LookupError, match="search/ defines 0 classes called Nothing"):
        members_of("Nothing", modules, "search")


def test_functions_have_names_of_their_own():
    source = "class A:\n @property\n def x(self): ...\n @x.setter\n def x(self, value): ...\n"
    source += "if y:\n def f():\n  class B:\n   def g(): ...\n"
    assert [name for name, _, _ in functions(ast.parse(source))] == ["A.x", "A.x#2", "f", "f.B.g"]


def test_parameters_are_counted_without_self():
    source = "class A:\n def f(self, a, /, b, *c, d, **e): ...\n @staticmethod\n def g(a): ...\n @classmethod\n def h(cls): ...\n"
    counted = {name: len(parameters(node, method)) for name, node, method in functions(ast.parse(source))}
    assert counted == {"A.f": 5, "A.g": 1, "A.h": 0}


def test_the_tool_counts_another_checkout(tmp_path):
    long = "def long(a, b, c, d, e, f, g):\n" + "    a = 1\n" * 300
    root = checkout(tmp_path, {**FILES, "verifiers/deep/one/long.py": long, "tests/a/test_a.py": "\n\n"})
    said = subprocess.run(
        [sys.executable, TOOL, "--root", root, "--no-run", "--no-types", "--json"], capture_output=True, check=True, text=True
    )
    counted = json.loads(said.stdout)
    assert counted == {figure.name: figure.count for figure in figures(root, run=False, types=False)}
    assert counted["files at the top of search/core/"] == 3 and counted["files at the top of verifiers/deep/one/"] == 1
    assert counted["cycles of files"] == 1 and counted["cycles of folders"] == 0
    assert counted["functions over 6 parameters"] == 1 and counted["functions over 40 lines"] == 1
    assert counted["files over 300 lines"] == 1 and counted["lines of tests"] == 2


@pytest.mark.comfy
def test_frames_lead_from_the_node_to_the_model_call():
    from figures.frames import frames_to_model_calls
    from source import ROOT

    calls = frames_to_model_calls(ROOT)
    assert len(calls) > 6 and all(stack[0].endswith("NSSearchSamplerAdvanced.execute") for stack in calls)
    assert all("search/" in stack[-1] for stack in calls)
