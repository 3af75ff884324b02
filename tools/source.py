"""The pack's source as syntax trees, of any checkout, wherever its files lie. Nothing is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("nodes", "search", "verifiers")  # the folders of product code, at any depth

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """A file of product code.

    Attributes:
        path: relative to the checkout, such as search/methods/halving.py.
        text: its source.
    """

    path: Path
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, str(self.path))

    @property
    def name(self) -> str:
        """The dotted name; a package's is that of its folder."""
        parts = self.path.with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def package(self) -> str:
        """The dotted name of the folder that holds the file."""
        return ".".join(self.path.parts[:-1])

    @property
    def lines(self) -> int:
        return len(self.text.splitlines())


def product_code(root: Path = ROOT) -> list[Module]:
    """Read every file of nodes/, search/ and verifiers/ of a checkout, in order of their paths."""
    paths = sorted(path for layer in LAYERS for path in (root / layer).rglob("*.py"))
    return [Module(path.relative_to(root), path.read_text(encoding="utf-8")) for path in paths]


def functions(tree: ast.AST, outer: str = "") -> Iterator[tuple[str, Function, bool]]:
    """Yield every function with its qualified name, and whether it is defined directly in a class.

    A function in a function is called outer.inner. Of functions of the same name in one scope (a property and its setter),
    the second is called name#2, and so on.
    """
    seen: dict[str, int] = {}
    for node in _scope(tree):
        if not isinstance(node, Function | ast.ClassDef):
            continue
        seen[node.name] = seen.get(node.name, 0) + 1
        name = outer + node.name + (f"#{seen[node.name]}" if seen[node.name] > 1 else "")
        if isinstance(node, Function):
            yield name, node, isinstance(tree, ast.ClassDef)
        yield from functions(node, f"{name}.")


def _scope(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield what a scope defines, also under `if`, `try` and `with`, but not what is inside of its functions and classes."""
    for node in ast.iter_child_nodes(tree):
        yield node
        if not isinstance(node, Function | ast.ClassDef):
            yield from _scope(node)


def own_nodes(function: Function) -> Iterator[ast.AST]:
    """Yield a function's nodes in the order of the source, without those of functions and classes defined inside of it.

    Decorators and the signature are not among them.
    """
    for statement in function.body:
        yield from _own(statement)


def _own(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, Function | ast.ClassDef):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _own(child)


def parameters(function: Function, method: bool) -> list[str]:
    """Name a function's parameters, `self` and `cls` of a method aside."""
    spec = function.args
    named = [item.arg for item in (*spec.posonlyargs, *spec.args)]
    static = any(ast.unparse(item) == "staticmethod" for item in function.decorator_list)
    if method and not static:
        named = named[1:]
    more = [item.arg for item in (spec.vararg, *spec.kwonlyargs, spec.kwarg) if item is not None]
    return named + more
