"""What the user asks of a search while it runs, as events that the search applies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..base.candidate import Candidate
from ..noise.recipe import Recipe
from .commands import CommandLog
from .user_requests import DISCARD, FAVOR, FINISH, UserRequests

FINISHED = "you ended it: the best so far is kept"


class Halted(Exception):
    """Ends a method in the middle, since the user ended the search or wants it to go on elsewhere."""


@dataclass(frozen=True)
class Finish:
    """The user ends the search; the best so far is kept."""


@dataclass(frozen=True)
class Favor:
    """The user wants more like a candidate."""

    candidate: Candidate


@dataclass(frozen=True)
class Discard:
    """The user drops a candidate."""

    candidate: Candidate


@dataclass(frozen=True)
class TakeBack:
    """A command is repeated that was given when there were so many candidates: those proposed since are taken back."""

    count: int


@dataclass(frozen=True)
class Ignored:
    """Something was asked for that cannot be done; says what, in words."""

    note: str


Event = Finish | Favor | Discard | TakeBack | Ignored


class SearchControl:
    """The user's side of one search: what is asked of it now, and what was asked of an earlier one that it goes on from.

    Attributes:
        user_requests: filled while the search runs.
    """

    def __init__(self, user_requests: UserRequests | None = None, commands: CommandLog | None = None) -> None:
        """Take what the user asks, None for nothing, and the log of commands; by default it lasts as long as the search."""
        self.user_requests, self._commands = user_requests or UserRequests(), commands or CommandLog()
        self._favorite: Candidate | None = None

    def keep_commands(self, commands: CommandLog) -> None:
        """Keep commands in another log, before the search begins."""
        self._commands = commands

    def begin(self, method: str, allowance: str) -> None:
        """Begin a search by a method with a budget; both as texts that say all of them."""
        self._commands.begin(method, allowance)

    def wait(self, on_wait: Callable[[], None]) -> float:
        """Wait while the search is paused, and return the seconds that took; see `UserRequests.wait`."""
        return self.user_requests.wait(on_wait)

    def asked(self, candidates: Sequence[Candidate]) -> Iterator[Event]:
        """Yield what the user asked since the last time; each is written down before it is applied."""
        for what, index in self.user_requests.taken():
            if index is None or 0 <= index < len(candidates):
                candidate = None if index is None else candidates[index]
                self._commands.add(what, None if candidate is None else candidate.recipe.to_json(), len(candidates))
                yield from _event(what, candidate)
            else:
                yield Ignored(f"you asked for {what!r} with candidate {index}, which there is not")

    def repeated(self, candidates: Sequence[Candidate]) -> Iterator[Event]:
        """Yield what the user asked for at this point of an earlier search, which this one goes on from."""
        for command in self._commands.due():
            if command.halts:
                yield TakeBack(command.count)
            recipe = None if command.recipe is None else Recipe.from_json(command.recipe)
            candidate = None if recipe is None else next((c for c in candidates if c.recipe == recipe), None)
            if candidate is None and command.what != FINISH:
                yield Ignored(f"you once asked for {command.what!r} with a candidate that there is not with this budget")
            else:
                yield from _event(command.what, candidate)

    def favor(self, candidate: Candidate) -> None:
        """Note that the user wants more like a candidate."""
        self._favorite = candidate

    def take_favorite(self) -> Candidate | None:
        """Return the candidate that the user wants more of, once; None without one."""
        favorite, self._favorite = self._favorite, None
        return favorite

    # Steps of the search, by which commands are repeated; see `CommandLog`.

    def next_step(self, count: int = 1) -> None:
        """Note that the search goes on to its next step, or one of the following."""
        self._commands.next_step(count)

    def ended_before(self, indices: Iterable[int]) -> dict[int, int]:
        """Return which runs of this step a command ended in the earlier search, and after how many model calls."""
        return self._commands.ended(indices)

    def note_step(self, left: Mapping[int, int], made: Iterable[int]) -> None:
        """Note what the commands of this step left of its runs; see `CommandLog.note`."""
        self._commands.note(left, made)


def _event(what: str, candidate: Candidate | None) -> Iterator[Event]:
    if what == FINISH:
        yield Finish()
    elif candidate is not None and what == FAVOR:
        yield Favor(candidate)
    elif candidate is not None and what == DISCARD:
        yield Discard(candidate)
