"""A disk that a power cut may hit: what was seen onto it is known, and can be laid into another folder as it would be found.

disk = Disk(folder, monkeypatch)
...
disk.left(other)                  # files and names that were seen onto the disk, and nothing else
disk.left(other, also=is_lucky)   # and files that the system wrote by itself before the power went
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Disk:
    """Notes every `os.fsync`.

    Attributes:
        synced: what was seen onto the disk, as paths in the folder, in order.
    """

    def __init__(self, folder: Path, monkeypatch: Any) -> None:
        """Watch a folder."""
        self.folder = folder
        self.synced: list[str] = []
        self._content: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}
        self._held: list[int] = []  # open, so that no other file gets the number of one that was deleted
        fsync = os.fsync

        def noted(handle: int) -> None:
            fsync(handle)
            self._note(handle)

        monkeypatch.setattr(os, "fsync", noted)

    def _note(self, handle: int) -> None:
        number = os.fstat(handle).st_ino
        here = [path for path in (self.folder, *self.folder.rglob("*")) if path.lstat().st_ino == number]
        for path in here:
            self.synced.append(str(path.relative_to(self.folder)))
            self._held.append(os.open(path, os.O_RDONLY))
            if path.is_dir():
                self._names[number] = {one.name: one.lstat().st_ino for one in path.iterdir()}
            else:
                self._content[number] = path.read_bytes()

    def left(self, other: Path, also: Callable[[Path], bool] = lambda path: False) -> Path:
        """Lay into a folder what a power cut leaves; `also`: files that were on disk all the same, as they are now."""
        self._lay(self.folder, other)
        for path in list(self.folder.rglob("*")):
            if path.is_file() and also(path) and other not in path.parents:
                target = other / path.relative_to(self.folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
        return other

    def _lay(self, folder: Path, other: Path) -> None:
        other.mkdir(parents=True, exist_ok=True)
        for name, number in self._names.get(folder.stat().st_ino, {}).items():
            if (folder / name).is_dir():
                self._lay(folder / name, other / name)
            else:  # a file whose name is there, and whose content was never seen onto the disk, is empty
                (other / name).write_bytes(self._content.get(number, b""))

    def close(self) -> None:
        for handle in self._held:
            os.close(handle)
