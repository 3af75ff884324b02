"""What a file holds, told from samples of it: a model file may be of many gigabytes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import folder_paths

WHOLE = 1 << 22  # bytes up to which a file is read whole
SAMPLES, SAMPLE = 32, 1 << 16  # of larger ones: blocks, evenly spread from the first to the last, of so many bytes
LONGEST_NAME = 512
OF_MODELS = ("config.json", "model_index.json")  # a folder that holds one is a model; others only sort files
_known: dict[tuple[str, int, int], str] = {}  # by path, size and time of the last change


def fingerprints(name: str) -> list[str]:
    """Return a hash of each file, or folder of files, that a text names in ComfyUI's model folders or its input folder."""
    if not name or len(name) > LONGEST_NAME or "\n" in name or "\0" in name:
        return []
    paths = dict.fromkeys(path for path in _named(name) if _is_file(path) or _is_model(path))
    return [fingerprint(path) if _is_file(path) else _of_folder(path) for path in paths]


def fingerprint(path: Path) -> str:
    """Return a hash of a file's size and of its content, or of samples of that."""
    status = path.stat()
    key = (str(path), status.st_size, status.st_mtime_ns)
    if key not in _known:
        _known[key] = _sampled(path, status.st_size)
    return _known[key]


def _sampled(path: Path, size: int) -> str:
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size <= WHOLE:
            digest.update(file.read())
            return digest.hexdigest()
        for index in range(SAMPLES):
            file.seek((size - SAMPLE) * index // (SAMPLES - 1))
            digest.update(file.read(SAMPLE))
    return digest.hexdigest()


def _is_model(folder: Path) -> bool:
    return any(_is_file(folder / name) for name in OF_MODELS)


def _is_file(path: Path) -> bool:
    """Whether there is such a file; no text is too long to ask, as it is for `Path.is_file` up to Python 3.13."""
    return os.path.isfile(path)


def _of_folder(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256("".join(f"{p.relative_to(folder)}:{fingerprint(p)};" for p in files).encode()).hexdigest()


def _named(name: str) -> Iterator[Path]:
    """Yield what a text names, inside the folders only."""
    plain, base = folder_paths.annotated_filepath(name)
    roots = [(base or folder_paths.get_input_directory(), plain)]
    roots += [(root, name) for kind in folder_paths.folder_names_and_paths if kind != "custom_nodes"
              for root in folder_paths.get_folder_paths(kind)]  # fmt: skip
    for root, inside in roots:
        path = os.path.abspath(os.path.join(root, inside))  # links that the user laid inside may lead elsewhere
        if path.startswith(os.path.join(os.path.abspath(root), "")):
            yield Path(path)
