"""The verifiers that guide the measured searches, the held-out truth, and the prompts.

Prompts are split in two halves: settings are tuned on `TUNING`, results reported on `REPORTED`.
"""

from __future__ import annotations

import importlib
from typing import Any

from rig import Studio

shapes = importlib.import_module("noise_search_demo.shapes")
demo_nodes = importlib.import_module("noise_search_demo.nodes")

FIRST_TUNING, FIRST_REPORTED, HALF = 300_000, 200_000, 128
TUNING = range(FIRST_TUNING, FIRST_TUNING + HALF)
REPORTED = range(FIRST_REPORTED, FIRST_REPORTED + HALF)


def prompt_of(number: int) -> str:
    """Return the prompt of a number."""
    return shapes.random_prompt(number)


def guides_of(studio: Studio, prompt: str) -> dict[str, Any]:
    """Return the guides of a prompt by name, and the held-out truth: the oracle's exact check, under "truth"."""
    statistics = importlib.import_module("noise_search.verifiers.statistics").ImageStatistics()
    clip, oracle = studio.verifiers(prompt)
    (truth,) = demo_nodes.DemoOracle.execute(prompt, "exact").args
    return {"oracle": oracle, "clip": clip, "statistics": statistics, "truth": truth}
