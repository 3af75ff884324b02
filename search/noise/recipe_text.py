"""The JSON text of a recipe, written at little more cost for many moves than for one: a search names every candidate by it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from .bounded_cache import BoundedCache
from .branch_point import BranchPoint
from .jitter import Jitter
from .linked import Linked
from .moves import HAS_LEVELS, Ancestor, Move

VERSION = 1
GIVEN = "given"
AT_SEED = f"{GIVEN}@"  # and a seed: what the connected NOISE object makes at that seed
TEXTS: BoundedCache[str] = BoundedCache(4 << 20, len)  # of moves, cuts and ancestors that others follow, characters


class Written(Protocol):
    """What is read of a recipe (`recipe.Recipe`)."""

    @property
    def start(self) -> int | str: ...
    @property
    def connected(self) -> bool: ...
    @property
    def seed(self) -> int: ...
    @property
    def moves(self) -> Linked[Move]: ...
    @property
    def cuts(self) -> Linked[BranchPoint]: ...
    @property
    def jitter(self) -> Jitter | None: ...


class Style(NamedTuple):
    """How JSON is written.

    Attributes:
        comma: between items.
        colon: between a key and its value.
        sorts: whether keys are sorted.
    """

    comma: str
    colon: str
    sorts: bool


PLAIN = Style(", ", ": ", False)  # as `json.dumps` does
CANONICAL = Style(",", ":", True)  # as `lines.canonical` does


def recipe_text(recipe: Written, style: Style) -> str:
    """Return a recipe as JSON; seeds are strings, since browsers round large numbers."""
    noise = f"{AT_SEED}{recipe.start}" if recipe.connected else str(recipe.start)
    fields = {"noise_search": str(VERSION), "noise": json.dumps(noise), "seed": _seed(recipe.seed)}
    if recipe.moves:
        fields["moves"] = _list(recipe.moves, _move, style)
    if recipe.cuts:
        fields["cuts"] = _list(recipe.cuts, _cut, style)
    if recipe.jitter is not None:
        jitter = {"seed": _seed(recipe.jitter.seed), "cosine": json.dumps(recipe.jitter.cosine)}
        fields["jitter"] = _object(jitter, style)
    return _object(fields, style)


def _list(items: Linked, write: Callable[[Any, Style], str], style: Style) -> str:
    """Return a list of items; what comes before the last is kept, since others begin with that too."""
    ahead, there, text = [], items, ""
    while there and (text := TEXTS.get((write, style, there)) or "") == "":
        ahead.append(there)
        there = there.before
    for there in reversed(ahead):
        if there is items and text:
            TEXTS.add((write, style, there.before), text)
        text += (style.comma if text else "") + write(there.last, style)
    return f"[{text}]"


def _object(fields: Mapping[str, str], style: Style) -> str:
    names = sorted(fields) if style.sorts else fields
    return "{" + style.comma.join(f'"{name}"{style.colon}{fields[name]}' for name in names) + "}"


def _move(move: Move, style: Style) -> str:
    fields = {"kind": json.dumps(move.kind), "seed": _seed(move.seed), "amount": json.dumps(move.amount)}
    if move.kind in HAS_LEVELS:
        fields["levels"] = str(move.levels)
    if move.lineage:
        fields["lineage"] = _list(move.lineage, _ancestor, style)
    return _object(fields, style)


def _ancestor(ancestor: Ancestor, style: Style) -> str:
    return f"[{style.comma.join([_seed(ancestor.seed), *map(str, ancestor.parents)])}]"


def _cut(cut: BranchPoint, style: Style) -> str:
    levels = {"sigma": json.dumps(cut.sigma), "renoise_to": json.dumps(cut.renoise_to)}
    return _object({**levels, "noise_seed": _seed(cut.noise_seed), "seed": _seed(cut.seed)}, style)


def _seed(seed: int) -> str:
    return f'"{seed}"'
