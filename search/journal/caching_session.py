"""A session that takes from a journal what was computed before, and makes only the runs that are not there.

The search above it goes through the very same steps as without a journal, with the same counts: calls that the journal
spares are counted as if they were made. Runs are lazy: they are made when a model call is needed that nobody knows. A
run that is known up to a level and must go on, or whose branch must, is then brought back there by calls that are
counted apart, since the search has paid for them once.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from ..base.budget import Budget
from ..base.candidate import finite_or_none
from ..base.levels import same_level
from ..base.session import Run, Session
from ..noise.recipe import BranchPoint, Recipe
from .journal import Journal, entry_name
from .lazy_run import Known, LazyRecord, LazyRun, records_of, run_to
from .score_cache import ScoreCache

ON_ITS_WAY = object()  # the latent of a recalled look: it was scored, and is not looked at again
FINISHED: Mapping[str, Any] = {}  # what a whole run is, see `entry_name`


class KeptRun(NamedTuple):
    """What is left on disk of a finished run; see `session.Run`."""

    latent: Any
    records: Sequence[Any] = ()
    segment_start: Any = None
    predictions: Mapping[float, Any] = {}


class Codec(Protocol):
    """How a session's finished runs become bytes."""

    def pack(self, run: Run | KeptRun) -> bytes:
        """Return what `unpack` needs."""
        ...

    def unpack(self, data: bytes, recipe: Recipe) -> KeptRun:
        """Return what was packed; of the records enough to branch from, not to answer a twin."""
        ...


@dataclass
class CacheContext:
    """What a recalling session and its drafts work with.

    Attributes:
        journal: of the search.
        codec: for its states.
        budget: calls are counted on.
        book: scores of the search's verifier; None if they are not to be recalled, so that looks are not either.
        given: hash of the connected noise; see `entry_name`.
        candidates: finished runs that were taken from the journal.
        only_known: nothing new is computed, but for what the user asks for by name: the search halts where it would.
    """

    journal: Journal
    codec: Codec
    budget: Budget
    book: ScoreCache | None = None
    given: str = ""
    candidates: int = 0
    only_known: bool = False

    def name(self, recipe: Recipe, what: Mapping[str, Any]) -> str:
        """Return the name of a run, see `entry_name`."""
        return entry_name(recipe, what, self.given)

    def knows(self, recipe: Recipe) -> bool:
        """Whether anything of a candidate was computed, see `Journal.knows`."""
        return self.journal.knows(recipe, self.given)


