"""Assignments to attributes of other objects: state that has more than one owner. Read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from source import Function, functions, own_nodes

COPIES = {"copy", "deepcopy", "replace", "clone", "__new__"}  # calls that make an object, whatever they are called on


def foreign_assignments(tree: ast.Module) -> list[str]:
    """Return the places of a file that assign to another object's attribute: "function: x.attr", each once."""
    found: dict[str, None] = {}
    for name, function, method in functions(tree):
        own = _made_here(function) | _first_parameter(function, method)
        for target in _attribute_targets(function):
            if not (isinstance(target.value, ast.Name) and target.value.id in own):
                found[f"{name}: {ast.unparse(target)}"] = None
    return list(found)


def _first_parameter(function: Function, method: bool) -> set[str]:
    """Name what a method calls itself or its class; in functions inside of it, the usual words."""
    named = [item.arg for item in (*function.args.posonlyargs, *function.args.args)]
    return {"self", "cls", *(named[:1] if method else [])}


def _attribute_targets(function: Function) -> Iterator[ast.Attribute]:
    for node in own_nodes(function):
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AugAssign | ast.AnnAssign | ast.For | ast.AsyncFor):
            targets = [node.target]
        elif isinstance(node, ast.Delete):
            targets = node.targets
        else:
            continue
        for target in targets:
            yield from _attributes(target)


def _attributes(target: ast.expr) -> Iterator[ast.Attribute]:
    if isinstance(target, ast.Tuple | ast.List):
        for part in target.elts:
            yield from _attributes(part)
    elif isinstance(target, ast.Starred):
        yield from _attributes(target.value)
    elif isinstance(target, ast.Attribute):
        yield target


def _made_here(function: Function) -> set[str]:
    """Name the local variables that hold an object which the function made: a class was called, or a copy was made."""
    made = set()
    for node in own_nodes(function):
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Call) and _makes(node.value):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            made |= {target.id for target in targets if isinstance(target, ast.Name)}
    return made


def _makes(call: ast.Call) -> bool:
    called = call.func
    last = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
    return last in COPIES or last.lstrip("_")[:1].isupper() or last == "cls" or ast.unparse(called).startswith("type(")
