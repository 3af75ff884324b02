"""The search itself: candidates are proposed, run, decoded, scored and compared under one budget.

A method is a small program over the verbs of `Search`: propose, render, look, sketch, prune. It never touches
models, pictures or the budget's arithmetic; the engine never knows which method it serves.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from .budget import Budget
from .candidates import Candidate, Pool
from .judge import Judge
from .proposals import GaussianProposal, NoiseProposal
from .recipes import Recipe
from .session import Run, Session

WATCHED_WAVE = 4  # runs between two looks at the scores when a stop rule depends on them


class Method(Protocol):
    """A search algorithm: a frozen spec that crosses a socket."""

    name: str

    def run(self, search: Search) -> Iterator[Round]:
        """Spend the budget; yield after every group of candidates."""


@dataclass(frozen=True)
class Round:
    """What a search tells after a group of candidates.

    Attributes:
        index: count of rounds before it.
        candidates: indices of those that were scored.
        best: index of the best finished candidate.
        score: its combined score.
        nfe: model calls spent so far, in latent rows.
        seconds: since the search began.
    """

    index: int
    candidates: tuple[int, ...]
    best: int
    score: float
    nfe: int
    seconds: float


class Search:
    """The state of one search.

    Attributes:
        session, judge, budget: what it works with.
        seed: the user's seed.
        baseline: candidate 0, the user's own noise and seed.
        candidates: all so far, by index.
        finished: the pool of fully rendered ones.
        rounds: what was told so far.
        notes: what the user should know, in words.
        stopped: why it ended before its budget; empty if it did not.
    """

    def __init__(
        self, session: Session, judge: Judge, budget: Budget, baseline: Recipe, seed: int,
        *, keep: int = 1, on_best: Callable[[Tensor, float], None] = lambda images, score: None,
    ) -> None:  # fmt: skip
        """Prepare a search.

        Args:
            session: runs candidates.
            judge: scores them.
            budget: what may be spent.
            baseline: recipe of candidate 0.
            seed: the seed all others are derived from.
            keep: how many best candidates are wanted: their pictures stay at hand.
            on_best: told the pictures (F, H, W, 3) of every new best, and its score.
        """
        self.session, self.judge, self.budget, self.seed = session, judge, budget, seed
        self.baseline = Candidate(0, baseline)
        self.candidates = [self.baseline]
        self.finished = Pool(judge.combine)
        self.rounds: list[Round] = []
        self.notes: list[str] = []
        self.stopped = ""
        self.seconds = {"sampling": 0.0, "decoding": 0.0}
        self.decodes = 0
        self._keep, self._on_best = keep, on_best
        self._runs: dict[int, Run] = {}
        self._pictures: dict[int, Tensor] = {}
        self._shown: int | None = None

    # What methods say.

    @property
    def images(self) -> int:
        """How many full runs the budget pays for; all that were asked for while the cost of one is unknown."""
        if self.budget.run_cost is None:
            return self.budget.images
        runs = min(self.budget.images, int(self.budget.cap // self.budget.run_cost))
        left = self.budget.affordable_seconds(self._seconds_each(), self.budget.images)
        return max(1, min(runs, left + len(self.finished.members)))

    @property
    def baseline_first(self) -> bool:
        """Whether candidate 0 must be rendered alone, since what a run costs has to be known beforehand."""
        rules = self.budget.rules
        return not self.session.fixed_steps or rules.max_model_calls > 0 or rules.max_seconds > 0

    @property
    def ranked(self) -> list[tuple[Candidate, float]]:
        """Finished candidates with their scores, best first."""
        return self.finished.ranked()

    def propose(self, proposal: NoiseProposal | None = None, pivot: Candidate | None = None) -> Candidate:
        """Draw a new candidate, by default independent of all others."""
        pivot = pivot or self.baseline
        index = len(self.candidates)
        recipe = (proposal or GaussianProposal()).propose(self.seed, index, pivot.recipe)
        local = recipe.start == pivot.recipe.start and bool(recipe.moves)
        self.candidates.append(Candidate(index, recipe, parent=pivot.index if local else None))
        return self.candidates[-1]

    def render(self, candidates: Sequence[Candidate]) -> Iterator[Round]:
        """Run candidates to their end and score them, as far as the budget reaches; one round for each wave."""
        todo = [c for c in candidates if c.status != "finished"]
        while todo and not self.over():
            count = self._payable(todo)
            wave, todo = todo[:count], todo[count:]
            if not wave:
                self.stopped = self.stopped or "the rest of the budget does not pay for another run"
                break
            self._advance(self.session, wave, 0.0)
            yield from self._score_finished(wave)
        self.prune(todo, status="waiting")

    def look(self, candidates: Sequence[Candidate], until_sigma: float) -> Pool:
        """Run candidates down to a noise level, score the pictures they promise, and compare these."""
        self._advance(self.session, candidates, until_sigma)
        alive = [c for c in candidates if c.status != "cut off"]
        latents = [self._runs[c.index].latent for c in alive]
        return self._score_look(alive, latents, {"sigma": until_sigma}, preview=True)

    def sketch(self, candidates: Sequence[Candidate], steps: int) -> Pool:
        """Render candidates with fewer steps, score and compare these drafts."""
        session = self.session.draft(steps)
        self._advance(session, candidates, 0.0)
        drawn = [c for c in candidates if c.status != "cut off"]
        latents = [self._runs.pop(c.index).latent for c in drawn]
        for candidate in drawn:
            candidate.status = "draft"
        return self._score_look(drawn, latents, {"draft_steps": steps}, preview=False)

    def prune(self, candidates: Sequence[Candidate], status: str = "pruned") -> None:
        """End the runs of candidates that are given up."""
        for candidate in candidates:
            run = self._runs.pop(candidate.index, None)
            if run is not None:
                run.close()
            if candidate.status == "waiting":
                candidate.status = status

    def over(self) -> bool:
        """Whether a stop rule ended the search; notes which."""
        rules, ranked = self.budget.rules, self.ranked
        if self.stopped or not ranked:
            return bool(self.stopped)
        best, score = ranked[0]
        since = sum(c.index > best.index for c in self.finished.members)
        if rules.target_score is not None and score >= rules.target_score:
            self.stopped = f"the target score {rules.target_score:g} was reached"
        elif rules.patience and since >= rules.patience:
            self.stopped = f"no better candidate among the last {since} (patience {rules.patience})"
        elif 0 < rules.max_seconds <= self.budget.seconds:
            self.stopped = f"the time limit of {rules.max_seconds:g} s was reached"
        elif not self.budget.allows(1):
            self.stopped = "the budget is spent"
        return bool(self.stopped)

    # What the node needs at the end.

    def pictures(self, candidate: Candidate) -> Tensor:
        """Return the pictures (F, H, W, 3) of a finished candidate, decoded anew if they were not kept."""
        if candidate.index not in self._pictures:
            self._pictures[candidate.index] = self._decode(candidate.latent, False)
        return self._pictures[candidate.index]

    def close(self) -> None:
        """End all suspended runs."""
        for index in list(self._runs):
            self._runs.pop(index).close()

    # Inside.

    def _advance(self, session: Session, candidates: Sequence[Candidate], until_sigma: float) -> None:
        for candidate in candidates:
            if candidate.index not in self._runs:
                self._runs[candidate.index] = session.start(candidate.recipe)
        runs = [self._runs[c.index] for c in candidates]
        before = [run.nfe for run in runs]
        started = time.perf_counter()
        try:
            session.advance(runs, until_sigma)
        finally:
            self.seconds["sampling"] += time.perf_counter() - started
            for candidate, run, nfe in zip(candidates, runs, before, strict=True):
                candidate.nfe += run.nfe - nfe
        ended = until_sigma <= 0.0
        lost = [c for c, run in zip(candidates, runs, strict=True) if run.latent is None or (ended and not run.finished)]
        self.prune(lost, status="cut off")

    def _score_finished(self, wave: Sequence[Candidate]) -> Iterator[Round]:
        done = [c for c in wave if c.status != "cut off"]
        for candidate in done:
            candidate.status, candidate.latent = "finished", self._runs.pop(candidate.index).latent
            if candidate is self.baseline:
                self.budget.run_cost = max(1, candidate.nfe)
        if not done:
            return
        pictures = [self._decode(c.latent, False) for c in done]
        raw = self.judge.score(done, pictures, [c.latent for c in done])
        self.finished.add(done, raw)
        for candidate, row in zip(done, raw.tolist(), strict=True):
            candidate.scores = dict(zip(self.judge.names, row, strict=True))
        for candidate, score in self.ranked:
            candidate.score = score
        self._keep_pictures(done, pictures)
        yield self._tell(done)

    def _score_look(self, candidates: Sequence[Candidate], latents: Sequence[Any], what: dict, preview: bool) -> Pool:
        pool = Pool(self.judge.combine)
        if not candidates:
            return pool
        raw = self.judge.score(candidates, [self._decode(latent, preview) for latent in latents], latents)
        pool.add(candidates, raw)
        for candidate, row, score in zip(candidates, raw.tolist(), pool.combined().tolist(), strict=True):
            candidate.looks.append({**what, "scores": dict(zip(self.judge.names, row, strict=True)), "score": score})
        return pool

    def _decode(self, latent: Any, preview: bool) -> Tensor:
        started = time.perf_counter()
        images = self.session.decode(latent, preview)
        self.seconds["decoding"] += time.perf_counter() - started
        self.decodes += 1
        return images

    def _keep_pictures(self, done: Sequence[Candidate], pictures: Sequence[Tensor]) -> None:
        """Keep the pictures of the best few only; show a new best."""
        self._pictures.update((c.index, p) for c, p in zip(done, pictures, strict=True))
        wanted = [candidate.index for candidate, _ in self.ranked[: max(self._keep, 1)]]
        best, score = self.ranked[0]
        if best.index != self._shown:
            self._shown = best.index
            self._on_best(self._pictures[best.index] if best.index in self._pictures else self.pictures(best), score)
        self._pictures = {index: p for index, p in self._pictures.items() if index in wanted}

    def _tell(self, done: Sequence[Candidate]) -> Round:
        best, score = self.ranked[0]
        indices = tuple(c.index for c in done)
        told = Round(len(self.rounds), indices, best.index, score, self.budget.nfe, self.budget.seconds)
        self.rounds.append(told)
        return told

    def _payable(self, todo: Sequence[Candidate]) -> int:
        """How many of `todo` to run now: what is best run together, and what can be paid for."""
        if todo[0] is self.baseline and self.budget.run_cost is None and self.baseline_first:
            return 1
        count = min(len(todo), WATCHED_WAVE if self.budget.rules.watch_scores else self.session.wave)
        if self.budget.run_cost is None:
            return count
        cost = max([self.budget.run_cost, *(c.nfe for c in self.finished.members if not c.looks)])
        started = max((c.nfe for c in todo if c.index in self._runs), default=0)
        count = self.budget.affordable(max(cost - started, 1), count)
        return self.budget.affordable_seconds(self._seconds_each(), count)

    def _seconds_each(self) -> float:
        done = len(self.finished.members)
        return self.budget.seconds / done if done else math.nan
