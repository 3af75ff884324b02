"""Evolutionary search: children of good pictures leave their parents' runs further and further down."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from ..base.candidate import Candidate
from ..core.search import Round, Search
from ..noise.proposals import NeighborProposal
from ..noise.recipe import ZERO, derived_seed
from ..spec import Node, Range, Tooltip, check_least
from .branches import has_record

GENERATIONS = 2  # after the first, at most, in large rounds
RARE = 1e-3
ONLY_FIRST = "evolutionary search mutates the first noise only"


@dataclass(frozen=True)
class EvolutionSearch:
    """A population of whole pictures; every generation mutates the states of good ones at a lower noise level.

    Generation 0 is random. In every other, the elites stay, with the scores they have, and children are made of parents
    that a tournament chooses: at the start, a neighbor of the parent's noise; at step k, the parent's state after step
    k + 1, renoised to the level before that step and run to its end with T - k steps.

    With P = max(1, round(share N)) pictures in generation 0 and n_g children at step k_g, NFE = P T + sum n_g (T - k_g),
    at most N T: all n_g are what the rest of the budget pays for, equally; what is left then goes to one more child
    each, in order, and to the last generation. Less than one child of the last generation stays unspent. (With two
    calls per step, as heun: 2 T - 1 for T and 2 (T - k) - 1 for T - k.) In large rounds there are two more generations at most:
    children of several steps are made at once, of the same population.

    Attributes:
        evolve_at: where children start, as shares of the steps, ascending; 0 is the first noise.
        first_share: share of the budget for generation 0. Paper: 0.42 to 0.48.
        elites: how many of the best stay; 3 in the paper (FLUX), 5 (SD2.1).
        mutation: b of the child's noise sqrt(1 - b^2) parent + b fresh, at the start.
        tournament: share of the population that a tournament is among; its best becomes the parent. The paper's 0.9
            chooses the best of all nine times in ten; less keeps more variety.

    References:
        Scaling Image and Video Generation via Test-Time Evolutionary Search (He et al., 2025), arXiv 2505.17618
    """

    node = Node(
        node_id="NSEvolutionSearch",
        display_name="Evolutionary Search",
        description="Renders a population, then children of the best that leave their parents' runs "
        "later and later, so that they cost less and less (EvoSearch, He et al. 2025, "
        "arXiv 2505.17618).",
        search_aliases=("evosearch", "genetic algorithm", "mutation"),
    )

    evolve_at: Annotated[
        tuple[float, ...],
        Tooltip(
            "Where the children of each generation start, as ascending shares of the steps; 0 is "
            "the first noise. Paper: 0.1, 0.4, 0.6, 0.8 (FLUX), 0, 0.4, 0.6, 0.8 (SD 2.1). Later "
            "ones change less and cost less; useful: 0 to 0.8."
        ),
    ] = (0.0, 0.4, 0.6, 0.8)
    first_share: Annotated[
        float,
        Range(0.01, 1.0, 0.05, 0.001),
        Tooltip("Share of the budget for the first, random generation. Paper: 0.42 to 0.48; useful: 0.3 to 0.7."),
    ] = 0.5
    elites: Annotated[
        int,
        Range(1, 256),
        Tooltip(
            "How many of the best stay among the parents of the next generation; they are never "
            "rendered again. Paper: 3 (FLUX), 5 (SD 2.1); useful: 2 to 8."
        ),
    ] = 3
    mutation: Annotated[
        float,
        Range(0.01, 1.0, 0.05, 0.001),
        Tooltip(
            "Share of fresh noise in a child that starts from the first noise. Paper: 0.2; "
            "useful: 0.1 to 0.5. Later ones get as much noise as one step takes away."
        ),
    ] = 0.2
    tournament: Annotated[
        float,
        Range(0.01, 1.0, 0.05, 0.001),
        Tooltip(
            "A child's parent is the best of this share of the population, drawn by lot. Paper: "
            "0.9, which is the very best nine times in ten. Useful: 0.2 to 0.9; less keeps more "
            "variety."
        ),
    ] = 0.9
    name = "evolutionary search"

    def __post_init__(self) -> None:
        shares = self.evolve_at
        if not shares or not all(0.0 <= a < 1.0 for a in shares) or list(shares) != sorted(set(shares)):
            said = ", ".join(f"{share:g}" for share in shares)
            raise ValueError(f"'evolve_at' must be ascending shares of the steps from 0 to below 1, not {said or 'nothing'}")
        check_least(self, "elites")
        for name, usual in (("first_share", 0.5), ("mutation", 0.2), ("tournament", 0.9)):
            value = getattr(self, name)
            if not 0.0 < value <= 1.0:
                raise ValueError(f"'{name}' must be above 0 and at most 1, not {value:g}; {usual:g} is usual")

    def run(self, search: Search) -> Iterator[Round]:
        starts, sigmas = self._starts(search), [float(s) for s in search.session.sigmas]
        levels = [sigmas[k + 1] for k in starts if k]
        with search.branching(levels, parents=max(self.elites, self.likely_parents())):
            yield from self._evolve(search, starts)
            search.release_records()

    def _evolve(self, search: Search, starts: list[int]) -> Iterator[Round]:
        """Render generation 0, and breed those after it."""
        if search.planner.baseline_first:
            yield from search.render([search.start_candidate], later=True)
        first = max(1, min(search.planner.images, round(self.first_share * search.planner.images)))
        there = len(search.candidates)
        yield from search.render([search.start_candidate], first - 1)
        population = [search.start_candidate, *search.candidates[there:]]
        starts = self._reachable(search, population, starts)
        generations = [(start, wanted) for start, wanted in zip(starts, self._sizes(search, starts), strict=True) if wanted]
        for merged in search.planner.merged(generations, GENERATIONS):
            if search.should_stop():
                break
            population = [c for c in population if c.status == "finished"]
            there = len(search.candidates)
            yield from self._bred(search, [(_Parents(self, search, population, start), wanted) for start, wanted in merged])
            survivors = [c for c, _ in search.finished.in_order_of(population)][: self.elites]
            search.release_records(c for c in population if c not in survivors)
            population = [*survivors, *search.candidates[there:]]

    @staticmethod
    def _bred(search: Search, stages: Sequence[tuple[_Parents, int]]) -> Iterator[Round]:
        """Render as many children of each stage's parents as it says."""
        following = (parents for parents, wanted in stages for _ in range(wanted))
        costs = [parents.cost for parents, _ in stages]
        count, cost = sum(wanted for _, wanted in stages), max(costs) if all(costs) else 0
        with search.pinning(candidate for parents, _ in stages for candidate in parents.likely):
            yield from search.render([], count, draw=lambda: next(following).child(), cost=cost)

    def likely_parents(self) -> int:
        """Return of how many of the best a tournament chooses one, but for one time in a thousand."""
        return 1 if self.tournament == 1.0 else math.ceil(math.log(RARE) / math.log(1.0 - self.tournament))

    def _starts(self, search: Search) -> list[int]:
        """Return after how many steps children start, 0 for the first noise; each leaves a step to take."""
        last = max(search.planner.steps - 2, 0)
        if search.planner.why_no_renoising:  # pictures are only scored when finished
            search.note(f"{ONLY_FIRST}: {search.planner.why_no_renoising}")
            return [0] * len(self.evolve_at)
        return sorted({min(int(share * search.planner.steps + 1e-9), last) for share in self.evolve_at})

    def _reachable(self, search: Search, population: Sequence[Candidate], starts: list[int]) -> list[int]:
        """Return the starts, with the first noise for those at which no run was recorded or could have been."""
        sigmas = [float(s) for s in search.session.sigmas]
        found = [k if k == 0 or any(has_record(c, sigmas[k + 1]) for c in population) else 0 for k in starts]
        if search.start_candidate.recipe.start == ZERO and any(found):
            return [k for k in found if k]  # noise of zeros has no neighbors
        if found != starts and len(population) > 1:
            search.note(f"{ONLY_FIRST}: the sampler makes no model call at the noise levels of its steps")
        return found

    def _sizes(self, search: Search, starts: Sequence[int]) -> list[int]:
        budget, run_cost = search.budget, search.planner.most_expensive(search.planner.steps) or search.budget.run_cost or 1
        if budget.run_cost is None:
            return [0] * len(starts)
        costs = [search.planner.calls(float(search.session.sigmas[k])) + search.planner.rows if k else run_cost for k in starts]
        return self.sizes(budget.affordable(1, budget.images * budget.run_cost), costs)

    @staticmethod
    def sizes(calls: int, costs: Sequence[int]) -> list[int]:
        """Return how many children each generation gets.

        Args:
            calls: model calls there are for them.
            costs: model calls of one child, by generation.
        """
        each = calls // sum(costs)
        sizes, rest = [each] * len(costs), calls - each * sum(costs)
        for place, cost in enumerate(costs):
            if cost <= rest:
                sizes[place], rest = sizes[place] + 1, rest - cost
        sizes[-1] += rest // costs[-1]
        return sizes


