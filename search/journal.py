"""The journal of a search on disk: every run that ended and every score, as it happened, so that a search can go on from it.

A folder holds `journal.jsonl`, a header and then one line for each thing that happened, and `states/`, what finished
runs left behind, and looks and drafts until they are scored (and `thumbs/`, small pictures by the names of the same
things). Every line carries its checksum and is appended with one write; a state is whole on disk before the line that
names it. So a kill at any moment loses what was being written and nothing else. What cannot be written is kept, as far
as there is room, and written with what follows.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from .journal_file import JournalFile, write_whole
from .lines import NO_LOOKS, RUN, SCORES, SETTLED, Entry, canonical, entries_in, is_usable, line_of, name_of_text
from .recipe_text import CANONICAL, recipe_text
from .recipes import Recipe

FORMAT, VERSION = "noise-search-journal", 1
FILE, STATES, THUMBS = "journal.jsonl", "states", "thumbs"
WAITING = 64 << 20  # bytes that wait for a disk that takes nothing
LOST = "what some finished candidates left on disk is missing or damaged: they are rendered again"
DELETED = "the journal was deleted while this search ran: of what was found before that, nothing is on disk any more"


class Waiting(NamedTuple):
    """What is to be written: entries as lines, and the state that the first of them names."""

    entries: Sequence[Entry]
    lines: bytes
    state: bytes

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.state) + len(self.lines)


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
        grown: told the bytes of every state that was written.
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
        self._runs: dict[str, Entry] = {}
        self._scores: dict[tuple[str, str], dict[str, float | None]] = {}
        self._settled: dict[tuple[str, str], Any] = {}
        self._waiting: deque[Waiting] = deque()
        self._full = ""  # the note that says so
        self._dropped = False  # whether something that waited will never be written
        (self.folder / STATES).mkdir(parents=True, exist_ok=True)
        path = self.folder / FILE
        self._file = JournalFile(path, line_of(self._header()), self._read(path))

    def close(self) -> None:
        """Let go of the file, after another try to write what waits."""
        self._write_waiting()
        self._file.close()

    @property
    def full(self) -> bool:
        """Whether something could not be written so far."""
        return bool(self._waiting)

    @property
    def names(self) -> Iterable[str]:
        """Names of the runs it knows, in order of their last line."""
        return self._runs.keys()

    def run(self, name: str) -> Entry | None:
        """Return what was written of a run, or None."""
        return self._runs.get(name)

    def knows(self, recipe: Recipe) -> bool:
        """Whether anything of a candidate was computed: its picture, a look half-way, a draft."""
        wanted = json.loads(recipe.to_json())
        return any(line.get("recipe") == wanted for line in self._runs.values())

    def scores(self, name: str, by: str) -> dict[str, float | None] | None:
        """Return the scores by a verifier's signature, by the parts that were asked, or None; one that failed has None."""
        return self._scores.get((name, by))

    def has_scores(self, by: str) -> bool:
        """Whether there are scores by a verifier's signature."""
        return any(signature == by for _, signature in self._scores)

    def settled(self, name: str, by: str) -> Any:
        """Return what was settled once for a verifier's signature, or None."""
        return self._settled.get((name, by))

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
        if (self.run(name) or {}).get("state") is not None:
            with suppress(OSError):  # it is only room
                state_path(self.folder, name).unlink()

    def add_run(self, name: str, line: Mapping[str, Any], state: bytes | None = None) -> None:
        """Write down a run, and first what it left behind, if it did."""
        entry = {"kind": RUN, "name": name, **line}
        if state:
            entry["state"] = {"size": len(state), "sha256": _sha(state)}
        self._add([entry], state or b"")

    def add_scores(self, name: str, by: str, values: Mapping[str, float | None]) -> None:
        """Write down the scores of a run, a look or a draft by parts of a verifier; more parts may follow."""
        self.add_all_scores(by, {name: values})

    def add_all_scores(self, by: str, values: Mapping[str, Mapping[str, float | None]]) -> None:
        """Write down scores of several, by their names, at once."""
        self._add([{"kind": SCORES, "name": name, "by": by, "values": dict(one)} for name, one in values.items()])

    def settle(self, name: str, by: str, value: Any) -> None:
        """Write down a JSON value that is to stay what it is for a verifier."""
        self._add([{"kind": SETTLED, "name": name, "by": by, "value": value}])

    def forget_looks(self) -> None:
        """Write down that no look half-way so far holds: the predictions were not those of the candidates."""
        for name, line in self._runs.items():
            if "sigma" in line["what"]:
                self.drop_state(name)
        self._add([{"kind": NO_LOOKS}] * 2)  # one may be damaged, and what it says must not be missed

    # Inside.

    def _add(self, entries: Sequence[Entry], state: bytes = b"") -> None:
        self._waiting.append(Waiting(entries, b"".join(map(line_of, entries)), state))
        self._write_waiting()

    def _write_waiting(self) -> None:
        """Write all that is to be written; what the disk does not take waits, unless that is too much to keep."""
        try:
            while self._waiting:
                self._write(self._waiting[0])
                written = self._waiting.popleft()
                if written.state:
                    self.grown(len(written.state))
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
        first = one.entries[0]
        # What a look or a draft left behind goes once it is scored, and without its scores, whose line takes it along, it
        # is little.
        lasting = first["kind"] != RUN or not first["what"]
        if one.state:
            write_whole(state_path(self.folder, first["name"]), one.state, lasting)
        self._file.append(one.lines, lasting)
        for entry in one.entries:
            self._take(entry)

    def _begin_anew(self) -> None:
        """Go on where another process deleted the journal, or began another in its place."""
        (self.folder / STATES).mkdir(parents=True, exist_ok=True)
        self._file.begin_anew()
        if DELETED not in self.notes:
            self.notes.append(DELETED)

    def _header(self) -> Entry:
        return {"format": FORMAT, "version": VERSION, "key": self._key}

    def _read(self, path: Path) -> int | None:
        """Take in a file; return how many of its bytes are to stay, None for all."""
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        whole = data[: data.rfind(b"\n") + 1]
        if not whole and line_of(self._header()).startswith(data):
            return 0 if data else None
        found = list(entries_in(whole[:-1])) if whole else []
        why = self._why_foreign(found)
        if why:
            self._set_aside(path, why)
            return None
        if len(found) > 1 and found[-1] is None:
            found, whole = found[:-1], whole[: whole.rfind(b"\n", 0, -1) + 1]
        bad = sum(entry is None or not is_usable(entry) for entry in found)
        if bad:
            self.notes.append(f"of the journal {path}, {bad} lines are damaged or of another version: they are passed over")
        for entry in found:
            if entry is not None and is_usable(entry):
                self._take(entry)
        return len(whole) if len(whole) < len(data) else None

    def _why_foreign(self, found: Sequence[Entry | None]) -> str:
        """Say why these lines are no journal to go on from; empty if they are one. A header that is damaged says nothing."""
        if not any(found):
            return "is no journal of Noise Search"
        header = found[0] or {}
        if header.get("format") != FORMAT:
            return ""
        if header.get("key", self._key) != self._key:
            return "belongs to another set-up"
        version = header.get("version", VERSION)
        return "" if version == VERSION else f"is of version {version!r}, not {VERSION}"

    def _set_aside(self, path: Path, why: str) -> None:
        number = 1
        while (other := path.with_name(f"journal.set-aside-{number}.jsonl")).exists():
            number += 1
        path.rename(other)
        self.notes.append(f"the journal {path} {why}: it was set aside as {other.name}, and a new one begins")

    def _take(self, entry: Entry) -> None:
        if entry.get("kind") == RUN:
            self._runs.pop(entry["name"], None)
            self._runs[entry["name"]] = entry
        elif entry.get("kind") == SCORES:
            key = entry["name"], entry["by"]
            self._scores[key] = {**self._scores.get(key, {}), **entry["values"]}
        elif entry.get("kind") == SETTLED:
            self._settled[entry["name"], entry["by"]] = entry["value"]
        elif entry.get("kind") == NO_LOOKS:
            self._runs = {name: line for name, line in self._runs.items() if "sigma" not in line["what"]}
            self._scores = {key: values for key, values in self._scores.items() if key[0] in self._runs}


