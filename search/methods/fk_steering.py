"""Feynman-Kac steering: particles are weighted half-way by what they promise, and resampled."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from ..base.candidate import Candidate
from ..base.pool import Pool
from ..core.search import Round, Search
from ..spec import Advanced, Choices, Node, Range, Tooltip, check_least
from .branches import end_branching, fall_back_to_random, why_not_left
from .random_search import RandomSearch
from .resampling import check_renoise, effective_size, refuse_twins, spread, systematic_resample, uniform
from .settings import GaussianByDefault, Renoise

POTENTIALS = ("max", "difference", "sum")
LOOKS = 2  # at most, in large rounds


@dataclass
class Particle:
    """A slot: the candidate in it, its log-weight since the last resampling, and what its potential remembers."""

    candidate: Candidate
    log_weight: float = 0.0
    memory: float | None = None

    def weigh_nothing(self) -> None:
        """Weigh nothing until the next resampling."""
        self.log_weight = -math.inf

    def multiply(self, log_potential: float, memory: float) -> None:
        """Multiply its weight by a potential, given as its logarithm, and take what the next one remembers."""
        self.log_weight += log_potential
        self.memory = memory


@dataclass(frozen=True)
class FKSteering:
    """k particles in lockstep; at some steps they are weighted by potentials of their score, and resampled.

    With r the score of the x0 prediction over the spread of the first look, the weight of a look is exp(lambda g):
    "difference" g = r - r_before (r at the first), "max" g = the highest r so far, "sum" g = the sum of all r so far. Weights
    are kept as logarithms and carried on where resampling is skipped. Resampling is systematic. Candidate 0 keeps its
    slot (as the retained particle of conditional SMC), and may have offspring beside. The last potential's importance
    correction only matters for the distribution of all particles: the best by the verifier is what is returned.

    NFE = k T for k images of T: a copy's first call is known from its parent's run. With `renoise`, copies cost
    R + c(u, l) more each, and k is so small that this is paid for in the worst case; what is left over pays for fresh runs.
    In large rounds particles are weighted at most twice.

    Attributes:
        potential: one of `POTENTIALS`; "max" is the paper's choice for text-to-image.
        lam: lambda; 10 in the paper, of scores with a spread of about 1.
        first, last, times: resampling after these shares of the steps, evenly spread.
        ess_threshold: resample if the effective sample size is below this share of k; 1: always.
        normalize: divide scores by the spread (standard deviation) of the first look; False takes them as they are.
        renoise: steps that a copy is taken back up; 0 leaves it to the sampler's own noise to tell copies apart.
        proposal: how particles start; None for independent Gaussian noise.

    Raises:
        ValueError: in `run`, for a sampler without noise of its own and `renoise` 0.

    References:
        A General Framework for Inference-time Scaling and Steering of Diffusion Models (Singhal et al., 2025),
            arXiv 2501.06848
    """

    node = Node(
        node_id="NSFKSteering",
        display_name="FK Steering",
        description="Runs all candidates side by side, weights them half-way by what they promise, and "
        "replaces weak ones by copies of strong ones (Singhal et al. 2025, arXiv "
        "2501.06848). For ancestral and SDE samplers.",
        search_aliases=("feynman-kac", "particle", "resampling", "smc"),
    )

    potential: Annotated[
        str,
        Choices(POTENTIALS),
        Tooltip(
            "What counts: the highest score so far (max; the paper's for text-to-image), the "
            "rise since the last look (difference), or all scores (sum)."
        ),
    ] = "max"
    lam: Annotated[
        float,
        Range(0.0, 1000.0, 0.1, 0.001),
        Tooltip("Lambda: how strongly the score counts. Paper: 10. 0: not at all. Usual: 1 to 20."),
    ] = 10.0
    first: Annotated[
        float,
        Range(0.01, 0.99, 0.01),
        Tooltip("First resampling, as a share of the steps. Paper: 0.2; usual: 0.1 to 0.4."),
    ] = 0.2
    last: Annotated[
        float,
        Range(0.01, 0.99, 0.01),
        Tooltip("Last resampling, as a share of the steps. Paper: 0.8; usual: 0.5 to 0.9."),
    ] = 0.8
    times: Annotated[
        int,
        Range(1, 1000),
        Tooltip("How often in all, evenly spread. Each time all candidates are decoded and scored. Paper: 4; usual: 2 to 6."),
    ] = 4
    ess_threshold: Annotated[
        float,
        Range(0.0, 1.0, 0.05),
        Advanced(),
        Tooltip("Resample only if the effective number of candidates falls below this share. 1: always. Usual: 0.5."),
    ] = 0.5
    normalize: Annotated[
        bool,
        Advanced(),
        Tooltip("Divide scores by their spread at the first look, so that lambda means the same for every verifier. Usual: on."),
    ] = True
    renoise: Renoise = 0
    proposal: GaussianByDefault = None
    name = "FK steering"

    def __post_init__(self) -> None:
        if self.potential not in POTENTIALS:
            raise ValueError(f"'potential' must be one of {', '.join(POTENTIALS)}, not {self.potential!r}")
        if not 0.0 <= self.lam < math.inf:
            raise ValueError(f"'lam' must be a finite number, 0 or more, not {self.lam:g}")
        if not 0.0 < self.first <= self.last < 1.0:
            raise ValueError(f"resampling needs 0 < first <= last < 1, not {self.first:g} and {self.last:g}")
        check_least(self, "times")
        check_renoise(self.renoise)
        if not 0.0 <= self.ess_threshold <= 1.0:
            raise ValueError(f"'ess_threshold' must be from 0 to 1, not {self.ess_threshold:g}")

    def run(self, search: Search) -> Iterator[Round]:
        if search.planner.images == 1:
            yield from RandomSearch(self.proposal).run(search)
            return
        why = search.planner.why_no_branches or ("" if self.steps(search.planner.steps) else "too few steps to look half-way")
        if why:
            yield from fall_back_to_random(search, self.name, self.proposal, why)
            return
        refuse_twins(search, self.name, self.renoise)
        steps = [merged[-1] for merged in search.planner.merged(self.steps(search.planner.steps), LOOKS)]
        sigmas = [float(sigma) for sigma in search.session.sigmas]
        cuts = [sigmas[k - 1] for k in steps]
        ups = [sigmas[max(k - 1 - self.renoise, 0)] if self.renoise else None for k in steps]
        looks: list[Pool | None] = [None] * len(cuts)
        with search.branching(cuts):
            if search.start_candidate.status != "finished" and (search.planner.baseline_first or self.renoise):
                for level, cut in enumerate(cuts):
                    looks[level] = search.preview([search.start_candidate], cut)
                yield from search.render([search.start_candidate], later=True)
                why = why_not_left(search, cuts)
            if not why and not search.should_stop():
                yield from self._steer(search, cuts, ups, looks)
        if why:
            yield from fall_back_to_random(search, self.name, self.proposal, why)
        else:
            end_branching(search)

    def steps(self, total: int) -> list[int]:
        """Return after how many of `total` steps particles are weighted: not after the first, where all is noise."""
        gap, least = (self.last - self.first) / max(self.times - 1, 1), max(2, 1 + self.renoise)
        marks = [max(int((self.first + n * gap) * total + 1e-9), least) for n in range(self.times)]
        return sorted({min(mark, total - 1) for mark in marks if total > least})

    def _steer(self, search: Search, cuts: list[float], ups: list[float | None], looks: list[Pool | None]) -> Iterator[Round]:
        origin, count = search.start_candidate, self._count(search, cuts, ups)
        joins = origin.status != "finished" or looks[0] is not None  # else a chain's: rendered before, without records
        field = [Particle(origin)] if joins else []
        field += [Particle(search.propose(self.proposal)) for _ in range(count - 1)]
        scale = 0.0
        for level, cut in enumerate(cuts if len(field) > 1 else []):
            known = looks[level].members if looks[level] is not None else []
            pool = search.preview([p.candidate for p in field if p.candidate not in known], cut, looks[level])
            scores = {candidate.index: score for candidate, score in pool.ranked()}
            field = [p for p in field if p.candidate.index in scores]
            scale = scale or (spread(list(scores.values())) if self.normalize else 1.0)
            for particle in field:
                self.weigh(particle, scores[particle.candidate.index] / scale)
            if all(p.log_weight == -math.inf for p in field):  # a look without any score tells nothing
                field = [Particle(p.candidate, 0.0, p.memory) for p in field]
            elif effective_size([p.log_weight for p in field]) < self.ess_threshold * len(field) * (1 + 1e-9):
                field = self._resample(search, field, cut, ups[level], level)
        yield from search.render([p.candidate for p in field])
        if self.renoise and search.planner.images > 1 and not search.should_stop():  # copies cost less than they might have
            yield from search.render([], search.planner.images - 1, self.proposal)

    def _count(self, search: Search, cuts: Sequence[float], ups: Sequence[float | None]) -> int:
        """Return how many particles the budget pays for, candidate 0 included."""
        if not self.renoise or search.budget.run_cost is None:
            return search.planner.images
        copy = sum(search.planner.rows + search.planner.calls(up, cut) for cut, up in zip(cuts, ups, strict=True))
        return 1 + search.budget.affordable(search.budget.run_cost + copy, search.planner.images - 1)

    def weigh(self, particle: Particle, reward: float) -> None:
        """Multiply a particle's weight by its potential; NaN weighs nothing until the next resampling, and is forgotten."""
        before = particle.memory
        if math.isnan(reward):
            particle.weigh_nothing()
            return
        if self.potential == "difference":
            particle.multiply(self.lam * (reward - (before or 0.0)), reward)
        else:
            gain = reward if before is None else max(before, reward) if self.potential == "max" else before + reward
            particle.multiply(self.lam * gain, gain)

    def _resample(self, search: Search, field: list[Particle], cut: float, up: float | None, level: int) -> list[Particle]:
        """Give every slot but candidate 0's an offspring; the first of a particle is the particle itself."""
        kept = [p for p in field if p.candidate is search.start_candidate]
        u = uniform(search.seed, "resample", level, len(search.finished.members))
        offspring = systematic_resample([p.log_weight for p in field], len(field) - len(kept), u)
        out = [Particle(p.candidate, 0.0, p.memory) for p in kept]
        for particle, count in zip(field, offspring, strict=True):
            goes_on = particle not in kept and count > 0
            out += [Particle(particle.candidate, 0.0, particle.memory)] if goes_on else []
            for _ in range(count - goes_on):
                out.append(Particle(search.branch(particle.candidate, cut, up), 0.0, particle.memory))
        staying = {p.candidate.index for p in out}
        search.prune([p.candidate for p in field if p.candidate.index not in staying])
        return out
