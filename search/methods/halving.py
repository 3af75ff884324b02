"""Halving search: start twice as many seeds as the budget pays for, drop the worse half-way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from ..base.candidate import Candidate
from ..base.pool import Pool
from ..core.search import Round, Search
from ..spec import Choices, Node, Range, Tooltip
from .branches import fall_back_to_random
from .random_search import RandomSearch
from .settings import GaussianByDefault


@dataclass(frozen=True)
class HalvingSearch:
    """2N seeds to 25 % of the steps, N to 50 %, N / 2 to the end: at most the calls of N full runs.

    The denoised prediction of every suspended run is decoded and scored at the cuts, and the worse are dropped.
    Candidate 0 keeps one slot at every cut. The cost is exactly N runs where the cuts fall on whole steps:
    2N k1 + N (k2 - k1) + N/2 (T - k2) = N T for k1 = T/4, k2 = T/2. Verifier calls: 3.5 N.
    Cuts that fall on one step are one cut; a cut at the end is none. Below N = 3 nothing is dropped.

    Attributes:
        first_cut, second_cut: where candidates are dropped.
        cut_by: "steps": a share of the steps in (0, 1); "sigma": a noise level in model units, descending.
        proposal: how candidates are drawn; None for independent Gaussian noise.

    References:
        Progressive seed pruning (Guimaraes and Perona, 2026), arXiv 2607.21591
    """

    node = Node(
        node_id="NSHalvingSearch",
        display_name="Halving Search",
        description="Starts twice as many seeds as the budget pays for, looks at them half-finished, "
        "and drops the worse ones at two cuts (Guimaraes and Perona 2026, arXiv "
        "2607.21591). The same cost as random search.",
        search_aliases=("early pruning", "successive halving", "seed pruning"),
    )

    first_cut: Annotated[
        float,
        Range(0.0, 100000.0, 0.01, 0.0001),
        Tooltip("Where the first half is dropped: a share of the steps (paper: 0.25), or a noise level (sigma)."),
    ] = 0.25
    second_cut: Annotated[
        float,
        Range(0.0, 100000.0, 0.01, 0.0001),
        Tooltip("Where half of the rest is dropped: a share of the steps (paper: 0.5), or a noise level (sigma)."),
    ] = 0.5
    cut_by: Annotated[
        str,
        Choices(("steps", "sigma")),
        Tooltip(
            "What the cuts are given in. By sigma for strongly shifted schedules, where a "
            "quarter of the steps is still all noise."
        ),
    ] = "steps"
    proposal: GaussianByDefault = None
    name = "halving search"

    def __post_init__(self) -> None:
        if self.cut_by not in ("steps", "sigma"):
            raise ValueError(f"'cut_by' must be 'steps' or 'sigma', not {self.cut_by!r}")
        first, second = self.first_cut, self.second_cut
        if self.cut_by == "steps" and not 0.0 < first <= second < 1.0:
            raise ValueError(f"cuts by steps need 0 < first_cut <= second_cut < 1, not {first:g} and {second:g}")
        if self.cut_by == "sigma" and not 0.0 < second <= first:
            raise ValueError(f"cuts by sigma need first_cut >= second_cut > 0, not {first:g} and {second:g}")

    def run(self, search: Search) -> Iterator[Round]:
        if search.planner.images <= 2:
            yield from RandomSearch(self.proposal).run(search)
            return
        if why := self._why_not(search):
            # Rendering survivors anew at equal cost would look at 4/3 N candidates half-way instead of N in full.
            yield from fall_back_to_random(search, self.name, self.proposal, why)
            return
        sigmas = [float(s) for s in search.session.sigmas]
        steps = self.cut_steps(sigmas)
        cuts = [sigmas[k - 1] for k in steps]
        looks: list[Pool | None] = [None] * len(cuts)
        marks = [*steps, search.planner.steps]
        if search.start_candidate.status == "finished":  # a chain's: it keeps its slot without a look
            yield from self._halve(search, cuts, looks, marks)
            return
        if search.planner.baseline_first:  # what a run costs has to be known: candidate 0 goes first, looked at on its way
            marks = []
            for level, cut in enumerate(cuts):
                looks[level] = search.preview([search.baseline], cut)
                marks.append(search.baseline.nfe)
            yield from search.render([search.baseline], later=True)
            marks.append(search.baseline.nfe)
            if why := self._why_not(search):
                yield from fall_back_to_random(search, self.name, self.proposal, why)
                return
        if not search.should_stop():
            yield from self._halve(search, cuts, looks, marks)

    def _halve(self, search: Search, cuts: list[float], looks: list[Pool | None], marks: list[int]) -> Iterator[Round]:
        images, wanted = search.planner.images, search.budget.runs_left + (search.start_candidate.status == "finished")
        widths = self.widths(images, marks)
        field = [search.start_candidate, *(search.propose(self.proposal) for _ in range(widths[0] - 1))]
        legs = [(width - 1) * (end - start) for width, start, end in zip(widths[1:], marks, marks[1:], strict=False)]
        for level, cut in enumerate(cuts):
            if widths[level + 1] >= len(field):
                continue
            known = looks[level] is not None or search.start_candidate.status == "finished"
            with search.budget.reserving(sum(legs[level:])):  # so that a sampler without fixed steps leaves enough to end
                pool = search.preview(field[1:] if known else field, cut, looks[level])
            field = self._survivors(search, pool, widths[level + 1])
        yield from search.render(field)
        if images < wanted:
            search.stop(f"the limits pay for {images} of {wanted} images")

    @staticmethod
    def widths(images: int, marks: Sequence[int]) -> list[int]:
        """Return how many candidates run to each cut and to the end.

        Candidate 0 keeps a slot, so that at least one other is rendered beside it; the first width is what is left
        of the calls of `images` runs, at most 2 images.

        Args:
            images: N.
            marks: model calls of one run to each cut and to the end, ascending.
        """
        if images == 1:
            return [1] * len(marks)
        later = [images] * (len(marks) - 2) + [max(2, (images + 1) // 2)]
        spent = sum(width * (end - start) for width, start, end in zip(later, marks, marks[1:], strict=False))
        paid = (images * marks[-1] - spent) // marks[0]
        return [max(later[0], min(2 * images, paid)), *later]

    def cut_steps(self, sigmas: Sequence[float]) -> list[int]:
        """Return after how many steps candidates are dropped: shares rounded down, noise levels to the step above."""
        total = len(sigmas) - 1
        if self.cut_by == "steps":
            steps = [int(share * total + 1e-9) for share in (self.first_cut, self.second_cut)]
        else:  # sigmas are float32: 0.7 is 0.69999999
            steps = [sum(s >= cut * (1 - 1e-6) for s in sigmas[:-1]) for cut in (self.first_cut, self.second_cut)]
        return sorted({max(k, 1) for k in steps if max(k, 1) < total})

    def _survivors(self, search: Search, pool: Pool, width: int) -> list[Candidate]:
        """Keep the origin and the best others, the best first; end the rest."""
        others = [c for c, _ in pool.ranked() if c is not search.start_candidate]
        search.prune(others[width - 1 :])
        return [search.start_candidate, *others[: width - 1]]

    def _why_not(self, search: Search) -> str:
        """Say why no candidate can be dropped half-way; empty if some can."""
        ends = "" if self.cut_steps([float(s) for s in search.session.sigmas]) else "both cuts are at the end of the run"
        return search.planner.why_no_looks or ends
