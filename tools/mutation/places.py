"""Places of the source where a small fault can be put in, and the fault. Places are named so that they are found after moves."""

from __future__ import annotations

import ast
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from source import Function, Module, functions, own_nodes

KINDS = ("subscript", "sign", "comparison", "clone", "constant")
OTHER: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
WORDS = (ast.JoinedStr, ast.List, ast.Tuple, ast.ListComp)  # what + joins, and - cannot take apart


@dataclass(frozen=True)
class Place:
    """Where a fault goes, by names that stay when files move.

    Attributes:
        function: qualified name of the function, without its file.
        kind: one of `KINDS`.
        index: how many places of the kind come before it in the function.
        text: the source of what is changed.
    """

    function: str
    kind: str
    index: int
    text: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Found:
    """A place in the present source.

    Attributes:
        place: its name.
        module: the file.
        node: what is changed.
        fault: the source that stands in its place.
    """

    place: Place
    module: Module
    node: ast.expr
    fault: str

    @property
    def line(self) -> int:
        """The line of the file, from 1."""
        return self.node.lineno

    @property
    def wrong(self) -> str:
        """The whole source of the file with the fault in it."""
        lines = self.module.text.encode().split(b"\n")
        first, last = self.node.lineno, self.node.end_lineno or self.node.lineno
        before, after = lines[first - 1][: self.node.col_offset], lines[last - 1][self.node.end_col_offset or 0 :]
        lines[first - 1 : last] = [before + f"({self.fault})".encode() + after]
        return b"\n".join(lines).decode()


def all_places(modules: Sequence[Module]) -> list[Found]:
    """Return every place of the product code, in order of their names.

    Functions whose qualified name is not theirs alone are left out: after a move nobody could tell which is which.
    """
    by_name: dict[str, list[tuple[Module, Function]]] = {}
    for module in modules:
        for name, node, _ in functions(module.tree):
            by_name.setdefault(name, []).append((module, node))
    found = [one for name, places in by_name.items() if len(places) == 1 for one in _of_function(name, *places[0])]
    return sorted(found, key=lambda one: (one.place.function, one.place.kind, one.place.index))


def draw(places: Sequence[Found], count: int, seed: int) -> list[Found]:
    """Draw places, as many of each kind as there are: where a kind has too few, others make up for it."""
    chance = random.Random(seed)
    shuffled = {kind: chance.sample(own, len(own)) for kind in KINDS for own in [[p for p in places if p.place.kind == kind]]}
    drawn: list[Found] = []
    while len(drawn) < count and any(shuffled.values()):
        drawn += [own.pop() for own in shuffled.values() if own]
    return drawn[:count]


def find(places: Sequence[Found], wanted: Place) -> Found | None:
    """Return a place by its name: what has the same text in the function, else the same index; None if neither is there."""
    own = [one for one in places if (one.place.function, one.place.kind) == (wanted.function, wanted.kind)]
    alike = [one for one in own if one.place.text == wanted.text]
    return min(alike, key=lambda one: abs(one.place.index - wanted.index), default=None) or next(
        (one for one in own if one.place.index == wanted.index), None
    )


def _of_function(name: str, module: Module, function: Function) -> Iterator[Found]:
    counts = dict.fromkeys(KINDS, 0)
    hidden = _hidden(function)
    for node in own_nodes(function):
        if not isinstance(node, ast.expr) or id(node) in hidden:
            continue
        for kind, fault_of in FAULTS.items():
            if (fault := fault_of(node)) is None:
                continue
            place = Place(name, kind, counts[kind], ast.unparse(node))
            counts[kind] += 1
            yield Found(place, module, node, fault)


def _hidden(function: Function) -> set[int]:
    """Return the ids of nodes that are no places: parts of f-strings, annotations, and the numbers of subscripts."""
    hidden: set[int] = set()
    for node in own_nodes(function):
        inner: list[ast.AST] = []
        if isinstance(node, ast.JoinedStr):
            inner = [node]
        elif isinstance(node, ast.AnnAssign):
            inner = [node.annotation]
        elif isinstance(node, ast.Subscript) and _subscript(node) is not None:
            inner = [node.slice]
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            inner = [node.operand] if isinstance(node.operand, ast.Constant) else []
        hidden |= {id(part) for outer in inner for part in ast.walk(outer)}
    return hidden


def _subscript(node: ast.AST) -> str | None:
    """Take the next item, or begin or end a slice one later."""
    if not isinstance(node, ast.Subscript) or not isinstance(node.ctx, ast.Load):
        return None
    value, index = ast.unparse(node.value), node.slice
    if isinstance(index, ast.Slice) and index.step is None:
        bounds = ["" if bound is None else ast.unparse(bound) for bound in (index.lower, index.upper)]
        place = 0 if bounds[0] else 1
        if not bounds[place]:
            return None
        bounds[place] = f"{bounds[place]} + 1"
        return f"{value}[{bounds[0]}:{bounds[1]}]"
    return None if (number := _number(index)) is None else f"{value}[{number + 1}]"


def _number(node: ast.expr) -> int | None:
    """Return a whole number that is written out, with its sign."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        number = _number(node.operand)
        return None if number is None else -number
    return node.value if isinstance(node, ast.Constant) and type(node.value) is int else None


def _sign(node: ast.AST) -> str | None:
    """Turn plus into minus and back, or take a minus away."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return ast.unparse(node.operand)
    if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.Add | ast.Sub):
        return None
    if any(isinstance(side, WORDS) or (isinstance(side, ast.Constant) and isinstance(side.value, str | bytes))
           for side in (node.left, node.right)):  # fmt: skip
        return None
    op = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
    return ast.unparse(ast.BinOp(node.left, op, node.right))


def _comparison(node: ast.AST) -> str | None:
    """Let the bound of a comparison belong to the other side, or take the opposite."""
    if not isinstance(node, ast.Compare):
        return None
    return ast.unparse(ast.Compare(node.left, [OTHER[type(node.ops[0])](), *node.ops[1:]], node.comparators))


def _clone(node: ast.AST) -> str | None:
    """Share a tensor in the place of a copy."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "clone" and not node.args:
        return ast.unparse(node.func.value)
    return None


def _constant(node: ast.AST) -> str | None:
    """Add one to a number."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return repr(node.value + 1)
    return None


FAULTS: dict[str, Callable[[ast.AST], str | None]] = {
    "subscript": _subscript, "sign": _sign, "comparison": _comparison, "clone": _clone, "constant": _constant,
}  # fmt: skip
