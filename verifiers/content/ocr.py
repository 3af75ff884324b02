"""A reader of text in pictures: RapidOCR, from one of the two optional packages that carry it and its models.

Both run PaddleOCR's networks (PP-OCR: find lines, turn them upright, read them) by ONNX Runtime. Its sessions are no
torch modules, so no model patcher can hold them; they stay on the CPU, where they take 250 to 400 MB of memory.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import re
from functools import cache
from typing import Any

from .text_accuracy import Line, Reader

OLDEST = (3, 5)  # of rapidocr: 3.3 and 3.4 download a font while they read
INSTALL = 'pip install "rapidocr>=3.5" onnxruntime'


@cache
def load_reader(name: str = "text accuracy") -> Reader:
    """Return a reader for `TextAccuracy`, shared by all who ask; nothing is downloaded.

    Args:
        name: the verifier's name, for messages.

    Raises:
        ValueError: neither package can be imported, or its models are gone; names the package and the pip command.
    """
    said = []
    for package, load in (("rapidocr", _rapidocr), ("rapidocr-onnxruntime", _rapidocr_onnxruntime)):
        try:
            return load()
        except (ImportError, FileNotFoundError) as error:
            said.append(f"{package}: {error}")
    raise ValueError(
        f"{name}: there is no reader of text. Install the packages rapidocr and onnxruntime, which bring their models along,"
        f" into ComfyUI's Python with `{INSTALL}`, and restart ComfyUI. ({'; '.join(said)})"
    )


def _rapidocr() -> Reader:
    version = importlib.metadata.version("rapidocr")
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < OLDEST:
        raise ImportError(f"version {version} is too old, it may download files while it reads")
    import onnxruntime  # noqa: F401  # the engine would ask for it at the first picture only
    from rapidocr import RapidOCR

    reader = _reader(RapidOCR(params=_models_of("rapidocr")))
    logging.getLogger("RapidOCR").setLevel(logging.ERROR)  # else one warning for each picture without text
    return reader


def _reader(engine: Any) -> Reader:
    """Return the reader that is a `RapidOCR`, whose results have as many types as it has parts."""

    def read(pixels: Any) -> list[Line]:
        found = engine(pixels)
        return [] if found.txts is None else [_line(*pair) for pair in zip(found.txts, found.boxes, strict=True)]

    return read


def _models_of(package: str) -> dict[str, str]:
    """Return the settings that name the models inside the package's own wheel; unnamed ones it may download."""
    files = [file for file in importlib.metadata.files(package) or [] if file.suffix == ".onnx"]
    named = {}
    for part in ("Det", "Cls", "Rec"):
        paths = [str(file.locate()) for file in files if f"_{part.lower()}" in file.name]
        if not paths or not os.path.isfile(paths[0]):
            raise FileNotFoundError(f"this version of {package} lacks its model for {part}")
        named[f"{part}.model_path"] = paths[0]
    return named


def _rapidocr_onnxruntime() -> Reader:
    from rapidocr_onnxruntime import RapidOCR

    engine = RapidOCR()

    def read(pixels: Any) -> list[Line]:
        found, _ = engine(pixels)
        return [_line(text, corners) for corners, text, _ in found or []]

    return read


def _line(text: str, corners: Any) -> Line:
    """Make a line of a text and its four corners (x, y)."""
    xs, ys = [float(x) for x, _ in corners], [float(y) for _, y in corners]
    return Line(str(text), (min(xs), min(ys), max(xs), max(ys)))