class CachingSession:
    """A `session.Session` over another; what it does not know of itself it takes from that."""

    def __init__(self, inner: Session, ledger: CacheContext, what: Mapping[str, Any] | None = None) -> None:
        """Wrap a session; `what` its whole runs are: {} for finished candidates, {"draft_steps": n} for drafts."""
        object.__setattr__(self, "inner", inner)
        object.__setattr__(self, "ledger", ledger)
        object.__setattr__(self, "_what", dict(what or {}))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.inner, name, value)

    def start(self, recipe: Recipe, keep_records: Sequence[float] = ()) -> LazyRun:
        """Prepare the run of a recipe."""
        return LazyRun(recipe, keep_records)

    def branch(self, record: LazyRecord, cut: BranchPoint, keep_records: Sequence[float] = ()) -> LazyRun:
        """Prepare a run from a call of another."""
        return LazyRun(record.recipe.branched(cut), keep_records, record)

    def draft(self, steps: int) -> CachingSession:
        """Return the session of fewer steps."""
        return CachingSession(self.inner.draft(steps), self.ledger, {"draft_steps": steps})

    def advance(self, runs: Sequence[LazyRun], until_sigma: float = 0.0) -> None:
        """Advance runs; those that the journal knows that far at the cost of nothing but their share of the budget.

        What was written of the runs before, and of what was judged of them, is first seen onto the disk: so it is once a
        wave, or once a run where runs cannot share calls.
        """
        self.ledger.journal.sync()
        waiting = [run for run in runs if not (run.finished or run.closed)]
        found = [(run, self._find(run, until_sigma)) for run in waiting]
        cost = sum(known.nfe - run.nfe for run, known in found if known is not None)
        if not self.ledger.budget.allows(cost):  # where the budget cuts runs off depends on all that go together
            found = [(run, None) for run in waiting]
        for run, known in found:
            if known is not None:
                self._take(run, known, until_sigma)
        unknown = [run for run, known in found if known is None]
        for group in self._groups(unknown):
            if left := [run for run in group if not run.closed]:  # the user may have dropped some since
                self.ledger.journal.sync()
                self._make(left, until_sigma)

    def recall(self, recipe: Recipe, keep: Sequence[float] = ()) -> LazyRun | None:
        """Return the finished run of a recipe, whatever it branched from, if the journal has it; kept at some levels."""
        run = LazyRun(recipe, keep)
        known = self._find(run, 0.0)
        if known is None:
            return None
        self._take(run, known, 0.0)
        return run

    # What the journal knows.

    def _find(self, run: LazyRun, until_sigma: float) -> Known | None:
        """Return what is known of a run that is advanced to a level, if that is all that a search would see of it."""
        what = self._told(until_sigma)
        line = self.ledger.journal.run(self.ledger.name(run.recipe, what))
        if line is None or (self.inner.gaps_for and "gaps" not in line):
            return None
        gaps = [math.nan if gap is None else gap for gap in line.get("gaps", ())]
        known = Known(line["calls"], until_sigma <= 0.0, ON_ITS_WAY, line["levels"], line.get("odd", ()), gaps)
        known.records = records_of(run, line["levels"])
        if line.get("blank"):
            known.latent = None
            return known
        if what and self.ledger.book is not None and self.ledger.book.has(run.recipe, what):
            return known
        noted = set(self.inner.prediction_levels) <= set(line.get("noted", ()))
        kept = self._kept(run.recipe, what) if noted else None
        if kept is None:
            return None
        known.latent, known.segment_start, known.predictions = kept.latent, kept.segment_start, kept.predictions
        for record in known.records:
            _fill(record, kept)
        return known

    def _take(self, run: LazyRun, known: Known, until_sigma: float) -> None:
        """Let a run be what the journal says of it, and count what that spares."""
        self.ledger.budget.recall(known.nfe - run.nfe)
        if known.finished and not self._what and not self.ledger.budget.redoing:
            self.ledger.candidates += 1
        run.learn(known, until_sigma)

    def _kept(self, recipe: Recipe, what: Mapping[str, Any] = FINISHED) -> KeptRun | None:
        data = self.ledger.journal.state(self.ledger.name(recipe, what))
        return None if data is None else self.ledger.codec.unpack(data, recipe)

    def _told(self, until_sigma: float) -> dict[str, Any]:
        return {**self._what, "sigma": until_sigma} if until_sigma > 0.0 else self._what

    # What has to be made.

    def _groups(self, runs: Sequence[LazyRun]) -> list[list[LazyRun]]:
        """Return runs as they share calls: the others are made one after another anyway, and are written down as they end."""
        if not self.inner.looks_halfway:
            return [[run] for run in runs]
        groups: defaultdict[Any, list[LazyRun]] = defaultdict(list)
        for run in runs:
            groups[run.recipe.jitter].append(run)
        return list(groups.values())

    def _make(self, runs: Sequence[LazyRun], until_sigma: float) -> None:
        """Advance real runs, and write down what came of them."""
        budget = self.ledger.budget
        if self.ledger.only_known and not budget.free:
            budget.halted = True
            return
        if not self._embody(runs):
            return
        runs = [run for run in runs if not run.closed]
        budget.refused = False
        self.inner.advance([run.real for run in runs], until_sigma)
        for run in runs:
            if run.finished and not run.closed:  # perhaps at a look already, if that is at the last call
                self._write(run, 0.0)
            if until_sigma > 0.0 and not (run.closed or budget.refused):
                self._write(run, until_sigma)

    def _write(self, run: LazyRun, until_sigma: float) -> None:
        what, ledger = self._told(until_sigma), self.ledger
        line: dict[str, Any] = {"recipe": json.loads(run.recipe.to_json()), "what": what, "calls": run.nfe}
        line |= {"levels": list(run.levels), "noted": list(self.inner.prediction_levels)}
        if run.latent is None:  # a look that shows nothing
            line["blank"] = True
        if run.odd:
            line["odd"] = list(run.odd)
        if self.inner.gaps_for:
            line["gaps"] = [finite_or_none(gap) for gap in run.gaps]
        ledger.journal.add_run(self.ledger.name(run.recipe, what), line, self._state(run, what))

    def _state(self, run: LazyRun, what: Mapping[str, Any]) -> bytes:
        """Return what is to be kept of a run: of a look or a draft what is judged, if its scores are recalled."""
        if not what:
            return self.ledger.codec.pack(run.real)
        if self.ledger.book is None or run.latent is None:
            return b""
        return self.ledger.codec.pack(KeptRun(run.latent, (), None, run.predictions))

    def _embody(self, runs: Sequence[LazyRun]) -> bool:
        """Make real runs of those that are none yet, and bring them to where they are known to be, many at once.

        Returns:
            Whether there are; not if the user ended the search while what they branch from was made again.
        """
        new = [run for run in runs if run.real is None]
        self._resolve([run.origin for run in new if run.origin is not None])
        if any(run.origin is not None and run.origin.real is None for run in new):
            return False
        made = [(run, self._begin(run)) for run in new]
        back: defaultdict[float, list[Run]] = defaultdict(list)
        for run, real in made:
            if self._level_back(run) < math.inf:
                back[self._level_back(run)].append(real)
        try:
            with self.ledger.budget.redo():
                for level in sorted(back, reverse=True):
                    self.inner.advance(back[level], level)
        except BaseException:
            for _, real in made:
                real.close()
            raise
        for run, real in made:
            run.embody(real)
        return True

    def _begin(self, run: LazyRun) -> Run:
        if run.origin is None:
            return self.inner.start(run.recipe, run.keep)
        return self.inner.branch(run.origin.real, run.recipe.cuts[-1], run.keep)

    def _level_back(self, run: LazyRun) -> float:
        """Return the level down to which calls are made again: that of a twin's first, too, if nobody can answer it."""
        if run.reached == math.inf and run.origin is not None and run.origin.stored:
            cut = run.recipe.cuts[-1]
            return cut.sigma if cut.renoise_to == cut.sigma else math.inf
        return run.reached

    def _resolve(self, records: Sequence[LazyRecord]) -> None:
        """Give records their real ones: from disk, or by runs that are made again down to them."""
        for record in records:
            if record.real is None and (kept := self._kept(record.recipe)) is not None:
                _fill(record, kept)
        missing: defaultdict[tuple[Recipe, float], list[LazyRecord]] = defaultdict(list)
        for record in records:
            if record.real is None:
                missing[record.recipe, record.sigma].append(record)
        if not missing:
            return
        runs = [run_to(*wanted) for wanted in missing]
        try:
            if not self._embody(runs):
                return
            with self.ledger.budget.redo():
                for level in sorted({run.keep[0] for run in runs}, reverse=True):
                    self.inner.advance([run.real for run in runs if run.keep[0] == level], level)
            for run, wanted in zip(runs, missing.values(), strict=True):
                real = next((record.real for record in run.records if same_level(record.sigma, run.keep[0])), None)
                if real is None and not self.ledger.budget.halted:
                    raise ValueError(f"sampler: a run that was made again made no model call at the noise level {run.keep[0]:g}")
                for record in wanted:
                    record.real = real
        finally:
            for run in runs:
                run.close()


def _fill(record: LazyRecord, kept: KeptRun) -> None:
    real = next((one for one in kept.records if same_level(one.sigma, record.sigma)), None)
    record.real, record.stored = real, real is not None
