"""An analytic session: no model, but every property of one, with a known optimum.

A candidate's latent is an affine image of its noise. A run only counts model calls; its half-way prediction is the
latent plus a share of something else that falls with sigma. The picture is the latent, scaled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

from noise_search.search.base.budget import Budget, StopRules
from noise_search.search.base.candidate import Candidate, finite_or_none
from noise_search.search.core.search import Search, SearchSettings
from noise_search.search.noise.bounded_cache import BoundedCache
from noise_search.search.noise.recipe import BranchPoint, Recipe, derived_seed, make_noise
from noise_search.search.scoring.scorer import Scorer

SIZE = 48  # of a latent; a picture is 4 x 4 x 3
SEED = 7


@cache
def draw(seed: int) -> Tensor:
    """Unit Gaussian noise (1, 48) of a seed."""
    return torch.randn(1, SIZE, generator=torch.Generator().manual_seed(seed))


def picture_of(latent: Tensor) -> Tensor:
    return (0.5 + 0.05 * latent).reshape(-1, 4, 4, 3)


def latent_of(images: Tensor) -> Tensor:
    return ((images - 0.5) / 0.05).reshape(len(images), SIZE)


STEP_NOISE = 0.75  # of a latent's variance, when the sampler is stochastic


def known_share(level: float, stochastic: bool) -> float:
    """How much of the latent's variance is decided when a run is at a level: all of it if it is deterministic."""
    return 1.0 - STEP_NOISE * level if stochastic else 1.0


def kept_by_renoising(low: float, high: float, stochastic: bool) -> float:
    """Factor on what was decided at `low` when it is renoised to `high`; fresh noise makes up the variance."""
    ratio = known_share(high, stochastic) / known_share(low, stochastic)
    return (1.0 - (high - low)) * math.sqrt(ratio)


@dataclass
class Left:
    """A model call that a branch may start from."""

    sigma: float
    known: Tensor
    gaps: tuple[float, ...] = ()
    predictions: dict[float, Tensor] = field(default_factory=dict)


class AnalyticRun:
    """A run whose model calls are at `levels`; each step of a stochastic one adds a little of its own noise."""

    def __init__(
        self, known: Tensor, seed: int, levels: Sequence[float], blur: float, stochastic: bool,
        keep: Sequence[float] = (), answered: int = 0, prediction_levels: Sequence[float] = (),
    ) -> None:  # fmt: skip
        self.known, self.seed, self.levels_of_run, self.blur = known, seed, list(levels), blur
        self.stochastic, self.keep = stochastic, keep
        self.done, self.nfe, self.latent, self.closed = 0, 0, None, False
        self.records: list[Left] = []
        self.segment_start = None
        self.odd: list[int] = []
        self.gaps: list[float] = []
        self.promises: list[Tensor] = []
        self.predictions: dict[float, Tensor] = {}
        self.prediction_levels = prediction_levels
        for _ in range(answered):
            self.call()
        self.nfe = 0

    @property
    def finished(self) -> bool:
        return self.done == len(self.levels_of_run)

    @property
    def levels(self) -> list[float]:
        return self.levels_of_run[: self.done]

    @property
    def next_level(self) -> float:
        return self.levels_of_run[self.done]

    def call(self) -> None:
        """One model call, and the step after it."""
        level, index = self.next_level, self.done
        if any(abs(level - wanted) < 1e-6 for wanted in self.keep):
            self.records = [r for r in self.records if r.sigma != level] + [
                Left(level, self.known, tuple(self.gaps), dict(self.predictions))
            ]
        self.gaps.append(float(self.known.roll(1, 1).mul(self.known).mean().abs()))  # of a guidance there is not
        self.promise = 0.1 + 0.9 * self.known + self.blur * level * self.known.roll(7, 1)
        self.promises.append(self.promise)
        self.predictions |= {wanted: self.promise for wanted in self.prediction_levels if level >= wanted - 1e-6}
        self.done, self.nfe = self.done + 1, self.nfe + 1
        following = 0.0 if self.finished else self.next_level
        added = known_share(following, self.stochastic) - known_share(level, self.stochastic)
        if added > 0:
            position = len(self.levels_of_run) - index  # from the end, so that a twin with the same seed is the same
            self.known = self.known + math.sqrt(added) * draw(derived_seed(self.seed, "step", position))

    def show(self) -> None:
        """Set the latent to what the calls so far promise."""
        if self.done:
            self.latent = 0.1 + 0.9 * self.known if self.finished else self.promise

    def close(self) -> None:
        self.closed = True


