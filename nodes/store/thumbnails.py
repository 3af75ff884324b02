"""Small pictures of a search's candidates: JPEG files in memory, and beside the journal where there is one.

A picture is made small in the node's thread, which may write into it next; the file is made and written in another."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...search.base.candidate import Candidate
from ...search.base.text import cut
from ...search.journal.files import write_whole
from ...search.journal.journal import entry_name
from ...search.noise.recipe import Recipe
from ...verifiers.common.preprocess import eight_bit

log = logging.getLogger("noise-search")
SIDE = 160  # pixels, the longer one
BYTES = 10_000  # of a file, at most
QUALITIES = (85, 70, 55, 40, 25, 10)
AT_ONCE = 16  # small pictures that wait for their files at most, of all searches

_maker = ThreadPoolExecutor(1, "noise-search-thumbnails")
_room = threading.BoundedSemaphore(AT_ONCE)


class Thumbnails:
    """The small pictures of one search; an `Album`. One thread for all searches makes the files of what is added.

    Attributes:
        place: hex digits; the name that pages find them under.
        folder: where they are written to as well; None for memory only.
        grown: told the bytes of every file that was written; called in another thread.
        problems: what pictures could not be made, in words.
    """

    def __init__(
        self, place: str, folder: Path | None = None, name: Callable[[Recipe, Mapping[str, Any]], str] = entry_name
    ) -> None:
        """Start with what is in the folder; `name` names what was made of a recipe."""
        self.place, self.folder, self._name = place, folder, name
        self.grown: Callable[[int], None] = lambda size: None
        self.problems: list[str] = []
        self._lock = threading.Lock()
        self._files: dict[str, bytes] = {}
        self._written: set[str] = set()  # as far as that was asked
        self._coming: dict[str, Future[None]] = {}  # being made
        self._let_go: set[str] = set()  # of those, what is not kept in memory

    def name_of(self, candidate: Candidate, what: Mapping[str, Any]) -> str:
        """Return the name of what was made of a candidate: it says what the picture shows, so that it never changes."""
        return self._name(candidate.recipe, what)

    def add(self, name: str, pictures: Tensor) -> None:
        """Keep a small picture of the first of (F, H, W, 3), which is at once free to be written into.

        Where `AT_ONCE` small pictures wait for their files, of whatever search, this waits too.
        """
        pixels = _pixels(pictures[0])
        _room.acquire()
        with self._lock:
            self._let_go.discard(name)
            if name not in self._coming:
                self._coming[name] = _maker.submit(self._make, name, pixels)
                return
        _room.release()

    def get(self, name: str) -> bytes | None:
        """Return the JPEG file of that name, once it is made; None if there is none."""
        with self._lock:
            coming = None if name in self._let_go else self._coming.get(name)
        if coming is not None:
            wait([coming])
        data = self._files.get(name)
        return read(self.folder, name) if data is None and self.folder is not None else data

    def has(self, name: str) -> bool:
        with self._lock:
            if name in self._files or name in self._written or (name in self._coming and name not in self._let_go):
                return True
        return self._is_there(name)

    def keep(self, names: set[str]) -> None:
        with self._lock:
            self._files = {name: data for name, data in self._files.items() if name in names}
            self._let_go = self._coming.keys() - names

    def flush(self) -> None:
        """Wait until all that was added is made and written."""
        with self._lock:
            coming = list(self._coming.values())
        wait(coming)

    def forget(self) -> None:
        """Let go of all pictures: their folder was deleted."""
        self.flush()
        with self._lock:
            self._files, self._written = {}, set()

    def end(self) -> None:
        """Free what only adding needs, and what is read from the folder as well."""
        self.flush()
        with self._lock:
            self._files = {name: data for name, data in self._files.items() if name not in self._written}
            self._written = set()

    # In the thread that makes the files.

    def _make(self, name: str, pixels: np.ndarray) -> None:
        data = None
        try:
            data = encoded(pixels)
            if self.folder is not None and name not in self._written and not self._is_there(name):
                self._write(self.folder, name, data)
        except Exception as error:
            said = f"a small picture could not be made: {cut(f'{type(error).__name__}: {error}')}"
            self.problems += [said] * (said not in self.problems)
        finally:
            with self._lock:
                if data is not None and name not in self._let_go:
                    self._files[name] = data
                del self._coming[name]
                self._let_go.discard(name)
            _room.release()

    def _is_there(self, name: str) -> bool:
        folder = self.folder
        if folder is None or not (folder / f"{name}.jpg").is_file():
            return False
        with self._lock:
            self._written.add(name)
        return True

    def _write(self, folder: Path, name: str, data: bytes) -> None:
        """Write a file whole or not at all; a disk that is full costs later searches their pictures, not this one."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / f"{name}.jpg", data, lasting=False)
        except OSError as error:
            log.warning("thumbnails are no longer written to %s: %s", folder, error)
            self.folder = None
        else:
            with self._lock:
                self._written.add(name)
            self.grown(len(data))


def read(folder: Path, name: str) -> bytes | None:
    """Return a file of a folder of thumbnails by its name, which was checked to be hex digits; None if there is none."""
    try:
        return (folder / f"{name}.jpg").read_bytes()
    except OSError:  # not there, a folder, not ours to read: there is none
        return None


def jpeg(picture: Tensor) -> bytes:
    """Return a JPEG file of a picture (H, W, C) in [0, 1], made small, in as good a quality as its size allows."""
    return encoded(_pixels(picture))


def encoded(pixels: np.ndarray) -> bytes:
    """Return a JPEG file of pixels (h, w, 3), uint8, in as good a quality as its size allows."""
    image, out = Image.fromarray(pixels), io.BytesIO()
    for quality in QUALITIES:
        out = io.BytesIO()
        image.save(out, "JPEG", quality=quality)
        if out.tell() <= BYTES:
            break
    return out.getvalue()


def _pixels(picture: Tensor) -> np.ndarray:
    """Return pixels (h, w, 3), uint8, the longer side no longer than it may be."""
    colors = picture if picture.shape[-1] == 3 else picture[..., :1].expand(*picture.shape[:2], 3)
    rows = colors.permute(2, 0, 1)[None].float().nan_to_num().clamp(0, 1)
    scale = SIDE / max(rows.shape[2:])
    if scale < 1:
        size = [max(1, round(side * scale)) for side in rows.shape[2:]]
        rows = torch.nn.functional.interpolate(rows, size=size, mode="area")
    return eight_bit(rows[0].permute(1, 2, 0)).numpy()
