"""Where journals lie, how much room they may take, and how one is forgotten."""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import folder_paths

from ...search.journal.journal import DELETED, FILE, STATES, Journal, worst_first
from ...search.journal.lines import RUN
from ...search.journal.reading import entries
from ...search.noise.recipe import Recipe
from .journal_sizes import PLACE, Size, Sizes, is_link, look, places, stamp

log = logging.getLogger("noise-search")
FOLDER = "__noise_search"  # ComfyUI serves no file of a user whose name begins so
ROOM = "NOISE_SEARCH_JOURNAL_MB"  # environment variable
DEFAULT_ROOM = 2048  # MiB
SHARE = 16  # a search looks after the room each time it has filled one part in so many
KEPT = 16  # states of a search that runs that stay, whatever room there is


@dataclass
class Count:
    """Bytes of the journal of a search that runs: see `Size`. The thread that makes small pictures adds to `others`."""

    states: int = 0
    others: int = 0


listeners: list[Callable[[str], None]] = []  # called with the place of a journal that was deleted
_lock = threading.RLock()
_open: list[str] = []  # places of searches that run
_counts: dict[str, Count] = {}  # of them
_kept: list[Sizes] = []  # of the folder that was used last


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
    return any(True for _ in places(journals_folder()))


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
        journal.grown = _watch(folder, journal.notes)
        _open.append(key)
        try:
            _warned(lambda: _begin_count(folder))
            os.utime(folder / FILE)  # the last use is what pruning goes by
            make_room()
        except BaseException:
            close_journal(journal)
            raise
    return journal


def close_journal(journal: Journal) -> None:
    """Let go of a journal, and keep all of them within their room."""
    place = journal.folder.name
    with _lock:
        try:
            journal.close()
            make_room()  # while its own still counts as one that runs
        finally:
            _open.remove(place)
            if place not in _open:
                _counts.pop(place, None)


def beside_grew(place: str, size: int) -> None:
    """Count bytes that were written beside the journal of a search that runs."""
    if (count := _counts.get(place)) is not None:
        count.others += size


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
        if is_link(folder):
            folder.unlink()
        elif folder.is_dir():
            shutil.rmtree(folder)
        else:
            return False
        _warned(lambda: _sizes().put(place, None))
    for listener in list(listeners):
        listener(place)
    return True


def recipe_of(place: str, name: str) -> str | None:
    """Return the recipe, JSON text, of what has a name in a journal, as it is on disk; None if that does not know it.

    Raises:
        ValueError: this is no name of a place.
    """
    for entry in entries(place_folder(place), name):
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
        _warned(_make_room)


def _warned(action: Callable[[], None]) -> None:
    try:
        action()
    except OSError as error:
        log.warning("noise search: the journals could not be kept within their room: %s", error)


def _watch(folder: Path, notes: list[str]) -> Callable[[int], None]:
    """Return what counts bytes of states that were written or deleted, and makes room now and then; `notes`: the journal's."""
    written, deleted = 0, False

    def grown(size: int) -> None:
        nonlocal written, deleted
        count = _counts.get(folder.name)
        if count is not None:
            count.states += size
            if DELETED in notes and not deleted:
                deleted, there = True, look(folder)
                count.states, count.others = there.states, there.others
        written += max(0, size)
        if written * SHARE >= room():
            written = 0
            make_room()

    return grown


def _sizes() -> Sizes:
    """Return the sizes of all journals, as other processes told them last."""
    root = journals_folder()
    if not _kept or _kept[0].root != root:
        _kept[:] = [Sizes(root)]
    _kept[0].refresh(frozenset(_open))
    return _kept[0]


def _begin_count(folder: Path) -> None:
    """Count what the journal of a search that begins takes: as it was told, unless something was written to it since."""
    known = _sizes().get(folder.name)
    if stamp(folder) != (known.lines, known.used):
        known = look(folder)
    _counts.setdefault(folder.name, Count(known.states, known.others))


def _make_room() -> None:
    sizes, running = _sizes(), set(_open)
    for place in running:
        count = _counts.get(place, Count())
        sizes.put(place, Size(count.states, count.others, *stamp(place_folder(place))))
    if sizes.total <= room():
        return
    sizes.list_folders()
    over = sizes.total - room()
    if over > 0:
        log.info("noise search: the journals take %.0f MiB too much; the oldest go", over / 2**20)
    order = sizes.by_use()
    resting = [place for place in order if place not in running]
    for place in resting:
        over -= _drop_states(sizes, place, 0, over)
    for place in resting:
        if over > 0:
            over -= sizes.get(place).total
            shutil.rmtree(place_folder(place))
            sizes.put(place, None)
    for place in order:
        if place in running:
            over -= _drop_states(sizes, place, KEPT, over)


def _drop_states(sizes: Sizes, place: str, kept: int, over: int) -> int:
    """Delete states, the worst candidates' first, until `over` bytes are gained or `kept` are left; return what was gained."""
    known = sizes.get(place)
    if over <= 0 or not known.states:
        return 0
    folder = place_folder(place)
    states = {path.stem: path for path in (folder / STATES).glob("*.safetensors")}
    order = [name for name in worst_first(folder) if name in states]
    listed = set(order)
    order = [name for name in states if name not in listed] + order  # nothing is known of those: they were set aside
    gained = 0
    for name in order[: max(0, len(order) - kept)]:
        if gained >= over:
            break
        gained += states[name].stat().st_size
        states[name].unlink()
    if place in _counts:
        _counts[place].states -= gained
    all_went = gained < over and not kept
    sizes.put(place, look(folder) if all_went else known._replace(states=known.states - gained))
    return gained