@dataclass
class AnalyticSession:
    """See `search.session.Session`.

    Attributes:
        calls: model calls of a run by its step seed, evenly spread; None for one per step.
        heun: two calls for each step but the last.
        blur: how much of a half-way prediction misleads.
        frames: pictures of one latent.
        stochastic: three quarters of a latent's variance come from step noise.
        started, branches, rounds: recipes that were started; cuts; (runs, cut) of every `advance`.
        on_call: told of every model call.
    """

    budget: Budget
    steps: int = 20
    calls: Callable[[int], int] | None = None
    heun: bool = False
    blur: float = 1.0
    frames: int = 1
    stochastic: bool = False
    looks_halfway: bool = True
    fixed_steps: bool = True
    known_steps: bool = True
    uneven: str = ""
    leader: Any = None
    wave: int = 8
    why_alone: Sequence[str] = ()
    on_call: Callable[[], None] = lambda: None
    checkpoint: Callable[[], None] = lambda: None
    started: list[tuple[int, Recipe]] = field(default_factory=list)
    branches: list[BranchPoint] = field(default_factory=list)
    rounds: list[tuple[int, float]] = field(default_factory=list)
    runs: list[AnalyticRun] = field(default_factory=list)
    kept: BoundedCache = field(default_factory=lambda: BoundedCache(1 << 20))

    def note_for_scoring(self, gaps_for: str, levels: Sequence[float]) -> None:
        self.gaps_for, self.prediction_levels = gaps_for, tuple(levels)

    def set_leader(self, leader: Any) -> None:
        self.leader = leader

    def ask_before_calls(self, checkpoint: Callable[[], None]) -> None:
        self.checkpoint = checkpoint

    @property
    def sigmas(self) -> Tensor:
        return torch.linspace(1.0, 0.0, self.steps + 1)

    @property
    def noise_shares(self) -> Tensor:
        return self.sigmas

    def start(self, recipe: Recipe, keep_records: Sequence[float] = ()) -> AnalyticRun:
        self.started.append((self.steps, recipe))
        levels = self.sigmas[:-1].tolist()
        if self.heun:
            levels = [level for pair in zip(levels, levels[1:], strict=False) for level in pair] + levels[-1:]
        if self.calls is not None:
            levels = torch.linspace(1.0, 0.0, self.calls(recipe.seed) + 1)[:-1].tolist()
        known = make_noise(recipe, draw, kept=self.kept) * math.sqrt(known_share(1.0, self.stochastic))
        return self._run(AnalyticRun(
            known, recipe.seed, levels, self.blur, self.stochastic, keep_records, 0, self.prediction_levels
        ))  # fmt: skip

    def branch(self, record: Left, cut: BranchPoint, keep_records: Sequence[float] = ()) -> AnalyticRun:
        self.branches.append(cut)
        levels = [level for level in self.sigmas[:-1].tolist() if level <= cut.renoise_to + 1e-6]
        if self.heun:
            levels = [level for pair in zip(levels, levels[1:], strict=False) for level in pair] + levels[-1:]
        known, answered = record.known, 1
        if cut.renoise_to > cut.sigma:
            kept = kept_by_renoising(cut.sigma, cut.renoise_to, self.stochastic)
            fresh = known_share(cut.renoise_to, self.stochastic) - kept**2 * known_share(cut.sigma, self.stochastic)
            known, answered = kept * known + math.sqrt(fresh) * draw(cut.noise_seed), 0
        run = AnalyticRun(known, cut.seed, levels, self.blur, self.stochastic, keep_records, answered, self.prediction_levels)
        run.gaps[:0] = record.gaps
        run.predictions = record.predictions | run.predictions
        return self._run(run)

    def _run(self, run: AnalyticRun) -> AnalyticRun:
        self.runs.append(run)
        return run

    def advance(self, runs: Sequence[AnalyticRun], until_sigma: float = 0.0) -> None:
        """One call at a time, at the largest waiting sigma, as long as the budget allows it."""
        self.rounds.append((len(runs), until_sigma))
        waiting = [run for run in runs if not run.finished]
        assert not any(run.closed for run in runs)
        while True:
            self.checkpoint()
            waiting = [run for run in waiting if not run.closed]
            if not waiting or not self.budget.allows(1):
                break
            run = max(waiting, key=lambda run: run.next_level)
            if run.next_level < until_sigma:
                break
            self.budget.count(1)
            run.call()
            self.on_call()
            waiting = [run for run in waiting if not run.finished]
        for run in runs:
            run.show()

    def decode(self, latent: Any, preview: bool = False) -> Tensor:
        return picture_of(latent).repeat(self.frames, 1, 1, 1)

    def draft(self, steps: int) -> AnalyticSession:
        other = object.__new__(AnalyticSession)
        other.__dict__.update(self.__dict__)
        other.steps = steps
        return other


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def tick(self) -> None:
        self.now += 1.0


@dataclass
class Part:
    """A verifier; `pictures` counts what it was asked to score, `asked` how often."""

    name: str = "part"
    trusts_previews: bool = True
    pictures: int = 0
    asked: int = 0

    def score(self, images: Tensor, latents: Tensor | None = None) -> Tensor:
        self.pictures, self.asked = self.pictures + len(images), self.asked + 1
        return self.values(images)

    def values(self, images: Tensor) -> Tensor:
        raise NotImplementedError


