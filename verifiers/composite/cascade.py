"""A cascade: a cheap verifier for all candidates, an expensive one for the best of them.

A judge that takes seconds or money for each picture (a vision-language model, an API) need not see what a cheap
one already ranks far below. It is asked once, when the search has ended, and has the last word among the finalists.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..common.base import Verifier, VerifierCascade, check_images, check_scores
from .ensemble import models_of, tied_ranks


@dataclass(frozen=True)
class Cascade:
    """The best by `cheap` are scored by `expensive`, and ordered by that; the others follow, in the order of `cheap`.

    A search goes by `cheap` alone, asks `expensive` at its end, and asks it for candidate 0 too.

    Attributes:
        cheap: The verifier of all candidates.
        expensive: The verifier of the finalists.
        count: How many finalists; 0 for a share of the candidates.
        share: That share, in (0, 1], rounded up.
        name: "" for both names.
    """

    cheap: Verifier
    expensive: Verifier
    count: int = 8
    share: float = 0.25
    name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or f"{self.cheap.name}, then {self.expensive.name}")
        if self.count < 0:
            raise ValueError(f"{self.name}: input 'finalists' is {self.count}; set how many, or 0 for a share.")
        if not 0.0 < self.share <= 1.0:
            raise ValueError(f"{self.name}: input 'share' is {self.share}; it must be above 0 and at most 1. Usual: 0.25.")
        for place, part in (("cheap", self.cheap), ("expensive", self.expensive)):
            if isinstance(part, VerifierCascade):
                raise ValueError(
                    f"{self.name}: input '{place}' is a cascade itself. Connect one of its verifiers, or an ensemble."
                )

    def finalists_among(self, count: int) -> int:
        """Return how many of `count` finished candidates `expensive` is asked for."""
        return min(count, self.count or math.ceil(self.share * count - 1e-9))

    @property
    def needs_prompt(self) -> bool:
        return self.cheap.needs_prompt or self.expensive.needs_prompt

    @property
    def prompt(self) -> str:
        """Both prompts; different ones are joined by " | "."""
        return " | ".join(dict.fromkeys(part.prompt for part in (self.cheap, self.expensive) if part.prompt))

    @property
    def trusts_previews(self) -> bool:
        """Whether `cheap` does: no other is asked about half-denoised pictures."""
        return self.cheap.trusts_previews

    @property
    def score_range(self) -> tuple[float, float]:
        return -math.inf, self.expensive.score_range[1]

    def get_models(self) -> list[Any]:
        """Return the model patchers of both, for ComfyUI's tracking of models in use."""
        return [*models_of(self.cheap), *models_of(self.expensive)]

    def score(self, images: Tensor, latents: Tensor | None = None) -> Tensor:
        """Score a batch (B, H, W, 3) in [0, 1] as a pool of its own: (B,) float32.

        Finalists get their score by `expensive`; the others, and finalists it gives no number, come below the lowest of those,
        one step down for each rank by `cheap`; NaN is what neither gives a number.
        """
        images = check_images(images, self.name)
        cheap = check_scores(self.cheap.name, self.cheap.score(images, latents=latents), len(images))
        cheap = torch.where(cheap.isfinite(), cheap, -math.inf)
        first = cheap.argsort(descending=True, stable=True)[: self.finalists_among(len(images))]
        rows = None if latents is None else latents[first]
        scores = torch.full((len(images),), math.nan)
        scores[first] = check_scores(self.expensive.name, self.expensive.score(images[first], latents=rows), len(first))
        judged = scores.isfinite()
        lowest = scores[judged].min() if judged.any() else 0.0
        rest = ~judged & cheap.isfinite()
        scores[~judged] = math.nan
        scores[rest] = lowest + (tied_ranks(cheap[rest][:, None])[:, 0] - rest.sum() - 1)
        return scores
