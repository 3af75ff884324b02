"""Questions to a person, and what comes back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

NAME = "Human Verifier"
BY_MODEL, STOP, ERROR = WHEN_ABSENT = ("model of your choices", "stop with the best", "error")


@dataclass(frozen=True)
class Question:
    """Some pictures, side by side.

    Attributes:
        candidates: whose they are, by index; the best so far first.
        pictures: (F, H, W, 3) in [0, 1] of each.
        best: the best so far if it is among them.
        asked: how many choices the person made before.
        timeout: seconds to wait for an answer; 0 for as long as it takes.
        model_ready: whether the model of the choices may take over.
        accuracy: how sure that model is, in words.
    """

    candidates: tuple[int, ...]
    pictures: tuple[Tensor, ...]
    best: int | None = None
    asked: int = 0
    timeout: float = 0.0
    model_ready: bool = False
    accuracy: str = ""


@dataclass(frozen=True)
class Answer:
    """What the person said: the best, best first, none for "all bad"; or that the model may take over."""

    ranking: tuple[int, ...] = ()
    take_over: bool = False


class Absent(Exception):
    """Nobody answered; says why, in words."""


class Ended(Absent):
    """The user ends the search instead of answering."""


class AnswerProvider(Protocol):
    """Whoever carries a question to a person."""

    def ask(self, question: Question, finishing: Callable[[], bool]) -> Answer:
        """Wait for the answer, or until `finishing` says that the user ends the search.

        Raises:
            Absent: nobody can be asked, or nobody answered in time.
            Ended: the search is to end with what it has.
        """
        ...
