"""What a user asks of a search while it runs: filled from any thread, emptied by the search between two model calls."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

FINISH, FAVOR, DISCARD = "finish", "more", "discard"
LOOK_EVERY = 0.1  # seconds between two looks at the cancel button while the search is paused


class UserRequests:
    """The inbox of one search.

    Attributes:
        paused: whether the search waits, or will before its next model call.
    """

    def __init__(self, check: Callable[[], None] = lambda: None) -> None:
        """Start empty; `check` raises if the user cancelled, and is asked while the search waits."""
        self._check = check
        self._changed = threading.Condition()
        self._asked: deque[tuple[str, int | None]] = deque()
        self.paused = False

    def finish(self) -> None:
        """End the search and keep the best so far."""
        self._ask(FINISH)

    def favor(self, index: int) -> None:
        """Go on around a candidate."""
        self._ask(FAVOR, index)

    def discard(self, index: int) -> None:
        """Drop a candidate: it ends, and is no winner."""
        self._ask(DISCARD, index)

    def pause(self) -> None:
        """Wait before the next model call."""
        with self._changed:
            self.paused = True

    def resume(self) -> None:
        """Go on."""
        with self._changed:
            self.paused = False
            self._changed.notify_all()

    @property
    def finishing(self) -> bool:
        """Whether the user wants the search to end, and it has not taken notice yet."""
        with self._changed:
            return any(what == FINISH for what, _ in self._asked)

    def taken(self) -> list[tuple[str, int | None]]:
        """Return what was asked since the last time, in order, and forget it."""
        with self._changed:
            asked = list(self._asked)
            self._asked.clear()
        return asked

    def wait(self, on_wait: Callable[[], None] = lambda: None) -> float:
        """Wait while the search is paused and nothing is asked of it; return the seconds that took.

        Args:
            on_wait: called once, if it has to wait.
        """
        started = time.perf_counter()
        if not self._waiting:
            return 0.0
        on_wait()
        while self._waiting:
            self._check()
            with self._changed:
                self._changed.wait_for(lambda: not self._waiting, LOOK_EVERY)
        return time.perf_counter() - started

    @property
    def _waiting(self) -> bool:
        return self.paused and not self._asked

    def _ask(self, what: str, index: int | None = None) -> None:
        with self._changed:
            self._asked.append((what, index))
            self._changed.notify_all()
