"""What the Comfy Registry and ComfyUI-Manager read of the pack: metadata, the archive, node ids. Nothing is imported."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from node_api import NODES, RELEASED

ROOT = Path(__file__).resolve().parent.parent
# Exact strings: with any other, the Registry takes none of a kind.
SYSTEMS = {"OS Independent", "Microsoft :: Windows", "POSIX :: Linux", "MacOS"}
ACCELERATORS = {
    "GPU :: NVIDIA CUDA", "GPU :: AMD ROCm", "GPU :: Intel Arc", "GPU :: Apple Metal", "NPU :: Huawei Ascend",
}  # fmt: skip
SHIPPED = {
    "CHANGELOG.md", "LICENSE", "README.md", "__init__.py", "example_workflows", "locales", "node_list.json", "nodes",
    "pyproject.toml", "requirements.txt", "search", "verifiers", "web",
}  # fmt: skip
KINDS = {".css", ".jpg", ".js", ".json", ".md", ".png", ".py", ".svg", ".toml", ".txt", ".webp", ""}  # no weights, no binaries
MOST = 5_500_000  # bytes, not compressed: half of them the pictures of templates
MAPPINGS = {"NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"}
NETWORK = {"http", "requests", "socket", "urllib", "urllib3"}


def tracked(*options: str) -> set[str]:
    """Return the files that git lists."""
    if not (ROOT / ".git").exists():
        pytest.skip("the archive is made of what git tracks, and this is no checkout")
    listed = subprocess.run(["git", "ls-files", "-z", *options], cwd=ROOT, capture_output=True, check=True, text=True)
    return set(filter(None, listed.stdout.split("\0")))


def packed() -> list[Path]:
    """Return the files of the archive, as `comfy node pack` chooses them."""
    return [ROOT / name for name in sorted(tracked() - tracked("-c", "-i", "--exclude-from=.comfyignore"))]


def sources() -> Iterator[tuple[str, ast.Module]]:
    """Yield the code of the repository, as ComfyUI-Manager walks it, by path."""
    for name in sorted(tracked("*.py")):
        yield name, ast.parse((ROOT / name).read_text(encoding="utf-8"))


def node_ids(tree: ast.AST) -> dict[str, str | None]:
    """Return the ids of node classes by the classes' names; None for one that is computed."""
    found = {}
    for cls in ast.walk(tree):
        if isinstance(cls, ast.ClassDef) and any(ast.unparse(base).split(".")[-1] == "ComfyNode" for base in cls.bases):
            ids = [k.value for call in ast.walk(cls) if isinstance(call, ast.Call) for k in call.keywords if k.arg == "node_id"]
            found[cls.name] = ids[0].value if ids and isinstance(ids[0], ast.Constant) else None
    return found


def literal_ids(tree: ast.AST) -> list[str]:
    """Return the literal node ids of schemas and of specs."""
    named = [k.value for call in ast.walk(tree) if isinstance(call, ast.Call) for k in call.keywords if k.arg == "node_id"]
    return [value.value for value in named if isinstance(value, ast.Constant)]


def run_at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield what runs when a module is imported: all but the bodies of functions."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield node
            yield from run_at_import(node)


def network_calls(tree: ast.AST) -> list[str]:
    """Name the calls into packages of the network that run at import."""
    calls = (ast.unparse(node.func) for node in run_at_import(tree) if isinstance(node, ast.Call))
    return [called for called in calls if called.split(".")[0] in NETWORK]


def foreign_ids(tree: ast.Module) -> list[str]:
    """Name the literal keys of old-style mappings: Manager would say that this pack has those nodes."""
    assigned = [node for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)]
    named = [node.value for node in assigned if any(ast.unparse(target) in MAPPINGS for target in node.targets)]
    return [key.value for mapping in named for key in mapping.keys if isinstance(key, ast.Constant)]


def test_metadata() -> None:
    tomllib = pytest.importorskip("tomllib", reason="from Python 3.11 on")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project, comfy = settings["project"], settings["tool"]["comfy"]
    assert re.fullmatch(r"(?!comfyui)[a-z][a-z0-9_-]{1,98}[a-z0-9]", project["name"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert project["description"] and (ROOT / project["license"]["file"]).is_file() and (ROOT / project["readme"]).is_file()
    assert all(url.startswith("https://github.com/") for url in project["urls"].values()) and "Repository" in project["urls"]
    assert re.fullmatch(r"[a-z][a-z0-9-]+", comfy["PublisherId"]) and comfy["DisplayName"]
    assert re.fullmatch(r">=\d+\.\d+\.\d+", comfy["requires-comfyui"])
    assert project["dependencies"] == (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
    kinds = [tuple(line.split(" :: ", 1)) for line in project["classifiers"]]
    assert {kind for kind, _ in kinds} == {"Operating System", "Environment"}
    assert all(value in (SYSTEMS if kind == "Operating System" else ACCELERATORS) for kind, value in kinds)


def test_archive() -> None:
    files = packed()
    assert {path.relative_to(ROOT).parts[0] for path in files} == SHIPPED
    assert {path.suffix for path in files} <= KINDS
    assert sum(path.stat().st_size for path in files) < MOST


def test_node_ids_can_be_read_off_the_source() -> None:
    """Manager takes the literal id of `io.Schema(...)`, else the class's name: here they are the same.

    Nodes that are made from specs have no class in the source; Manager reads of them in node_list.json.
    """
    by_class: dict[str, str | None] = {}
    literals: list[str] = []
    for path in packed():
        if path.suffix == ".py":
            tree = ast.parse(path.read_text(encoding="utf-8"))
            by_class |= node_ids(tree)
            literals += literal_ids(tree)
    assert by_class == {name: name for name in by_class} and set(by_class) <= set(NODES)
    assert sorted(literals) == sorted(NODES)


def test_manager_reads_the_names_of_all_nodes() -> None:
    """It takes the keys of the object in node_list.json, at the top of the repository."""
    listed = json.loads((ROOT / "node_list.json").read_text(encoding="utf-8"))
    assert set(RELEASED) <= set(listed) and all(isinstance(name, str) and name for name in listed.values())


def test_the_repository_claims_no_node_of_another_pack() -> None:
    for name, tree in sources():
        ids = {*(literal or cls for cls, literal in node_ids(tree).items()), *foreign_ids(tree)}
        assert all(node_id.startswith(("NS", "Foreign")) for node_id in ids), f"{name}: {ids}"


def test_nothing_is_fetched_at_import() -> None:
    found = {str(path): network_calls(ast.parse(path.read_text(encoding="utf-8"))) for path in packed() if path.suffix == ".py"}
    assert not any(found.values()), found


@pytest.mark.parametrize(
    ("source", "calls"),
    [
        ("socket.create_connection(x)", ["socket.create_connection"]),
        ("class A:\n    x = urllib.request.urlopen(y)", ["urllib.request.urlopen"]),
        ("def f():\n    requests.get(x)\nlater = lambda: requests.get(x)", []),
    ],
)
def test_the_check_of_calls_can_fail(source: str, calls: list[str]) -> None:
    assert network_calls(ast.parse(source)) == calls


def test_the_check_of_ids_can_fail() -> None:
    source = "class A(io.ComfyNode):\n  def define_schema(cls): return schema(node_id={})\n"
    assert node_ids(ast.parse(source.format("'A'"))) == {"A": "A"}
    assert node_ids(ast.parse(source.format("NAME"))) == {"A": None}
    for mapping in MAPPINGS:  # not spelled out: Manager would take it for one
        assert foreign_ids(ast.parse(f"{mapping} = {{'Theirs': A, B.__name__: B}}")) == ["Theirs"]
