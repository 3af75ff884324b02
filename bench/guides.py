"""The verifiers that guide the measured searches, the held-out truth, and the prompts.

Prompts are split in two halves: settings are tuned on `TUNING`, results reported on `REPORTED`.
"""

from __future__ import annotations

import importlib
import time
from dataclasses import dataclass, field
from typing import Any

from rig import Studio
from torch import Tensor

shapes = importlib.import_module("noise_search_demo.shapes")
demo_nodes = importlib.import_module("noise_search_demo.nodes")

FIRST_TUNING, FIRST_REPORTED, HALF = 300_000, 200_000, 128
TUNING = range(FIRST_TUNING, FIRST_TUNING + HALF)
REPORTED = range(FIRST_REPORTED, FIRST_REPORTED + HALF)
GUIDES = ("oracle", "clip", "ensemble", "statistics")
TRUTH = "truth"
SPREAD = {"clip": 8.5, "statistics": 0.037}  # within a prompt, from bench/ranks.py: the ensemble's scales


@dataclass
class Timed:
    """A verifier that counts its seconds."""

    verifier: Any
    name: str
    trusts_previews: bool = True
    needs_prompt: bool = False
    score_range: tuple[float, float] = (0.0, 1.0)
    seconds: float = field(default=0.0)

    def score(self, images: Tensor, latents: Tensor | None = None) -> Tensor:
        """Score pictures (B, H, W, 3) in [0, 1]; return (B,)."""
        started = time.process_time()
        scores = self.verifier.score(images, latents)
        self.seconds += time.process_time() - started
        return scores


@dataclass
class Sum:
    """A sum of verifiers at fixed scales, so that scores of different searches can be compared."""

    parts_of_sum: tuple[tuple[Any, float], ...]

    def score(self, images: Tensor, latents: Tensor | None = None) -> Tensor:
        """Return the sum of score / scale, (B,)."""
        return sum(part.score(images, latents) / scale for part, scale in self.parts_of_sum)


def prompt_of(number: int) -> str:
    """Return the prompt of a number."""
    return shapes.random_prompt(number)


def guides_of(studio: Studio, prompt: str) -> dict[str, Timed]:
    """Return the guides of a prompt by name, and the held-out truth: the oracle's exact check, under "truth"."""
    statistics = importlib.import_module("noise_search.verifiers.measures.statistics").ImageStatistics()
    clip, oracle = studio.verifiers(prompt)
    both = Sum(((clip, SPREAD["clip"]), (statistics, SPREAD["statistics"])))
    (truth,) = demo_nodes.DemoOracle.execute(prompt, "exact").args
    made = {"oracle": oracle, "clip": clip, "ensemble": both, "statistics": statistics, TRUTH: truth}
    return {name: Timed(verifier, name) for name, verifier in made.items()}
