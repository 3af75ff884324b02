"""Groups of noises at right angles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ...spec import Node, Range, Tooltip
from ..linked import Linked
from ..moves import Ancestor, Move
from ..recipe import Recipe, derived_seed
from .base import fresh, refuse_zero

MAX_GROUP = 64


@dataclass(frozen=True)
class OrthogonalProposal:
    """Groups of noises that are orthogonal to one another, with one step seed: more even than independent ones.

    The first of the first group is the pivot's noise, that of every other group is fresh.

    Attributes:
        group: how many; 2 to 64.
    """

    node = Node(
        node_id="NSOrthogonalProposal",
        display_name="Orthogonal Proposal",
        description="Groups of noises at right angles to each other, the first of them your own seed's: spread more "
        "evenly than independent seeds.",
        search_aliases=("diverse noise", "orthogonal noise"),
    )

    group: Annotated[
        int,
        Range(2, MAX_GROUP),
        Tooltip(
            "Noises per group. There is no paper's value; useful: 4 to 16. It makes a difference for small latents only: "
            "independent noises of large ones are nearly at right angles by themselves."
        ),
    ] = 4

    def __post_init__(self) -> None:
        if not 2 <= self.group <= MAX_GROUP:
            raise ValueError(f"'group' must be from 2 to {MAX_GROUP}, not {self.group}; 4 is usual")

    def propose(self, seed: int, index: int, pivot: Recipe) -> Recipe:
        refuse_zero(pivot, "orthogonal noises")
        first = index - index % self.group
        base = pivot if first == 0 else fresh(seed, first)
        if index == first:
            return base
        members = range(first + 1, index + 1)
        lineage = Linked(Ancestor(derived_seed(seed, k), tuple(range(k - first))) for k in members)
        return base.moved(Move("orthogonal", lineage[-1].seed, 0.0, lineage=lineage))

    def closer(self) -> OrthogonalProposal:
        return self
