"""What a file holds: a SHA-256 of all of it. What large files were found to hold is remembered on disk."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import comfy.model_management as mm
import comfy.utils
import folder_paths

from ...search.journal.files import write_whole
from .journals import journals_folder

log = logging.getLogger("noise-search")
LARGE = 1 << 22  # bytes above which a file is remembered on disk, and reading it can be seen and cancelled
BLOCK = 1 << 22  # bytes that are read at a time
SETTLED = 2_000_000_000  # ns that a file has to stay as it is before it is remembered: times of files are that coarse
REMEMBERED = 4096  # files, at most
FILE, VERSION = "files.json", 1
LONGEST_NAME = 512
OF_MODELS = ("config.json", "model_index.json")  # a folder that holds one is a model; others only sort files


class Identity(NamedTuple):
    """What tells whether a file is still the one that was read: size, times and inode."""

    size: int
    changed: int
    status_changed: int
    inode: int


_known: dict[tuple[str, Identity], str] = {}


def fingerprints(name: str) -> list[str]:
    """Return a hash of each file, or folder of files, that a text names in ComfyUI's model folders or its input folder."""
    if not name or len(name) > LONGEST_NAME or "\n" in name or "\0" in name:
        return []
    paths = dict.fromkeys(path for path in _named(name) if _is_file(path) or _is_model(path))
    return [fingerprint(path) if _is_file(path) else _of_folder(path) for path in paths]


def fingerprint(path: Path) -> str:
    """Return a hash of a file's size and of its content: of large files that were read before, without reading them again.

    Raises:
        InterruptProcessingException: the user pressed Cancel while a large file was read.
    """
    identity = _identity(path)
    key = str(path), identity
    found = _known.get(key) or (_remembered().get(key) if identity.size > LARGE else None)
    if found is None:
        began = time.time_ns()
        found = _read(path, identity.size)
        if began - max(identity.changed, identity.status_changed) < SETTLED or _identity(path) != identity:
            return found
        if identity.size > LARGE:
            _remember(key, found)
    _known[key] = found
    return found


def remembered_file() -> Path:
    """Return where it is written what large files hold."""
    return journals_folder() / FILE


def _identity(path: Path) -> Identity:
    status = path.stat()
    return Identity(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def _read(path: Path, size: int) -> str:
    digest = hashlib.sha256(str(size).encode())
    large = size > LARGE
    progress = comfy.utils.ProgressBar(size) if large else None
    if large:
        log.info("noise search: all of %s is read once (%.1f MiB), so that it is known by its content", path, size / 2**20)
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            if progress is not None:
                mm.throw_exception_if_processing_interrupted()
                progress.update(len(block))
    return digest.hexdigest()


def _remembered() -> dict[tuple[str, Identity], str]:
    """Return the hashes of large files on disk; what is no list of them is passed over."""
    with suppress(OSError, ValueError, TypeError, AttributeError, KeyError):
        said = json.loads(remembered_file().read_bytes())
        if said["version"] == VERSION:
            return {(path, Identity(*map(int, identity))): str(found) for path, (*identity, found) in said["files"].items()}
    return {}


def _remember(key: tuple[str, Identity], found: str) -> None:
    """Write down what a file holds, in the place of what was written of its path; if that cannot be, it is read again."""
    files = {path: [*identity, known] for (path, identity), known in _remembered().items() if path != key[0]}
    newest = dict([*files.items(), (key[0], [*key[1], found])][-REMEMBERED:])
    try:
        remembered_file().parent.mkdir(parents=True, exist_ok=True)
        write_whole(remembered_file(), json.dumps({"version": VERSION, "files": newest}).encode())
    except OSError as error:
        log.warning("noise search: %s cannot be written, so that large files are read again: %s", remembered_file(), error)


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
