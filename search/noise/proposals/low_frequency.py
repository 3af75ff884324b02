"""Another low band under the same fine noise."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated

from ...spec import Node, Range, Tooltip
from ..moves import Move
from ..recipe import Recipe, derived_seed
from .base import Levels, check_levels, refuse_zero


@dataclass(frozen=True)
class LowFrequencyProposal:
    """The pivot's noise with another low band: composition changes, fine noise and the step seed stay the pivot's.

    Attributes:
        levels: blocks of the low band are 2^levels cells wide; clamped so that 4 remain along the shorter side.
        cosine: of the angle between the two low bands, in [0, 1); 0 draws the band anew.
    """

    node = Node(
        node_id="NSLowFrequencyProposal",
        display_name="Low-Frequency Proposal",
        description="Redraws only the low frequencies of your own seed's noise (in a zero-order search: of the best so "
        "far's), which decide the composition (after SES, arXiv 2602.03208). The fine noise stays.",
        search_aliases=("wavelet noise", "composition", "low band"),
    )

    levels: Levels = 4
    cosine: Annotated[
        float,
        Range(0.0, 0.9999, 0.01, 0.0001),
        Tooltip(
            "How alike the low frequencies are: 0 draws them anew (paper), larger is closer. "
            "Useful in zero-order search: 0.7 to 0.95."
        ),
    ] = 0.0

    def __post_init__(self) -> None:
        check_levels(self.levels)
        if not 0.0 <= self.cosine < 1.0:
            raise ValueError(f"'cosine' must be in [0, 1), not {self.cosine:g}; 0 draws the low band anew")

    def propose(self, seed: int, index: int, pivot: Recipe) -> Recipe:
        refuse_zero(pivot, "low bands")
        return pivot.moved(Move("low_band", derived_seed(seed, index), self.cosine, self.levels))

    def closer(self) -> LowFrequencyProposal:
        return replace(self, cosine=math.cos(math.acos(self.cosine) / 2.0))
