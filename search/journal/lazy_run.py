"""Runs and records that are only made where somebody needs them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..base.levels import same_level
from ..base.session import Run
from ..noise.recipe import Recipe


@dataclass
class Known:
    """A run as far as it is known without having been made."""

    nfe: int = 0
    finished: bool = False
    latent: Any = None
    levels: Sequence[float] = ()
    odd: Sequence[int] = ()
    gaps: Sequence[float] = ()
    records: Sequence[LazyRecord] = ()
    segment_start: Any = None
    predictions: Mapping[float, Any] = field(default_factory=dict)


@dataclass(eq=False)
class LazyRecord:
    """A model call that a branch may start from, made or not.

    Attributes:
        sigma: its noise level.
        recipe: of the run it belongs to.
        real: the session's own record; None until somebody needs it.
        stored: the real one comes from disk: it answers no twin.
    """

    sigma: float
    recipe: Recipe
    real: Any = None
    stored: bool = False


class LazyRun:
    """A `session.Run` that is known, or made, or neither yet.

    Attributes:
        recipe: of its candidate.
        keep: levels it is kept at for branches.
        origin: the call it branched from; None for a whole run.
        real: the session's own run, once it is made.
        reached: the noise level that it is known down to; infinite before its first call.
        closed: whether it was given up.
    """

    def __init__(self, recipe: Recipe, keep: Sequence[float], origin: LazyRecord | None = None) -> None:
        """Prepare a run of which nothing is known."""
        self.recipe, self.keep, self.origin = recipe, tuple(keep), origin
        self.real: Run | None = None
        self.reached, self.closed = math.inf, False
        self._known, self._spared = Known(), 0

    def __getattr__(self, name: str) -> Any:
        if name not in Known.__dataclass_fields__:
            raise AttributeError(name)
        return getattr(self._known if self.real is None else self.real, name)

    @property
    def nfe(self) -> int:
        """Model calls so far, those that were recalled in the place of made ones."""
        return self._known.nfe if self.real is None else self._spared + self.real.nfe

    @property
    def records(self) -> Sequence[LazyRecord]:
        """Model calls it can be left at."""
        if self.real is None:
            return self._known.records
        return [LazyRecord(record.sigma, self.recipe, record) for record in self.real.records]

    def learn(self, known: Known, reached: float) -> None:
        """Take over what the journal says."""
        if self.real is not None:
            self.real.close()
        self.real, self._known, self.reached = None, known, min(self.reached, reached)

    def embody(self, real: Run) -> None:
        """Go on with a real run, which stands where this one does; end it if this one was given up meanwhile."""
        self._spared, self.real = self.nfe - real.nfe, real
        if self.closed:
            real.close()

    def leave(self, nfe: int) -> None:
        """Take over how many model calls an earlier search made of it before the user ended that."""
        if self.real is None:
            self._known.nfe = nfe
        else:
            self._spared += nfe - self.nfe

    def close(self) -> None:
        """End the run for good."""
        self.closed = True
        if self.real is not None:
            self.real.close()


def records_of(run: LazyRun, levels: Sequence[float]) -> list[LazyRecord]:
    """Return the calls a run was kept at, of those it made."""
    kept = dict.fromkeys(level for level in levels if any(same_level(level, wanted) for wanted in run.keep))
    return [LazyRecord(level, run.recipe) for level in kept]


def run_to(recipe: Recipe, sigma: float) -> LazyRun:
    """Return a run of a recipe that is kept at one of its calls."""
    if not recipe.cuts:
        return LazyRun(recipe, (sigma,))
    return LazyRun(recipe, (sigma,), LazyRecord(recipe.cuts[-1].sigma, replace(recipe, cuts=recipe.cuts[:-1])))
