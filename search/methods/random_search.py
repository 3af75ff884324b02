"""Random search: many independent seeds, the best one wins (best of N)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..core.search import Round, Search
from ..spec import Node
from .draft import Trials, check_draft_steps
from .settings import DraftSteps, GaussianByDefault


@dataclass(frozen=True)
class RandomSearch:
    """Render as many candidates as the budget pays for and keep the best: runs = budget.

    With `draft_steps` d, candidates are drafted with d steps and only the best draft is rendered in full:
    NFE <= 2 T + drafts * d for T steps, candidate 0 in full included.

    Attributes:
        proposal: how candidates are drawn; None for independent Gaussian noise.
        draft_steps: steps of a draft; 0 renders every candidate in full.

    References:
        Inference-Time Scaling for Diffusion Models beyond Scaling Denoising Steps (Ma et al., 2025), arXiv 2501.09732
    """

    node = Node(
        node_id="NSRandomSearch",
        display_name="Random Search",
        description="Renders as many independent seeds as the budget pays for and keeps the best (Ma "
        "et al. 2025, arXiv 2501.09732).",
        search_aliases=("best of n", "random search", "reroll", "many seeds"),
    )

    proposal: GaussianByDefault = None
    draft_steps: DraftSteps = 0
    name = "random search"

    def __post_init__(self) -> None:
        check_draft_steps(self.draft_steps)

    def run(self, search: Search) -> Iterator[Round]:
        if self.draft_steps == 0:
            yield from search.render([search.start_candidate], search.planner.images - 1, self.proposal)
            return
        trials = Trials(search, self.draft_steps)
        yield from trials.begin(score_origin=False)
        yield from trials.draw(trials.left, self.proposal)
        yield from trials.end()
