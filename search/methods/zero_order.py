"""Zero-order search: look around the best noise found so far, step to what is better."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from ..base.candidate import Candidate, rankable
from ..core.search import Round, Search
from ..noise.proposals import GaussianProposal, NeighborProposal, NoiseProposal
from ..spec import Choices, Node, Range, Tooltip, check_least
from .draft import Trials, check_draft_steps
from .settings import DraftSteps

STALLS = ("keep", "restart", "shrink")


@dataclass(frozen=True)
class ZeroOrderSearch:
    """Score N neighbors of a pivot, move the pivot to the best of them, repeat: runs = budget.

    The pivot is scored once and never rendered again. A round in which every neighbor is worse than the pivot is
    a stall; a tie is none. In large rounds there are more neighbors in each, in two rounds at least.

    Attributes:
        neighbors: N, candidates per round; 2 to 4 in the seed paper.
        cosine: of the angle between pivot and neighbor; 0.95 is usual. Larger is closer.
        on_stall: "keep" the pivot (the seed paper), "restart" from fresh noise (tt-scale-flux), or "shrink":
            keep the pivot and halve the angle.
        proposal: replaces neighbors at `cosine`.
        draft_steps: steps of a draft; 0 renders every candidate in full.

    References:
        Inference-Time Scaling for Diffusion Models beyond Scaling Denoising Steps (Ma et al., 2025), arXiv 2501.09732
    """

    node = Node(
        node_id="NSZeroOrderSearch",
        display_name="Zero-Order Search",
        description="Looks around the best noise so far and steps to what is better (Ma et al. 2025, "
        "arXiv 2501.09732). Keeps the layout of your seed and improves on it. For budgets "
        "from about 16, and deterministic samplers.",
        search_aliases=("local search", "hill climbing", "zero order", "seed variations"),
    )

    neighbors: Annotated[
        int,
        Range(1, 256),
        Tooltip("Candidates per round. Paper: 2 or 4."),
    ] = 4
    cosine: Annotated[
        float,
        Range(-1.0, 0.9999, 0.01, 0.0001),
        Tooltip(
            "How alike a neighbor's noise is to the best so far: larger is closer. Paper: 0.95; "
            "useful: 0.8 to 0.99. 0 is as far as fresh noise."
        ),
    ] = 0.95
    on_stall: Annotated[
        str,
        Choices(STALLS),
        Tooltip(
            "When all neighbors are worse: keep the best noise and try others (the paper), "
            "restart from fresh noise, or shrink the distance by half."
        ),
    ] = "keep"
    proposal: Annotated[
        NoiseProposal | None,
        Tooltip("How new noise is drawn. Without one: neighbors at this cosine."),
    ] = None
    draft_steps: DraftSteps = 0
    name = "zero-order search"

    def __post_init__(self) -> None:
        check_least(self, "neighbors")
        if self.on_stall not in STALLS:
            raise ValueError(f"'on_stall' must be one of {', '.join(STALLS)}, not {self.on_stall!r}")
        check_draft_steps(self.draft_steps)
        NeighborProposal(self.cosine)

    def run(self, search: Search) -> Iterator[Round]:
        trials = Trials(search, self.draft_steps)
        yield from trials.begin()
        pivot, proposal = search.start_candidate, self.proposal or NeighborProposal(self.cosine)
        fresh: list[Candidate] = []
        size = search.planner.round_size(self.neighbors, trials.left, least=2)
        while trials.going_on:
            around = [search.propose(proposal, pivot) for _ in range(trials.most(size, len(fresh)))]
            yield from trials.score([*fresh, *around])
            fresh = []
            scored = [c for c in around if c in trials.pool]
            best = max(scored, key=lambda c: rankable(trials.score_of(c)), default=pivot)
            moved, stalled = _better(trials, best, pivot), _better(trials, pivot, best)
            if moved:
                pivot = best
            elif stalled and self.on_stall == "restart" and trials.most(1):
                pivot = search.propose(GaussianProposal())
                fresh = [pivot]
            elif stalled and self.on_stall == "shrink":
                proposal = proposal.closer()
        yield from trials.end()


def _better(trials: Trials, one: Candidate, other: Candidate) -> bool:
    """Whether `one` scores higher; a number is better than NaN."""
    a, b = trials.score_of(one), trials.score_of(other)
    return a > b or (math.isnan(b) and not math.isnan(a))
