"""The journal of a search on disk: every run that ended and every score, as it happened, so that a search can go on from it.

A folder holds `journal.jsonl`, a header and then one line for each thing that happened, and `states/`, what finished
runs left behind (and `thumbs/`, small pictures by the names of the same things). Every line carries its checksum and is
appended with one write; a state is whole on disk before the line that names it. So a kill at any moment loses what was
being written and nothing else.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .recipes import Recipe

FORMAT, VERSION = "noise-search-journal", 1
FILE, STATES, THUMBS = "journal.jsonl", "states", "thumbs"
RUN, SCORES, SETTLED, NO_LOOKS = "run", "scores", "settled", "no looks"
BINARY = getattr(os, "O_BINARY", 0)  # Windows would write two bytes for a line's end
LOST = "what some finished candidates left on disk is missing or damaged: they are rendered again"


def entry_name(recipe: Recipe, what: Mapping[str, Any], given: str = "") -> str:
    """Return the name of one thing that a search computes, 32 hex digits.

    Args:
        recipe: of the candidate.
        what: {} for its finished run, {"sigma": level} for a look half-way, {"draft_steps": steps} for a draft.
        given: hash of the noise that was connected, at the user's seed: recipes know only that they need it.
    """
    noise = given if recipe.needs_noise else ""
    return name_of([json.loads(recipe.to_json()), what, noise])


def name_of(what: Any) -> str:
    """Return the name, 32 hex digits, of what JSON values tell."""
    return hashlib.sha256(_canonical(what).encode()).hexdigest()[:32]


class Journal:
    """The journal in one folder.

    Attributes:
        folder: where it lies.
        notes: what the user should know of it, in words.
        full: whether nothing can be written any more: that ends the writing, not the search.
        grown: told the bytes of every state that was written.
    """

    def __init__(self, folder: Path, key: str) -> None:
        """Open the journal of a set-up, or begin one.

        A last line that was cut short is dropped. A file that is no journal of this set-up and version, or is broken before
        its end, is set aside under another name.

        Args:
            folder: made if it is not there.
            key: what all that determines a candidate comes to; a journal of another key is none of ours.
        """
        self.folder, self._key = Path(folder), key
        self.notes: list[str] = []
        self.full = False
        self.grown: Callable[[int], None] = lambda size: None
        self._runs: dict[str, dict[str, Any]] = {}
        self._scores: dict[tuple[str, str], dict[str, float | None]] = {}
        self._settled: dict[tuple[str, str], Any] = {}
        (self.folder / STATES).mkdir(parents=True, exist_ok=True)
        path = self.folder / FILE
        whole, size = self._read(path)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | BINARY, 0o644)
        if whole < size:  # else nothing is cut: another process may have written since
            os.ftruncate(self._file, whole)
        if not whole:
            self._append(self._header(), sync=True)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    @property
    def names(self) -> Iterable[str]:
        """Names of the runs it knows, in order of their last line."""
        return self._runs.keys()

    def run(self, name: str) -> dict[str, Any] | None:
        """Return what was written of a run, or None."""
        return self._runs.get(name)

    def knows(self, recipe: Recipe) -> bool:
        """Whether anything of a candidate was computed: its picture, a look half-way, a draft."""
        wanted = json.loads(recipe.to_json())
        return any(line["recipe"] == wanted for line in self._runs.values())

    def scores(self, name: str, by: str) -> dict[str, float | None] | None:
        """Return the scores by a verifier's signature, by part, or None; a part that gave none has None."""
        return self._scores.get((name, by))

    def settled(self, name: str, by: str) -> Any:
        """Return what was settled once for a verifier's signature, or None."""
        return self._settled.get((name, by))

    def state(self, name: str) -> bytes | None:
        """Return what a finished run left behind; None, and a note, if that is not there or not what was written."""
        said = (self.run(name) or {}).get("state")
        if said is None:
            return None
        try:
            data = state_path(self.folder, name).read_bytes()
        except OSError:
            data = b""
        if len(data) == said["size"] and _sha(data) == said["sha256"]:
            return data
        if LOST not in self.notes:
            self.notes.append(LOST)
        return None

    def add_run(self, name: str, line: Mapping[str, Any], state: bytes | None = None) -> None:
        """Write down a run, and first what it left behind."""
        self._add({"kind": RUN, "name": name, **line}, state)

    def add_scores(self, name: str, by: str, values: Mapping[str, float | None]) -> None:
        """Write down the scores of a run, a look or a draft by the parts of a verifier."""
        self._add({"kind": SCORES, "name": name, "by": by, "values": dict(values)})

    def settle(self, name: str, by: str, value: Any) -> None:
        """Write down a JSON value that is to stay what it is for a verifier."""
        self._add({"kind": SETTLED, "name": name, "by": by, "value": value})

    def forget_looks(self) -> None:
        """Write down that no look half-way so far holds: the predictions were not those of the candidates."""
        self._add({"kind": NO_LOOKS})

    # Inside.

    def _add(self, entry: dict[str, Any], state: bytes | None = None) -> None:
        if self.full:
            return
        try:
            if state is not None:
                _write_whole(state_path(self.folder, entry["name"]), state)
                entry["state"] = {"size": len(state), "sha256": _sha(state)}
            self._append(entry, sync=entry["kind"] != RUN or state is not None)
        except OSError as error:
            self.full = True
            self.notes.append(f"the journal cannot be written any more ({error}): a later search does not find what follows")
            return
        self._take(entry)
        if state is not None:
            self.grown(len(state))

    def _header(self) -> dict[str, Any]:
        return {"format": FORMAT, "version": VERSION, "key": self._key}

    def _read(self, path: Path) -> tuple[int, int]:
        """Take in a file; return how many of its bytes are whole lines, and how many it has: none if there is none (any more)."""
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return 0, 0
        *lines, rest = data.split(b"\n")
        if not lines and _line(self._header()).startswith(rest):
            return 0, len(data)
        whole = len(data) - len(rest)
        entries = [_parsed(line) for line in lines]
        if len(lines) > 1 and entries[-1] is None:
            entries, whole = entries[:-1], whole - len(lines[-1]) - 1
        why = self._why_foreign(entries)
        if why:
            self._set_aside(path, why)
            return 0, 0
        for entry in entries[1:]:
            self._take(entry)
        return whole, len(data)

    def _why_foreign(self, entries: list[dict[str, Any] | None]) -> str:
        """Say why these lines are no journal to go on from; empty if they are one."""
        header = entries[0] if entries else None
        if header is None or header.get("format") != FORMAT:
            return "is no journal of Noise Search"
        if header != self._header():
            same = header.get("key") == self._key
            return f"is of version {header.get('version')!r}, not {VERSION}" if same else "belongs to another set-up"
        if None in entries:
            return f"is damaged in line {entries.index(None) + 1}"
        return ""

    def _set_aside(self, path: Path, why: str) -> None:
        number = 1
        while (other := path.with_name(f"journal.set-aside-{number}.jsonl")).exists():
            number += 1
        path.rename(other)
        self.notes.append(f"the journal {path} {why}: it was set aside as {other.name}, and a new one begins")

    def _take(self, entry: dict[str, Any]) -> None:
        if entry.get("kind") == RUN:
            self._runs.pop(entry["name"], None)
            self._runs[entry["name"]] = entry
        elif entry.get("kind") == SCORES:
            self._scores[entry["name"], entry["by"]] = entry["values"]
        elif entry.get("kind") == SETTLED:
            self._settled[entry["name"], entry["by"]] = entry["value"]
        elif entry.get("kind") == NO_LOOKS:
            looks = {name for name, line in self._runs.items() if "sigma" in line["what"]}
            self._runs = {name: line for name, line in self._runs.items() if name not in looks}
            self._scores = {key: values for key, values in self._scores.items() if key[0] not in looks}

    def _append(self, entry: Mapping[str, Any], sync: bool) -> None:
        """Write a line at the end, whole or not at all, and see it onto the disk if it counts by itself.

        A run that left no state is nothing without its scores, whose line takes it along.
        """
        data, start = _line(entry), os.fstat(self._file).st_size
        written = os.write(self._file, data)
        if written != len(data):
            os.ftruncate(self._file, start)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder / FILE))
        if sync:
            os.fsync(self._file)


def state_path(folder: Path, name: str) -> Path:
    """Return where the state of a run lies."""
    return folder / STATES / f"{name}.safetensors"


def entries(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the whole lines of a journal's file as they are on disk, of runs and scores, in order; none if there is no file."""
    path = folder / FILE
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        entry = _parsed(line)
        if entry is not None and entry.get("kind") in (RUN, SCORES):
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


def _write_whole(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all, also after a power cut."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if hasattr(os, "O_DIRECTORY"):  # elsewhere folders cannot be opened, nor need to be
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _line(entry: Mapping[str, Any]) -> bytes:
    """Return a line: the entry as JSON with its checksum."""
    return _canonical({**entry, "crc": zlib.crc32(_canonical(entry).encode())}).encode() + b"\n"


def _parsed(line: bytes) -> dict[str, Any] | None:
    """Return what a line holds; None if its checksum does not say the same."""
    try:
        entry = json.loads(line)
        crc = entry.pop("crc")
        return entry if zlib.crc32(_canonical(entry).encode()) == crc else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
