"""Pairs of opposite noises."""

from __future__ import annotations

from dataclasses import dataclass

from ...spec import Node
from ..moves import Move
from ..recipe import Recipe, derived_seed
from .base import fresh, refuse_zero


@dataclass(frozen=True)
class AntitheticProposal:
    """Pairs of a noise and its exact negative, with one step seed: 0 and 1, 2 and 3, ...

    The first pair is the pivot's noise and its negative; of every other, the first is fresh.
    """

    node = Node(
        node_id="NSAntitheticProposal",
        display_name="Antithetic Proposal",
        description="Pairs of a noise and its negative, the first of them your own seed's: pictures that differ as much "
        "as they can, for the same cost as independent seeds.",
        search_aliases=("negative noise", "opposite noise", "antithetic"),
    )

    def propose(self, seed: int, index: int, pivot: Recipe) -> Recipe:
        refuse_zero(pivot, "negatives")
        first = index - index % 2
        base = pivot if first == 0 else fresh(seed, first)
        return base.moved(Move("antithetic", derived_seed(seed, index), -1.0)) if index % 2 else base

    def closer(self) -> AntitheticProposal:
        return self
