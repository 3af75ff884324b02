"""Who may import whom, and what shipped code never does. Read from the source, nothing is imported."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping, Set
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMFYUI = {
    "app", "comfy", "comfy_api", "comfy_api_nodes", "comfy_config", "comfy_execution", "comfy_extras",
    "execution", "folder_paths", "latent_preview", "node_helpers", "nodes", "server",
}  # fmt: skip
OURS = {"noise_search", "search", "verifiers"}
LAYERS = ("nodes", "search", "verifiers")
# Calls that one file may hold.
ALLOWED = {"search/spec.py": "importlib.import_module"}  # it imports what lies in our own packages
STDLIB = set(sys.stdlib_module_names)
FORBIDDEN_MODULES = {"pickle", "subprocess", "marshal", "shelve", "ctypes"}
FORBIDDEN_CALLS = {
    "eval", "exec", "print", "__import__", "compile", "importlib.import_module", "os.system", "os.popen", "base64.b64decode",
}  # fmt: skip


def sources(layer: str) -> list[Path]:
    return sorted((ROOT / layer).rglob("*.py"))


# Packages from the lowest to the highest: each may import those of the lines before its own, and itself.
ORDER = {
    "search": ["spec", "noise", "base", "lockstep", "journal", "scoring", "core", "methods", "selection", "reporting", "run"],
    "verifiers": ["common", "clip", "image_reward", "vlm", "api", "measures", "composite", "content", "human", ""],
    "nodes": ["weights", "adapter", "store", "server", "run", "definitions", ""],
}
SHIPPED = [ROOT / "__init__.py", *(path for layer in LAYERS for path in sources(layer))]


def imports(tree: ast.AST, path: Path) -> Iterator[tuple[str, bool]]:
    """Yield each imported module and whether that happens at the top level.

    Relative imports of ours are given as "./search.budget", whatever the folder is called.
    """
    top = {id(node) for node in getattr(tree, "body", [])}
    package = list(path.relative_to(ROOT).parts[:-1])
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in top
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or "", id(node) in top
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            for name in names:
                yield "./" + ".".join([*base, name]), id(node) in top


def violations(source: str, path: Path) -> list[str]:
    """Name every import in a file that its layer does not allow."""
    layer = path.relative_to(ROOT).parts[0]
    found = []
    for name, at_top in imports(ast.parse(source), path):
        head = name.split(".")[0]
        if name.startswith("./"):
            target = name[2:].split(".")[0]
            allowed = {"search": {"search"}, "verifiers": {"verifiers"}}.get(layer, set(LAYERS))
            ok = target in allowed
        elif head in OURS or head in FORBIDDEN_MODULES:
            ok = False
        elif layer == "search":
            ok = head in STDLIB | {"torch", "greenlet"}
        elif layer == "verifiers":
            ok = head not in COMFYUI and (head in STDLIB | {"torch"} or not at_top)
        elif layer == "nodes":
            ok = True
        else:  # the root imports nothing at the top
            ok = head in STDLIB
        if not ok:
            found.append(name)
    return found


def misdeeds(source: str, allowed: str = "") -> list[str]:
    """Name every call and handler that shipped code must not hold, but for one call that it may."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            safe = any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords)
            if called in FORBIDDEN_CALLS - {allowed} or (called == "torch.load" and not safe):
                found.append(f"line {node.lineno}: {called}")
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
            silent = all(isinstance(step, (ast.Pass, ast.Continue)) for step in node.body)
            if node.type is None or (broad and silent):
                found.append(f"line {node.lineno}: swallows every exception")
    return found


def modules() -> dict[str, Path]:
    """Return the shipped modules by dotted name."""
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for layer in LAYERS for path in sources(layer)}


def imported_modules(source: str, path: Path, known: Set[str]) -> set[str]:
    """Return which of the known modules a file imports, at any place, for types only too."""
    found = set()
    package = list(path.relative_to(ROOT).parts[:-1])
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])
            for alias in node.names:
                tried = (f"{base}.{alias.name}", f"{base}.{alias.name}.__init__", base, f"{base}.__init__")
                found.update([name for name in tried if name in known][:1])
    return found


def package_of(module: str) -> tuple[str, str]:
    """Return the layer of a module and its package in it; the module itself where it lies at the layer's top."""
    layer, *rest = module.split(".")
    return layer, "" if rest == ["__init__"] else rest[0]


