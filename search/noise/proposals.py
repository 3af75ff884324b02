"""How new candidates are drawn: frozen specs that turn an index into a recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

from .jitter import Jitter
from .linked import Linked
from .moves import AMOUNTS, MAX_LEVELS, Ancestor, Move
from .recipe import ZERO, Recipe, derived_seed

MAX_GROUP = 64


class NoiseProposal(Protocol):
    """Draws the recipe of a new candidate."""

    def propose(self, seed: int, index: int, pivot: Recipe) -> Recipe:
        """Return the recipe of candidate `index` of the search with `seed`, near or far from `pivot`."""
        ...

    def closer(self) -> NoiseProposal:
        """Return the proposal with half its step; itself where a step means nothing."""
        ...


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
        _refuse_zero(pivot, "neighbors")
        return pivot.moved(Move("neighbor", derived_seed(seed, index), self.cosine))

    def closer(self) -> NeighborProposal:
        return replace(self, cosine=math.cos(math.acos(self.cosine) / 2.0))


@dataclass(frozen=True)
class AntitheticProposal:
    """Pairs of a noise and its exact negative, with one step seed: 0 and 1, 2 and 3, ...

    The first pair is the pivot's noise and its negative; of every other, the first is fresh.
    """

    def propose(self, seed: int, index: int, pivot: Recipe) -> Recipe:
        _refuse_zero(pivot, "negatives")
        first = index - index % 2
        base = pivot if first == 0 else _fresh(seed, first)
        return base.moved(Move("antithetic", derived_seed(seed, index), -1.0)) if index % 2 else base

    def closer(self) -> AntitheticProposal:
        return self


@dataclass(frozen=True)
class OrthogonalProposal:
    """Groups of noises that are orthogonal to one another, with one step seed: more even than independent ones.

    The first of the first group is the pivot's noise, that of every other group is fresh.

    Attributes:
        group: how many; 2 to 64.
    """

    group: int = 4

    def __post_init__(self) -> None:
        if not 2 <= self.group <= MAX_GROUP:
            raise ValueError(f"'group' must be from 2 to {MAX_GROUP}, not {self.group}; 4 is usual")

    def propose(self, seed: int, index: int, pivot: Recipe) -> Recipe:
        _refuse_zero(pivot, "orthogonal noises")
        first = index - index % self.group
        base = pivot if first == 0 else _fresh(seed, first)
        if index == first:
            return base
        members = range(first + 1, index + 1)
        lineage = Linked(Ancestor(derived_seed(seed, k), tuple(range(k - first))) for k in members)
        return base.moved(Move("orthogonal", lineage[-1].seed, 0.0, lineage=lineage))

    def closer(self) -> OrthogonalProposal:
        return self


@dataclass(frozen=True)
class LowFrequencyProposal:
    """The pivot's noise with another low band: composition changes, fine noise and the step seed stay the pivot's.

    Attributes:
        levels: blocks of the low band are 2^levels cells wide; clamped so that 4 remain along the shorter side.
        cosine: of the angle between the two low bands, in [0, 1); 0 draws the band anew.
    """

    levels: int = 4
    cosine: float = 0.0

    def __post_init__(self) -> None:
        check_levels(self.levels)
        if not 0.0 <= self.cosine < 1.0:
            raise ValueError(f"'cosine' must be in [0, 1), not {self.cosine:g}; 0 draws the low band anew")

    def propose(self, seed: int, index: int, pivot: Recipe) -> Recipe:
        _refuse_zero(pivot, "low bands")
        return pivot.moved(Move("low_band", derived_seed(seed, index), self.cosine, self.levels))

    def closer(self) -> LowFrequencyProposal:
        return replace(self, cosine=math.cos(math.acos(self.cosine) / 2.0))


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
        _refuse_zero(pivot, "low bands")
        own = Ancestor(derived_seed(seed, index), self.elites)
        return pivot.moved(Move("low_band", own.seed, self.least_variance, self.levels, self.lineage.plus(own)))

    def closer(self) -> EliteProposal:
        return self


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
        _refuse_zero(pivot, "neighbors")
        return pivot.moved(Move("box", derived_seed(seed, index), self.side))

    def closer(self) -> BoxProposal:
        return replace(self, side=self.side / 2.0)


@dataclass(frozen=True)
class JitterProposal:
    """Another proposal's noise, and beside it a text embedding that is turned by a fixed angle in a direction of its own.

    For models that hardly react to the noise. A new jitter replaces the pivot's and is taken from the text that was
    connected: the text is never further from it than the angle, however many steps a local search makes.

    Attributes:
        inner: how the noise is drawn; None for independent Gaussian noise.
        cosine: of the angle between a token's embedding and its jittered one, in [-1, 1); larger is closer.
        same_noise: keep the pivot's noise and step seed, so that only the text is varied; without `inner`.
    """

    inner: NoiseProposal | None = None
    cosine: float = 0.9
    same_noise: bool = False

    def __post_init__(self) -> None:
        if not -1.0 <= self.cosine < 1.0:
            raise ValueError(f"'cosine' must be in [-1, 1), not {self.cosine:g}; 0.9 is usual, 0.7 to 0.98 useful")
        if self.same_noise and self.inner is not None:
            raise ValueError("'same_noise' keeps the noise, and a 'proposal' draws another: disconnect it, or turn that off")

    def propose(self, seed: int, index: int, pivot: Recipe) -> Recipe:
        noise = self.inner or GaussianProposal()
        recipe = replace(pivot, cuts=()) if self.same_noise else noise.propose(seed, index, pivot)
        return replace(recipe, jitter=Jitter(derived_seed(seed, index, "jitter"), self.cosine))

    def closer(self) -> JitterProposal:
        inner = None if self.inner is None else self.inner.closer()
        return replace(self, inner=inner, cosine=math.cos(math.acos(self.cosine) / 2.0))


def check_levels(levels: int) -> None:
    """Refuse what is no scale of a low band."""
    if not 0 <= levels <= MAX_LEVELS:
        raise ValueError(f"'levels' must be from 0 (every cell) to {MAX_LEVELS}, not {levels}; 4 is usual")


def _fresh(seed: int, index: int) -> Recipe:
    own = derived_seed(seed, index)
    return Recipe(own, own)


def _refuse_zero(pivot: Recipe, what: str) -> None:
    if pivot.start == ZERO:
        raise ValueError(f"{what} of all-zero noise do not exist: connect a noise, or use Gaussian proposals")
