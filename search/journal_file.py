"""The file of a journal: lines are appended whole or not at all, and seen onto the disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

BINARY = getattr(os, "O_BINARY", 0)  # Windows would write two bytes for a line's end


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

    def append(self, data: bytes, sync: bool) -> None:
        """Write lines at the end, whole or not at all, and see them onto the disk if `sync`."""
        _append(self._handle, data, self.path)
        if sync:
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
        except BaseException:
            os.close(handle)
            raise
        return handle


def _append(handle: int, data: bytes, path: Path) -> None:
    start = os.fstat(handle).st_size
    written = os.write(handle, data)
    if written != len(data):
        os.ftruncate(handle, start)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


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
    if lasting and hasattr(os, "O_DIRECTORY"):  # elsewhere folders cannot be opened, nor need to be
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
