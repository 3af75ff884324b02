"""What one verifier said of candidates before, so that it is not asked again."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .candidates import finite_or_none
from .journal import Journal, entry_name
from .recipes import Recipe

SETTLED = "settled"  # in the place of a part's name


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

    def settled(
        self, recipe: Recipe, what: Mapping[str, Any], measure: Callable[[], float | None], against: Recipe | None = None
    ) -> float | None:
        """Return a number that was measured once, so that what is decided by it is decided again when searched again.

        Args:
            recipe: of the candidate that it was measured of.
            what: names the number.
            measure: measures it if it is not written down; what it gives then is, but for None.
            against: of the other, of what is measured of two.
        """
        what = what if against is None else {**what, "against": entry_name(against, {}, self._given)}
        name = entry_name(recipe, what, self._given)
        known = self._journal.scores(name, self._by)
        if known is not None:
            return known[SETTLED]
        value = measure()
        if value is not None:
            self._journal.add_scores(name, self._by, {SETTLED: value})
        return value

    def _values(self, recipe: Recipe, what: Mapping[str, Any]) -> dict[str, float | None] | None:
        """Return what is written of every part; None if that is not all parts, and no other."""
        values = self._journal.scores(entry_name(recipe, what, self._given), self._by)
        return values if values is not None and values.keys() == set(self._names) else None
