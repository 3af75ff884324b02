"""How large each journal is, kept in one file for all of them: no file of a journal is looked at to know it.

Each line of that file tells the size of a journal, and the size and time that its `journal.jsonl` then had; the last line of
a journal holds. Lines are appended, so that several processes can share the file. When a process first asks, journals whose
`journal.jsonl` is not as told are looked up: a search that was killed, or a version that keeps no sizes, wrote to them. Later
a process reads only what was appended since, so that it may know too little of what others are just writing, or wrote before
they were killed: at most what they write between two lines, one `journals.SHARE`th of the room each.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ...search.journal.files import write_whole
from ...search.journal.journal import FILE, STATES, THUMBS
from ...search.journal.lines import line_of, lines_in, parsed

log = logging.getLogger("noise-search")
PLACE = re.compile(r"[0-9a-f]{32}")
SUFFIX = "_sizes.jsonl"  # of the file, which lies beside the folder of all journals
SPARE = 1000  # lines that do not hold any more, beside as many as there are journals


class Size(NamedTuple):
    """What a journal takes, in bytes.

    Attributes:
        states: of finished runs, looks and drafts.
        others: small pictures, and files that were set aside.
        lines: of its `journal.jsonl`.
        used: time of its last use, ns.
    """

    states: int
    others: int
    lines: int
    used: int

    @property
    def total(self) -> int:
        return self.states + self.others + self.lines


NOTHING = Size(0, 0, 0, 0)


class Sizes:
    """The sizes of all journals in a folder.

    Attributes:
        total: bytes of all.
    """

    def __init__(self, root: Path) -> None:
        """Know nothing yet; `root`: where the journals lie."""
        self.root, self.total = root, 0
        self._file = root.with_name(root.name + SUFFIX)
        self._known: dict[str, Size] = {}
        self._inode: int | None = None  # of the file, as far as it was read
        self._read, self._lines = 0, 0  # bytes and lines of it

    def refresh(self, running: frozenset[str]) -> None:
        """Take in what other processes told since; the sizes of journals that are `running` are known here."""
        try:
            status = self._file.stat()
        except FileNotFoundError:
            status = None
        if status is None or status.st_ino != self._inode or status.st_size < self._read:
            self._begin(running)
        elif status.st_size > self._read:
            self._take_in(running)

    def get(self, place: str) -> Size:
        return self._known.get(place, NOTHING)

    def put(self, place: str, size: Size | None) -> None:
        """Tell the size of a journal; None: it is gone."""
        self._put({place: size})

    def by_use(self) -> list[str]:
        """Return the journals, the least recently used first."""
        return sorted(self._known, key=lambda place: self._known[place].used)

    def list_folders(self) -> None:
        """Look up journals that nothing is known of, and forget those that are gone."""
        there = set(places(self.root))
        gone = dict.fromkeys(self._known.keys() - there)
        self._put(gone | {place: _looked(self.root / place) for place in there - self._known.keys()})

    # Inside.

    def _begin(self, running: frozenset[str]) -> None:
        """Read all of the file, and look up the journals that it does not tell of as they are."""
        kept = {place: size for place, size in self._known.items() if place in running}
        self._known, self.total, self._inode, self._read, self._lines = {}, 0, None, 0, 0
        try:
            self._take_in(frozenset())
            for place, size in kept.items():
                self._set(place, size)
            self.list_folders()
            old = [place for place in self._known.keys() - running if not self._is_so(place)]
            self._put({place: _looked(self.root / place) for place in old})
        except BaseException:
            self._inode = None  # it begins again
            raise

    def _is_so(self, place: str) -> bool:
        known = self._known[place]
        return stamp(self.root / place) == (known.lines, known.used)

    def _take_in(self, running: frozenset[str]) -> None:
        try:
            file = self._file.open("rb")
        except FileNotFoundError:
            return
        with file:
            self._inode = os.fstat(file.fileno()).st_ino
            file.seek(self._read)
            for _, line in lines_in(file):
                self._read, self._lines = self._read + len(line), self._lines + 1
                place, size = _said(line)
                if place not in running:
                    self._set(place, size)

    def _set(self, place: str, size: Size | None) -> None:
        self.total += (size or NOTHING).total - self.get(place).total
        self._known.pop(place, None)
        if size is not None:
            self._known[place] = size

    def _put(self, sizes: Mapping[str, Size | None]) -> None:
        """Tell sizes by lines of the file; where these cannot be written, the next process looks the journals up."""
        new = {place: size for place, size in sizes.items() if size != self._known.get(place)}
        for place, size in new.items():
            self._set(place, size)
        if not new:
            return
        try:
            if self._lines > SPARE + 2 * len(self._known):
                self._write_anew()
            with self._file.open("ab") as file:
                file.write(b"".join(_line(*one) for one in new.items()))
        except OSError as error:
            log.warning("noise search: the sizes of journals cannot be written to %s: %s", self._file, error)

    def _write_anew(self) -> None:
        """Write only the lines that hold; what another process appends just then is looked up by the next."""
        data = b"".join(_line(place, size) for place, size in self._known.items())
        write_whole(self._file, data, lasting=False)
        self._inode, self._read, self._lines = self._file.stat().st_ino, len(data), len(self._known)


def places(root: Path) -> Iterator[str]:
    """Yield the names of the folders of journals; links are none."""
    if root.is_dir():
        with os.scandir(root) as found:
            yield from (one.name for one in found if PLACE.fullmatch(one.name) and not is_link(one))


def is_link(folder: Path | os.DirEntry[str]) -> bool:
    """Whether a folder is a link, or a junction of Windows."""
    is_junction = getattr(os.path, "isjunction", lambda path: False)  # from Python 3.12
    return folder.is_symlink() or is_junction(folder)


def look(folder: Path) -> Size:
    """Return the size of a journal by looking at all its files."""
    states = sum(path.stat().st_size for path in _files(folder / STATES))
    others = sum(path.stat().st_size for part in (folder, folder / THUMBS) for path in _files(part) if path.name != FILE)
    return Size(states, others, *stamp(folder))


def _looked(folder: Path) -> Size | None:
    """Return the size of a journal; None if it was deleted meanwhile."""
    try:
        return look(folder)
    except FileNotFoundError:
        return None


def stamp(folder: Path) -> tuple[int, int]:
    """Return the size of a journal's file, and the time of its last use, ns."""
    try:
        status = (folder / FILE).stat()
    except FileNotFoundError:
        return 0, folder.stat().st_mtime_ns
    return status.st_size, status.st_mtime_ns


def _files(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (path for path in folder.iterdir() if path.is_file())


def _line(place: str, size: Size | None) -> bytes:
    return line_of({"place": place, "size": None if size is None else list(size)})


def _said(line: bytes) -> tuple[str, Size | None]:
    """Return what a line says; "" and None for one that is damaged."""
    entry = parsed(line.rstrip(b"\n")) or {}
    place, size = entry.get("place"), entry.get("size")
    if not isinstance(place, str) or not PLACE.fullmatch(place):
        return "", None
    if isinstance(size, list) and len(size) == len(Size._fields) and all(type(one) is int for one in size):
        return place, Size(*size)
    return place, None
