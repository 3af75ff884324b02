"""What a journal knows while it is open: where the lines of runs lie in its file, and all scores. The lines stay on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .lines import NO_LOOKS, RUN, SCORES, SETTLED, Entry, canonical

Values = dict[str, float | None]
_NOTHING: Mapping[str, Any] = {}


@dataclass(eq=False, slots=True)
class _Known:
    """What is known of one name.

    Attributes:
        start, length: of the last line of its run, without the end; a length of 0 for none.
        what: of that run, an object that all runs of the kind share.
        has_state: whether that run left something behind.
        scores: by the number of the column.
    """

    start: int = 0
    length: int = 0
    what: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    has_state: bool = False
    scores: dict[int, float | None] | None = None


class Index:
    """Runs, scores, and what was settled, by names: a few hundred bytes a name, whatever its line holds."""

    def __init__(self) -> None:
        """Know nothing."""
        self._known: dict[str, _Known] = {}
        self._whats: dict[str, Mapping[str, Any]] = {}
        self._columns: dict[tuple[str, str], int] = {}  # by verifier and part
        self._parts: list[tuple[str, str]] = []  # likewise, by column
        self._settled: dict[tuple[str, str], Any] = {}

    def take(self, entry: Entry, start: int, length: int) -> None:
        """Take in what a line says that lies at a place of the file."""
        kind = entry.get("kind")
        if kind == RUN:
            known = self._known.pop(entry["name"], None) or _Known()
            known.start, known.length, known.has_state = start, length, entry.get("state") is not None
            known.what = self._whats.setdefault(canonical(entry["what"]), entry["what"])
            self._known[entry["name"]] = known
        elif kind == SCORES:
            self._add_scores(entry["name"], entry["by"], entry["values"])
        elif kind == SETTLED:
            self._settled[entry["name"], entry["by"]] = entry["value"]
        elif kind == NO_LOOKS:
            kept = {name: known for name, known in self._known.items() if known.length and "sigma" not in known.what}
            self._known = kept

    def forget_lines(self) -> None:
        """Know no line any more: the file they lay in is gone."""
        for known in self._known.values():
            known.length, known.has_state = 0, False

    @property
    def runs(self) -> Iterator[str]:
        """Names of runs, in order of their last line."""
        return (name for name, known in self._known.items() if known.length)

    @property
    def looks(self) -> list[str]:
        """Names of the looks half-way."""
        return [name for name, known in self._known.items() if known.length and "sigma" in known.what]

    @property
    def whats(self) -> list[Mapping[str, Any]]:
        """What the runs are, each kind once; see `entry_name`."""
        return list(self._whats.values())

    def place(self, name: str) -> tuple[int, int] | None:
        """Return where the line of a run begins and how long it is; None if it is not known."""
        known = self._known.get(name)
        return (known.start, known.length) if known is not None and known.length else None

    def has_state(self, name: str) -> bool:
        """Whether a run left something behind."""
        known = self._known.get(name)
        return known is not None and known.has_state

    def scores(self, name: str, by: str) -> Values | None:
        """Return the scores of a name by a verifier, by parts; None without any."""
        known = self._known.get(name)
        if known is None or known.scores is None:
            return None
        return {self._parts[at][1]: value for at, value in known.scores.items() if self._parts[at][0] == by} or None

    def has_scores(self, by: str) -> bool:
        """Whether a verifier scored anything that is still known."""
        own = {at for at, (signature, _) in enumerate(self._parts) if signature == by}
        return any(known.scores is not None and not own.isdisjoint(known.scores) for known in self._known.values())

    def settled(self, name: str, by: str) -> Any:
        """Return what was settled for a verifier; None if nothing was."""
        return self._settled.get((name, by))

    def _add_scores(self, name: str, by: str, values: Values) -> None:
        known = self._known.setdefault(name, _Known())
        known.scores = {} if known.scores is None else known.scores
        for part, value in values.items():
            column = by, part
            if column not in self._columns:
                self._columns[column] = len(self._parts)
                self._parts.append(column)
            known.scores[self._columns[column]] = value