def state_path(folder: Path, name: str) -> Path:
    """Return where the state of a run lies."""
    return folder / STATES / f"{name}.safetensors"


def entries(folder: Path) -> Iterator[Entry]:
    """Yield the lines of a journal's file that can be used, as they are on disk, of runs and scores, in order."""
    try:
        data = (folder / FILE).read_bytes()
    except FileNotFoundError:
        return
    for entry in entries_in(data):
        if entry is not None and entry.get("kind") in (RUN, SCORES) and is_usable(entry):
            yield entry


def worst_first(folder: Path) -> list[str]:
    """Return the names of a journal's finished runs, by the sum of their ranks in every part; last those not judged yet."""
    runs: dict[str, None] = {}
    columns: defaultdict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    judged = set()
    for entry in entries(folder):
        if entry["kind"] == RUN and not entry["what"]:
            runs[entry["name"]] = None
        elif entry["kind"] == SCORES:
            judged.add(entry["name"])
            for part, value in entry["values"].items():
                if value is not None:
                    columns[entry["by"], part][entry["name"]] = value
    ranks: Counter[str] = Counter(dict.fromkeys(runs, 0))
    for column in columns.values():
        ranked = sorted(column.keys() & runs.keys(), key=column.__getitem__)
        ranks.update({name: rank for rank, name in enumerate(ranked, 1)})
    return sorted(runs, key=lambda name: (name not in judged, ranks[name]))


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
