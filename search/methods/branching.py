"""Branching search: every few steps a run branches into many, and the best of them goes on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from ..base.candidate import Candidate, rankable
from ..core.search import Round, Search
from ..noise.proposals import NoiseProposal
from ..spec import Advanced, Node, Range, Tooltip, check_least
from .branches import end_branching, fall_back_to_random, has_record, lowest_noise, missing_levels, one_by_one, why_not_left
from .random_search import RandomSearch
from .resampling import check_renoise, refuse_twins, spread, systematic_resample, uniform
from .settings import GaussianByDefault, Renoise

LEVELS = 4  # at which lineages branch, at most, in large rounds


@dataclass(frozen=True)
class BranchingSearch:
    """Every `block` steps each lineage branches into M children; the best one, by what it promises, goes on.

    With blocks of one step this is SVDD, with longer ones CoDe. A child's look is its next step's first model call, so that
    a block of B steps costs M B calls in all. The children of the last block are rendered. Candidate 0 is rendered in full
    first, and is where the first lineage begins; others begin with noise of their own.

    With T the NFE of a full run, L lineages, and b those of one child in all blocks together (T - 1 without renoising, for
    samplers of one call per step and one latent row), a lineage of its own noise costs a more (1 in that case):
    NFE = T + L M b + (L - 1) a; in a chain whose winner has no model call to begin at, L M b + L a and no T.
    Verifier calls: 1 + L M blocks, and one for each lineage of its own noise. In large rounds blocks are longer, so that there
    are at most four.

    Attributes:
        children: M; 0 for as many as the budget pays for.
        lineages: L, how many go side by side; fewer if the budget does not pay for two children each.
        block: B, steps between two branchings; 1 is SVDD, more is CoDe.
        temperature: 0: the best goes on; else one drawn with probability proportional to exp(score / temperature), in
            units of the scores' standard deviation among the first children.
        renoise: steps up that children are renoised; 0: the sampler's own noise tells them apart.
        proposal: how the noise of lineages is drawn; None for independent Gaussian noise.

    References:
        Derivative-Free Guidance in Continuous and Discrete Diffusion Models with Soft Value-based Decoding (Li et al., 2024),
        arXiv 2408.08252
        CoDe: Blockwise Control for Denoising Diffusion Models (Singh et al., 2025), arXiv 2502.00968
    """

    node = Node(
        node_id="NSBranchingSearch",
        display_name="Branching Search",
        description="Takes every block of steps several times with different noise and goes on with "
        "the best (SVDD, arXiv 2408.08252; CoDe, arXiv 2502.00968). For large budgets, "
        "ancestral or SDE samplers and cheap verifiers.",
        search_aliases=("svdd", "code", "per-step", "blockwise best of n"),
    )

    children: Annotated[
        int,
        Range(0, 10000),
        Tooltip("How often each block is taken. 0: as often as the budget pays for. Papers: 4 to 25."),
    ] = 0
    lineages: Annotated[
        int,
        Range(1, 256),
        Tooltip("How many runs go side by side, each with its own children. Usual: 1 to 4; papers: 2."),
    ] = 1
    block: Annotated[
        int,
        Range(1, 10000),
        Tooltip(
            "Steps of a block. 1 is SVDD: a look at every step. More is CoDe: fewer looks, better told apart. Usual: 2 to 5."
        ),
    ] = 1
    temperature: Annotated[
        float,
        Range(0.0, 100.0, 0.05, 0.001),
        Advanced(),
        Tooltip(
            "0: the best child goes on (usual). Above: a child is drawn, the better the likelier, in units of the scores' spread."
        ),
    ] = 0.0
    renoise: Renoise = 0
    proposal: GaussianByDefault = None
    name = "branching search"

    def __post_init__(self) -> None:
        if self.children < 0:
            raise ValueError(f"'children' must be 0 (as many as the budget pays for) or more, not {self.children}")
        check_least(self, "lineages", "block")
        if not 0.0 <= self.temperature < math.inf:
            raise ValueError(f"'temperature' must be a finite number, 0 (the best) or more, not {self.temperature}")
        check_renoise(self.renoise)

    def run(self, search: Search) -> Iterator[Round]:
        if search.planner.images == 1:
            yield from RandomSearch(self.proposal).run(search)
            return
        ladder = Ladder(search, self.block, self.renoise)
        why = search.planner.why_no_branches or ladder.why_not
        if not why:
            refuse_twins(search, self.name, self.renoise)
            yield from ladder.begin()
            lineages, children = self._plan(ladder) if not ladder.why_not else (0, 0)
            why = ladder.why_not or ("" if lineages else "the budget does not pay for two children of every step")
        if why:
            yield from fall_back_to_random(search, self.name, self.proposal, why)
            return
        if not search.should_stop():
            with search.branching(ladder.levels):
                yield from self._descend(ladder, lineages, children)
        end_branching(search)

    def _plan(self, ladder: Ladder) -> tuple[int, int]:
        """Return how many lineages and children to have: as asked for, or the most that the budget pays for."""
        search, fewest = ladder.search, 1 if self.children == 1 else 2  # one child alone is no choice
        for lineages in range(self.lineages, 0, -1):
            left = ladder.left() - (lineages - ladder.joins) * ladder.start
            children = left // (lineages * sum(ladder.costs))
            children = min(children, self.children or children)
            if children >= fewest:
                if lineages < self.lineages or children < self.children:
                    search.note(f"the budget pays for {lineages} lineages of {children} children each")
                return lineages, children
        return 0, 0

    def _descend(self, ladder: Ladder, lineages: int, children: int) -> Iterator[Round]:
        """Bring all lineages to their end, side by side."""
        search = ladder.search
        parents, unit = ladder.roots(lineages, self.proposal), 1.0
        for place in range(len(ladder.costs)):
            count = 0 if search.should_stop() else search.budget.affordable(len(parents) * sum(ladder.costs[place:]), children)
            if count == 0:  # calls take longer than they did
                yield from search.render(parents)
                return
            if place == len(ladder.costs) - 1:
                yield from self._end(ladder, parents, count)
                return
            families = [[ladder.branch(parent, place) for _ in range(count)] for parent in parents]
            search.prune(parents)
            everyone = [child for family in families for child in family]
            pool = search.preview(everyone, ladder.ends[place])
            scores = {candidate.index: score for candidate, score in pool.ranked()}
            unit = spread(list(scores.values())) if place == 0 else unit
            parents = [self._chosen(search, family, scores, unit) for family in families]
            search.prune([child for child in everyone if child not in parents])

    @staticmethod
    def _end(ladder: Ladder, parents: Sequence[Candidate], count: int) -> Iterator[Round]:
        """Render `count` children of the last block for each parent."""
        place = len(ladder.costs) - 1
        draw = one_by_one(parents, count, partial(ladder.branch, place=place))
        try:
            yield from ladder.search.render([], count * len(parents), draw=draw, cost=ladder.costs[place])
        finally:
            ladder.search.prune(parents)

    def _chosen(self, search: Search, family: Sequence[Candidate], scores: dict[int, float], unit: float) -> Candidate:
        """Return the child that goes on; one without a score only if there is no other."""
        values = [scores.get(child.index, math.nan) for child in family]
        if self.temperature == 0.0:
            return family[max(range(len(family)), key=lambda i: rankable(values[i]))]
        u = uniform(search.seed, "choice", family[0].index)
        return family[systematic_resample([value / unit / self.temperature for value in values], 1, u).index(1)]


class Ladder:
    """The noise levels at which lineages branch, and what the way from one to the next costs.

    Attributes:
        search: whom it serves.
        why_not: why there is none, in words.
        levels: the noise levels, once candidate 0 is rendered.
        joins: whether the origin's run can be left at the first level.
        start: NFE of a run to the first level.
        costs: NFE of one child of each level, to the next one or the end.
        ends: the level to which children of each go, 0 at last.
    """

    def __init__(self, search: Search, block: int, renoise: int) -> None:
        """Lay out the levels, `block` steps apart, from the first one at which `renoise` steps can be gone up."""
        self.search, self._renoise = search, renoise
        self._sigmas = [float(sigma) for sigma in search.session.sigmas[:-1]] + [0.0]
        steps = len(self._sigmas) - 1
        points = range(renoise, steps - 1, block)  # the last step adds no noise
        self._points = [merged[0] for merged in search.planner.merged(points, LEVELS)]
        self._second = renoise == 0 and steps > 2 and lowest_noise(search.session.noise_shares.tolist()) > 0
        self.why_not = "" if self._points else "too few steps to branch in"

    def begin(self) -> Iterator[Round]:
        """Render candidate 0, unless a method before did, and find out where it can be left and what that costs.

        Where a flow model begins in pure noise, some samplers call it a little below: they branch one step later.
        """
        search = self.search
        wanted = [self._sigmas[point] for point in {*self._points, *([1] if self._second else [])}]
        with search.branching(wanted):
            if search.start_candidate.status != "finished":
                yield from search.render([search.start_candidate], later=True)
        if self._second and self._sigmas[0] in missing_levels(search, wanted):
            wanted = [level for level in wanted if level != self._sigmas[0]]
            self._points = [1, *(point for point in self._points if point > 1)]
        self.why_not = why_not_left(search, wanted)
        if self.why_not:
            return
        self.levels = [self._sigmas[point] for point in self._points]
        self._ups = [self._sigmas[point - self._renoise] if self._renoise else None for point in self._points]
        self.ends = [*self.levels[1:], 0.0]
        self.joins = has_record(search.start_candidate, self.levels[0])
        self.start = search.planner.calls(math.inf, self.levels[0])
        self.costs = [self._cost(*step) for step in zip(self.levels, self._ups, self.ends, strict=True)]

    def join_no_more(self) -> None:
        """Begin all further lineages with noise of their own."""
        self.joins = False

    def left(self) -> int:
        """Return the NFE that can still be spent."""
        budget = self.search.budget
        return budget.affordable(1, budget.images * budget.run_cost)

    def roots(self, count: int, proposal: NoiseProposal | None) -> list[Candidate]:
        """Return what lineages begin with: the origin if it can be left, and fresh noise, run to the first level."""
        search = self.search
        fresh = [search.propose(proposal) for _ in range(count - self.joins)]
        if fresh:
            search.preview(fresh, self.levels[0])
        return ([search.start_candidate] if self.joins else []) + fresh

    def branch(self, parent: Candidate, place: int) -> Candidate:
        """Start a child of a parent that was brought to a level."""
        return self.search.branch(parent, self.levels[place], self._ups[place])

    def _cost(self, level: float, up: float | None, end: float) -> int:
        return (
            self.search.planner.calls(level, end) if up is None else self.search.planner.rows + self.search.planner.calls(up, end)
        )