@dataclass
class Quadratic(Part):
    """0 at the latent of one noise, less everywhere else."""

    seed: int = 12345

    def values(self, images: Tensor) -> Tensor:
        return -(latent_of(images) - (0.1 + 0.9 * draw(self.seed))).square().sum(1)


@dataclass
class LowFrequency(Part):
    """Smooth: highest for a picture that goes from dark to bright, left to right."""

    def values(self, images: Tensor) -> Tensor:
        ramp = torch.tensor([-3.0, -1.0, 1.0, 3.0]) / 20**0.5
        return -((images.mean((1, 3)) * ramp).sum(1) / 0.05 - 10.0).abs()


@dataclass
class Layout(Part):
    """Smooth: highest where the means of blocks of 8 numbers are those of one noise; nothing finer matters."""

    seed: int = 12345

    def values(self, images: Tensor) -> Tensor:
        wanted = (0.1 + 0.9 * draw(self.seed)).reshape(6, 8).mean(1)
        return -(latent_of(images).reshape(-1, 6, 8).mean(2) - wanted).square().sum(1)


@dataclass
class Stripes(Part):
    """Highest for neighboring numbers that differ by much; nothing but the highest frequency matters."""

    def values(self, images: Tensor) -> Tensor:
        return (latent_of(images) * torch.tensor([1.0, -1.0]).repeat(SIZE // 2)).mean(1)


@dataclass
class RandomNumbers(Part):
    seed: int = 0

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)

    def values(self, images: Tensor) -> Tensor:
        return torch.rand(len(images), generator=self.generator)


@dataclass
class Listed(Part):
    """Given numbers, in the order in which pictures come; candidates are rendered in the order of their index."""

    numbers: Sequence[float] = ()

    def values(self, images: Tensor) -> Tensor:
        first = self.pictures - len(images)
        return torch.tensor([float(self.numbers[i]) for i in range(first, self.pictures)])


@dataclass
class Constant(Part):
    """The same for all; NaN for a verifier that never gives a score."""

    number: float = 0.5

    def values(self, images: Tensor) -> Tensor:
        return torch.full((len(images),), self.number)


@dataclass
class Throwing(Part):
    error: BaseException = field(default_factory=lambda: RuntimeError("out of order"))

    def values(self, images: Tensor) -> Tensor:
        raise self.error


def prepare(
    images: int, verifier: Any = None, *, seed: int = SEED, rules: StopRules | None = None, clock: Clock | None = None,
    keep: int = 1, skip_errors: bool = False, on_best: Callable = lambda images, score: None, large_rounds: bool = False,
    **session: Any,
) -> Search:  # fmt: skip
    """Return a search that has not begun."""
    clock = clock or Clock()
    budget = Budget(images, rules or StopRules(), clock=clock)
    scorer = Scorer(verifier or Quadratic(), skip_errors=skip_errors, clock=clock)
    return Search(
        AnalyticSession(budget, **session), scorer, budget,
        SearchSettings(Recipe(seed, seed), seed, keep, on_best, large_rounds=large_rounds),
    )  # fmt: skip


def run(method: Any, images: int, verifier: Any = None, **more: Any) -> Search:
    """Return a search that has ended."""
    search = prepare(images, verifier, **more)
    for _ in method.run(search):
        pass
    search.close()
    assert all(run.closed for run in search.session.runs if not run.finished)
    budget = search.budget
    assert budget.nfe + budget.redone == sum(run.nfe for run in search.session.runs)
    assert budget.nfe == sum(c.nfe for c in search.candidates)
    assert search.budget.reserved == 0
    return search


def statuses(search: Search) -> list[str]:
    return [candidate.status for candidate in search.candidates]


def winner(search: Search) -> int:
    return search.ranked[0][0].index


def best(search: Search) -> float:
    return search.ranked[0][1]


def as_dict(candidate: Candidate) -> dict[str, Any]:
    """What a report says of a candidate: plain JSON values, NaN as None."""
    return {
        "index": candidate.index,
        "parent": candidate.parent,
        "status": candidate.status,
        "discarded": candidate.discarded,
        "score": finite_or_none(candidate.score),
        "scores": plain(candidate.scores),
        "looks": [
            {**look, "score": finite_or_none(look["score"]), "scores": plain(look["scores"])} for look in candidate.looks
        ],
        "model_calls": candidate.nfe,
        "recipe": candidate.recipe.to_json(),
    }  # fmt: skip


def plain(scores: Mapping[str, float]) -> dict[str, float | None]:
    return {name: finite_or_none(value) for name, value in scores.items()}


def said(search: Search) -> dict[str, Any]:
    """What a report holds, but for rounds (they follow the wave) and seconds."""
    return {
        "candidates": [as_dict(candidate) for candidate in search.candidates],
        "order": [(candidate.index, score) for candidate, score in search.ranked],
        "spent": (search.budget.nfe, search.evaluator.decodes, search.scorer.calls),
        "said": (search.stopped, list(search.notes), list(search.scorer.problems)),
    }


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
