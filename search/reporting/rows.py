"""The candidates of a report, a row each: written without what is at its default, and read whole again."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ..base.candidate import Candidate, finite_or_none
from .recipe_rows import RowReader, RowWriter

FINISHED = "finished"
LARGEST = 3.4028235e38  # is rounded to the largest number of single precision


def rows_of(candidates: Sequence[Candidate], parts: Sequence[str], usual_calls: int | None) -> list[dict[str, Any]]:
    """Return a row of JSON values for each candidate, as `read_rows` reads them.

    Scores are single precision numbers, each with as few digits as tell it from all others.

    Args:
        candidates: all of a search, by index.
        parts: names of what scores; a row has its scores in their order.
        usual_calls: model calls of the rows that do not say theirs; None if all do.
    """
    writer = RowWriter()
    return [_row(candidate, candidates, parts, usual_calls, writer) for candidate in candidates]


def _row(
    candidate: Candidate, candidates: Sequence[Candidate], parts: Sequence[str], usual_calls: int | None, writer: RowWriter
) -> dict[str, Any]:
    def told(scores: Mapping[str, float]) -> list[float | None]:
        return [shortest(scores.get(name)) for name in parts]

    row: dict[str, Any] = {"index": candidate.index}
    if candidate.parent is not None:
        row["parent"] = candidate.parent
    if candidate.status != FINISHED:
        row["status"] = candidate.status
    if candidate.discarded:
        row["discarded"] = True
    if (score := shortest(candidate.score)) is not None:
        row["score"] = score
    if candidate.scores:
        row["scores"] = told(candidate.scores)
    if candidate.looks:
        row["looks"] = [{**look, "scores": told(look["scores"]), "score": shortest(look["score"])} for look in candidate.looks]
    if candidate.nfe != usual_calls:
        row["model_calls"] = candidate.nfe
    parent = None if candidate.parent is None else candidates[candidate.parent].recipe
    return row | writer.row(candidate.index, candidate.recipe, parent)


class CandidateRow(Mapping):
    """A candidate of a report that was read, with all its fields: those of `READ`.

    The recipe is put together when it is asked for, which raises a ValueError if the report does not hold it.
    """

    __slots__ = ("_place", "_table")

    def __init__(self, table: _Table, place: int) -> None:
        """See `read_rows`."""
        self._table, self._place = table, place

    def __getitem__(self, name: str) -> Any:
        return READ[name](self._table, self._place, self._table.rows[self._place])

    def __iter__(self) -> Iterator[str]:
        return iter(READ)

    def __len__(self) -> int:
        return len(READ)


def read_rows(rows: Sequence[dict[str, Any]], parts: Sequence[str], usual_calls: int | None) -> list[CandidateRow]:
    """Return the candidates whose rows `rows_of` wrote; types and indices have been checked."""
    table = _Table(rows, parts, usual_calls)
    return [CandidateRow(table, place) for place in range(len(rows))]


class _Table:
    """What the rows of a report have in common."""

    def __init__(self, rows: Sequence[dict[str, Any]], parts: Sequence[str], usual_calls: int | None) -> None:
        self.rows, self.parts, self.usual_calls = rows, parts, usual_calls
        self.recipes = RowReader(rows)

    def scores(self, told: Sequence[float | None] | None) -> dict[str, float | None]:
        return {} if told is None else dict(zip(self.parts, map(single, told), strict=True))

    def looks(self, told: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**look, "scores": self.scores(look.get("scores")), "score": single(look.get("score"))} for look in told]


READ: dict[str, Callable[[_Table, int, dict[str, Any]], Any]] = {
    "index": lambda table, place, row: place,
    "parent": lambda table, place, row: row.get("parent"),
    "status": lambda table, place, row: row.get("status", FINISHED),
    "discarded": lambda table, place, row: row.get("discarded", False),
    "score": lambda table, place, row: single(row.get("score")),
    "scores": lambda table, place, row: table.scores(row.get("scores")),
    "looks": lambda table, place, row: table.looks(row.get("looks", [])),
    "model_calls": lambda table, place, row: row.get("model_calls", table.usual_calls),
    "recipe": lambda table, place, row: table.recipes.text(place),
}


def shortest(value: float | None) -> float | None:
    """Return the number with the fewest digits that single precision rounds as it does `value`; None for no finite number."""
    number = None if value is None else finite_or_none(value)
    if number is None or abs(number) > LARGEST:
        return None
    near = single(number)
    return next((short for digits in (6, 7, 8) if single(short := float(f"{near:.{digits}g}")) == near), float(f"{near:.9g}"))


def single(value: float | None) -> float | None:
    """Return the nearest number of single precision; None for None."""
    return None if value is None else struct.unpack("<f", struct.pack("<f", value))[0]
