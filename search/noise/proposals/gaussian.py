"""Independent noise."""

from __future__ import annotations

from dataclasses import dataclass

from ...spec import Node
from ..recipe import ZERO, Recipe, derived_seed


@dataclass(frozen=True)
class GaussianProposal:
    """Independent unit Gaussian noise, as the stock noise node draws it from an integer seed below 2^50."""

    node = Node(
        node_id="NSGaussianProposal",
        display_name="Gaussian Proposal",
        description="Independent noise, as a fresh seed gives it. The widest search, and the quickest to fool a verifier.",
        search_aliases=("random noise", "independent noise", "fresh seeds"),
    )

    def propose(self, seed: int, index: int, pivot: Recipe) -> Recipe:
        own = derived_seed(seed, index)
        return Recipe(ZERO if pivot.start == ZERO else own, own)

    def closer(self) -> GaussianProposal:
        return self
