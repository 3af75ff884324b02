"""Which module imports which: arrows between files and between packages, and their cycles. Read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from source import Module

Graph = Mapping[str, set[str]]


class Arrow(NamedTuple):
    """One module of the pack imports another.

    Attributes:
        importer, imported: dotted names of the modules.
        typing_only: the import stands under `if TYPE_CHECKING` and never runs.
    """

    importer: str
    imported: str
    typing_only: bool


def imports(module: Module, names: set[str]) -> Iterator[Arrow]:
    """Yield an arrow for every relative import, those inside of functions among them.

    Args:
        module: the importer.
        names: the dotted names of all modules: `from . import x` imports the module x if there is one, else the package.
    """
    typing_only = {id(node) for block in _typing_blocks(module.tree) for node in ast.walk(block)}
    package = module.package.split(".")
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.ImportFrom) or node.level == 0:
            continue
        parts = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
        base = ".".join(parts)
        for alias in node.names:
            inner = f"{base}.{alias.name}" if base else alias.name
            target = inner if inner in names else base
            if target in names and target != module.name:
                yield Arrow(module.name, target, id(node) in typing_only)


def _typing_blocks(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            yield from node.body


def file_arrows(modules: Sequence[Module], *, typing_too: bool) -> set[tuple[str, str]]:
    """Return the distinct pairs (importer, imported) of modules; with `typing_too` also those that only types need."""
    names = {module.name for module in modules}
    found = (arrow for module in modules for arrow in imports(module, names))
    return {(arrow.importer, arrow.imported) for arrow in found if typing_too or not arrow.typing_only}


def package_arrows(modules: Sequence[Module], arrows: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return the distinct pairs of folders between whose files there are arrows."""
    package = {module.name: module.package for module in modules}
    pairs = {(package[importer], package[imported]) for importer, imported in arrows}
    return {(importer, imported) for importer, imported in pairs if importer != imported}


def cycles(arrows: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Return the groups of nodes that can all be reached from one another (strongly connected components), each sorted."""
    graph: dict[str, set[str]] = {}
    for importer, imported in arrows:
        graph.setdefault(importer, set()).add(imported)
    reach = {node: _reachable(graph, node) for node in graph}
    groups = {frozenset({node, *(other for other in ends if node in reach.get(other, ()))})
              for node, ends in reach.items() if node in ends}  # fmt: skip
    return sorted(sorted(group) for group in groups)


def _reachable(graph: Graph, start: str) -> set[str]:
    """Return what can be reached from a node along one arrow or more."""
    seen: set[str] = set()
    todo = [start]
    while todo:
        for node in graph.get(todo.pop(), ()):
            if node not in seen:
                seen.add(node)
                todo.append(node)
    return seen
