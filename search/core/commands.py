"""What the user commanded in a search: it belongs to the search as its seed does, so that going on from a journal repeats it.

A search counts its steps: odd ones are those in which runs are advanced, even ones what lies between. A command is kept with
the step in which it was obeyed, and one that was obeyed among model calls with what it left of the runs under way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..journal.journal import Journal
from ..journal.lines import name_of
from .user_requests import DISCARD, FINISH

Load = Callable[[str], list[dict[str, Any]]]
Save = Callable[[str, list[dict[str, Any]]], None]


@dataclass
class Command:
    """One command that was obeyed, as JSON values.

    Attributes:
        what: see `controls`.
        recipe: of the candidate that it is about, JSON text; None if it is about none.
        step: in which it was obeyed.
        allowance: the budget then: with another one a search goes on where its user ended it.
        count: candidates then: a larger budget may have more proposed at once, which were not there to be commanded about.
        left: model calls, by index, of the candidates whose runs it ended; None if no runs were advanced in that step.
        made: indices of those that got to where they were advanced to all the same.
    """

    what: str
    recipe: str | None
    step: int
    allowance: str
    count: int
    left: dict[str, int] | None = None
    made: list[int] | None = None

    @property
    def halts(self) -> bool:
        """Whether it ends all that runs."""
        return self.what != DISCARD

    def ended(self, index: int) -> int | None:
        """Return the model calls after which it ended a run that is advanced in its step; None if it did not end it."""
        if self.left is None or index in (self.made or ()):
            return None
        return self.left.get(str(index), 0 if self.halts else None)

    def note(self, left: Mapping[int, int], made: list[int]) -> None:
        """Note what it left of the runs of its step; see `left` and `made`."""
        self.left, self.made = {str(index): calls for index, calls in left.items()}, made


class CommandLog:
    """The commands of one search: those obeyed so far, and those of an earlier search that are to be repeated.

    Attributes:
        step: the step that the search is in.
    """

    def __init__(self, load: Load = lambda method: [], save: Save = lambda method, commands: None) -> None:
        """Keep commands only as long as the search, unless they can be loaded and saved, by the method that it runs."""
        self._load, self._save = load, save
        self._obeyed: list[Command] = []
        self._waiting: list[Command] = []
        self._method = self._allowance = ""
        self.step = 0

    def begin(self, method: str, allowance: str) -> None:
        """Begin a search by a method with a budget; both as texts that say all of them."""
        self._method, self._allowance = method, allowance
        for command in (Command(**values) for values in self._load(method)):
            if command.what == FINISH and command.allowance != allowance:
                break
            self._waiting.append(command)

    def next_step(self, count: int) -> None:
        """Go on to the next step, or one of the following."""
        self.step += count

    def add(self, what: str, recipe: str | None, count: int) -> None:
        """Keep a command of the user that is obeyed now, among so many candidates.

        What was to be repeated after one that halts the search is not.
        """
        command = Command(what, recipe, self.step, self._allowance, count)
        if command.halts:
            self._waiting.clear()
        self._obeyed.append(command)
        self._write()

    def due(self) -> Iterator[Command]:
        """Yield the commands that are to be repeated now."""
        while self._waiting and self._is_due(self._waiting[0]):
            self._obeyed.append(self._waiting.pop(0))
            yield self._obeyed[-1]

    def ended(self, indices: Iterable[int]) -> dict[int, int]:
        """Return which runs the commands of this step ended when it was made first, and after how many model calls."""
        found = [(i, command.ended(i)) for command in self._waiting if command.step == self.step for i in indices]
        return {index: calls for index, calls in found if calls is not None}

    def note(self, left: Mapping[int, int], made: Iterable[int]) -> None:
        """Note what the commands that were obeyed in this step left of its runs; see `Command`."""
        new = [command for command in self._obeyed if command.step == self.step and command.left is None]
        done = list(made) if new else []
        for command in new:
            command.note(left, done)
        if new:
            self._write()

    def _is_due(self, command: Command) -> bool:
        return command.step < self.step or (command.step == self.step and command.left is None)

    def _write(self) -> None:
        self._save(self._method, [asdict(command) for command in (*self._obeyed, *self._waiting)])


def log_in(journal: Journal, by: str, search: list[str]) -> CommandLog:
    """Return the log, kept in a journal, of the search that these texts name and a verifier's signature."""

    def name(method: str) -> str:
        return name_of(["commands", [field.name for field in fields(Command)], *search, method])  # another version has others

    return CommandLog(
        lambda method: journal.settled(name(method), by) or [],
        lambda method, commands: journal.settle(name(method), by, commands),
    )
