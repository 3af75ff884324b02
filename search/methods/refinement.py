"""Refinement search: small steps from a finished picture, by redrawing only the end of its run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from ..core.search import Round, Search
from ..spec import Node, Range, Tooltip, check_least
from .branches import end_branching, fall_back_to_random


@dataclass(frozen=True)
class RefinementSearch:
    """Hill climbing late in a run: children of the best so far are renoised a little, finished and compared.

    A child leaves its parent's run at the noise level after step k + 1, is taken back up to the level before that step
    by the forward process, which keeps the marginals, and runs to its end with T - k model calls. Layout is decided by
    then; what changes are details. Every generation leaves the best so far. As the last part of a chain it is cheap: at
    k = 3/4 T a child costs a quarter of a picture. In large rounds generations are larger.

    NFE = T + m (T - k) <= N T, m as many children as that pays for; T less in a chain, whose winner is not rendered
    again. Verifier calls and decodes: one for each child. (With two calls per step, as heun: 2 (T - k) - 1 for T - k.)

    Attributes:
        start: k as a share of the steps, rounded down; at least one step and at most all but two are left out.
        children: of a generation.

    References:
        Scaling Image and Video Generation via Test-Time Evolutionary Search (He et al., 2025), arXiv 2505.17618:
            mutation of a state on the way
        Inference-Time Scaling for Diffusion Models beyond Scaling Denoising Steps (Ma et al., 2025), arXiv 2501.09732:
            search over paths
    """

    node = Node(
        node_id="NSRefinementSearch",
        display_name="Refinement Search",
        description="Improves details of a picture: redraws the end of its run several times, goes on "
        "from what is better. Alone it keeps the layout of your seed; as then of another "
        "method it polishes that one's winner. Part of the default.",
        search_aliases=("polish", "details", "hill climbing", "late mutation", "renoise"),
    )

    start: Annotated[
        float,
        Range(0.01, 0.99, 0.01),
        Tooltip("Where the redrawn part begins, as a share of the steps. Later is cheaper and changes less. Usual: 0.6 to 0.85."),
    ] = 0.75
    children: Annotated[
        int,
        Range(1, 256),
        Tooltip("How many ends are tried before the best of them is gone on from. Usual: 2 to 8."),
    ] = 4
    name = "refinement search"

    def __post_init__(self) -> None:
        if not 0.0 < self.start < 1.0:
            raise ValueError(f"'start' must be above 0 and below 1, not {self.start:g}; 0.75 is usual")
        check_least(self, "children")

    def wanted_levels(self, search: Search) -> tuple[float, ...]:
        """Return the noise level at which children leave; a method before it in a chain has its runs recorded there."""
        return () if self.why_not(search) else (float(search.session.sigmas[self.first_step(search.planner.steps) + 1]),)

    def first_step(self, steps: int) -> int:
        """Return k for a run of so many steps."""
        return max(1, min(int(self.start * steps + 1e-9), steps - 2))

    def run(self, search: Search) -> Iterator[Round]:
        levels = self.wanted_levels(search)
        with search.branching(levels):
            yield from search.render([search.start_candidate], later=True)
            if search.should_stop():
                return
            why = self.why_not(search)
            if not why and not search.branchable_at(levels[0]):
                why = f"no run can be left at the noise level {levels[0]:g}: the sampler makes no model call there"
            if not why:
                yield from self._refine(search, levels[0])
        if why:
            yield from fall_back_to_random(search, self.name, None, why)
        else:
            end_branching(search)

    def _refine(self, search: Search, level: float) -> Iterator[Round]:
        """Climb by children that leave the best so far at a noise level."""
        up = float(search.session.sigmas[self.first_step(search.planner.steps)])
        cost = search.planner.calls(up) + search.planner.rows
        best, parent = [c.index for c, _ in search.finished.best()], search.branchable_at(level)[0].index
        if best and parent != best[0]:
            search.note(
                f"{self.name} began at candidate {parent}: the run of the best, candidate {best[0]}, cannot be left at the noise "
                f"level {level:g}"
            )
        left = search.budget.affordable(1, search.budget.images * search.budget.run_cost)
        size = search.planner.round_size(self.children, left // cost)
        while (count := search.budget.affordable(cost, size)) and not search.should_stop():
            parent = search.branchable_at(level)[0]
            children = [search.branch(parent, level, renoise_to=up) for _ in range(count)]
            yield from search.render(children)
            cost = max(cost, *(child.nfe for child in children))  # some samplers call the model more often in a short run
            best = search.branchable_at(level)[0]
            search.release_records(but=[best])

    def why_not(self, search: Search) -> str:
        """Say why no child could leave a run on its way; empty if it can."""
        if search.planner.steps < 3:
            return f"a run of {search.planner.steps} steps has no end to redraw"
        return search.planner.why_no_renoising
