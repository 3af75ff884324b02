"""The user at the helm: what a search does when it is told to wait, to end, to drop a candidate or to go on around one."""

from __future__ import annotations

from collections.abc import Sequence

from ..base.budget import Budget
from ..base.candidate import Candidate
from ..base.session import Session
from ..noise.recipe import Recipe
from ..scoring.scorer import Scorer
from .commands import CommandLog
from .observer import NullObserver, SearchObserver
from .planner import Planner
from .user_requests import DISCARD, FAVOR, FINISH, UserRequests

FINISHED = "you ended it: the best so far is kept"


class Halted(Exception):
    """Ends a method in the middle, since the user ended the search or wants it to go on elsewhere."""


class CannotBranch(ValueError):
    """Ends a method in the middle, since a run made no model call where it was to be left, or not any more."""


class SearchControl(Planner):
    """The part of a search that listens to the user.

    Attributes:
        candidates: all so far, by index.
        discards: how many of them the user discarded.
        notes: what the user should know, in words.
        stopped: why it ended before its budget; empty if it did not. A chain asks the stop rules anew for its next method.
        ended: the like, for good.
        branch_levels: noise levels at which runs can be left for branches; a method sets them before it starts any.
        user_requests: what the user asks of it while it runs.
        commands: what the user asked of it, and of an earlier search that this one goes on from.
        observer: is told what happens.
        method: name of the method that runs; of a chain, of the part that does.
        favorite: the candidate that the user wants more of, until the search goes on from it.
    """

    def __init__(
        self, session: Session, scorer: Scorer, budget: Budget, baseline: Candidate, user_requests: UserRequests | None = None,
        observer: SearchObserver | None = None,
    ) -> None:  # fmt: skip
        """Have the session ask before every model call."""
        super().__init__(session, scorer, budget, baseline)
        self.candidates = [baseline]
        self.discards = 0
        self.notes: list[str] = []
        self.stopped = self.ended = ""
        self.branch_levels: tuple[float, ...] = ()
        self.user_requests, self.observer = user_requests or UserRequests(), observer or NullObserver()
        self.commands = CommandLog()
        self.method = ""
        self.favorite: Candidate | None = None
        session.checkpoint = self.checkpoint

    def checkpoint(self) -> None:
        """Wait while the search is paused, and do what the user asked for; between two model calls, or two pictures."""
        self.repeat_commands()
        self.budget.waited += self.user_requests.wait(lambda: self.observer.changed(self))
        for what, index in self.user_requests.taken():
            if index is None or 0 <= index < len(self.candidates):
                candidate = None if index is None else self.candidates[index]
                self.commands.add(what, None if candidate is None else candidate.recipe.to_json(), len(self.candidates))
                self._obey(what, candidate)
            else:
                self.notes.append(f"you asked for {what!r} with candidate {index}, which there is not")

    def repeat_commands(self) -> None:
        """Obey what the user asked for at this point of an earlier search, which this one goes on from."""
        for command in self.commands.due():
            if command.halts:
                self.prune(self.candidates[command.count :])
                del self.candidates[command.count :]
            recipe = None if command.recipe is None else Recipe.from_json(command.recipe)
            candidate = None if recipe is None else next((c for c in self.candidates if c.recipe == recipe), None)
            if candidate is None and command.what != FINISH:
                self.notes.append(f"you once asked for {command.what!r} with a candidate that there is not with this budget")
            else:
                self._obey(command.what, candidate)

    def say(self, words: str) -> None:
        """Tell the observer what the method that runs is doing."""
        self.observer.doing(f"{self.method}: {words}" if self.method else words)

    def raise_if_halted(self) -> None:
        """End the method that runs, once what was computed is scored."""
        if self.budget.halted:
            raise Halted

    def go_on_from(self, start_candidate: Candidate) -> None:
        """Let another method begin, from `origin`, after one that was halted."""
        self.start_candidate, self.stopped, self.budget.halted = start_candidate, "", False

    def prune(self, candidates: Sequence[Candidate], status: str = "pruned") -> None:
        """End the runs of candidates that are given up."""
        for candidate in candidates:
            run = self._runs.pop(candidate.index, None)
            if run is not None:
                run.close()
            if candidate.status != "finished":
                candidate.status, candidate.predictions = "discarded" if candidate.discarded else status, {}

    def _note_uneven(self, why: str) -> None:
        """Believe no more that runs make the calls of candidate 0's, and say so."""
        self.uneven = why
        self.notes.append(f"runs make other model calls than candidate 0's, and go one by one from there ({why})")

    def _obey(self, what: str, candidate: Candidate | None) -> None:
        if what == FINISH:
            self.ended = self.ended or FINISHED
            self._halt()
        elif what == FAVOR:
            self.favorite = candidate
            self._halt()
        elif what == DISCARD:
            self._discard(candidate)

    def _halt(self) -> None:
        """Spend nothing more, but for what candidate 0 still needs."""
        self.budget.halted = True
        if self.budget.run_cost is None:
            self._stop(self.candidates[1:])

    def _discard(self, candidate: Candidate) -> None:
        """Take a candidate's score and end its run; candidate 0 is rendered all the same, since what it costs is needed."""
        candidate.discarded, self.discards = True, self.discards + 1
        self._stop([candidate] if candidate is not self.baseline else [])
        self.observer.changed(self)

    def _stop(self, candidates: Sequence[Candidate]) -> None:
        """End the runs of candidates that are on their way; who runs them takes notice."""
        for candidate in candidates:
            run = self._runs.get(candidate.index)
            if run is not None and not run.finished:
                run.close()

    def _may_run(self, candidate: Candidate) -> bool:
        """Whether a candidate may be started or go on."""
        waits_for_first = self.budget.halted and self.budget.run_cost is None
        return candidate is self.baseline or not (candidate.discarded or waits_for_first)
