"""The journal of a search on disk: every run that ended and every score, as it happened, so that a search can go on from it.

A folder holds `journal.jsonl`, a header and then one line for each thing that happened, and `states/`, what finished
runs left behind, and looks and drafts until they are scored (and `thumbs/`, small pictures by the names of the same
things). Every line carries its checksum and is appended with one write; a state is there before the line that names it.
So a kill at any moment loses what was being written and nothing else. Onto the disk all is seen by `sync`, once a wave, and
at once where it is asked for: a power cut loses what was written since, and a line whose state it took is known by the
state's checksum. What cannot be written is kept, as far as there is room, and written with what follows.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from ..noise.recipe import Recipe
from ..noise.recipe_text import CANONICAL, recipe_text
from .files import JournalFile, sync_files, write_whole
from .index import Index
from .lines import NO_LOOKS, RUN, SCORES, SETTLED, Entry, canonical, line_of, name_of_text, parsed
from .reading import FILE as FILE
from .reading import STATES as STATES
from .reading import state_path as state_path
from .reading import take_in
from .reading import worst_first as worst_first

FORMAT, VERSION = "noise-search-journal", 1
THUMBS = "thumbs"
WAITING = 64 << 20  # bytes that wait for a disk that takes nothing
LOST = "what some finished candidates left on disk is missing or damaged: they are rendered again"
DELETED = "the journal was deleted while this search ran: of what was found before that, nothing is on disk any more"


class Waiting(NamedTuple):
    """What is to be written: entries as lines, and the state that the first of them names."""

    entries: Sequence[Entry]
    lines: Sequence[bytes]
    state: bytes

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.state) + sum(map(len, self.lines))


def entry_name(recipe: Recipe, what: Mapping[str, Any], given: str = "") -> str:
    """Return the name of one thing that a search computes, 32 hex digits.

    Args:
        recipe: of the candidate.
        what: {} for its finished run, {"sigma": level} for a look half-way, {"draft_steps": steps} for a draft.
        given: hash of the noise that was connected, at the user's seed: recipes know only that they need it.
    """
    return _entry_name(recipe, canonical(what), given if recipe.needs_noise else "")


@lru_cache(maxsize=1024)  # a candidate is named several times while it is new
def _entry_name(recipe: Recipe, what: str, noise: str) -> str:
    return name_of_text(f"[{recipe_text(recipe, CANONICAL)},{what},{canonical(noise)}]")


class Journal:
    """The journal in one folder.

    Attributes:
        folder: where it lies.
        notes: what the user should know of it, in words.
        grown: told by how many bytes the states grew, or shrank, whenever one was written or deleted.
    """

    def __init__(self, folder: Path, key: str) -> None:
        """Open the journal of a set-up, or begin one.

        A line that is damaged, or of another version, is passed over; a last line that was cut short is dropped. A file of
        another set-up or version, and one that is no journal at all, is set aside under another name.

        Args:
            folder: made if it is not there.
            key: what all that determines a candidate comes to; a journal of another key is none of ours.
        """
        self.folder, self._key = Path(folder), key
        self.notes: list[str] = []
        self.grown: Callable[[int], None] = lambda size: None
        self._index = Index()
        self._waiting: deque[Waiting] = deque()
        self._full = ""  # the note that says so
        self._dropped = False  # whether something that waited will never be written
        self._unseen: dict[Path, None] = {}  # states that were not seen onto the disk yet
        self._ahead = False  # whether there are such lines
        (self.folder / STATES).mkdir(parents=True, exist_ok=True)
        path = self.folder / FILE
        self._file = JournalFile(path, line_of(self._header()), self._read(path))

    def close(self) -> None:
        """Let go of the file, after another try to write what waits."""
        self._write_waiting()
        self.sync()
        self._file.close()

    def sync(self) -> None:
        """See onto the disk what was written since the last time: first states, then the lines that name them.

        Of looks and drafts it is the lines only: what they left behind goes once they are scored.
        """
        states, self._unseen = list(self._unseen), {}
        ahead, self._ahead = self._ahead, False
        try:
            sync_files(states)
            if ahead:
                self._file.sync()
        except OSError as error:
            said = f"the journal could not be seen onto the disk ({error}): after a power cut a later search may not find it all"
            self.notes += [said] * (said not in self.notes)

    @property
    def full(self) -> bool:
        """Whether something could not be written so far."""
        return bool(self._waiting)

    @property
    def names(self) -> Iterator[str]:
        """Names of the runs it knows, in order of their last line."""
        return self._index.runs

    def run(self, name: str) -> Entry | None:
        """Return what was written of a run; None if that is not known, or cannot be read any more."""
        place = self._index.place(name)
        if place is None:
            return None
        try:
            line = parsed(self._file.read(*place))
        except OSError:
            return None
        return line if line is not None and (line.get("kind"), line.get("name")) == (RUN, name) else None

    def knows(self, recipe: Recipe, given: str = "") -> bool:
        """Whether anything of a candidate was computed: its picture, a look half-way, a draft. `given`: see `entry_name`."""
        return any(self._index.place(entry_name(recipe, what, given)) is not None for what in self._index.whats)

    def scores(self, name: str, by: str) -> dict[str, float | None] | None:
        """Return the scores by a verifier's signature, by the parts that were asked, or None; one that failed has None."""
        return self._index.scores(name, by)

    def has_scores(self, by: str) -> bool:
        """Whether there are scores by a verifier's signature."""
        return self._index.has_scores(by)

    def settled(self, name: str, by: str) -> Any:
        """Return what was settled once for a verifier's signature, or None."""
        return self._index.settled(name, by)

    def state(self, name: str) -> bytes | None:
        """Return what a run left behind; None if that is not there or not what was written, of a finished one with a note."""
        line = self.run(name) or {}
        said = line.get("state")
        if said is None:
            return None
        try:
            data = state_path(self.folder, name).read_bytes()
        except OSError:
            data = b""
        if len(data) == said["size"] and _sha(data) == said["sha256"]:
            return data
        if not line["what"] and LOST not in self.notes:
            self.notes.append(LOST)
        return None

    def drop_state(self, name: str) -> None:
        """Delete what a look or a draft left behind, if it is there."""
        if not self._index.has_state(name):
            return
        path = state_path(self.folder, name)
        try:
            size = path.stat().st_size
            path.unlink()
        except OSError:  # it is only room
            return
        self.grown(-size)

    def add_run(self, name: str, line: Mapping[str, Any], state: bytes | None = None) -> None:
        """Write down a run, and first what it left behind, if it did."""
        entry = {"kind": RUN, "name": name, **line}
        if state:
            entry["state"] = {"size": len(state), "sha256": _sha(state)}
        self._add([entry], state or b"")

    def add_scores(self, name: str, by: str, values: Mapping[str, float | None], at_once: bool = False) -> None:
        """Write down the scores of a run, a look or a draft by parts of a verifier; more parts may follow."""
        self.add_all_scores(by, {name: values}, at_once)

    def add_all_scores(self, by: str, values: Mapping[str, Mapping[str, float | None]], at_once: bool = False) -> None:
        """Write down scores of several, by their names; `at_once`: and see them onto the disk, with all before them."""
        self._add([{"kind": SCORES, "name": name, "by": by, "values": dict(one)} for name, one in values.items()])
        if at_once:
            self.sync()

    def settle(self, name: str, by: str, value: Any) -> None:
        """Write down a JSON value that is to stay what it is for a verifier, and see it onto the disk."""
        self._add([{"kind": SETTLED, "name": name, "by": by, "value": value}])
        self.sync()

    def forget_looks(self) -> None:
        """Write down that no look half-way so far holds: the predictions were not those of the candidates."""
        for name in self._index.looks:
            self.drop_state(name)
        self._add([{"kind": NO_LOOKS}] * 2)  # one may be damaged, and what it says must not be missed
        self.sync()

    # Inside.

    def _add(self, entries: Sequence[Entry], state: bytes = b"") -> None:
        self._waiting.append(Waiting(entries, list(map(line_of, entries)), state))
        self._write_waiting()

    def _write_waiting(self) -> None:
        """Write all that is to be written; what the disk does not take waits, unless that is too much to keep."""
        try:
            while self._waiting:
                self._write(self._waiting[0])
                self._waiting.popleft()
        except OSError as error:
            self._say_full(f"the journal cannot be written ({error}): a later search does not find what follows")
            while sum(one.size for one in self._waiting) > WAITING:
                self._waiting.popleft()
                self._dropped = True
        else:
            self._say_full("")

    def _say_full(self, said: str) -> None:
        """Keep the last note of a disk that took nothing, as long as something is not written."""
        if said != self._full and not (self._dropped and not said):
            self.notes[:] = [note for note in self.notes if note != self._full] + [said] * bool(said)
            self._full = said

    def _write(self, one: Waiting) -> None:
        if self._file.deleted:
            self._begin_anew()
        grown = self._write_state(one.entries[0], one.state) if one.state else 0
        start = self._file.append(b"".join(one.lines))
        self._ahead = True
        for entry, line in zip(one.entries, one.lines, strict=True):
            self._index.take(entry, start, len(line) - 1)
            start += len(line)
        if grown:
            self.grown(grown)

    def _write_state(self, entry: Entry, state: bytes) -> int:
        """Write what a run left behind; return by how many bytes the states grew."""
        path = state_path(self.folder, entry["name"])
        before = path.stat().st_size if path.exists() else 0
        write_whole(path, state, lasting=False)
        if not entry["what"]:
            self._unseen[path] = None
        return len(state) - before

    def _begin_anew(self) -> None:
        """Go on where another process deleted the journal, or began another in its place."""
        (self.folder / STATES).mkdir(parents=True, exist_ok=True)
        self._file.begin_anew()
        self._index.forget_lines()
        if DELETED not in self.notes:
            self.notes.append(DELETED)

    def _header(self) -> Entry:
        return {"format": FORMAT, "version": VERSION, "key": self._key}

    def _read(self, path: Path) -> int | None:
        """Take in a file; return how many of its bytes are to stay, None for all."""
        if not path.exists():
            return None
        with path.open("rb") as file:
            why, keep, bad = take_in(file, self._header(), self._index)
        if why:
            self._set_aside(path, why)
        elif bad:
            self.notes.append(f"of the journal {path}, {bad} lines are damaged or of another version: they are passed over")
        return keep

    def _set_aside(self, path: Path, why: str) -> None:
        number = 1
        while (other := path.with_name(f"journal.set-aside-{number}.jsonl")).exists():
            number += 1
        path.rename(other)
        self.notes.append(f"the journal {path} {why}: it was set aside as {other.name}, and a new one begins")


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
