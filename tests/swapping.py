"""The analytic session on a card that holds one model at a time: how often models are swapped.

card = Card()
search = on_card(card, 16, large_rounds=True, steps=24)       # has not begun
card.swaps                                                    # loads so far
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from analytic import SEED, AnalyticSession, Quadratic

from noise_search.search.base.budget import Budget
from noise_search.search.core.search import Search, SearchSettings
from noise_search.search.noise.recipe import Recipe
from noise_search.search.scoring.scorer import Scorer


@dataclass
class Card:
    """Room for one model at a time.

    Attributes:
        there: name of the model that is loaded.
        swaps: loads so far; a model that is there already is not loaded again.
    """

    there: str = ""
    swaps: int = 0

    def load(self, name: str) -> None:
        """Load a model that is not there."""
        self.swaps += name != self.there
        self.there = name


@dataclass
class OnCard(AnalyticSession):
    """A session whose denoiser and decoder are on a card."""

    card: Card = field(default_factory=Card)

    def advance(self, runs: Any, until_sigma: float = 0.0) -> None:
        """Advance runs; where none is to be advanced, no model is needed."""
        if any(not run.finished for run in runs):
            self.card.load("denoiser")
        super().advance(runs, until_sigma)

    def decode(self, latent: Any, preview: bool = False) -> torch.Tensor:
        """Decode one latent."""
        self.card.load("decoder")
        return super().decode(latent, preview)

    def draft(self, steps: int) -> OnCard:
        """Return the session of fewer steps, on the same card."""
        other = super().draft(steps)
        other.__class__ = OnCard
        return other


@dataclass
class Judging(Quadratic):
    """A verifier whose network is on the card."""

    card: Card = field(default_factory=Card)

    def values(self, images: torch.Tensor) -> torch.Tensor:
        """Score pictures."""
        self.card.load("verifier")
        return super().values(images)


def on_card(card: Card, images: int, *, large_rounds: bool, seed: int = SEED, wanted: int = 12345, **session: Any) -> Search:
    """Return a search that has not begun; `wanted` is the seed of the noise that gives the best score."""
    budget = Budget(images)
    scorer = Scorer(Judging(seed=wanted, card=card))
    return Search(
        OnCard(budget, card=card, **session), scorer, budget, SearchSettings(Recipe(seed, seed), seed, large_rounds=large_rounds)
    )