class _Parents:
    """The population that the children of one generation come from.

    Attributes:
        cost: NFE of a child; 0 for that of a full run.
        likely: those that branches of are likely to be started.
    """

    def __init__(self, method: EvolutionSearch, search: Search, population: Sequence[Candidate], start: int) -> None:
        """Rank the finished candidates `population`; children start after `start` steps, or at the first noise for 0."""
        self._method, self._search = method, search
        self._here, self._below = (float(s) for s in search.session.sigmas[start : start + 2])
        able = [c for c in population if start and has_record(c, self._below)]
        self._branches = bool(able)
        self._ranked = [c for c, _ in search.finished.in_order_of(able or population)]
        self.cost = search.planner.calls(self._here) + search.planner.rows if able else 0
        self.likely = self._ranked[: method.likely_parents()] if able else []

    def child(self) -> Candidate:
        """Make a child of a parent that a tournament chooses: the best of some."""
        count, seed = len(self._ranked), derived_seed(self._search.seed, len(self._search.candidates), "tournament")
        parent = self._ranked[least_drawn(seed, count, max(1, round(self._method.tournament * count)))]
        if not self._branches:
            return self._search.propose(NeighborProposal(math.sqrt(1.0 - self._method.mutation**2)), parent)
        # The published code adds noise to a state and calls it one of the same level: x + s eps has the variance of a
        # higher one, and the model is shown what it was not trained on. The forward process, from the level below up to
        # this one, adds as much noise as one step takes away and keeps the marginals; so it needs no stochastic sampler.
        return self._search.branch(parent, self._below, renoise_to=self._here)


def least_drawn(seed: int, count: int, drawn: int) -> int:
    """Return the least of `drawn` places among `count` that `random.Random(seed).sample` draws.

    Where it draws places off a list, the first `count - drawn` stay where they are until they are drawn.
    """
    listed = 21 + (4 ** math.ceil(math.log(drawn * 3, 4)) if drawn > 5 else 0)
    if drawn < count <= listed:
        bits, left, least = random.Random(seed).getrandbits, count, count
        while least and left > count - drawn:
            place = bits(left.bit_length())
            if place < left:
                left -= 1
                if place < least:
                    least = place
        if least < count - drawn:
            return least
    return min(random.Random(seed).sample(range(count), drawn))
