"""Recipes as a report's rows hold them: what each adds to its parent's. A whole recipe is put together when it is asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from ..noise.linked import Linked
from ..noise.moves import MAX_LINEAGE, Ancestor, Move
from ..noise.recipe import VERSION, BranchPoint, Recipe

MAX_TEXT = 1_000_000  # characters of a recipe that is put together
SHORTEST_RANGE = 3  # indices in a row from which on first and last are written
RECIPE_FIELDS: dict[str, tuple[type, ...]] = {
    "noise": (str,),
    "seed": (str,),
    "moves": (list,),
    "cuts": (list,),
    "jitter": (dict,),
}
DRAWN_FROM = "drawn_from"  # of a row's last move, in place of its lineage: see `RowWriter`

References = tuple["int | None", ...]


class RowWriter:
    """Writes what recipes add to their parents', candidate by candidate, in the order of their indices.

    A row with "noise" stands alone. Any other goes on from its parent's recipe: its moves follow the parent's, its cuts
    too (without any, the parent's are left out), and its seed and jitter, if it has them, replace the parent's. A seed
    that is the noise's own is left out.

    In place of a lineage, a row's last move has "drawn_from": the list of candidates that it was drawn from, null for the
    noise before the move, or the index of a candidate that was drawn from the same. `Lineages` gives the lineage back.
    """

    def __init__(self) -> None:
        self._index_of: dict[int, int] = {}  # candidates by the seed of their last move
        self._drawn: dict[int, tuple[str, References]] = {}
        self._lineages = Lineages(self._drawn.get)
        self._last: tuple[int, Linked[Ancestor], References] | None = None  # a candidate, what it was drawn from

    def row(self, index: int, recipe: Recipe, parent: Recipe | None) -> dict[str, Any]:
        """Return the fields of a candidate's recipe; `parent` is that of the candidate which its row names as parent."""
        added = None if parent is None else _beyond(recipe, parent)
        base = None if added is None else parent
        moves, cuts = (recipe.moves, recipe.cuts) if added is None else added
        told = self._note(index, moves[-1]) if moves else None
        if told is not None:
            moves = (*moves[:-1], replace(moves[-1], lineage=()))
        fields = json.loads(replace(recipe, moves=moves, cuts=cuts).to_json())
        del fields["noise_search"]
        if told is not None:
            fields["moves"][-1][DRAWN_FROM] = told
        if base is not None:
            del fields["noise"]
        if fields["seed"] == (fields.get("noise") if base is None else str(base.seed)):
            del fields["seed"]
        if base is not None and recipe.jitter == base.jitter:
            fields.pop("jitter", None)
        return fields

    def _note(self, index: int, move: Move) -> list[Any] | int | None:
        """Keep a candidate's last move for those drawn from it; return its "drawn_from", None if it has its whole lineage."""
        told, references = self._told(index, move) if move.lineage else (None, ())
        self._index_of[move.seed] = index
        self._drawn[index] = (str(move.seed), references)
        return told

    def _told(self, index: int, move: Move) -> tuple[list[Any] | int | None, References]:
        """Return "drawn_from" of a move, and what it means; (None, ()) if that would not give back its lineage."""
        before, own = move.lineage.before, move.lineage.last
        if self._last is not None:
            other, ahead, references = self._last
            if before == ahead and list(own.parents) == self._lineages.positions(references):
                return other, references
        entries = list(before)
        places = [None, *(self._index_of.get(ancestor.seed) for ancestor in entries)]
        references = tuple(places[parent] for parent in own.parents)
        known = None not in places[1:] and all(place < index for place in places[1:])
        if not known or self._lineages.before(references) != [[str(a.seed), *a.parents] for a in entries]:
            return None, ()
        if self._lineages.positions(references) != list(own.parents):
            return None, ()
        self._last = index, before, references
        return _in_ranges(references), references


class Lineages:
    """Puts the lineages of moves together from the candidates that each was drawn from.

    A lineage holds these candidates and all that they were drawn from in turn, in the order of their indices.
    """

    def __init__(self, drawn: Any) -> None:
        """Prepare; `drawn` gives, for a candidate's index, the seed of its last move and what that was drawn from."""
        self._drawn = drawn
        self._last: tuple[References, list[list[Any]], dict[int | None, int]] | None = None

    def before(self, references: References) -> list[list[Any]]:
        """Return the lineage, without the move's own entry, of a move that was drawn from these candidates.

        Raises:
            ValueError: one of them has no moves, or there are more ancestors than a recipe may have.
        """
        return self._of(references)[1]

    def positions(self, references: References) -> list[int]:
        """Return the places of candidates in the lineage of a move that was drawn from them."""
        place = self._of(references)[2]
        return [place[reference] for reference in references]

    def _of(self, references: References) -> tuple[References, list[list[Any]], dict[int | None, int]]:
        if self._last is None or self._last[0] != references:
            found: dict[int, tuple[str, References]] = {}
            todo = [one for one in references if one is not None]
            while todo:
                index = todo.pop()
                if index in found:
                    continue
                if len(found) + 1 >= MAX_LINEAGE:
                    raise ValueError(f"its noise was drawn from more than {MAX_LINEAGE} others")
                told = self._drawn(index)
                if told is None:
                    raise ValueError(f"its noise was drawn from that of candidate {index}, which has no moves")
                found[index] = told
                todo += [one for one in told[1] if one is not None]
            members = sorted(found)
            place: dict[int | None, int] = {None: 0, **{index: k for k, index in enumerate(members, 1)}}
            entries = [[found[i][0], *(place[one] for one in found[i][1])] for i in members]
            self._last = references, entries, place
        return self._last


class _Chain(NamedTuple):
    """Moves or cuts of a row, after those of others; `text` is None where a lineage has to be put together for it."""

    before: _Chain | None
    row: int
    text: str | None


class _Told(NamedTuple):
    """What a row says, with what it takes from its parent's."""

    noise: str
    seed: str
    moves: _Chain | None
    cuts: _Chain | None
    jitter: dict[str, Any] | None


class RowReader:
    """Puts whole recipes together from a report's rows, each when it is asked for."""

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        """Prepare; parents come before their children, fields have the types of `RECIPE_FIELDS`, and lists hold objects."""
        self._rows = rows
        self._told: dict[int, _Told] = {}
        self._lineages = Lineages(self._drawn)

    def text(self, index: int) -> str:
        """Return a candidate's recipe as `Recipe.to_json` writes it.

        Raises:
            ValueError: the rows do not say it, or it is longer than `MAX_TEXT`.
        """
        try:
            told = self._resolved(index)
            parts = [f'"noise_search": {VERSION}', f'"noise": {json.dumps(told.noise)}', f'"seed": {json.dumps(told.seed)}']
            room = MAX_TEXT
            for name, chain in (("moves", told.moves), ("cuts", told.cuts)):
                if chain is not None:
                    parts.append(f'"{name}": [{self._joined(chain, room)}]')
                    room -= len(parts[-1])
        except ValueError as error:
            raise ValueError(f"report: candidate {index}: recipe: {error}") from error
        if told.jitter is not None:
            parts.append(f'"jitter": {json.dumps(told.jitter)}')
        return f"{{{', '.join(parts)}}}"

    def _resolved(self, index: int) -> _Told:
        line, at = [], index
        while at not in self._told:
            line.append(at)
            if "noise" in self._rows[at]:
                break
            at = self._rows[at].get("parent")
            if at is None:
                raise ValueError("neither the candidate nor a parent of it says its 'noise'")
        for place in reversed(line):
            self._told[place] = self._told_by(place, self._rows[place])
        return self._told[index]

    def _told_by(self, place: int, row: dict[str, Any]) -> _Told:
        before = _Told(row["noise"], row["noise"], None, None, None) if "noise" in row else self._told[row["parent"]]
        return _Told(
            before.noise, row.get("seed", before.seed), _after(before.moves, place, row.get("moves")),
            _after(before.cuts, place, row["cuts"]) if row.get("cuts") else None, row.get("jitter", before.jitter),
        )  # fmt: skip

    def _joined(self, chain: _Chain | None, room: int) -> str:
        """Return the moves or cuts of a chain as JSON, without the list's brackets."""
        texts: list[str] = []
        while chain is not None:
            texts.append(self._with_lineage(chain.row) if chain.text is None else chain.text)
            room -= len(texts[-1])
            if room < 0:
                raise ValueError(f"more than {MAX_TEXT} characters are not put together")
            chain = chain.before
        return ", ".join(reversed(texts))

    def _with_lineage(self, index: int) -> str:
        *moves, last = self._rows[index]["moves"]
        seed, references = self._drawn(index) or ("", ())
        lineage = [*self._lineages.before(references), [seed, *self._lineages.positions(references)]]
        last = {**{name: value for name, value in last.items() if name != DRAWN_FROM}, "lineage": lineage}
        return json.dumps([*moves, last])[1:-1]

    def _drawn(self, index: int) -> tuple[str, References] | None:
        moves = self._rows[index].get("moves")
        if not moves:
            return None
        told = moves[-1].get(DRAWN_FROM, [])
        if type(told) is int and 0 <= told < index:  # from the same as that candidate
            others = self._rows[told].get("moves") or [{}]
            return moves[-1].get("seed"), _from_ranges(others[-1].get(DRAWN_FROM), told)
        return moves[-1].get("seed"), _from_ranges(told, index)


def _after(before: _Chain | None, index: int, own: list[dict[str, Any]] | None) -> _Chain | None:
    """Return a chain that goes on with what a row adds to it, if it adds anything."""
    if not own:
        return before
    return _Chain(before, index, None if DRAWN_FROM in own[-1] else json.dumps(own)[1:-1])


def _beyond(recipe: Recipe, parent: Recipe) -> tuple[list[Move], list[BranchPoint]] | None:
    """Return the moves and cuts that a recipe adds to its parent's; None if these do not tell it."""
    if (recipe.start, recipe.connected) != (parent.start, parent.connected) or (parent.jitter and not recipe.jitter):
        return None
    moves, cuts = _added(recipe.moves, parent.moves), _cuts(recipe, parent)
    return None if moves is None or cuts is None else (moves, cuts)


def _cuts(recipe: Recipe, parent: Recipe) -> list[BranchPoint] | None:
    """Return the cuts that a recipe has after all of its parent's, or none of any; None for others."""
    return (_added(recipe.cuts, parent.cuts) or None) if recipe.cuts else []


def _added(items: Linked, before: Linked) -> list[Any] | None:
    """Return what a sequence has after the items of another; None if it does not begin with those."""
    return list(items[len(before) :]) if items[: len(before)] == before else None


def _in_ranges(references: References) -> list[Any]:
    """Return references with runs of indices as [first, last]."""
    runs: list[list[Any]] = []
    for one in references:
        if runs and one is not None and runs[-1][-1] == one - 1:
            runs[-1].append(one)
        else:
            runs.append([one])
    return [entry for run in runs for entry in ([[run[0], run[-1]]] if len(run) >= SHORTEST_RANGE else run)]


def _from_ranges(told: Any, index: int) -> References:
    """Read what a candidate's last move was drawn from: indices before its own, [first, last] for many, and null."""
    if not isinstance(told, list):
        raise ValueError(f"{DRAWN_FROM!r} of candidate {index} must be a list of candidates, or one that has a list")
    found: list[int | None] = []
    for entry in told:
        first, last = entry if isinstance(entry, list) and len(entry) == 2 else (entry, entry)
        if first is None and last is None:
            found.append(None)
        elif type(first) is int and type(last) is int and 0 <= first <= last < index:
            found += range(first, min(last, first + MAX_LINEAGE) + 1)
        else:
            raise ValueError(f"{DRAWN_FROM!r} of candidate {index} must name candidates before it")
        if len(found) > MAX_LINEAGE:
            raise ValueError(f"{DRAWN_FROM!r} of candidate {index} names more than {MAX_LINEAGE} others")
    return tuple(found)
