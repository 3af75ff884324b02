"""What every proposal is, and what some of them share."""

from __future__ import annotations

from typing import Annotated, Protocol

from ...spec import Range, Tooltip
from ..moves import MAX_LEVELS
from ..recipe import ZERO, Recipe, derived_seed

Levels = Annotated[
    int,
    Range(0, MAX_LEVELS),
    Tooltip(
        "How coarse the low frequencies are: blocks of 2^levels latent cells (4: 16 cells, 128 pixels with most models). "
        "Paper: 4; useful: 3 to 5. 0 is the whole noise. Of small latents at least 4 blocks are kept along the shorter side."
    ),
]


class NoiseProposal(Protocol):
    """Draws the recipe of a new candidate."""

    def propose(self, seed: int, index: int, pivot: Recipe) -> Recipe:
        """Return the recipe of candidate `index` of the search with `seed`, near or far from `pivot`."""
        ...

    def closer(self) -> NoiseProposal:
        """Return the proposal with half its step; itself where a step means nothing."""
        ...


def check_levels(levels: int) -> None:
    """Refuse what is no scale of a low band."""
    if not 0 <= levels <= MAX_LEVELS:
        raise ValueError(f"'levels' must be from 0 (every cell) to {MAX_LEVELS}, not {levels}; 4 is usual")


def fresh(seed: int, index: int) -> Recipe:
    """Return the recipe of candidate `index` that is independent of all others."""
    own = derived_seed(seed, index)
    return Recipe(own, own)


def refuse_zero(pivot: Recipe, what: str) -> None:
    """Raise a ValueError if the pivot is all-zero noise, near which there is nothing; `what` is drawn near it."""
    if pivot.start == ZERO:
        raise ValueError(f"{what} of all-zero noise do not exist: connect a noise, or use Gaussian proposals")
