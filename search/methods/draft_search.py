"""Draft search: evolve noise on short drafts, render the best few in full.

With a deterministic sampler the layout of a picture is decided by its noise, and a run of a third of the steps shows
it: drafts rank candidates far better than the half-finished prediction of a full run does at the same cost
(docs/evidence.md, "Why drafts"). So most of the budget goes to drafts, and as good drafts have good
neighbors, part of them is spent around the best so far.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from ..core.search import Round, Search
from ..noise.proposals import NeighborProposal
from ..spec import Node, Range, Tooltip, check_least
from .draft import Trials, check_draft_steps
from .settings import GaussianByDefault

DRAFT_SHARE = 0.25  # of the steps
LEAST_STEPS = 4  # of a draft that shows anything
IMAGES_PER_FINAL = 5


@dataclass(frozen=True)
class DraftSearch:
    """Draft independent noises, then neighbors of the best drafts, and render the best drafts in full.

    NFE = T + n d + F T <= N T for T steps, drafts of d steps, F finals and candidate 0 in full;
    n = ((N - 1 - F) T) // d drafts, candidate 0's included. Verifier calls and decodes: n + F + 1. In large rounds the best
    drafts get more children each, so that neighbors come in one round (at 16 images).

    Attributes:
        draft_steps: d; 0 for T / 4, at least 4. A run of fewer than 2 d steps is not worth drafting: random search.
        warm_up: share of the drafts that are independent.
        parents: how many of the best drafts get children in a round.
        children: neighbors of each.
        cosine: of the angle between child and parent; larger is closer.
        finals: F; 0 for one in five images of the budget.
        proposal: how the independent ones are drawn; None for Gaussian noise.

    References:
        Inference-Time Scaling for Diffusion Models beyond Scaling Denoising Steps (Ma et al., 2025), arXiv 2501.09732:
            zero-order search, and search runs with fewer steps than the final one
        Scaling Image and Video Generation via Test-Time Evolutionary Search (He et al., 2025), arXiv 2505.17618
    """

    node = Node(
        node_id="NSDraftSearch",
        display_name="Draft Search",
        description="Spends most of the budget on drafts with a quarter of the steps: first "
        "independent ones, then neighbors of the best. The best drafts are rendered in "
        "full. For deterministic samplers of 8 steps or more.",
        search_aliases=("draft and commit", "preview search", "evolution", "few-step search"),
    )

    draft_steps: Annotated[
        int,
        Range(0, 10000),
        Tooltip(
            "Steps of a draft. 0: a quarter of the steps, at least 4. Fewer steps pay for more "
            "drafts that tell less. Usual: a fifth to a half."
        ),
    ] = 0
    warm_up: Annotated[
        float,
        Range(0.01, 1.0, 0.01),
        Tooltip("Share of the drafts that are independent, before the best get children. 1: all of them. Usual: 0.2 to 0.5."),
    ] = 0.3
    parents: Annotated[
        int,
        Range(1, 256),
        Tooltip("How many of the best drafts get children in each round. More is broader. Usual: 2 to 8."),
    ] = 4
    children: Annotated[
        int,
        Range(1, 256),
        Tooltip("Children of each of them. Usual: 1 to 4."),
    ] = 2
    cosine: Annotated[
        float,
        Range(-1.0, 0.9999, 0.01, 0.0001),
        Tooltip("How alike a child's noise is to its parent's: larger is closer. Useful: 0.8 to 0.97."),
    ] = 0.9
    finals: Annotated[
        int,
        Range(0, 100000),
        Tooltip("How many of the best drafts are rendered in full, beside your own seed. 0: one in five images of the budget."),
    ] = 0
    proposal: GaussianByDefault = None
    name = "draft search"

    def __post_init__(self) -> None:
        check_draft_steps(self.draft_steps)
        if not 0.0 < self.warm_up <= 1.0:
            raise ValueError(f"'warm_up' must be above 0 and at most 1, not {self.warm_up:g}; 0.3 is usual")
        check_least(self, "parents", "children")
        if self.finals < 0:
            raise ValueError(f"'finals' must be 0 (one in five images) or more, not {self.finals}")
        NeighborProposal(self.cosine)

    def run(self, search: Search) -> Iterator[Round]:
        steps = self.steps_of(search)
        if search.scorer.asks_people:
            search.note(f"draft search became random search: {search.planner.why_no_drafts}")
            steps = 0
        elif not self.draft_steps and 2 * steps > search.planner.steps:
            search.note(f"draft search became random search: a run of {search.planner.steps} steps is too short for drafts")
            steps = 0
        yield from search.render([search.start_candidate], later=True)  # what it cost tells what limits leave
        images = search.planner.images
        finals = self.finals or max(1, round(images / IMAGES_PER_FINAL))
        trials = Trials(search, steps, max(1, min(finals, images - 2)))
        yield from trials.begin()
        yield from trials.draw(self._independent(trials), self.proposal)
        around = NeighborProposal(self.cosine)
        size = search.planner.round_size(self.parents * self.children, trials.left)
        children = math.ceil(size / self.parents)
        while trials.going_on:
            best = [candidate for candidate, _ in trials.pool.best(self.parents)]
            pairs = [parent for parent in best for _ in range(children)]
            pairs = pairs[: trials.most(min(size, len(pairs)))]
            yield from trials.score([search.propose(around, parent) for parent in pairs])
        yield from trials.end()

    def steps_of(self, search: Search) -> int:
        """Return d."""
        return self.draft_steps or max(LEAST_STEPS, round(DRAFT_SHARE * search.planner.steps))

    def _independent(self, trials: Trials) -> int:
        """How many more independent candidates to try: all if they are rendered in full."""
        if not trials.steps:
            return trials.left
        drawn = trials.drafted
        return max(0, round(self.warm_up * (trials.left + drawn)) - drawn)
