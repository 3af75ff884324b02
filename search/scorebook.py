"""What one verifier said of candidates before, so that it is not asked again."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from .candidates import finite_or_none
from .journal import Journal, entry_name, name_of
from .recipes import Recipe

T = TypeVar("T")


class ScoreBook:
    """The scores by one verifier in a journal.

    Attributes:
        recalled: scores that were taken from it.
    """

    def __init__(self, journal: Journal, by: str, names: Sequence[str], given: str = "") -> None:
        """Look at a journal as one verifier.

        Args:
            journal: of the search.
            by: signature of the verifier: all that its scores depend on, but for the picture.
            names: of its parts, in the order of raw scores.
            given: hash of the connected noise; see `entry_name`.
        """
        self._journal, self._by, self._names, self._given = journal, by, list(names), given
        self.recalled = 0

    def has(self, recipe: Recipe, what: Mapping[str, Any]) -> bool:
        """Whether the verifier has scored this."""
        return self._values(recipe, what) is not None

    def get(self, recipe: Recipe, what: Mapping[str, Any]) -> Tensor | None:
        """Return raw scores (V,), float32; None if there are none, or if a part failed where it can be asked again.

        Of looks and drafts no picture is left to ask about: a part that failed then has NaN.
        """
        values = self._values(recipe, what)
        if values is None or (not what and None in values.values()):
            return None
        self.recalled += 1
        row = [values[name] for name in self._names]
        return torch.tensor([math.nan if value is None else value for value in row], dtype=torch.float32)

    def put(self, recipe: Recipe, what: Mapping[str, Any], row: Sequence[float]) -> None:
        """Write down raw scores (V,)."""
        values = {name: finite_or_none(value) for name, value in zip(self._names, row, strict=True)}
        self._journal.add_scores(entry_name(recipe, what, self._given), self._by, values)

    def settled(self, what: Mapping[str, Any], measure: Callable[[], T], *of: Recipe) -> T:
        """Return what was measured, or asked, once: so what is decided by it is decided again when searched again.

        Args:
            what: names it.
            measure: gives it, as JSON values, if it is not written down; what it gives then is, but for None.
            of: the candidates that it was measured of, if any.
        """
        name = name_of([dict(what), [entry_name(recipe, {}, self._given) for recipe in of]])
        known = self._journal.settled(name, self._by)
        if known is None and (known := measure()) is not None:
            self._journal.settle(name, self._by, known)
        return known

    def _values(self, recipe: Recipe, what: Mapping[str, Any]) -> dict[str, float | None] | None:
        """Return what is written of every part; None if that is not all parts, and no other."""
        values = self._journal.scores(entry_name(recipe, what, self._given), self._by)
        return values if values is not None and values.keys() == set(self._names) else None
