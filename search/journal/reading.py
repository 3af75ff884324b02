"""What is read of a journal's file: all of it when it is opened, and what others ask of it without opening it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from .index import Index
from .lines import LONGEST, RUN, SCORES, Entry, entries_in, is_usable, line_of, lines_in

FILE, STATES = "journal.jsonl", "states"
FOREIGN = "is no journal of Noise Search"


class Content(NamedTuple):
    """What a file was found to be.

    Attributes:
        foreign: why it is no journal to go on from; empty if it is one.
        keep: how many of its bytes are to stay; None for all.
        bad: how many of its lines cannot be used.
    """

    foreign: str
    keep: int | None = None
    bad: int = 0


def take_in(file: BinaryIO, header: Mapping[str, Any], index: Index) -> Content:
    """Take all lines of a file that can be used into an index, one after another.

    Args:
        file: at its beginning.
        header: what its first line should say.
        index: without anything.
    """
    whole, count, bad, useful = 0, 0, 0, False
    tail, damaged = b"", None  # what lies behind the last end of a line; where the last line begins, if it is damaged
    for start, line in lines_in(file):
        if not line.endswith(b"\n"):
            tail = line
            break
        whole, damaged = start + len(line), None
        for at, length, entry in entries_in(line[:-1]):
            if count == 0 and (why := _why_foreign(entry or {}, header)):
                return Content(why)
            count, useful = count + 1, useful or bool(entry)
            if entry is not None and is_usable(entry):
                index.take(entry, start + at, length)
            else:
                bad += 1
                damaged = start if entry is None else None
    if not whole and line_of(header).startswith(tail):
        return Content("", 0 if tail else None)
    if not useful:
        return Content(FOREIGN)
    if count > 1 and damaged is not None:
        return Content("", damaged, bad - 1)
    return Content("", whole if tail else None, bad)


def _why_foreign(found: Entry, header: Mapping[str, Any]) -> str:
    """Say why a journal that begins so is none to go on from; empty if it is one. A header that is damaged says nothing."""
    if found.get("format") != header["format"]:
        return ""
    if found.get("key", header["key"]) != header["key"]:
        return "belongs to another set-up"
    version = found.get("version", header["version"])
    return "" if version == header["version"] else f"is of version {version!r}, not {header['version']}"


def state_path(folder: Path, name: str) -> Path:
    """Return where the state of a run lies."""
    return folder / STATES / f"{name}.safetensors"


def entries(folder: Path, name: str = "") -> Iterator[Entry]:
    """Yield the lines of a journal's file that can be used, as they are on disk, of runs and scores, in order.

    Args:
        folder: of the journal.
        name: of a run: only what holds it is read.
    """
    try:
        file = (folder / FILE).open("rb")
    except FileNotFoundError:
        return
    with file:
        for _, line in lines_in(file, LONGEST):
            if name.encode() in line:
                yield from _usable(line.rstrip(b"\n"))


def _usable(line: bytes) -> Iterator[Entry]:
    for _, _, entry in entries_in(line):
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
