"""Steps within a box around another noise."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ..moves import AMOUNTS, Move
from ..recipe import Recipe, derived_seed
from .base import refuse_zero
from .gaussian import GaussianProposal


@dataclass(frozen=True)
class BoxProposal:
    """A step of some coordinates of the pivot's noise within a box around it; the step seed stays the pivot's.

    Attributes:
        side: of the box; infinite for fresh noise.
    """

    side: float = 0.8

    def __post_init__(self) -> None:
        _, low, high = AMOUNTS["box"]
        if not (low <= self.side <= high or self.side == math.inf):
            raise ValueError(f"the side of a box must be from {low:g} to {high:g} or infinite, not {self.side:g}; 0.8 is usual")

    def propose(self, seed: int, index: int, pivot: Recipe) -> Recipe:
        if math.isinf(self.side):
            return GaussianProposal().propose(seed, index, pivot)
        refuse_zero(pivot, "neighbors")
        return pivot.moved(Move("box", derived_seed(seed, index), self.side))

    def closer(self) -> BoxProposal:
        return replace(self, side=self.side / 2.0)
