"""Follows one search and tells a page what changes, at most five times a second.

The search only says that something changed; what, is found out when the next event is due, in the thread that sends it.
So a fast search is not held up, and the last state before a long silence is sent as well.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from ..base.candidate import Candidate
from ..core.observer import SearchView
from ..core.status_text import done
from ..noise.recipe import Recipe
from .snapshot import VERSION, Course, Plan, change, merged, names_in, snapshot

EVERY = 0.2  # seconds between two events
SHARE = 0.05  # of the time that may be spent on finding out what changed
WORDS = 500  # letters
PICTURES = 600  # small ones, at most
PHASES = RUNNING, PAUSED, ASKING, ENDED, FAILED, CANCELLED = "running", "paused", "asking", "ended", "failed", "cancelled"
SAID = {PAUSED: "paused", ASKING: "waiting for your choice"}


class ThumbnailStore(Protocol):
    """Where small pictures of a search are kept.

    Attributes:
        place: its name, hex digits.
    """

    place: str

    def name_of(self, candidate: Candidate, what: Mapping[str, Any]) -> str:
        """Return the name, hex digits, of what was made of a candidate; see `SearchObserver.shown`."""
        ...

    def add(self, name: str, pictures: Tensor) -> None:
        """Keep a small picture of pictures (F, H, W, 3)."""

    def has(self, name: str) -> bool:
        """Whether there is a picture of that name."""
        ...

    def keep(self, names: set[str]) -> None:
        """Drop all others, to save memory."""

    def forget(self) -> None:
        """Drop all: they are not to be shown any more."""

    def end(self) -> None:
        """Nothing is added any more: free what only that needs."""


class LiveFeed:
    """A `SearchObserver` that keeps a page up to date.

    Attributes:
        about: what of a state stays the same: "id", "search" (its name in the prompt), "node" (of the page),
            "number" (of that node's runs in the prompt), "workflow", "prompt_id", "row", "rows".
        album: its small pictures.
        search: what it follows; None before it begins and after it ended, so that its latents are free.
        recipes: of the candidates that have a small picture, by its name, and of finished ones without, by theirs.
        question: gives the question that is open, as a page is told of it, or None.
        final: the whole state of a search that ended; None before.
    """

    def __init__(
        self, about: Mapping[str, Any], album: ThumbnailStore, send: Callable[[dict[str, Any]], None],
        later: Callable[[float, Callable[[], None]], None], clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """Prepare a feed.

        Args:
            about: see above.
            album: see above.
            send: sends an event.
            later: does something after so many seconds, in another thread, where events are sent from.
            clock: gives seconds.
        """
        self.about, self.album = dict(about), album
        self.search: SearchView | None = None
        self.recipes: dict[str, Recipe] = {}
        self.question: Callable[[], dict[str, Any] | None] = lambda: None
        self.final: dict[str, Any] | None = None
        self._send, self._later, self._clock = send, later, clock
        self._lock = threading.RLock()
        self._known: dict[str, Any] = {}  # what the page has
        self._revision, self._due, self._waiting = 0, -EVERY, False
        self._words, self._seconds = "", 0.0
        self._thumbs: dict[int, str] = {}
        self._names: dict[int, str] = {}  # of finished candidates without a small picture
        self._scored, self._course = 0, Course()  # of what the search scored, so many are noted
        self._met: dict[int, float] = {}  # by candidate, how many looks at it were noted; infinite once finished

    # What the search says.

    def begin(self, search: SearchView) -> None:
        with self._lock:
            self.search, self._plan = search, Plan.of(search)
            self._thumbs, self._names, self._met, self._scored = {}, {}, {}, 0  # it may be begun anew
            self._course = Course()
        self.touch()

    def doing(self, words: str) -> None:
        self._words = words[:WORDS]
        self.touch()

    def shown(self, candidates: Sequence[Candidate], pictures: Sequence[Tensor], what: Mapping[str, Any]) -> None:
        for candidate, images in zip(candidates, pictures, strict=True):
            if what and candidate.status == "finished":  # drafted for comparison: its picture is there
                continue
            name = self.album.name_of(candidate, what)
            if self._thumbs.get(candidate.index) != name:
                self.album.add(name, images)
                self._show(candidate, name)
        self.touch()

    def changed(self, search: SearchView) -> None:
        new = search.scored[self._scored :]
        self._scored += len(new)
        for candidate in new:
            seen = math.inf if candidate.status == "finished" else len(candidate.looks)
            if self._met.get(candidate.index, 0) < seen:
                self._met[candidate.index] = seen
                self._meet(candidate)
        self.touch()

    def touch(self) -> None:
        """Send what changed as soon as an event is due."""
        with self._lock:
            if not self._waiting:
                self._waiting = True
                self._later(max(0.0, self._due - self._clock()), self._tell)

    def end(self, phase: str, words: str = "", stopped: str = "", chosen: int | None = None) -> None:
        """Tell the last state, and let go of the search; nothing happens if it never began.

        Args:
            phase: "ended", "failed" or "cancelled".
            words: what to say; by default what was found.
            stopped: why it ended before its budget.
            chosen: the candidate that comes out in the place of the best.
        """
        with self._lock:
            search = self.search
            if search is None:
                return
            ranked = search.ranked if phase == ENDED else []
            words = words or done(len(search.finished.members), search.budget.nfe, stopped)
            best = ranked[0][0].index if ranked else None
            musts = () if chosen is None else (chosen,)
            self._seconds = search.budget.seconds
            self.final = self._state(search, phase, words[:WORDS], musts, best)
            self.final |= {"left": None, "stopped": stopped[:WORDS], "chosen": chosen}
            self.search = None
            self._free(names_in(self.final["candidates"]))
            self._met.clear()
            self.album.end()
        self.touch()

    def forget(self) -> None:
        """Let go of what pages may ask for by name, since the journal beside it was deleted."""
        with self._lock:
            self.recipes = {}
            self.album.forget()

    # What a page asks.

    @property
    def state(self) -> dict[str, Any]:
        """What the events so far add up to, {} before the first; of a search that ended, the last state at once."""
        with self._lock:
            if self.final is not None:
                return {**self.final, "rev": self._revision}
            question = self.question() if self._known.get("question") else None  # seconds go by without an event
            return self._known if question is None else {**self._known, "question": question}

    @property
    def output(self) -> dict[str, Any]:
        """The last state, for a node's output; what is left out of it there replaces nothing that a page has from events.

        Raises:
            RuntimeError: the search has not ended.
        """
        with self._lock:
            if self.final is None:
                raise RuntimeError("the search has not ended: it has no last state")
            return {**self.final, "rev": self._revision}

    # Inside.

    def _tell(self) -> None:
        """Send an event; what does not fit in it goes with the next."""
        with self._lock:
            started, self._waiting = self._clock(), False
            self._revision += 1
            now = self._current() | {"rev": self._revision}
            event, whole = change(self._known, now)
            self._known = merged(self._known, event)
            self._due = started + max(EVERY, (self._clock() - started) / SHARE)
            if not whole:
                self.touch()
        self._send(event)

    def _current(self) -> dict[str, Any]:
        if self.final is not None:
            return self.final
        search, question = self.search, self.question()
        if search is None:
            raise RuntimeError("the search has not begun: it has no state")
        phase = ASKING if question else PAUSED if search.user_requests.paused else RUNNING
        if phase == RUNNING:  # time that it waits does not count
            self._seconds = search.budget.seconds
        words = SAID.get(phase, self._words)
        return self._state(search, phase, words, question["candidates"] if question else ()) | {"question": question}

    def _state(self, search: SearchView, phase: str, words: str, musts: Sequence[int], best: int | None = None) -> dict[str, Any]:
        left = self._plan.left(search, self._seconds)
        told = snapshot(search, self._plan, self._thumbs, self._names, self._course, musts, best)
        return {
            "version": VERSION, "rev": 0, **self.about, "place": self.album.place, "phase": phase, "words": words,
            "seconds": round(self._seconds, 1), "left": None if left is None else round(left, 1), "stopped": "",
            "chosen": None, "question": None, **told,
        }  # fmt: skip

    def _meet(self, candidate: Candidate) -> None:
        """Find the small picture of a candidate's end or last look, where only an earlier search saw it."""
        finished = candidate.status == "finished"
        told = {} if finished else candidate.looks[-1]
        name = self.album.name_of(candidate, {key: told[key] for key in ("sigma", "draft_steps") if key in told})
        if self.album.has(name):
            self._show(candidate, name)
        elif finished:
            self._names[candidate.index] = name
            self._note(candidate, name)

    def _show(self, candidate: Candidate, name: str) -> None:
        self._thumbs[candidate.index] = name
        self._note(candidate, name)

    def _note(self, candidate: Candidate, name: str) -> None:
        """Know a recipe by a name; when these are too many, those only that the page knows."""
        self.recipes[name] = candidate.recipe
        if len(self.recipes) > PICTURES and self.search is not None:
            rows = snapshot(self.search, self._plan, self._thumbs, self._names, self._course)["candidates"]
            self._free(names_in(rows) | {name})

    def _free(self, names: set[str]) -> None:
        """Keep the small pictures and recipes of some names only."""
        self.recipes = {name: recipe for name, recipe in self.recipes.items() if name in names}
        self._thumbs = {index: name for index, name in self._thumbs.items() if name in names}
        self._names = {index: name for index, name in self._names.items() if name in names}
        self.album.keep(set(self.recipes))
