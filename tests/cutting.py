"""A search that is cut at one of its points: a model call, a decode, an answer of the verifier, a write of the journal.

How it is cut: "cancelled" (noticed where ComfyUI notices it: at the next model call, decode or answer), "failed" (what was
to be done raises) or "killed" (nothing is done any more, and half of a line may be on disk).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from journaling import Killed

from noise_search.search.journal import journal as journal_module
from noise_search.search.journal.files import JournalFile

CALL, DECODE, ANSWER, WRITE = "model call", "decode", "answer", "journal write"
HOWS = ("cancelled", "failed", "killed")


class Cancelled(Exception):
    """What ComfyUI raises on Cancel."""


class Cuts:
    """Counts the points of a search, and cuts it at one.

    Attributes:
        passed: kinds of the points so far, in order.
        answers: how often each picture was answered, by its content.
        kind: of the point at which it was cut; None if it was not.
    """

    def __init__(self, at: int = 0, how: str = "", cancel: Callable[[], None] | None = None) -> None:
        """Cut at point `at`, from 1; 0 for not at all. `cancel` presses Cancel, else `Cancelled` is raised."""
        self.at, self.how, self._cancel = at, how, cancel
        self.passed: list[str] = []
        self.answers: Counter[bytes] = Counter()
        self.kind: str | None = None
        self._cancelled = False

    @property
    def dead(self) -> bool:
        return self.kind is not None and self.how == "killed"

    def point(self, kind: str) -> None:
        """Pass a point."""
        if self.dead:
            raise Killed
        if self._cancelled and self._cancel is None and kind != WRITE:
            raise Cancelled
        if self.how == "failed" and self.kind == kind == CALL:
            raise RuntimeError("out of order")  # also with one candidate alone: else the search would go on without a cut
        self.passed.append(kind)
        if len(self.passed) == self.at:
            self.kind = kind
            self._act(kind)

    def _act(self, kind: str) -> None:
        if self.how == "killed":
            raise Killed
        if self.how == "failed":
            raise OSError(28, "No space left on device") if kind == WRITE else RuntimeError("out of order")
        self._cancelled = True
        if self._cancel is not None:
            self._cancel()
        elif kind != WRITE:
            raise Cancelled

    def watch_journal(self, monkeypatch: Any) -> None:
        """Let every write of a journal be a point; a kill leaves half of a line, or a state without its line."""
        append, write_whole = JournalFile.append, journal_module.write_whole

        def appended(file: JournalFile, data: bytes) -> int:
            try:
                self.point(WRITE)
            except Killed:
                if len(self.passed) == self.at and self.passed[-1] == WRITE:
                    self.passed.append("dead")
                    append(file, data[: len(data) // 2])
                raise
            return append(file, data)

        def wrote(*args: Any, **more: Any) -> None:
            self.point(WRITE)
            write_whole(*args, **more)

        monkeypatch.setattr(JournalFile, "append", appended)
        monkeypatch.setattr(journal_module, "write_whole", wrote)

    def answering(self, score: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return a verifier's function that answers about one picture after the other."""

        def answers(images: torch.Tensor) -> torch.Tensor:
            found = []
            for image in images:
                self.point(ANSWER)
                self.answers[image.contiguous().numpy().tobytes()] += 1
                found.append(score(image[None]))
            return torch.cat(found)

        return answers
