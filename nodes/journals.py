"""Where journals lie, how much room they may take, and how one is forgotten."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import folder_paths

from ..search.journal import FILE, RUN, STATES, THUMBS, Journal, entries, worst_first
from ..search.recipes import Recipe

log = logging.getLogger("noise-search")
FOLDER = "__noise_search"  # ComfyUI serves no file of a user whose name begins so
ROOM = "NOISE_SEARCH_JOURNAL_MB"  # environment variable
DEFAULT_ROOM = 2048  # MiB
SHARE = 16  # a search looks after the room each time it has filled one part in so many
KEPT = 16  # states of a search that runs that stay, whatever room there is
PLACE = re.compile(r"[0-9a-f]{32}")

listeners: list[Callable[[str], None]] = []  # called with the place of a journal that was deleted
_lock = threading.RLock()
_open: list[str] = []  # places of searches that run


def journals_folder() -> Path:
    """Return the folder of all journals."""
    return Path(folder_paths.get_user_directory()) / FOLDER


def place_folder(place: str) -> Path:
    """Return the folder of one journal.

    Raises:
        ValueError: this is no name of a place.
    """
    if not isinstance(place, str) or not PLACE.fullmatch(place):
        raise ValueError("place: it must be 32 hexadecimal digits, as the search's state names it")
    return journals_folder() / place


def any_journal() -> bool:
    """Whether there is one."""
    return bool(_all())


def room() -> int:
    """Return how many bytes all journals together may take; 0: none is kept.

    Raises:
        ValueError: the environment variable is no number.
    """
    said = os.environ.get(ROOM, "").strip()
    if not said:
        return DEFAULT_ROOM << 20
    if not said.isdecimal():
        raise ValueError(f"environment variable {ROOM}: it must be a whole number of MiB, 0 for no journals, not {said!r}")
    return int(said) << 20


def open_journal(key: str) -> Journal:
    """Open the journal of a set-up; `close_journal` ends that."""
    with _lock:
        folder = place_folder(key)
        journal = Journal(folder, key)
        journal.grown = _watch()
        _open.append(key)
        try:
            os.utime(folder / FILE)  # the last use is what pruning goes by
            make_room()
        except BaseException:
            close_journal(journal)
            raise
    return journal


def close_journal(journal: Journal) -> None:
    """Let go of a journal, and keep all of them within their room."""
    with _lock:
        try:
            journal.close()
            make_room()  # while its own still counts as one that runs
        finally:
            _open.remove(journal.folder.name)


def forget(place: str) -> bool:
    """Delete a journal with all that lies beside it; return whether there was one.

    Of a folder that is a link, the link is deleted, and what it leads to stays.

    Raises:
        ValueError: this is no name of a place, or its search runs.
        OSError: it cannot be deleted.
    """
    folder = place_folder(place)
    with _lock:
        if place in _open:
            raise ValueError("place: this search is running: end it first")
        if _is_link(folder):
            folder.unlink()
        elif folder.is_dir():
            shutil.rmtree(folder)
        else:
            return False
    for listener in list(listeners):
        listener(place)
    return True


def recipe_of(place: str, name: str) -> str | None:
    """Return the recipe, JSON text, of what has a name in a journal, as it is on disk; None if that does not know it.

    Raises:
        ValueError: this is no name of a place.
    """
    for entry in entries(place_folder(place)):
        if entry["kind"] == RUN and entry["name"] == name:
            with suppress(ValueError):  # of another version
                return Recipe.from_json(json.dumps(entry.get("recipe"))).to_json()
    return None


def make_room() -> None:
    """Delete what is least missed until all journals fit their room; what cannot be deleted is logged, and stays.

    First the states of the worst candidates, of the searches that were not used for the longest time; then such
    searches; last the worst of those that run, but for their best.
    """
    with _lock:
        try:
            _make_room()
        except OSError as error:
            log.warning("noise search: the journals could not be kept within their room: %s", error)


def _watch() -> Callable[[int], None]:
    """Return what sums up bytes that were written, and makes room now and then."""
    written = 0

    def grown(size: int) -> None:
        nonlocal written
        written += size
        if written * SHARE >= room():
            written = 0
            make_room()

    return grown


def _make_room() -> None:
    over = sum(map(_size, _all())) - room()
    if over <= 0:
        return
    log.info("noise search: the journals take %.0f MiB too much; the oldest go", over / 2**20)
    resting = [folder for folder in _all() if folder.name not in _open]
    for folder in resting:
        over -= _drop_states(folder, 0, over)
    for folder in resting:
        if over > 0:
            over -= _size(folder)
            shutil.rmtree(folder)
    for folder in _all():
        over -= _drop_states(folder, KEPT, over)


def _all() -> list[Path]:
    """Return the folders of all journals, the least recently used first."""
    root = journals_folder()
    found = [path for path in root.iterdir() if PLACE.fullmatch(path.name) and not _is_link(path)] if root.is_dir() else []
    return sorted(found, key=_last_use)


def _is_link(folder: Path) -> bool:
    is_junction = getattr(os.path, "isjunction", lambda path: False)  # of Windows, from Python 3.12
    return folder.is_symlink() or is_junction(folder)


def _last_use(folder: Path) -> float:
    file = folder / FILE
    return (file if file.exists() else folder).stat().st_mtime


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in _files(folder))


def _files(folder: Path) -> Iterator[Path]:
    for part in (folder, folder / STATES, folder / THUMBS):
        if part.is_dir():
            yield from (path for path in part.iterdir() if path.is_file())


def _drop_states(folder: Path, kept: int, over: int) -> int:
    """Delete states, the worst candidates' first, until `over` bytes are gained or `kept` are left; return what was gained."""
    states = {path.stem: path for path in (folder / STATES).glob("*.safetensors")}
    order = [name for name in worst_first(folder) if name in states]
    order = [name for name in states if name not in order] + order  # nothing is known of those: they were set aside
    gained = 0
    for name in order[: max(0, len(order) - kept)]:
        if gained >= over:
            break
        gained += states[name].stat().st_size
        states[name].unlink()
    return gained
