"""Trust-region search: local search around the few best noises at once, each with a step of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from ..base.candidate import Candidate
from ..core.search import Round, Search
from ..noise.proposals import BoxProposal
from ..spec import Advanced, Node, Range, Tooltip, check_least
from .draft import Trials, check_draft_steps
from .settings import DraftSteps

GROWTH = 1.5
SIDE = Range(0.001, 100.0, 0.05, 0.001)  # of a box
IN_A_ROW = 3  # successes or failures that change a side


@dataclass
class Region:
    """A box around one of the best; its side follows what came of it."""

    side: float
    successes: int = 0
    failures: int = 0

    def learn(self, better: bool, spec: TrustRegionSearch) -> None:
        """Change its side by whether its steps gave something better than its centre."""
        self.successes = self.successes + 1 if better else 0
        self.failures = 0 if better else self.failures + 1
        if self.successes == IN_A_ROW:
            self.side, self.successes = min(self.side * GROWTH, spec.side_max), 0
        elif self.failures == IN_A_ROW:
            self.side, self.failures = self.side / GROWTH, 0
        if self.side < spec.side_min:
            self.side = spec.side


@dataclass(frozen=True)
class TrustRegionSearch:
    """Random candidates first, then steps within boxes around the best so far: runs = budget.

    In every iteration the boxes are centred anew on the best of all candidates, the first box on the best. An iteration
    in which a box gives something better than its centre is a success of it; after three in a row its side grows by
    half, after three failures in a row it shrinks likewise, and a box that gets too small starts again. An infinite
    side is fresh noise: one region with an infinite side is random search. A step keeps its centre's step seed and length.
    In large rounds iterations are larger, and two at least.

    With `draft_steps` d: NFE = 2 T + n d for T steps and n = ((N - 2) T) // d drafts of N images, the origin's included;
    T less if that is the best.

    Attributes:
        regions: how many boxes; the paper's 15 are for 400 candidates.
        batch: candidates per iteration, dealt to the regions in turn; paper: 20.
        warm_up: share of all candidates that are random.
        side, side_min, side_max: of a box, in standard deviations of the noise: at first, least and most.
        draft_steps: steps of a draft; 0 renders every candidate in full.

    References:
        Trust-Region Noise Search for Black-Box Alignment of Diffusion and Flow Models (Schweiger et al., 2026),
            arXiv 2603.14504
    """

    node = Node(
        node_id="NSTrustRegionSearch",
        display_name="Trust-Region Search",
        description="Tries random noises first, then small steps around several of the best at once, "
        "with a step size that follows success (TRS, Schweiger et al. 2026, arXiv "
        "2603.14504). For large budgets and deterministic samplers.",
        search_aliases=("trs", "turbo", "trust region", "local search"),
    )

    regions: Annotated[
        int,
        Range(1, 256),
        Tooltip("Around how many of the best it searches. Paper: 15 for 400 candidates; useful: 1 for each 10 to 25 candidates."),
    ] = 3
    batch: Annotated[
        int,
        Range(1, 256),
        Tooltip(
            "Candidates per iteration, dealt to the regions in turn. Paper: 20 for 15 regions; useful: 1 to 3 for each region."
        ),
    ] = 6
    warm_up: Annotated[
        float,
        Range(0.0, 1.0, 0.05, 0.001),
        Tooltip("Share of the candidates that are random, before the first step. Paper: 0.2; useful: 0.1 to 0.5."),
    ] = 0.2
    side: Annotated[
        float,
        SIDE,
        Advanced(),
        Tooltip("Side of a region's box at first, in standard deviations of the noise. Paper: 0.8; useful: 0.4 to 1.6."),
    ] = 0.8
    side_min: Annotated[
        float,
        SIDE,
        Advanced(),
        Tooltip("A box below this starts again. Paper: 0.05; useful: 0.02 to 0.2."),
    ] = 0.05
    side_max: Annotated[
        float,
        SIDE,
        Advanced(),
        Tooltip("The largest box. Paper: 2.4; useful: 1 to 4."),
    ] = 2.4
    draft_steps: DraftSteps = 0
    name = "trust-region search"

    def __post_init__(self) -> None:
        check_least(self, "regions", "batch")
        if not 0.0 <= self.warm_up <= 1.0:
            raise ValueError(f"'warm_up' must be in [0, 1], not {self.warm_up:g}; 0.2 is usual")
        if not 0.0 < self.side_min <= self.side <= self.side_max:
            low, high = self.side_min, self.side_max
            raise ValueError(f"boxes need 0 < side_min <= side <= side_max, not {low:g}, {self.side:g} and {high:g}")
        for side in (self.side_min, self.side_max):
            BoxProposal(side)
        check_draft_steps(self.draft_steps)

    def run(self, search: Search) -> Iterator[Round]:
        trials = Trials(search, self.draft_steps)
        yield from trials.begin()
        warm = round(self.warm_up * (trials.left + 1)) - 1
        yield from trials.draw(min(warm, trials.left))
        regions = [Region(self.side) for _ in range(self.regions)]
        dealt = 0
        size = search.planner.round_size(self.batch, trials.left, least=2)
        while trials.going_on:
            centres = self._centres(trials)
            steps: list[tuple[Region, Candidate, Candidate]] = []
            for _ in range(trials.most(size)):
                place = dealt % min(len(regions), len(centres))
                steps.append((regions[place], centres[place], search.propose(BoxProposal(regions[place].side), centres[place])))
                dealt += 1
            yield from trials.score([child for *_, child in steps])
            for region in regions:
                self._learn(region, [(centre, child) for own, centre, child in steps if own is region], trials)
        yield from trials.end()

    def _centres(self, trials: Trials) -> list[Candidate]:
        """Return the best of all; the origin if there is no score."""
        scored = [candidate for candidate, score in trials.pool.best(self.regions) if score == score]
        return scored or [trials.search.start_candidate]

    def _learn(self, region: Region, steps: list[tuple[Candidate, Candidate]], trials: Trials) -> None:
        """Change a region's side by what its steps gave."""
        if not steps:
            return
        region.learn(any(trials.score_of(child) > trials.score_of(centre, -math.inf) for centre, child in steps), self)
