"""Faults are put where they are said to be, are found again after a move, and their tests say whether they notice."""

from __future__ import annotations

import ast
import json
import subprocess
from pathlib import Path

import mutate
import pytest
from mutation.places import KINDS, Found, Place, all_places, draw, find
from source import Module, product_code


def faults(body: str) -> list[tuple[str, str, str]]:
    """Return kind, text and fault of every place in a function of one file."""
    text = f"def f(a, b):\n    {body}\n"
    found = all_places([Module(Path("search/a.py"), text)])
    for one in found:
        changed = ast.unparse(ast.parse(one.wrong))
        assert changed == ast.unparse(ast.parse(text.replace(one.place.text, f"({one.fault})", 1))), "only that is changed"
    return [(one.place.kind, one.place.text, one.fault) for one in found]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("return a[0]", [("subscript", "a[0]", "a[1]")]),
        ("return a[-1]", [("subscript", "a[-1]", "a[0]")]),
        ("return a[b:]", [("subscript", "a[b:]", "a[b + 1:]")]),
        ("return a[:b]", [("subscript", "a[:b]", "a[:b + 1]")]),
        ("return a[b], a['x'], a[:], a[::2]", [("constant", "2", "3")]),
        ("a[0] = b", [("constant", "0", "1")]),
        ("return a - b", [("sign", "a - b", "a + b")]),
        ("return -a", [("sign", "-a", "a")]),
        ("return 'x' + a + [b] + f'{a + b}{a[0]}'", []),
        ("return a <= b", [("comparison", "a <= b", "a < b")]),
        ("return a not in b", [("comparison", "a not in b", "a in b")]),
        ("return a.clone()", [("clone", "a.clone()", "a")]),
        ("return a(2.5, True, None, 'x')", [("constant", "2.5", "3.5")]),
        ("c: tuple[int, 2] = a", []),
    ],
)
def test_faults(body, found):
    assert faults(body) == found


def test_a_fault_of_several_lines_stands_in_one():
    text = "def f(a, b):\n    return (a  # ä\n        + b)\n"
    (one,) = all_places([Module(Path("search/a.py"), text)])
    assert one.wrong == "def f(a, b):\n    return ((a - b))\n" and one.line == 2


def test_places_are_found_after_a_move():
    before = "class A:\n    def f(self, a):\n        return a[0] + a[1] + a[2]\n"
    after = "import x\n\nclass A:\n    def f(self, a):\n        return a[9] + a[1] + a[2]\n"
    old = [one.place for one in all_places([Module(Path("search/a.py"), before)]) if one.place.kind == "subscript"]
    new = all_places([Module(Path("search/deep/b.py"), after)])
    found = [find(new, place) for place in old]
    assert [(one.place.text, one.line) for one in found if one] == [("a[9]", 5), ("a[1]", 5), ("a[2]", 5)]
    assert find(new, Place("A.g", "subscript", 0, "a[0]")) is None and find(new, Place("A.f", "clone", 0, "a.clone()")) is None


def test_functions_that_share_a_name_are_left_out():
    same = "def f(a): return a[0]\ndef g(a): return a[0]\n"
    modules = [Module(Path("search/a.py"), same), Module(Path("nodes/a.py"), "def f(a): return -a\n")]
    assert [one.place.function for one in all_places(modules)] == ["g"]


@pytest.fixture(scope="module")
def places() -> list[Found]:
    return all_places(product_code())


def test_a_seed_draws_the_same_places_of_all_kinds(places):
    drawn = draw(places, 50, 7)
    assert [one.place for one in drawn] == [one.place for one in draw(places[::-1][::-1], 50, 7)]
    assert {kind: sum(one.place.kind == kind for one in drawn) for kind in KINDS} == dict.fromkeys(KINDS, 10)
    assert len({(one.place.function, one.place.kind, one.place.index) for one in drawn}) == 50
    assert draw(places, 50, 8) != drawn


def test_a_fault_leaves_the_code_valid(places):
    assert len(places) > 1000
    for one in draw(places, 40, 1):
        assert ast.unparse(ast.parse(one.wrong)) != ast.unparse(one.module.tree)


CODE = """
def first(items):
    return items[0]

def last(items):
    return items[-1]

def alone(items):
    return items[3]
"""
TESTS = """
from search.a import first, last

def test_first():
    assert first([1, 2]) == 1

def test_last():
    assert last([1, 2]) > 0
"""


def test_faults_are_caught_or_survive(tmp_path, monkeypatch, capsys):
    pytest.importorskip("coverage", reason="which tests run a line is measured with it")
    root = tmp_path / "pack"
    for name, text in {"search/a.py": CODE, "tests/test_a.py": TESTS, "pytest.ini": "[pytest]\npythonpath = .\n"}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "-A"], [*who, "commit", "-qm", "x"]):
        subprocess.run(["git", *words], cwd=root, check=True)
    monkeypatch.setattr(mutate, "ROOT", root)
    gone = {"function": "nowhere", "kind": "clone", "index": 0, "text": "a.clone()"}
    wanted = [one.place.as_dict() for one in all_places(product_code(root))] + [gone]
    (tmp_path / "places").write_text("\n".join(map(json.dumps, wanted)), encoding="utf-8")
    told = ["--places", "places", "--map", "map", "--results", "results", "--", "tests"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["mutate.py", *told])
    mutate.main()
    assert capsys.readouterr().out.splitlines()[-1] == "1 uncovered, 1 caught, 1 survived, 1 gone"
    results = [json.loads(line) for line in (tmp_path / "results").read_text(encoding="utf-8").splitlines()]
    assert {one["function"]: one["outcome"] for one in results} == {
        "alone": "uncovered", "first": "caught", "last": "survived", "nowhere": "gone",
    }  # fmt: skip
    lines = json.loads((tmp_path / "map").read_text(encoding="utf-8"))["lines"]
    assert lines["search/a.py"] == {"3": ["tests/test_a.py::test_first"], "6": ["tests/test_a.py::test_last"]}
    assert (root / "search" / "a.py").read_text(encoding="utf-8") == CODE
    assert (
        subprocess.run(["git", "worktree", "list"], cwd=root, capture_output=True, check=True, text=True).stdout.count("\n") == 1
    )
