"""The search itself: candidates are proposed, run, decoded, scored and compared under one budget.

A method is a small program over the verbs of `Search`: propose, render, look, sketch, prune. It never touches
models, pictures or the budget's arithmetic; the engine never knows which method it serves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from ..base.budget import Budget
from ..base.candidate import Candidate, Round
from ..base.pool import Pool
from ..base.session import Calls, Run, Session
from ..lockstep.model_calls import other_calls, record_at
from ..noise.proposals import GaussianProposal, NoiseProposal
from ..noise.recipe import BranchPoint, Recipe, derived_seed
from ..scoring.scorer import Scorer, Shown
from . import status_text
from .control import CannotBranch
from .evaluator import Evaluator
from .latent_store import LatentStore
from .observer import SearchObserver
from .planner import check_levels
from .replay import replay
from .user_requests import UserRequests

NO_SCORES = "the verifier gave no candidate a score: candidate 0, your own seed, is what the search returns"


class Method(Protocol):
    """A search algorithm: a frozen spec that crosses a socket."""

    name: str

    def run(self, search: Search) -> Iterator[Round]:
        """Spend the budget; yield after every group of candidates."""


class Search(Evaluator):
    """The state of one search.

    Attributes:
        seed: the user's seed.
        lasting_levels: noise levels at which the best run so far stays recorded, for the next method of a chain.
        parents: of how many of the best finished candidates a method may start branches; a method sets it before it starts any.
        pinned: finished candidates that it starts branches of for a while, whoever is better by now.
        keep: how many best candidates are wanted.
        latent_store: the latents and records of the finished.
        restored: NFE that were spent again to make those that were dropped; see `restore`.
        rounds: what was told so far.
        finals: what the comparison of finalists said, as the report has it; None if there was none.
    """

    def __init__(
        self, session: Session, scorer: Scorer, budget: Budget, baseline: Recipe, seed: int,
        *, keep: int = 1, on_best: Callable[[Tensor, float], None] = lambda images, score: None,
        user_requests: UserRequests | None = None, observer: SearchObserver | None = None, connected: bool = False,
        large_rounds: bool = False,
    ) -> None:  # fmt: skip
        """Prepare a search.

        Args:
            session: runs candidates.
            scorer: scores them.
            budget: what may be spent.
            baseline: recipe of candidate 0.
            seed: the seed all others are derived from.
            keep: how many best candidates are wanted: their pictures stay at hand.
            on_best: told the pictures (F, H, W, 3) of every new best, and its score.
            user_requests: what the user asks of it; None for nothing.
            observer: whom to tell what happens; None for nobody.
            connected: new noise is what the connected NOISE object makes at a seed, not what stock `prepare_noise` draws.
            large_rounds: methods go in fewer, larger rounds: models are swapped in each.
        """
        super().__init__(session, scorer, budget, Candidate(0, baseline), user_requests, observer, keep, on_best)
        self.seed, self._connected, self.large_rounds = seed, connected, large_rounds
        self._unscored: list[Candidate] = []  # finished ones whose pictures are scored with those that follow
        self.lasting_levels: tuple[float, ...] = ()
        self.parents, self.keep, self.latent_store, self.restored = 1, keep, LatentStore(), 0
        self.pinned: Sequence[Candidate] = ()
        self.rounds: list[Round] = []
        self.finals: dict[str, Any] | None = None
        self._sampling = 0.0  # seconds

    # What methods say.

    def propose(self, proposal: NoiseProposal | None = None, pivot: Candidate | None = None) -> Candidate:
        """Draw a new candidate, by default independent of all others."""
        pivot = pivot or self.start_candidate
        index = len(self.candidates)
        recipe = (proposal or GaussianProposal()).propose(self.seed, index, pivot.recipe)
        if self._connected and isinstance(recipe.start, int):
            recipe = replace(recipe, connected=True)
        local = recipe.start == pivot.recipe.start and (bool(recipe.moves) or recipe.seed == pivot.recipe.seed)
        self.candidates.append(Candidate(index, recipe, parent=pivot.index if local else None))
        return self.candidates[-1]

    def branch(self, parent: Candidate, sigma: float, renoise_to: float | None = None) -> Candidate:
        """Start a new candidate at a model call of another's run, with step noise of its own.

        Args:
            parent: the candidate it leaves, suspended or finished.
            sigma: the noise level of that call; one of `branch_levels`.
            renoise_to: the higher noise level to start from, by the forward process; None adds nothing.

        Raises:
            CannotBranch: the parent's run made no model call there.
        """
        run = self._runs.get(parent.index)
        if run is None and parent.can_branch_at(sigma) and not parent.records:
            self.restore(parent)
        record = record_at(parent.records if run is None else run.records, sigma)
        if record is None and parent.status == "cut off":
            raise CannotBranch(f"candidate {parent.index} took more model calls than planned and was cut off")
        if record is None:
            raise CannotBranch(
                f"sampler: it makes no model call at the noise level {sigma:g} of the sigmas, so that no run can branch "
                "there: use a sampler that does (euler, euler_ancestral, dpmpp_2m), or another method"
            )
        index = len(self.candidates)
        noise_seed, seed = derived_seed(self.seed, index, "renoise"), derived_seed(self.seed, index)
        cut = BranchPoint(sigma, sigma if renoise_to is None else renoise_to, noise_seed, seed)
        self.candidates.append(Candidate(index, parent.recipe.branched(cut), parent=parent.index))
        self._runs[index] = self.session.branch(record, cut, self.branch_levels + self.lasting_levels)
        return self.candidates[-1]

    def branchable_at(self, sigma: float) -> list[Candidate]:
        """Return the finished candidates whose runs can be left at a noise level, best first; last those without a score."""
        return self.latent_store.branchable_at(sigma, self.finished)

    def release_records(self, candidates: Iterable[Candidate] | None = None, but: Sequence[Candidate] = ()) -> None:
        """Have ended candidates never left again, but for the best that the next of a chain can leave.

        That need not be the best of all: an ensemble's order may change when its run is forgotten already.

        Args:
            candidates: which; None for all.
            but: of these none.
        """
        best = [one for level in self.lasting_levels for one in self.branchable_at(level)[:1]]
        self.latent_store.release_records(candidates, (*but, *self._unscored, *best))

    def render(
        self, candidates: Sequence[Candidate], fresh: int = 0, proposal: NoiseProposal | None = None, later: bool = False,
        *, draw: Callable[[], Candidate] | None = None, cost: int = 0,
    ) -> Iterator[Round]:  # fmt: skip
        """Run candidates to their end and score them, as far as the budget reaches; one round for each group that is scored.

        Args:
            candidates: those that are there; finished ones are left out.
            fresh: how many new ones to run after them, each drawn only when it can be paid for.
            proposal: how these are drawn.
            later: nothing is decided by their scores yet: in large rounds they are scored with what follows.
            draw: makes one of them, in the place of a proposal.
            cost: NFE of one of them; 0 for that of a full run.
        """
        draw = draw or (lambda: self.propose(proposal))
        todo = [c for c in candidates if c.status != "finished"]
        while (todo or fresh) and not self.should_stop():
            drawn = [draw() for _ in range(min(fresh, self._room(cost) - len(todo)))]
            todo, fresh = todo + drawn, fresh - len(drawn)
            wave = todo[: self._payable(todo)][: self.group - len(self._unscored) if self.scores_later else None]
            if not wave:
                self.stopped = self.budget.why_short()
                break
            todo = todo[len(wave) :]
            self.say(status_text.rendering(wave))
            try:
                self._advance(self.session, wave, 0.0)
            except BaseException:
                self._rescue(wave)
                raise
            self._end(wave)
            if not self.scores_later or len(self._unscored) >= self.group:
                yield from self.score()
            self.raise_if_halted()
        self.prune([c for c in todo if c.index in self._runs], status="cut off")
        if not (later and self.scores_later):
            yield from self.score()

    def score(self) -> Iterator[Round]:
        """Score the finished candidates that wait for it."""
        if self._unscored:
            self._judged_with_waiting([])
            yield self.rounds[-1]

    def raise_if_halted(self) -> None:
        if self.budget.halted:
            list(self.score())
        super().raise_if_halted()

    def preview(self, candidates: Sequence[Candidate], until_sigma: float, pool: Pool | None = None) -> Pool:
        """Run candidates down to a noise level, score the pictures they promise, and compare these.

        Returns:
            The pool of those that got so far; `pool`, an earlier look at this level, if it is given.
        """
        self.say(status_text.looking(len(candidates)))
        self._advance(self.session, candidates, until_sigma)
        self.raise_if_halted()
        seen = [c for c in candidates if c.index in self._runs and self._runs[c.index].latent is not None]
        return self._score_look(seen, [self._runs[c.index].latent for c in seen], {"sigma": until_sigma}, pool)

    def draft(self, candidates: Sequence[Candidate], steps: int, pool: Pool | None = None) -> Pool:
        """Render candidates with fewer steps, score and compare these drafts.

        Returns:
            The pool of those that were drawn; `pool`, of earlier drafts, if it is given.
        """
        full = [(c, c.gaps, c.predictions) for c in candidates if c.status == "finished"]
        session = self.session.draft(steps)
        check_levels(session, self.scorer)
        self.say(status_text.drafting(len(candidates), steps))
        self._advance(session, candidates, 0.0)
        self.raise_if_halted()
        drawn = [c for c in candidates if c.index in self._runs]
        for candidate in drawn:
            candidate.status = "finished" if candidate.status == "finished" else "draft"
        latents = [self._runs.pop(c.index).latent for c in drawn]
        pool = self._score_look(drawn, latents, {"draft_steps": steps}, pool)
        for candidate in drawn:
            candidate.predictions = {}
        for candidate, gaps, predictions in full:
            candidate.gaps, candidate.predictions = gaps, predictions
        return pool

    def should_stop(self) -> bool:
        """Whether a stop rule ended the search; notes which."""
        if (leader := self.best) is not None:
            best, score = leader
            since = len(self.finished.members) - 1 - self.finished.place_of(best)
            self.stopped = self.ended or self.stopped or self.budget.why_over(score, since)
        elif self._unscored and not self.stopped:
            self.stopped = self.budget.why_over(-math.inf, 0)
        return bool(self.stopped)

    # What the node needs at the end.

    @property
    def seconds(self) -> dict[str, float]:
        """What time was spent on, verifiers aside."""
        return {"sampling": self._sampling, "decoding": self.image_cache.seconds}

    def choose(self, candidate: Candidate) -> None:
        """Make sure that a candidate is rendered and scored, since the user wants it; beyond the budget if need be."""
        if candidate.status == "finished":
            self.restore(candidate)
            return
        self.say(status_text.rendering([candidate]))
        before = self.budget.nfe
        with self.budget.unlimited():
            self._runs[candidate.index] = replay(self.session, candidate.recipe)
        candidate.nfe += self.budget.nfe - before
        self._end([candidate])
        list(self.score())

    def restore(self, candidate: Candidate) -> None:
        """Make what a finished candidate no longer holds again; from the journal, or by model calls that are counted apart."""
        there = candidate.latent is not None and len(candidate.records) == len(candidate.levels)
        if there or candidate.status != "finished":
            return
        before = self.budget.redone
        with self.budget.unlimited(), self.budget.redo():
            self.latent_store.take(candidate, replay(self.session, candidate.recipe, candidate.levels))
        self.restored += self.budget.redone - before

    def give_up(self) -> None:
        """End all runs that a method left on their way, and what it had put aside."""
        self.prune([c for c in self.candidates if c.index in self._runs], status="cut off")
        self.branch_levels, self.lasting_levels, self.budget.reserved = (), (), 0
        self.parents, self.pinned = 1, ()

    def close(self) -> None:
        """End all suspended runs."""
        for index in list(self._runs):
            self._runs.pop(index).close()

    # Inside.

    def _advance(self, session: Session, candidates: Sequence[Candidate], until_sigma: float) -> None:
        self.commands.step += 1
        self.checkpoint()
        self.prune([c for c in candidates if c.index in self._runs and not self._may_run(c)], status="cut off")
        candidates = [c for c in candidates if self._may_run(c)]
        for candidate in candidates:
            if candidate.index not in self._runs:
                self._runs[candidate.index] = session.start(candidate.recipe, self.branch_levels + self.lasting_levels)
        ended_before = self.commands.ended([c.index for c in candidates])
        self._run(session, [c for c in candidates if c.index not in ended_before], until_sigma)
        self._end_again([c for c in candidates if c.index in ended_before], ended_before)
        runs = [self._runs[c.index] for c in candidates]
        if until_sigma <= 0.0:
            self.note_costs(len(session.sigmas) - 1, [run.nfe for run in runs if run.finished])
            lost = [c for c, run in zip(candidates, runs, strict=True) if not run.finished]
        else:
            lost = [c for c, run in zip(candidates, runs, strict=True) if run.latent is None or not self._may_run(c)]
            lost = [c for c in lost if c is not self.baseline]  # it goes on, looked at or not
        unseen = self.budget.halted and (until_sigma > 0.0 or session is not self.session)  # looks and drafts are not scored then
        left = {c.index: c.nfe for c in (candidates if unseen else lost)}
        self.commands.note(left, (c.index for c in candidates if c.index not in left))
        self.commands.step += 1
        self.repeat_commands()
        self.prune(lost, status="cut off")

    def _run(self, session: Session, candidates: Sequence[Candidate], until_sigma: float) -> None:
        """Advance the runs of candidates, and note what that took."""
        runs = [self._runs[c.index] for c in candidates]
        self._lead(session, candidates)
        before = [run.nfe for run in runs]
        started = self.budget.clock()
        try:
            session.advance(runs, until_sigma)
        finally:
            self._sampling += self.budget.clock() - started
            for candidate, run, nfe in zip(candidates, runs, before, strict=True):
                candidate.nfe += run.nfe - nfe
                candidate.gaps, candidate.predictions = list(run.gaps) if session.gaps_for else (), run.predictions
        if session is self.session:
            self._compare(candidates, runs)

    def _end_again(self, candidates: Sequence[Candidate], calls: Mapping[int, int]) -> None:
        """Leave runs where a command of the user ended them in an earlier search, at the cost of that time."""
        for candidate in candidates:
            self._runs[candidate.index].leave(calls[candidate.index])
            self.budget.recall(calls[candidate.index] - candidate.nfe)
            candidate.nfe = calls[candidate.index]

    def _compare(self, candidates: Sequence[Candidate], runs: Sequence[Run]) -> None:
        """Note the first whole run that made other calls than candidate 0's, or what the session found."""
        leader = self.session.leader
        if self.uneven or not self.session.fixed_steps or leader is None:
            return
        for candidate, run in zip(candidates, runs, strict=True):
            ended = run.finished and leader.finished
            if not candidate.recipe.cuts and (why := other_calls(run.levels, leader.levels, ended)):
                self._note_uneven(f"candidate {candidate.index}: {why}")
                return
        if self.session.uneven:
            self._note_uneven(self.session.uneven)

    def _lead(self, session: Session, candidates: Sequence[Candidate]) -> None:
        """Let candidate 0's run, or the first draft, be the one whose calls all others are believed to make."""
        if session is self.session and self.baseline in candidates:
            session.leader = self._runs[self.baseline.index]
        elif session.leader is None and candidates:
            session.leader = self._runs[candidates[0].index]

    def _end(self, wave: Sequence[Candidate]) -> None:
        """Take over what came of runs that ended; their pictures are yet to be scored."""
        done = [c for c in wave if c.index in self._runs]
        for candidate in done:
            run = self._runs.pop(candidate.index)
            candidate.status = "finished"
            self.latent_store.take(candidate, run)
            if candidate is self.baseline:
                self.budget.run_cost, self._levels = max(1, candidate.nfe), list(run.levels)
                self.session.leader = Calls(run.levels, run.nfe)
                self._in_parts = len(run.odd) > 0 and len(run.levels) - len(run.odd) < self.steps
        self._unscored += done

    def _judged_with_waiting(self, shown: Sequence[Shown]) -> Tensor:
        done, self._unscored = self._unscored, []
        entered: list[Candidate] = []

        def told(group: Sequence[Shown], raw: Tensor) -> None:
            some = group[: len(done) - len(entered)]
            if some:
                self._take_scores(some, raw[: len(some)])
                entered.extend(one.candidate for one in some)

        try:
            raw = self._judged([*self._to_show(done, [c.latent for c in done], {}), *shown], told)
        except BaseException:
            others = {one.candidate.index for one in shown}
            self._enter_answered(entered, [c for c in done[len(entered) :] if c.index not in others])
            raise
        if done:
            self._end_round(done)
        return raw[len(done) :]

    def _take_scores(self, some: Sequence[Shown], raw: Tensor) -> None:
        """Let finished candidates have their scores, and keep the pictures of the best."""
        self._enter([one.candidate for one in some], raw)
        if self.scorer.needs_pictures:
            self.image_cache.add({one.candidate.index: one.images for one in some if one.images is not None})
            self.image_cache.keep(self._best_shown())

    def _end_round(self, done: Sequence[Candidate]) -> None:
        """Tell of finished candidates that have their scores."""
        self.ended = self.ended or self.scorer.ended
        self._grown(self.finished, done)
        if self.lasting_levels and not self.branch_levels:
            self.release_records()
        self._shed()
        self._tell(done)

    def _shed(self) -> None:
        """Drop the latents of candidates that cannot come out any more, and what only branches of them would start from.

        A person may be shown any candidate again.
        """
        if self.scorer.sittings:
            return
        dear, images = self.scorer.dear, max(self.budget.images, len(self.finished.members))
        finalists = getattr(self.scorer.verifier, "finalists", 0) if dear is None else self.scorer.finalists_among(images)
        self.latent_store.shed(
            self.finished,
            max(self.keep, finalists),
            self.parents,
            {self.baseline, self.start_candidate, *self.pinned, *self._unscored},
        )

    def _best_shown(self) -> list[tuple[Candidate, float]]:
        """Return the best candidate and those whose pictures are at hand, best first."""
        indices = {*self.image_cache.at_hand, self.best[0].index}
        return self.finished.in_order_of(self.candidates[index] for index in indices)

    def _enter(self, done: Sequence[Candidate], raw: Tensor) -> None:
        for candidate, standing in zip(done, self.finished.add(done, raw), strict=True):
            candidate.standing = standing
        self.scorer.revise(self.finished)

    def _enter_answered(self, entered: Sequence[Candidate], others: Sequence[Candidate]) -> None:
        """After a failure or a cancel, count those of a wave that every part had scored before it, beside those `entered`."""
        answered = [c for c in others if not self.scorer.asks_about(self.scorer.answered.get(c.index, {}))]
        if answered:
            raw = torch.tensor([[self.scorer.answered[c.index][name] for name in self.scorer.names] for c in answered])
            self.scorer.enter(answered, raw)
            self._enter(answered, raw)
        if entered or answered:
            self.scored += [*entered, *answered]
            self.observer.changed(self)
            self._tell([*entered, *answered])

    def _rescue(self, wave: Sequence[Candidate]) -> None:
        """After a failure, score what ended before it: runs that cannot share calls go one after another."""
        if self.session.looks_halfway:  # they go together, and what they hold may be of an earlier look
            return
        with suppress(Exception):  # the failure that is raised is the first
            runs = [(c, self._runs[c.index]) for c in wave]
            self._end([c for c, run in runs if run.finished and run.latent is not None])
            list(self.score())

    def _tell(self, done: Sequence[Candidate]) -> None:
        best, score = self.best
        self.notes[:] = [said for said in self.notes if said != NO_SCORES]
        if score != score:
            self.notes.append(NO_SCORES)
        indices = tuple(c.index for c in done)
        told = Round(len(self.rounds), indices, best.index, score, self.budget.nfe, self.budget.seconds)
        self.rounds.append(told)
