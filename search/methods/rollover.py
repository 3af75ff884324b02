"""Rollover search: a lineage takes the first child that is better than the best so far, and saves what it did not need."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch

from ..base.candidate import Candidate, rankable
from ..core.search import Round, Search
from ..noise.proposals import NoiseProposal
from ..spec import Node, Range, Tooltip, check_least
from .branches import end_branching, fall_back_to_random
from .branching import Ladder
from .random_search import RandomSearch
from .resampling import check_renoise, refuse_twins
from .settings import GaussianByDefault, Renoise


@dataclass(frozen=True)
class RolloverSearch:
    """Rollover budget forcing: every block of steps has a quota of children, and passes on what it did not use.

    The first block spends its quota, and the best of its children, by what it promises, is the first incumbent. In each
    later block children are tried one by one: the first that is better than the incumbent goes on and is the new one, and
    the rest of the quota is the next block's. Where none is better, the best of them goes on. The children of the last
    block are rendered. Candidate 0 is rendered in full first, and is where the first lineage begins; what is left of the
    budget when a lineage ended begins another, from noise of its own.

    With T the NFE of a full run, b those of one child in all blocks together and a those of a run to the first level (T - 1
    and 1 without renoising, for samplers of one call per step and one latent row), a lineage with the whole rest F of the
    budget tries at most F c_i / b children of a block that cost c_i each, what was saved not counted. It costs between b
    and F, and NFE <= N T for N images; the search ends when less than a + b is left. In large rounds blocks are longer, so that
    there are at most four, and several children are tried at once.

    Attributes:
        block: steps of a block.
        renoise: steps up that children are renoised; 0: the sampler's own noise tells them apart.
        proposal: how the noise of lineages is drawn; None for independent Gaussian noise.

    References:
        Inference-Time Scaling for Flow Models via Stochastic Generation and Rollover Budget Forcing (Kim et al., 2025),
        arXiv 2503.19385
    """

    node = Node(
        node_id="NSRolloverSearch",
        display_name="Rollover Search",
        description="Tries each block of steps until it comes out better than before, and saves what "
        "it did not need for later blocks (rollover budget forcing, arXiv 2503.19385). One "
        "candidate at a time; for large budgets.",
        search_aliases=("rbf", "rollover budget forcing"),
    )

    block: Annotated[
        int,
        Range(1, 10000),
        Tooltip("Steps of a block. Paper: 1, of 10 steps in all. Usual: 1 to 5."),
    ] = 1
    renoise: Renoise = 0
    proposal: GaussianByDefault = None
    name = "rollover search"

    def __post_init__(self) -> None:
        check_least(self, "block")
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
            why = ladder.why_not
            why = why or ("" if ladder.left() >= _least(ladder) else "the budget does not pay for a child of every step")
        if why:
            yield from fall_back_to_random(search, self.name, self.proposal, why)
            return
        with search.branching(ladder.levels):
            while ladder.left() >= _least(ladder) and not search.should_stop():
                yield from _Lineage(ladder).run(self.proposal)
                ladder.join_no_more()
        end_branching(search)


def _least(ladder: Ladder) -> int:
    """NFE of the cheapest lineage."""
    return sum(ladder.costs) + (0 if ladder.joins else ladder.start)


class _Lineage:
    """One lineage, from its noise to its end.

    Attributes:
        seen: scores of all looks and of the end: those of different levels can be compared in one pool only.
        incumbent: the best so far; None before the first block.
        purse: NFE that the blocks so far were given and did not spend.
    """

    def __init__(self, ladder: Ladder) -> None:
        self.ladder, self.search = ladder, ladder.search
        self.seen = ladder.search.evaluator.pool()
        self.incumbent: Candidate | None = None
        self.purse = 0.0

    def run(self, proposal: NoiseProposal | None) -> Iterator[Round]:
        """Bring it to its end."""
        (parent,) = self.ladder.roots(1, proposal)
        costs, left = self.ladder.costs, self.ladder.left()
        for place, cost in enumerate(costs[:-1]):
            self.purse += left * cost / sum(costs)
            child = self._first(parent, place) if self.incumbent is None else self._better(parent, place)
            self.search.prune([parent])
            parent = child
        self.purse += left * costs[-1] / sum(costs)
        yield from self._end(parent)
        self.search.prune([parent])

    def _quota(self, place: int) -> int:
        return max(1, math.floor(self.purse / self.ladder.costs[place] + 1e-6))

    def _first(self, parent: Candidate, place: int) -> Candidate:
        """Return the best of as many children as the quota pays for, which have nothing to beat."""
        children = [self.ladder.branch(parent, place) for _ in range(self._quota(place))]
        self.purse -= len(children) * self.ladder.costs[place]
        self.seen = self.search.preview(children, self.ladder.ends[place], self.seen)
        self.incumbent = best = max(children, key=self._score)
        self.search.prune([child for child in children if child is not best])
        return best

    def _better(self, parent: Candidate, place: int) -> Candidate:
        """Return the first child better than the incumbent, or the best of the quota."""
        best: Candidate | None = None
        for count in self._tries(place):
            children = [self.ladder.branch(parent, place) for _ in range(count)]
            self.purse -= count * self.ladder.costs[place]
            self.seen = self.search.preview(children, self.ladder.ends[place], self.seen)
            field = children if best is None else [best, *children]
            best = max(field, key=self._score)
            self.search.prune([child for child in field if child is not best])
            if self._score(best) > self._score(self.incumbent):
                self.incumbent = best
                break
        return best

    def _end(self, parent: Candidate) -> Iterator[Round]:
        """Render children of the last block until one is better than the incumbent."""
        search, place = self.search, len(self.ladder.costs) - 1
        for number, count in enumerate(self._tries(place)):
            if number and search.should_stop():
                return
            children = [self.ladder.branch(parent, place) for _ in range(count)]
            yield from search.render(children)
            done = [child for child in children if child.status == "finished"]
            self.seen.add(done, torch.tensor([[child.scores[name] for name in search.scorer.names] for child in done]))
            if len(done) < len(children):
                return
            if self.incumbent is not None and max(map(self._score, done)) > self._score(self.incumbent):
                return

    def _tries(self, place: int) -> list[int]:
        """Return how many children of a level to try at a time, as far as its quota reaches: one, or several in large rounds."""
        quota = self._quota(place)
        size = self.search.planner.round_size(1, quota, least=2)
        return [min(size, quota - before) for before in range(0, quota, size)]

    def _score(self, candidate: Candidate) -> float:
        """Return a score among all of this lineage; the least of all if there is none."""
        return rankable(self.seen.score_of(candidate))
