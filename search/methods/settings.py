"""Settings that several methods have."""

from __future__ import annotations

from typing import Annotated

from ..noise.proposals import NoiseProposal
from ..spec import Advanced, Range, Tooltip

DraftSteps = Annotated[
    int,
    Range(0, 10000),
    Advanced(),
    Tooltip(
        "0: every candidate gets all steps. Above 0: candidates are drafted with so many steps, "
        "and only the best draft is rendered in full beside your own seed. Usual: a quarter to a "
        "half of the steps, with a deterministic sampler."
    ),
]
Renoise = Annotated[
    int,
    Range(0, 10000),
    Tooltip(
        "Steps that a copy is taken back up into fresh noise. 0: the sampler's own noise tells "
        "copies apart, which needs an ancestral or SDE sampler. 1 or more: works with any "
        "sampler, for that many extra model calls a copy. Usual: 0 or 1."
    ),
]
GaussianByDefault = Annotated[
    NoiseProposal | None,
    Tooltip("How new noise is drawn. Without one: independent Gaussian noise."),
]
