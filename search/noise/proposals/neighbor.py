"""Noise at a fixed angle from another."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated

from ...spec import Node, Range, Tooltip
from ..moves import Move
from ..recipe import Recipe, derived_seed
from .base import refuse_zero


@dataclass(frozen=True)
class NeighborProposal:
    """A point on the sphere of the pivot's noise at a fixed angle from it; the step seed stays the pivot's.

    Attributes:
        cosine: of the angle, in [-1, 1]; 0.95 (18 degrees) is the seed paper's. Larger is closer; 0 is as far as
            fresh noise.

    References:
        Inference-Time Scaling for Diffusion Models beyond Scaling Denoising Steps (Ma et al., 2025), arXiv 2501.09732
    """

    node = Node(
        node_id="NSNeighborProposal",
        display_name="Neighbor Proposal",
        description="Noise at a fixed distance from your own seed's (in a zero-order search: from the best so far's): "
        "variations of one layout instead of new ones (Ma et al. 2025, arXiv 2501.09732).",
        search_aliases=("variations", "variation noise"),
    )

    cosine: Annotated[
        float,
        Range(-1.0, 0.9999, 0.01, 0.0001),
        Tooltip("How alike the noises are: larger is closer. Paper: 0.95; useful: 0.8 to 0.99."),
    ] = 0.95

    def __post_init__(self) -> None:
        if not -1.0 <= self.cosine < 1.0:
            raise ValueError(f"'cosine' must be in [-1, 1), not {self.cosine:g}; 0.95 is usual, 0.8 to 0.99 useful")

    def propose(self, seed: int, index: int, pivot: Recipe) -> Recipe:
        refuse_zero(pivot, "neighbors")
        return pivot.moved(Move("neighbor", derived_seed(seed, index), self.cosine))

    def closer(self) -> NeighborProposal:
        return replace(self, cosine=math.cos(math.acos(self.cosine) / 2.0))
