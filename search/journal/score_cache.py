"""What one verifier said of candidates before, so that it is not asked again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from ..base.candidate import finite_or_none
from ..noise.recipe import Recipe
from .journal import Journal, entry_name
from .lines import name_of

T = TypeVar("T")


class ScoreCache:
    """The scores by one verifier in a journal."""

    def __init__(self, journal: Journal, by: str, names: Sequence[str], given: str = "") -> None:
        """Look at a journal as one verifier.

        Args:
            journal: of the search.
            by: signature of the verifier: all that its scores depend on, but for the picture.
            names: of its parts, in the order of raw scores.
            given: hash of the connected noise; see `entry_name`.
        """
        self._journal, self._by, self._names, self._given = journal, by, list(names), given

    @property
    def used(self) -> bool:
        """Whether any score of the verifier is written down."""
        return self._journal.has_scores(self._by)

    def has(self, recipe: Recipe, what: Mapping[str, Any]) -> bool:
        """Whether all parts of the verifier were asked about this."""
        return self._has_all(self._values(recipe, what))

    def get(self, recipe: Recipe, what: Mapping[str, Any]) -> dict[str, float]:
        """Return the scores that are written down, by part; a part that failed is left out where it can be asked again.

        Of looks and drafts no picture is left to ask about: a part that failed then has NaN.
        """
        values = self._values(recipe, what)
        return {name: math.nan if value is None else value for name, value in values.items() if what or value is not None}

    def put(self, part: str, scores: Iterable[tuple[Recipe, Mapping[str, Any], float]], at_once: bool = False) -> None:
        """Write down what one part of the verifier says; once all have been asked about a look or a draft, that can go.

        Args:
            part: its name.
            scores: by recipe and what of it was scored.
            at_once: see them onto the disk now, not when the wave ends.
        """
        named = [(entry_name(recipe, what, self._given), what, finite_or_none(score)) for recipe, what, score in scores]
        self._journal.add_all_scores(self._by, {name: {part: score} for name, _, score in named}, at_once)
        for name, what, _ in named:
            if what and self._has_all(self._written(name)):
                self._journal.drop_state(name)

    def settled(self, what: Mapping[str, Any], measure: Callable[[], T], *of: Recipe) -> T:
        """Return what was measured, or asked, once: so what is decided by it is decided again when searched again.

        Args:
            what: names it.
            measure: gives it, as JSON values, if it is not written down; what it gives then is, but for None.
            of: the candidates that it was measured of, if any.
        """
        name = name_of([dict(what), [entry_name(recipe, {}, self._given) for recipe in of]])
        known = self._journal.settled(name, self._by)
        if known is not None:
            return known
        measured = measure()
        if measured is not None:
            self._journal.settle(name, self._by, measured)
        return measured

    def _values(self, recipe: Recipe, what: Mapping[str, Any]) -> dict[str, float | None]:
        """Return what is written of this verifier's parts, None for one that failed."""
        return self._written(entry_name(recipe, what, self._given))

    def _written(self, name: str) -> dict[str, float | None]:
        values = self._journal.scores(name, self._by) or {}
        return {part: values[part] for part in self._names if part in values}

    def _has_all(self, values: Mapping[str, float | None]) -> bool:
        return values.keys() == set(self._names)
