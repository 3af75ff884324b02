"""Small pictures of a search's candidates: JPEG files in memory, and beside the journal where there is one."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..search.candidates import Candidate
from ..search.journal import entry_name
from ..search.recipes import Recipe
from ..verifiers.preprocess import eight_bit

log = logging.getLogger("noise-search")
SIDE = 160  # pixels, the longer one
BYTES = 10_000  # of a file, at most
QUALITIES = (85, 70, 55, 40, 25, 10)


class Thumbnails:
    """The small pictures of one search; an `Album`.

    Attributes:
        place: hex digits; the name that pages find them under.
        folder: where they are written to as well; None for memory only.
    """

    def __init__(
        self, place: str, folder: Path | None = None, name: Callable[[Recipe, Mapping[str, Any]], str] = entry_name
    ) -> None:
        """Start with what is in the folder; `name` names what was made of a recipe."""
        self.place, self.folder, self._name = place, folder, name
        self._files: dict[str, bytes] = {}
        self._written: set[str] = set()
        if folder is not None:
            self._written = {path.stem for path in folder.glob("*.jpg")}

    def name_of(self, candidate: Candidate, what: Mapping[str, Any]) -> str:
        """Return the name of what was made of a candidate: it says what the picture shows, so that it never changes."""
        return self._name(candidate.recipe, what)

    def add(self, name: str, pictures: Tensor) -> None:
        """Keep a small picture of the first of (F, H, W, 3)."""
        self._files[name] = data = jpeg(pictures[0])
        if self.folder is not None and name not in self._written:
            self._write(name, data)

    def get(self, name: str) -> bytes | None:
        """Return the JPEG file of that name; None if there is none."""
        data = self._files.get(name)
        return read(self.folder, name) if data is None and self.folder is not None else data

    def has(self, name: str) -> bool:
        return name in self._files or name in self._written

    def keep(self, names: set[str]) -> None:
        self._files = {name: data for name, data in self._files.items() if name in names}

    def forget(self) -> None:
        """Let go of all pictures: their folder was deleted."""
        self._files, self._written = {}, set()

    def end(self) -> None:
        """Free what only adding needs, and what is read from the folder as well."""
        self._files = {name: data for name, data in self._files.items() if name not in self._written}
        self._written = set()

    def _write(self, name: str, data: bytes) -> None:
        """Write a file whole or not at all; a disk that is full costs later searches their pictures, not this one."""
        temporary = self.folder / f"{name}.{os.getpid()}.tmp"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(data)
            temporary.replace(self.folder / f"{name}.jpg")
        except OSError as error:
            log.warning("thumbnails are no longer written to %s: %s", self.folder, error)
            self.folder = None
            with suppress(OSError):
                temporary.unlink()
        else:
            self._written.add(name)


def read(folder: Path, name: str) -> bytes | None:
    """Return a file of a folder of thumbnails by its name, which was checked to be hex digits; None if there is none."""
    try:
        return (folder / f"{name}.jpg").read_bytes()
    except OSError:  # not there, a folder, not ours to read: there is none
        return None


def jpeg(picture: Tensor) -> bytes:
    """Return a JPEG file of a picture (H, W, C) in [0, 1], in as good a quality as its size allows."""
    image = Image.fromarray(_pixels(picture))
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
