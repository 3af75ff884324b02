"""How combined scores follow from raw ones as a pool grows, without combining those of all members anew."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor


class Standings(Protocol):
    """Combined scores of a pool that grows, by places: 0 for the member that was added first.

    Attributes:
        rise: the most that a member's score rises when another member is added.
    """

    rise: float

    def add(self, raw: Tensor) -> None:
        """Add members with their raw scores (n, V)."""

    def score(self, place: int) -> float:
        """Return a member's score among all so far; NaN for none."""
        ...

    def all(self) -> list[float] | None:
        """Return the scores of all members; None where it is faster to combine all raw scores anew."""


class Alone:
    """Scores that do not depend on other members."""

    rise = 0.0

    def __init__(self, combine: Callable[[Tensor], Tensor]) -> None:
        """Start empty; `combine` turns raw scores (n, V) into combined ones (n,)."""
        self._combine, self._scores = combine, array("f")

    def add(self, raw: Tensor) -> None:
        self._scores.extend(self._combine(raw).tolist())

    def score(self, place: int) -> float:
        return self._scores[place]

    def all(self) -> list[float]:
        return self._scores.tolist()


class Running:
    """Scores by a verifier that itself combines what is added to, see `verifiers.base.VerifierEnsemble`."""

    def __init__(self, running: Any, columns: Callable[[Tensor], Tensor]) -> None:
        """Start empty; `columns` gives the scores (n, parts) that `running` combines, of raw ones (n, V)."""
        self._running, self._columns, self.rise = running, columns, running.rise

    def add(self, raw: Tensor) -> None:
        self._running.add(self._columns(raw))

    def score(self, place: int) -> float:
        score = self._running.score(place)
        return score if math.isfinite(score) else math.nan

    def all(self) -> None:
        return None


class Rows:
    """Rows of float32 numbers that grow in number."""

    def __init__(self) -> None:
        """Start without any."""
        self._numbers, self._width = array("f"), 0

    def __len__(self) -> int:
        return len(self._numbers) // self._width if self._width else 0

    def add(self, rows: Tensor) -> None:
        """Add rows (n, V)."""
        self._width = rows.shape[1]
        self._numbers.extend(rows.flatten().tolist())

    def row(self, place: int) -> list[float]:
        """Return one row."""
        return self._numbers[place * self._width : (place + 1) * self._width].tolist()

    def put(self, place: int, column: int, value: float) -> None:
        """Put another number in the place of one."""
        self._numbers[place * self._width + column] = value

    def tensor(self, first: int = 0) -> Tensor:
        """Return a copy (N - first, V), float32, of the rows after `first` others."""
        part = self._numbers[first * self._width :]
        return torch.frombuffer(part, dtype=torch.float32).reshape(-1, self._width) if part else torch.empty(0, self._width)


def rounded(value: float) -> float:
    """Return a number as float32 has it."""
    return array("f", (value,))[0]
