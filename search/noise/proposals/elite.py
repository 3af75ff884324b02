"""A low band drawn from the distribution of the best ones'."""

from __future__ import annotations

from dataclasses import dataclass

from ..linked import Linked
from ..moves import Ancestor, Move
from ..recipe import Recipe, derived_seed
from .base import refuse_zero


@dataclass(frozen=True)
class EliteProposal:
    """The pivot's noise with its low band drawn from the mean and variance of the best ones'.

    Attributes:
        elites: positions in the lineage; 0 is the pivot.
        lineage: the elites and what they were drawn from, each after its own parents; made of any sequence.
        levels: as for `LowFrequencyProposal`.
        least_variance: floor of the variance.
    """

    elites: tuple[int, ...]
    lineage: Linked[Ancestor]
    levels: int
    least_variance: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "lineage", Linked(self.lineage))

    def propose(self, seed: int, index: int, pivot: Recipe) -> Recipe:
        refuse_zero(pivot, "low bands")
        own = Ancestor(derived_seed(seed, index), self.elites)
        return pivot.moved(Move("low_band", own.seed, self.least_variance, self.levels, self.lineage.plus(own)))

    def closer(self) -> EliteProposal:
        return self