def arrows_up(graph: Mapping[str, Set[str]]) -> list[str]:
    """Name every import of a package that is not below the importing one in its layer."""
    found = []
    for module, targets in graph.items():
        layer, package = package_of(module)
        for target in targets:
            other, name = package_of(target)
            if other == layer and name != package and ORDER[layer].index(name) > ORDER[layer].index(package):
                found.append(f"{module} imports {target}")
    return sorted(found)


def cycles(graph: Mapping[str, Set[str]]) -> list[str]:
    """Name the modules that import one another, directly or by way of others."""
    left = dict(graph)
    while free := [module for module, targets in left.items() if not targets & left.keys()]:
        for module in free:
            del left[module]
    while free := left.keys() - {target for targets in left.values() for target in targets}:
        for module in free:
            del left[module]
    return sorted(left)


def import_graph() -> dict[str, set[str]]:
    known = modules()
    return {name: imported_modules(path.read_text(encoding="utf-8"), path, known.keys()) for name, path in known.items()}


def test_packages_import_only_those_below_them():
    assert arrows_up(import_graph()) == []


def test_no_file_imports_itself_by_way_of_others():
    assert cycles(import_graph()) == []


def test_the_checks_of_arrows_and_cycles_can_fail():
    path = ROOT / "search" / "base" / "module.py"
    known = {"search.core.search", "search.noise.recipe", "search.noise.__init__"}
    assert imported_modules("from .. import noise", path, {*known, "search.__init__"}) == {"search.noise.__init__"}
    source = "from ..core.search import Search\nfrom ..noise import recipe\nif TYPE_CHECKING:\n    from ..noise import x"
    assert imported_modules(source, path, known) == known
    graph = {
        "search.base.module": {"search.core.search"},
        "search.core.search": {"search.base.budget"},
        "search.base.budget": set(),
    }
    assert arrows_up(graph) == ["search.base.module imports search.core.search"]
    assert cycles(graph) == []
    ring = {**graph, "search.base.budget": {"search.base.module"}, "search.run": {"search.core.search"}}
    assert cycles(ring) == ["search.base.budget", "search.base.module", "search.core.search"]


def test_there_is_something_to_check():
    assert all(sources(layer) for layer in LAYERS)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_file_keeps_to_its_layer(path):
    assert violations(path.read_text(encoding="utf-8"), path) == []


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_file_has_no_forbidden_call(path):
    allowed = ALLOWED.get(path.relative_to(ROOT).as_posix(), "")
    assert misdeeds(path.read_text(encoding="utf-8"), allowed) == []


@pytest.mark.parametrize(
    ("layer", "source", "bad"),
    [
        ("search", "import torch, math\nfrom .budget import Budget\nimport greenlet", []),
        ("search", "import numpy", ["numpy"]),
        ("search", "def f():\n    import comfy.samplers", ["comfy.samplers"]),
        ("search", "from ..verifiers.base import Verifier", ["./verifiers.base"]),
        ("search", "from .. import verifiers", ["./verifiers"]),
        ("verifiers", "import torch\ndef f():\n    import transformers", []),
        ("verifiers", "import transformers", ["transformers"]),
        ("verifiers", "def f():\n    from comfy import utils", ["comfy"]),
        ("nodes", "import comfy.samplers\nfrom ..search import budget\nfrom . import sockets", []),
        ("nodes", "from search.budget import Budget", ["search.budget"]),
        ("nodes", "import pickle", ["pickle"]),
    ],
)
def test_the_check_of_layers_can_fail(layer, source, bad):
    assert violations(source, ROOT / layer / "module.py") == bad


@pytest.mark.parametrize(
    "source",
    [
        "print(1)",
        "eval('1')",
        "torch.load(p)",
        "importlib.import_module(name)",
        "try:\n    f()\nexcept Exception:\n    pass",
        "try: f()\nexcept: g()",
    ],
)
def test_the_check_of_calls_can_fail(source):
    assert len(misdeeds(source)) == 1


def test_the_check_of_calls_can_pass():
    assert misdeeds("importlib.import_module(name)", "importlib.import_module") == []
    assert misdeeds("torch.load(p, weights_only=True)\ntry:\n    f()\nexcept KeyError:\n    pass") == []
