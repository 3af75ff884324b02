"""The runs of a search: those under way, what those that ended cost, and what they left behind."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ..base.budget import Budget
from ..base.candidate import Candidate
from ..base.pool import Pool
from ..base.session import Calls, Run, Session
from ..lockstep.model_calls import other_calls, record_at
from ..noise.recipe import BranchPoint
from .latent_store import LatentStore
from .replay import replay


class CannotBranch(ValueError):
    """Ends a method in the middle, since a run made no model call where it was to be left, or not any more."""


class Costs(NamedTuple):
    """What runs of one length took so far.

    Attributes:
        runs: how many ended.
        least, most: NFE of the cheapest and of the most expensive.
    """

    runs: int
    least: int
    most: int


@dataclass(frozen=True)
class BranchScope:
    """Where branches may start for the time being.

    Attributes:
        levels: noise levels at which runs are recorded, so that branches can start there.
        lasting: noise levels at which the best run so far stays recorded, for the next method of a chain.
        parents: of how many of the best finished candidates branches may be started.
        pinned: finished candidates that branches are started of, whoever is better by now.
    """

    levels: tuple[float, ...] = ()
    lasting: tuple[float, ...] = ()
    parents: int = 1
    pinned: tuple[Candidate, ...] = ()


class Runs:
    """The runs of one search, the only one that starts, advances and ends them.

    Attributes:
        scope: where branches may start for the time being.
        levels: noise levels of the model calls of candidate 0's run, in order; none until it ended.
        uneven: what a run did that candidate 0's did not, in words; empty as long as all are believed to make its calls.
        in_parts: whether too few of candidate 0's calls saw the whole latent to tell of it at every step.
        restored: NFE that were spent again to make latents and records that were dropped.
        seconds: time spent sampling.
    """

    def __init__(self, session: Session, budget: Budget, baseline: Candidate) -> None:
        """Start without any; `baseline` is candidate 0."""
        self._session, self._budget, self._baseline = session, budget, baseline
        self._runs: dict[int, Run] = {}
        self._costs: dict[int, Costs] = {}  # NFE of the ended runs, by their steps
        self._store = LatentStore()
        self.scope = BranchScope()
        self.levels: list[float] = []
        self.uneven, self.in_parts = "", False
        self.restored, self.seconds = 0, 0.0

    # What is known of them.

    def __contains__(self, candidate: Candidate) -> bool:
        """Whether a candidate is on its way."""
        return candidate.index in self._runs

    @property
    def running(self) -> set[int]:
        """Candidates that are on their way, by index."""
        return set(self._runs)

    def of(self, candidate: Candidate) -> Run | None:
        """Return the run of a candidate that is on its way; None if it is not."""
        return self._runs.get(candidate.index)

    def costs(self, steps: int) -> Costs | None:
        """Return what ended runs of `steps` steps cost; None before the first ended."""
        return self._costs.get(steps)

    def branchable_at(self, level: float, pool: Pool) -> list[Candidate]:
        """Return the finished candidates whose runs a branch can leave at a noise level, in a pool's order."""
        return self._store.branchable_at(level, pool)

    # What they keep.

    @contextmanager
    def scoped(self, **changes: Any) -> Iterator[None]:
        """Change parts of the scope for a while; if an exception ends a method, until `abandon`: pictures are scored before."""
        before, self.scope = self.scope, replace(self.scope, **changes)
        yield
        self.scope = before

    def abandon(self, candidates: Iterable[Candidate]) -> None:
        """End all runs that a method left on their way, and its scope."""
        self.prune([candidate for candidate in candidates if candidate in self], "cut off")
        self.scope = BranchScope()

    def release_records(self, candidates: Iterable[Candidate] | None, but: Collection[Candidate]) -> None:
        """Let no branch leave ended candidates, all for None, any more, but for some."""
        self._store.release_records(candidates, but)

    def shed(self, pool: Pool, latents: float, always: Collection[Candidate]) -> None:
        """Drop the latents of all but the best candidates of a pool, and what branches would start from; see `restore`.

        Args:
            pool: says who is best.
            latents: of so many the latent is wanted.
            always: keep all.
        """
        self._store.shed(pool, latents, self.scope.parents, {*always, *self.scope.pinned})

    def restore(self, candidate: Candidate) -> None:
        """Make what a finished candidate no longer holds again; from the journal, or by model calls that are counted apart."""
        there = candidate.latent is not None and len(candidate.records) == len(candidate.levels)
        if there or candidate.status != "finished":
            return
        before = self._budget.redone
        with self._budget.unlimited(), self._budget.redo():
            self._store.take(candidate, replay(self._session, candidate.recipe, candidate.levels))
        self.restored += self._budget.redone - before

    # What happens to them.

    def start(self, candidate: Candidate, session: Session) -> None:
        """Start the run of a candidate in a session, the search's own or one for drafts, unless it is on its way."""
        if candidate not in self:
            self._runs[candidate.index] = session.start(candidate.recipe, self._kept)

    def record_of(self, parent: Candidate, sigma: float) -> Any:
        """Return the model call of a candidate's run, suspended or finished, that a branch starts from.

        Raises:
            CannotBranch: the run made no model call at the noise level `sigma`.
        """
        run = self.of(parent)
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
        return record

    def branch(self, candidate: Candidate, record: Any, cut: BranchPoint) -> None:
        """Start the run of a candidate at a model call of another's; see `record_of`."""
        self._runs[candidate.index] = self._session.branch(record, cut, self._kept)

    def advance(self, session: Session, candidates: Sequence[Candidate], until_sigma: float) -> str:
        """Advance the runs of candidates, and note what that took.

        Returns:
            What one of them did that candidate 0's did not, in words, if it is the first; empty otherwise.
        """
        runs = [self._runs[candidate.index] for candidate in candidates]
        self._lead(session, candidates)
        before = [run.nfe for run in runs]
        started = self._budget.clock()
        try:
            session.advance(runs, until_sigma)
        finally:
            self.seconds += self._budget.clock() - started
            for candidate, run, nfe in zip(candidates, runs, before, strict=True):
                candidate.add_calls(run.nfe - nfe)
                candidate.note_run(list(run.gaps) if session.gaps_for else (), run.predictions)
        return self._compare(candidates, runs) if session is self._session else ""

    def end_again(self, candidates: Sequence[Candidate], calls: Mapping[int, int]) -> None:
        """End runs where a command of the user ended them in an earlier search, at the cost of that time."""
        for candidate in candidates:
            more = calls[candidate.index] - candidate.nfe
            self._runs[candidate.index].leave(calls[candidate.index])
            self._budget.recall(more)
            candidate.add_calls(more)

    def note_costs(self, candidates: Sequence[Candidate], steps: int) -> None:
        """Note the NFE of those of the candidates' runs, of `steps` steps, that ended."""
        costs = [run.nfe for run in (self._runs[candidate.index] for candidate in candidates) if run.finished]
        if costs:
            before = self._costs.get(steps, Costs(0, min(costs), max(costs)))
            self._costs[steps] = Costs(before.runs + len(costs), min(before.least, *costs), max(before.most, *costs))

    def lost(self, candidates: Sequence[Candidate], until_sigma: float, may_run: Callable[[Candidate], bool]) -> list[Candidate]:
        """Return those whose runs did not come as far as wanted, or may not go on; candidate 0 goes on, looked at or not."""
        runs = [self._runs[candidate.index] for candidate in candidates]
        if until_sigma <= 0.0:
            return [c for c, run in zip(candidates, runs, strict=True) if not run.finished]
        lost = [c for c, run in zip(candidates, runs, strict=True) if run.latent is None or not may_run(c)]
        return [c for c in lost if c is not self._baseline]

    def take_finished(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Let candidates whose runs are on their way, and came to their end, hold what came of it; return these."""
        done = [candidate for candidate in candidates if candidate in self]
        for candidate in done:
            run = self._runs.pop(candidate.index)
            candidate.finish()
            self._store.take(candidate, run)
            if candidate is self._baseline:
                self._take_baseline(candidate, run)
        return done

    def take_drafts(self, candidates: Sequence[Candidate]) -> list[Any]:
        """Return the latents of drafts that ended; their runs are over."""
        for candidate in candidates:
            candidate.end_draft()
        return [self._runs.pop(candidate.index).latent for candidate in candidates]

    def replay(self, candidate: Candidate) -> None:
        """Bring a candidate's run to its end by its recipe, whatever became of it before; beyond the budget if need be."""
        before = self._budget.nfe
        with self._budget.unlimited():
            self._runs[candidate.index] = replay(self._session, candidate.recipe)
        candidate.add_calls(self._budget.nfe - before)

    def prune(self, candidates: Iterable[Candidate], status: str = "pruned") -> None:
        """End the runs of candidates that are given up."""
        for candidate in candidates:
            run = self._runs.pop(candidate.index, None)
            if run is not None:
                run.close()
            candidate.end(status)

    def stop(self, candidates: Iterable[Candidate]) -> None:
        """End the runs of candidates that are on their way; who runs them takes notice."""
        for candidate in candidates:
            run = self.of(candidate)
            if run is not None and not run.finished:
                run.close()

    def close(self) -> None:
        """End all suspended runs."""
        for index in list(self._runs):
            self._runs.pop(index).close()

    # Inside.

    @property
    def _kept(self) -> tuple[float, ...]:
        """Noise levels at which runs that begin now are recorded."""
        return self.scope.levels + self.scope.lasting

    def _lead(self, session: Session, candidates: Sequence[Candidate]) -> None:
        """Let candidate 0's run, or the first draft, be the one whose calls all others are believed to make."""
        if session is self._session and self._baseline in candidates:
            session.set_leader(self._runs[self._baseline.index])
        elif session.leader is None and candidates:
            session.set_leader(self._runs[candidates[0].index])

    def _compare(self, candidates: Sequence[Candidate], runs: Sequence[Run]) -> str:
        """Note and return the first whole run that made other calls than candidate 0's, or what the session found."""
        leader = self._session.leader
        if self.uneven or not self._session.fixed_steps or leader is None:
            return ""
        for candidate, run in zip(candidates, runs, strict=True):
            ended = run.finished and leader.finished
            if not candidate.recipe.cuts and (why := other_calls(run.levels, leader.levels, ended)):
                self.uneven = f"candidate {candidate.index}: {why}"
                return self.uneven
        self.uneven = self._session.uneven
        return self.uneven

    def _take_baseline(self, candidate: Candidate, run: Run) -> None:
        """Note what all other runs are measured by."""
        self._budget.set_run_cost(candidate.nfe)
        self.levels = list(run.levels)
        self._session.set_leader(Calls(run.levels, run.nfe))
        self.in_parts = len(run.odd) > 0 and len(run.levels) - len(run.odd) < len(self._session.sigmas) - 1
