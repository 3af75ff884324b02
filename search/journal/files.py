"""The file of a journal: lines are appended whole or not at all, and seen onto the disk when that is asked for."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

BINARY = getattr(os, "O_BINARY", 0)  # Windows would write two bytes for a line's end
AT_ONCE = 16  # files that are seen onto the disk at once: a file system puts those together, which is much faster


class JournalFile:
    """An open file that lines are appended to; another process may append to it too, or delete it.

    Attributes:
        path: where it lies.
    """

    def __init__(self, path: Path, header: bytes, cut: int | None = None) -> None:
        """Open the file, or begin it.

        Args:
            path: of the file; its folder is there.
            header: the first line of a file that holds nothing.
            cut: how many bytes to keep of it; None for all: another process may have written since it was read.

        Raises:
            OSError: it cannot be opened, cut or written; nothing stays open.
        """
        self.path, self._header = path, header
        self._handle = self._opened(cut)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._handle)

    @property
    def deleted(self) -> bool:
        """Whether what is open is not what lies there any more."""
        try:
            return not os.path.samestat(os.stat(self.path), os.fstat(self._handle))
        except FileNotFoundError:
            return True

    def begin_anew(self) -> None:
        """Go on in another file in the place of one that was deleted."""
        new = self._opened(None)
        os.close(self._handle)
        self._handle = new

    def append(self, data: bytes) -> int:
        """Write lines at the end, whole or not at all; return where they begin."""
        return _append(self._handle, data, self.path)

    def read(self, start: int, length: int) -> bytes:
        """Return a part of the file; less of it where the file ends."""
        os.lseek(self._handle, start, os.SEEK_SET)  # what is appended goes to the end all the same
        parts = bytearray()
        while len(parts) < length and (part := os.read(self._handle, length - len(parts))):
            parts += part
        return bytes(parts)

    def sync(self) -> None:
        """See all that was appended onto the disk."""
        os.fsync(self._handle)

    def _opened(self, cut: int | None) -> int:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | BINARY, 0o644)
        try:
            if cut is not None:
                os.ftruncate(handle, cut)
            if os.fstat(handle).st_size == 0:
                _append(handle, self._header, self.path)
                os.fsync(handle)
                sync_folder(self.path.parent)
                sync_folder(self.path.parent.parent)  # which has the name of a new folder
        except BaseException:
            os.close(handle)
            raise
        return handle


def _append(handle: int, data: bytes, path: Path) -> int:
    before = os.fstat(handle).st_size
    written = os.write(handle, data)
    if written != len(data):
        os.ftruncate(handle, before)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    return os.lseek(handle, 0, os.SEEK_CUR) - written  # not `before`: another process may have appended since


def write_whole(path: Path, data: bytes, lasting: bool = True) -> None:
    """Write a file that is there whole or not at all: after a kill, and if it is `lasting` after a power cut."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            if lasting:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if lasting:
        sync_folder(path.parent)


def sync_files(paths: list[Path]) -> None:
    """See files that were written before onto the disk, those that are still there, and their names, which are of one folder."""
    if not paths:
        return
    with ThreadPoolExecutor(min(AT_ONCE, len(paths))) as threads:
        list(threads.map(_sync_if_there, paths))
    with suppress(FileNotFoundError):
        sync_folder(paths[0].parent)


def sync_folder(folder: Path) -> None:
    """See the names in a folder onto the disk; where folders cannot be opened, nothing is done, nor needs to be."""
    if hasattr(os, "O_DIRECTORY"):
        _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def _sync_if_there(path: Path) -> None:
    with suppress(FileNotFoundError):
        _sync(path, os.O_RDWR | BINARY)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
