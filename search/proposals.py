"""How new noise is drawn: frozen specs that turn an index into a recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

from .recipes import ZERO, Move, Recipe, derived_seed


class NoiseProposal(Protocol):
    """Draws the recipe of a new candidate."""

    def propose(self, seed: int, index: int, pivot: Recipe) -> Recipe:
        """Return the recipe of candidate `index` of the search with `seed`, near or far from `pivot`."""

    def closer(self) -> NoiseProposal:
        """Return the proposal with half its step; itself where a step means nothing."""


@dataclass(frozen=True)
class GaussianProposal:
    """Independent unit Gaussian noise, as the stock noise node draws it from an integer seed below 2^50."""

    def propose(self, seed: int, index: int, pivot: Recipe) -> Recipe:
        own = derived_seed(seed, index)
        return Recipe(ZERO if pivot.start == ZERO else own, own)

    def closer(self) -> GaussianProposal:
        return self


@dataclass(frozen=True)
class NeighborProposal:
    """A point on the sphere of the pivot's noise at a fixed angle from it; the step seed stays the pivot's.

    Attributes:
        cosine: of the angle, in [-1, 1]; 0.95 (18 degrees) is the seed paper's. Larger is closer; 0 is as far as
            fresh noise.

    References:
        Inference-Time Scaling for Diffusion Models beyond Scaling Denoising Steps (Ma et al., 2025), arXiv 2501.09732
    """

    cosine: float = 0.95

    def __post_init__(self) -> None:
        if not -1.0 <= self.cosine < 1.0:
            raise ValueError(f"'cosine' must be in [-1, 1), not {self.cosine:g}; 0.95 is usual, 0.8 to 0.99 useful")

    def propose(self, seed: int, index: int, pivot: Recipe) -> Recipe:
        if pivot.start == ZERO:
            raise ValueError("neighbors of all-zero noise do not exist: connect a noise, or use Gaussian proposals")
        return pivot.moved(Move("neighbor", derived_seed(seed, index), self.cosine))

    def closer(self) -> NeighborProposal:
        return replace(self, cosine=math.cos(math.acos(self.cosine) / 2.0))


