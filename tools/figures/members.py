"""The members of a class, those of its bases among them, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from source import Function, Module


def members_of(class_name: str, modules: Sequence[Module], folder: str) -> list[str]:
    """Return the names that a class and its bases of ours define, or assign to `self`; those in double underscores aside.

    Raises:
        LookupError: no file of the folder, or more than one, defines such a class that is no protocol.
    """
    classes: dict[str, list[ast.ClassDef]] = {}
    for module in modules:
        if module.path.parts[0] == folder:
            for node in ast.walk(module.tree):
                if isinstance(node, ast.ClassDef) and "Protocol" not in map(ast.unparse, node.bases):
                    classes.setdefault(node.name, []).append(node)
    if len(classes.get(class_name, ())) != 1:
        raise LookupError(f"{folder}/ defines {len(classes.get(class_name, ()))} classes called {class_name}")
    names: set[str] = set()
    todo, seen = [class_name], set()
    while todo:
        name = todo.pop()
        for node in classes.get(name, ()) if name not in seen else ():
            names |= set(_defined(node))
            todo += [ast.unparse(base).split(".")[-1] for base in node.bases]
        seen.add(name)
    return sorted(name for name in names if not (name.startswith("__") and name.endswith("__")))


def _defined(cls: ast.ClassDef) -> Iterator[str]:
    for node in cls.body:
        if isinstance(node, Function):
            yield node.name
            first = [item.arg for item in (*node.args.posonlyargs, *node.args.args)][:1]
            yield from (inner.attr for inner in ast.walk(node) if isinstance(inner, ast.Attribute)
                        and isinstance(inner.ctx, ast.Store) and ast.unparse(inner.value) in first)  # fmt: skip
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
