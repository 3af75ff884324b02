"""People for tests: they answer at once, by a taste of their own, and remember what they were asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from noise_search.verifiers.human.questions import Absent, Answer, Question


@dataclass
class Person:
    """Picks what their taste says.

    Attributes:
        taste: strength of pictures (F, H, W, 3).
        ranks: ranks all pictures instead of picking one.
        patience: how many questions they answer before they go away.
        asked: what they were asked, also while away.
    """

    taste: Callable[[Tensor], float]
    ranks: bool = False
    patience: float = float("inf")
    why: str = "nobody answered in 20 s"
    asked: list[Question] = field(default_factory=list)

    def ask(self, question: Question, finishing: Callable[[], bool]) -> Answer:
        self.asked.append(question)
        if len(self.asked) > self.patience:
            raise Absent(self.why)
        tastes = dict(zip(question.candidates, map(self.taste, question.pictures), strict=True))
        order = sorted(tastes, key=lambda index: -tastes[index])
        return Answer(tuple(order if self.ranks else order[:1]))


@dataclass
class Scripted:
    """Gives answers, or raises, from a list."""

    answers: list[Answer | Exception]
    asked: list[Question] = field(default_factory=list)

    def ask(self, question: Question, finishing: Callable[[], bool]) -> Answer:
        self.asked.append(question)
        said = self.answers[len(self.asked) - 1]
        if isinstance(said, Exception):
            raise said
        return said
