"""The search itself: candidates are proposed, run, decoded, scored and compared under one budget.

A method is a small program over the verbs of `Search`: propose, render, preview, draft, prune. It never touches models, pictures
or the budget's arithmetic; the search never knows which method it serves. What it is made of has one owner each: `Planner` reads
what is affordable, `Runs` holds runs, `Evaluator` scores, `SearchControl` has what the user asks, and `Search` lets them work
together. None of them knows `Search`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from ..base.budget import Budget
from ..base.candidate import Candidate, Round
from ..base.pool import Pool
from ..base.session import Session
from ..noise.proposals import GaussianProposal, NoiseProposal
from ..noise.recipe import BranchPoint, Recipe, derived_seed
from ..scoring.image_cache import ImageCache
from ..scoring.scorer import Scorer, Shown
from . import status_text
from .control import FINISHED, Discard, Event, Favor, Finish, Halted, Ignored, SearchControl, TakeBack
from .evaluator import Evaluator, EvaluatorHooks
from .observer import NullObserver, SearchObserver
from .planner import Planner, check_levels
from .runs import Runs
from .user_requests import UserRequests

NO_SCORES = "the verifier gave no candidate a score: candidate 0, your own seed, is what the search returns"


class Method(Protocol):
    """A search algorithm: a frozen spec that crosses a socket."""

    name: str

    def run(self, search: Search) -> Iterator[Round]:
        """Spend the budget; yield after every group of candidates."""


@dataclass(frozen=True)
class SearchSettings:
    """What a search is asked for.

    Attributes:
        baseline: recipe of candidate 0.
        seed: the user's seed, from which all others are derived.
        keep: how many best candidates are wanted: their pictures stay at hand.
        on_best: told the pictures (F, H, W, 3) of every new best, and its score.
        connected: new noise is what the connected NOISE object makes at a seed, not what stock `prepare_noise` draws.
        large_rounds: methods go in fewer, larger rounds: models are swapped in each.
    """

    baseline: Recipe
    seed: int
    keep: int = 1
    on_best: Callable[[Tensor, float], None] = lambda images, score: None
    connected: bool = False
    large_rounds: bool = False


class Search:
    """One search.

    Attributes:
        session, scorer, budget: what it works with.
        settings: what it is asked for.
        control: what the user asks of it while it runs.
        observer: is told what happens.
        candidates: all so far, by index.
        baseline: candidate 0, the user's own noise and seed.
        start_candidate: what a method starts from: candidate 0, or the winner of the method before it in a chain.
        runs, planner, evaluator: see there.
        method: name of the method that runs; of a chain, of the part that does.
        notes: what the user should know, in words.
        stopped: why it ended before its budget; empty if it did not. A chain asks the stop rules anew for its next method.
        ended: the like, for good.
        rounds: what was told so far.
        finals: what the comparison of finalists said, as the report has it; None if there was none.
    """

    def __init__(
        self, session: Session, scorer: Scorer, budget: Budget, settings: SearchSettings, control: SearchControl | None = None,
        observer: SearchObserver | None = None,
    ) -> None:  # fmt: skip
        """Prepare a search.

        Args:
            session: runs candidates; notes what the scorer needs, and asks before every model call what the user wants.
            scorer: scores them.
            budget: what may be spent.
            settings: what is asked for.
            control: what the user asks; None for nothing.
            observer: whom to tell what happens; None for nobody.
        """
        self.session, self.scorer, self.budget, self.settings = session, scorer, budget, settings
        self.control, self.observer = control or SearchControl(), observer or NullObserver()
        self.baseline = self.start_candidate = Candidate(0, settings.baseline)
        self.candidates = [self.baseline]
        self.runs = Runs(session, budget, self.baseline)
        self.planner = Planner(session, scorer, budget, self.runs, lambda: self.start_candidate, settings.large_rounds)
        hooks = EvaluatorHooks(self.checkpoint, self.say, self.runs.restore, lambda *told: self.observer.shown(*told))
        images = ImageCache(session, settings.keep, settings.on_best, budget.clock)
        self.evaluator = Evaluator(scorer, budget, images, self.candidates, hooks, settings.large_rounds)
        self.method = self.stopped = self.ended = ""
        self.notes: list[str] = []
        self.rounds: list[Round] = []
        self.finals: dict[str, Any] | None = None
        self._watch: Callable[[Pool], None] | None = None
        session.note_for_scoring("", ())
        session.ask_before_calls(self.checkpoint)
        self.expect(scorer)
        scorer.connect(self.evaluator.shown_again, lambda: self.user_requests.finishing or self.ended == FINISHED)

    # What an observer, a report and a page read; see `SearchView`.

    @property
    def seed(self) -> int:
        """The user's seed."""
        return self.settings.seed

    @property
    def steps(self) -> int:
        """Steps of a full run."""
        return self.planner.steps

    @property
    def running(self) -> set[int]:
        """Candidates that are on their way, by index."""
        return self.runs.running

    @property
    def user_requests(self) -> UserRequests:
        """What the user asks while it runs; may be filled from another thread."""
        return self.control.user_requests

    @property
    def scored(self) -> Sequence[Candidate]:
        """Candidates as they were scored: finished, looked at or drafted."""
        return self.evaluator.scored

    @property
    def finished(self) -> Pool:
        """The pool of fully rendered candidates."""
        return self.evaluator.finished

    @property
    def best(self) -> tuple[Candidate, float] | None:
        """The best candidate and its score; None before any finished."""
        return self.evaluator.best

    @property
    def ranked(self) -> list[tuple[Candidate, float]]:
        """Finished candidates with their scores, best first; finalists, once there are any, before the others."""
        return self.evaluator.ranked

    # What a method says of itself.

    def use_method(self, name: str) -> None:
        """Take the name of the method that runs from now on."""
        self.method = name

    def note(self, *texts: str, once: bool = False) -> None:
        """Let the user know something, in words; `once`: nothing that was said before."""
        self.notes += [text for text in texts if not (once and text in self.notes)]

    def say(self, words: str) -> None:
        """Tell the observer what the method that runs is doing."""
        self.observer.doing(f"{self.method}: {words}" if self.method else words)

    def stop(self, reason: str, override: bool = False) -> None:
        """Say why the search ends before its budget, unless it is said, or in the place of what was said."""
        self.stopped = reason if override else self.stopped or reason

    def end(self, reason: str) -> None:
        """End the search for good: no other method of a chain begins."""
        self.ended = self.ended or reason

    def fall_back(self, reason: str) -> None:
        """Note that the method that runs cannot work here, and free what branches would have started from."""
        self.note(reason)
        self.release_records()

    def start_from(self, candidate: Candidate) -> None:
        """Let methods start from a candidate from now on."""
        self.start_candidate = candidate

    def branching(self, levels: Iterable[float], parents: int = 1) -> AbstractContextManager[None]:
        """Record runs at noise levels for a while: branches start there, of so many of the best finished candidates."""
        return self.runs.scoped(levels=tuple(levels), parents=parents)

    def lasting(self, levels: Iterable[float]) -> AbstractContextManager[None]:
        """Keep the best run so far recorded at further noise levels for a while, for the next method of a chain."""
        return self.runs.scoped(lasting=(*self.runs.scope.lasting, *levels))

    def pinning(self, candidates: Iterable[Candidate]) -> AbstractContextManager[None]:
        """Keep what branches of finished candidates start from for a while, whoever is better by then."""
        return self.runs.scoped(pinned=tuple(candidates))

    @contextmanager
    def budget_share(self, share: float) -> Iterator[None]:
        """Let a part of the search spend a share of the budget and its limits; stop rules are asked anew afterwards."""
        try:
            with self.budget.sharing(share):
                yield
        finally:
            self.stopped = ""

    @contextmanager
    def watching(self, watch: Callable[[Pool], None]) -> Iterator[None]:
        """Tell `watch` every pool that grew for a while; it may end the search."""
        self._watch = watch
        try:
            yield
        finally:
            self._watch = None

    # What a method does.

    def add(self, recipe: Recipe, parent: int | None = None) -> Candidate:
        """Add a candidate to those of the search."""
        self.candidates.append(Candidate(len(self.candidates), recipe, parent=parent))
        return self.candidates[-1]

    def propose(self, proposal: NoiseProposal | None = None, pivot: Candidate | None = None) -> Candidate:
        """Draw a new candidate, by default independent of all others."""
        pivot = pivot or self.start_candidate
        recipe = (proposal or GaussianProposal()).propose(self.seed, len(self.candidates), pivot.recipe)
        if self.settings.connected and isinstance(recipe.start, int):
            recipe = replace(recipe, connected=True)
        local = recipe.start == pivot.recipe.start and (bool(recipe.moves) or recipe.seed == pivot.recipe.seed)
        return self.add(recipe, pivot.index if local else None)

    def branch(self, parent: Candidate, sigma: float, renoise_to: float | None = None) -> Candidate:
        """Start a new candidate at a model call of another's run, with step noise of its own.

        Args:
            parent: the candidate it leaves, suspended or finished.
            sigma: the noise level of that call; one of those of `branching`.
            renoise_to: the higher noise level to start from, by the forward process; None adds nothing.

        Raises:
            CannotBranch: the parent's run made no model call there.
        """
        record, index = self.runs.record_of(parent, sigma), len(self.candidates)
        noise_seed, seed = derived_seed(self.seed, index, "renoise"), derived_seed(self.seed, index)
        cut = BranchPoint(sigma, sigma if renoise_to is None else renoise_to, noise_seed, seed)
        candidate = self.add(parent.recipe.branched(cut), parent.index)
        self.runs.branch(candidate, record, cut)
        return candidate

    def branchable_at(self, sigma: float) -> list[Candidate]:
        """Return finished candidates whose runs a branch can leave at a noise level, best first, those without a score last."""
        return self.runs.branchable_at(sigma, self.finished)

    def release_records(self, candidates: Iterable[Candidate] | None = None, but: Sequence[Candidate] = ()) -> None:
        """Let no branch leave ended candidates any more, but for the best that the next method of a chain can branch from.

        That need not be the best of all: an ensemble's order may change when its run is released already.

        Args:
            candidates: which; None for all.
            but: of these none.
        """
        best = [one for level in self.runs.scope.lasting for one in self.branchable_at(level)[:1]]
        self.runs.release_records(candidates, (*but, *self.evaluator.waiting, *best))

    def prune(self, candidates: Iterable[Candidate]) -> None:
        """End the runs of candidates that are given up."""
        self.runs.prune(candidates)

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
        draw, planner, waiting = draw or (lambda: self.propose(proposal)), self.planner, lambda: len(self.evaluator.waiting)
        todo = [c for c in candidates if c.status != "finished"]
        while (todo or fresh) and not self.should_stop():
            drawn = [draw() for _ in range(min(fresh, planner.room(cost) - len(todo)))]
            todo, fresh = todo + drawn, fresh - len(drawn)
            wave = todo[: planner.payable(todo)][: planner.group - waiting() if planner.scores_later else None]
            if not wave:
                self.stop(self.budget.why_short())
                break
            todo = todo[len(wave) :]
            self.say(status_text.rendering(wave))
            try:
                self._advance(self.session, wave, 0.0)
            except BaseException:
                self._rescue(wave)
                raise
            self.evaluator.wait_for_score(self.runs.take_finished(wave))
            if not planner.scores_later or waiting() >= planner.group:
                yield from self.score()
            self.raise_if_halted()
        self.runs.prune([c for c in todo if c in self.runs], "cut off")
        if not (later and planner.scores_later):
            yield from self.score()

    def score(self) -> Iterator[Round]:
        """Score the finished candidates that wait for it."""
        if self.evaluator.waiting:
            self._score([])
            yield self.rounds[-1]

    def preview(self, candidates: Sequence[Candidate], until_sigma: float, pool: Pool | None = None) -> Pool:
        """Run candidates down to a noise level, score the pictures they promise, and compare these.

        Returns:
            The pool of those that got so far; `pool`, an earlier look at this level, if it is given.
        """
        self.say(status_text.looking(len(candidates)))
        self._advance(self.session, candidates, until_sigma)
        self.raise_if_halted()
        runs = [(c, self.runs.of(c)) for c in candidates]
        seen = [(c, run.latent) for c, run in runs if run is not None and run.latent is not None]
        return self._score_looks([c for c, _ in seen], [latent for _, latent in seen], {"sigma": until_sigma}, pool)

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
        drawn = [c for c in candidates if c in self.runs]
        pool = self._score_looks(drawn, self.runs.take_drafts(drawn), {"draft_steps": steps}, pool)
        for candidate in drawn:
            candidate.note_run(candidate.gaps, {})
        for candidate, gaps, predictions in full:
            candidate.note_run(gaps, predictions)
        return pool

    def should_stop(self) -> bool:
        """Whether a stop rule ended the search; notes which."""
        if (leader := self.best) is not None:
            best, score = leader
            since = len(self.finished.members) - 1 - self.finished.place_of(best)
            self.stopped = self.ended or self.stopped or self.budget.why_over(score, since)
        elif self.evaluator.waiting and not self.stopped:
            self.stop(self.budget.why_over(-math.inf, 0))
        return bool(self.stopped)

    def raise_if_halted(self) -> None:
        """End the method that runs, once what was computed is scored."""
        if self.budget.halted:
            list(self.score())
            raise Halted

    # What runs methods, and what is done at the end.

    def begin(self, method: Method) -> None:
        """Begin to search by a method."""
        self.use_method(method.name)
        self.control.begin(repr(method), repr((self.budget.images, self.budget.rules)))
        self.observer.begin(self)

    def go_on_from(self, candidate: Candidate) -> None:
        """Let another method begin, from a candidate, after one that was halted."""
        self.start_from(candidate)
        self.stopped = ""
        self.budget.resume()

    def abandon(self) -> None:
        """End all runs that a method left on their way, and what it had asked for."""
        self.runs.abandon(self.candidates)

    def finish(self) -> None:
        """Note that no method runs any more: what the user asks from now on is asked of finalists."""
        self.stopped = self.ended or self.stopped
        self.use_method("")
        self.control.next_step(2)

    def expect(self, scorer: Scorer) -> None:
        """Have the session note of runs what a scorer needs: this search's own, or one that is asked at its end.

        Raises:
            ValueError: a part wants a prediction where no run has one.
        """
        check_levels(self.session, scorer)
        levels = (*self.session.prediction_levels, *scorer.needs_predictions.values())
        self.session.note_for_scoring(self.session.gaps_for or scorer.needs_gaps, tuple(dict.fromkeys(levels)))

    def choose(self, candidate: Candidate) -> None:
        """Make sure that a candidate is rendered and scored, since the user wants it; beyond the budget if need be."""
        if candidate.status == "finished":
            self.runs.restore(candidate)
            return
        self.say(status_text.rendering([candidate]))
        self.runs.replay(candidate)
        self.evaluator.wait_for_score(self.runs.take_finished([candidate]))
        list(self.score())

    def set_finals(self, finals: dict[str, Any]) -> None:
        """Take what the comparison of finalists said."""
        self.finals = finals
        self.observer.changed(self)

    def close(self) -> None:
        """End all suspended runs."""
        self.runs.close()

    # What the user asks.

    def checkpoint(self) -> None:
        """Wait while the search is paused, and do what the user asked for; between two model calls, or two pictures."""
        self._repeat_commands()
        self.budget.exclude_wait(self.control.wait(lambda: self.observer.changed(self)))
        for event in self.control.asked(self.candidates):
            self._apply(event)

    # Inside.

    def _repeat_commands(self) -> None:
        for event in self.control.repeated(self.candidates):
            self._apply(event)

    def _apply(self, event: Event) -> None:
        """Do what the user asks."""
        match event:
            case Finish():
                self.end(FINISHED)
                self._halt()
            case Favor(candidate):
                self.control.favor(candidate)
                self._halt()
            case Discard(candidate):
                self.evaluator.discard(candidate)
                self.runs.stop([candidate] if candidate is not self.baseline else [])  # its cost is needed
                self.observer.changed(self)
            case TakeBack(count):
                self.runs.prune(self.candidates[count:])
                del self.candidates[count:]
            case Ignored(note):
                self.note(note)

    def _halt(self) -> None:
        """Spend nothing more, but for what candidate 0 still needs."""
        self.budget.halt()
        if self.budget.run_cost is None:
            self.runs.stop(self.candidates[1:])

    def _advance(self, session: Session, candidates: Sequence[Candidate], until_sigma: float) -> None:
        """Start and advance the runs of candidates; those that may not run, or come to no end, are ended."""
        control, runs, may_run = self.control, self.runs, self.planner.may_run
        control.next_step()
        self.checkpoint()
        runs.prune([c for c in candidates if c in runs and not may_run(c)], "cut off")
        candidates = [c for c in candidates if may_run(c)]
        for candidate in candidates:
            runs.start(candidate, session)
        ended_before = control.ended_before([c.index for c in candidates])
        if uneven := runs.advance(session, [c for c in candidates if c.index not in ended_before], until_sigma):
            self.note(f"runs make other model calls than candidate 0's, and go one by one from there ({uneven})")
        runs.end_again([c for c in candidates if c.index in ended_before], ended_before)
        if until_sigma <= 0.0:
            runs.note_costs(candidates, len(session.sigmas) - 1)
        lost = runs.lost(candidates, until_sigma, may_run)
        unseen = self.budget.halted and (until_sigma > 0.0 or session is not self.session)  # looks and drafts are not scored then
        left = {c.index: c.nfe for c in (candidates if unseen else lost)}
        control.note_step(left, (c.index for c in candidates if c.index not in left))
        control.next_step()
        self._repeat_commands()
        runs.prune(lost, "cut off")

    def _score(self, shown: Sequence[Shown]) -> Tensor:
        """Return the raw scores (n, V) of looks or drafts; finished candidates that wait to be scored are scored with them."""

        def on_scored(candidates: Sequence[Candidate], complete: bool) -> None:
            if complete:
                self._end_round(candidates)
            else:
                self.observer.changed(self)
                self._tell(candidates)

        return self.evaluator.score(shown, on_scored)

    def _score_looks(
        self, candidates: Sequence[Candidate], latents: Sequence[Any], what: dict[str, Any], pool: Pool | None
    ) -> Pool:
        pool = self.evaluator.pool() if pool is None else pool
        if not candidates:
            return pool
        size = self.planner.group  # so many pictures at a time: they are large
        shown = self.evaluator.to_show(candidates, latents, what)
        raw = torch.cat([self._score(shown[first : first + size]) for first in range(0, len(shown), size)])
        self.evaluator.enter_looks(pool, candidates, what, raw)
        self._tell_grown(pool)
        return pool

    def _end_round(self, done: Sequence[Candidate]) -> None:
        """Tell of finished candidates that have their scores."""
        self.end(self.scorer.ended)
        self._tell_grown(self.finished)
        if self.runs.scope.lasting and not self.runs.scope.levels:
            self.release_records()
        self._shed()
        self._tell(done)

    def _tell_grown(self, pool: Pool) -> None:
        self.observer.changed(self)
        if self._watch is not None:
            self._watch(pool)

    def _shed(self) -> None:
        """Drop the latents of candidates that cannot come out any more, and what only branches of them would start from.

        A person may be shown any candidate again.
        """
        if self.scorer.sittings:
            return
        images = max(self.budget.images, len(self.finished.members))
        latents = max(self.settings.keep, self.scorer.finalists_wanted(images))
        self.runs.shed(self.finished, latents, {self.baseline, self.start_candidate, *self.evaluator.waiting})

    def _rescue(self, wave: Sequence[Candidate]) -> None:
        """After a failure, score what ended before it: runs that cannot share calls go one after another."""
        if self.session.looks_halfway:  # they go together, and what they hold may be of an earlier look
            return
        with suppress(Exception):  # the failure that is raised is the first
            runs = [(c, self.runs.of(c)) for c in wave]
            ended = [c for c, run in runs if run is not None and run.finished and run.latent is not None]
            self.evaluator.wait_for_score(self.runs.take_finished(ended))
            list(self.score())

    def _tell(self, done: Sequence[Candidate]) -> None:
        best, score = self.best
        self.notes[:] = [said for said in self.notes if said != NO_SCORES]
        if score != score:
            self.note(NO_SCORES)
        indices = tuple(c.index for c in done)
        self.rounds.append(Round(len(self.rounds), indices, best.index, score, self.budget.nfe, self.budget.seconds))
