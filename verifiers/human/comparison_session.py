"""One search's questions to a person: who answers, and what the answers add up to."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from ..common.base import Verifier
from ..common.features import image_features
from ..composite.ensemble import leaves_of
from .choices import ASSISTANT, MODEL, REFERENCE, YOU, Choice, bradley_terry
from .preference_model import LEAST_CHOICES, PreferenceModel, fit_taste, picture_features
from .questions import ERROR, NAME, STOP, Absent, Answer, AnswerProvider, Ended, Question


def _raise(error: Exception) -> None:
    raise error


class Settings(Protocol):
    """What a session is to be like; see `human.HumanVerifier`."""

    @property
    def name(self) -> str: ...
    @property
    def asker(self) -> AnswerProvider: ...
    @property
    def set_size(self) -> int: ...
    @property
    def timeout(self) -> float: ...
    @property
    def when_absent(self) -> str: ...
    @property
    def assistant(self) -> Verifier | None: ...
    @property
    def clip_vision(self) -> Any: ...


@dataclass(eq=False)
class ComparisonSession:
    """One search's questions and answers.

    Attributes:
        verifier: what was asked for.
        asker: carries its questions; None for the verifier's own.
        recall: gives the pictures (F, H, W, 3) of an earlier candidate; None where they are gone, or not to be shown again.
        finishing: whether the user ends the search, asked while a question is open.
        failed: told that the assistant failed; raises, unless the search goes on without.
        choices: all so far, in order.
        taken_over: the model answers for the rest of the search.
        stopped: why the search is to end, in words; empty if it is not.
        waited: seconds spent waiting for answers.
    """

    verifier: Settings
    asker: AnswerProvider | None = None
    recall: Callable[[int], Tensor | None] = lambda index: None
    finishing: Callable[[], bool] = lambda: False
    failed: Callable[[Exception], None] = _raise
    choices: list[Choice] = field(default_factory=list)
    taken_over: bool = False
    stopped: str = ""
    waited: float = 0.0
    asks_people: bool = True
    trusts_previews: bool = False
    _scored: list[int] = field(default_factory=list)  # candidates with a strength, in order
    _features: dict[int, tuple[Tensor, ...]] = field(default_factory=dict)
    _taste: tuple[int, PreferenceModel | None] = (-1, None)  # the model, and how many choices it knows
    _strengths: tuple[int, dict[int, float]] = (-1, {})  # likewise

    def connect(self, recall: Callable[[int], Tensor | None], finishing: Callable[[], bool]) -> None:
        """Take what it needs of the search; see `recall` and `finishing`."""
        self.recall, self.finishing = recall, finishing

    def report_failures(self, failed: Callable[[Exception], None]) -> None:
        """Tell `failed` when the assistant failed."""
        self.failed = failed

    @property
    def name(self) -> str:
        return self.verifier.name

    @property
    def set_size(self) -> int:
        return self.verifier.set_size

    def score_set(self, candidates: Sequence[int], images: Sequence[Tensor]) -> Tensor:
        """Ask about new candidates, in sets with the best so far, and return their strengths (n,); NaN if the search is to end.

        Nothing is asked about candidates that are in a choice already, and about one alone.

        Args:
            candidates: their indices.
            images: pictures (F, H, W, 3) in [0, 1] of each.
        """
        pictures = dict(zip(candidates, images, strict=True))
        for index, picture in pictures.items():
            self._meet(index, picture)  # now: pictures are not kept
        known = self.strengths()
        self._scored += [index for index in candidates if index in known and index not in self._scored]
        for some in self._sets([index for index in candidates if index not in known]):
            self._settle(some, pictures)
        strengths = self.revised()
        return torch.tensor([strengths.get(index, math.nan) for index in candidates])

    def revised(self) -> dict[int, float]:
        """Return the strengths of all candidates scored so far, as the choices so far have them."""
        strengths = self.strengths()
        return {index: strengths.get(index, 0.0) for index in self._scored}

    @property
    def taste(self) -> PreferenceModel | None:
        """The model of the person's choices; None while they are too few."""
        own = [choice for choice in self.choices if choice.by == YOU]
        if self._taste[0] != len(own):
            self._taste = len(own), fit_taste(own, self._features)
        return self._taste[1]

    def strengths(self) -> dict[int, float]:
        """Return the strengths of all candidates that are in a choice."""
        if self._strengths[0] != len(self.choices):
            found = bradley_terry([pair for choice in self.choices for pair in choice.comparisons])
            found.pop(REFERENCE, None)
            self._strengths = len(self.choices), found
        return self._strengths[1]

    # Inside.

    def _meet(self, index: int, images: Tensor) -> None:
        """Note what the model may know of a candidate."""
        if index in self._features:
            return
        blocks = [picture_features(images)]
        if self.verifier.clip_vision is not None:
            blocks.append(image_features(self.verifier.clip_vision, images).double().mean(0))
        if self.verifier.assistant is not None:
            scores = [self._assisted(leaf, images) for leaf in leaves_of(self.verifier.assistant)]
            means = [math.nan if one is None else float(one.double().mean()) for one in scores]
            blocks.append(torch.tensor(means, dtype=torch.float64).nan_to_num(0.0, 0.0, 0.0))
        self._features[index] = tuple(blocks)

    def _best(self, at_hand: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """Return the pictures of the strongest candidate that can be shown, by its index; the earlier one of equals."""
        strengths = self.revised()
        for index in sorted(strengths, key=lambda index: (-strengths[index], index)):
            pictures = at_hand[index] if index in at_hand else self.recall(index)
            if pictures is not None:
                return {index: pictures}
        return {}

    def _sets(self, new: Sequence[int]) -> Iterator[Sequence[int]]:
        """Cut new candidates into sets as equal as can be, so that each fits with the best so far."""
        first = 0 if self._scored else 1  # the first of all stands in for a best so far
        count = max(1, math.ceil((len(new) - first) / (self.verifier.set_size - 1))) if new else 0
        ends = [first + round((len(new) - first) * (number + 1) / count) for number in range(count)]
        yield from (new[start:end] for start, end in zip([0, *ends], ends, strict=False))

    def _settle(self, new: Sequence[int], pictures: Mapping[int, Tensor]) -> None:
        """Have a set compared, by whoever is there."""
        if self.stopped:
            return
        best = self._best(pictures)
        shown = {**best, **{index: pictures[index] for index in new}}
        choice = self._chosen(shown, next(iter(best), None)) if len(shown) > 1 else None
        if choice is not None:
            self.choices.append(choice)
        if not self.stopped:
            self._scored += new

    def _chosen(self, shown: Mapping[int, Tensor], best: int | None) -> Choice | None:
        """Return the person's choice, or another's in their place; None if the search is to end."""
        why = "you let the model take over"
        if not self.taken_over:
            try:
                answer = self._ask(shown, best)
            except Ended as ended:
                self.stopped = str(ended)
                return None
            except Absent as absent:
                why = str(absent)
                if self.verifier.when_absent == ERROR:
                    raise ValueError(
                        f"{NAME}: {why}, and 'when_absent' is 'error'. Open ComfyUI's page and queue from there, raise "
                        "'timeout', or choose what is to happen instead."
                    ) from absent
            else:
                if not answer.take_over:
                    return Choice(tuple(shown), answer.ranking, YOU, best)
                self.taken_over = True
        if self.verifier.when_absent == STOP and not self.taken_over:
            self.stopped = f"{why}: the search ended with the best so far"
            return None
        return self._in_your_place(shown, best, why)

    def _ask(self, shown: Mapping[int, Tensor], best: int | None) -> Answer:
        verifier, taste = self.verifier, self.taste
        asked = sum(choice.by == YOU for choice in self.choices)
        words = "" if taste is None else taste.words
        pictures = tuple(shown.values())
        question = Question(tuple(shown), pictures, best, asked, verifier.timeout, taste is not None, words)
        started = time.perf_counter()
        try:
            return (self.asker or verifier.asker).ask(question, self.finishing)
        finally:
            self.waited += time.perf_counter() - started

    def _in_your_place(self, shown: Mapping[int, Tensor], best: int | None, why: str) -> Choice | None:
        """Return the model's ranking, or without a model the assistant's; None, and `stopped`, with neither."""
        if (taste := self.taste) is not None:
            scores = [taste.strength(self._features[index]) for index in shown]
            return Choice(tuple(shown), _ranked(shown, scores), MODEL, best)
        assistant = self.verifier.assistant
        scores = None if assistant is None else self._assisted(assistant, torch.cat(list(shown.values())))
        if scores is not None:
            parts = scores.split([len(one) for one in shown.values()])
            return Choice(tuple(shown), _ranked(shown, [float(part.mean()) for part in parts]), ASSISTANT, best)
        own = sum(bool(choice.ranking) and choice.by == YOU for choice in self.choices)
        no_help = "no 'assistant' is connected" if assistant is None else "the 'assistant' failed"
        self.stopped = (
            f"{why}, the model of your choices has {own} of the {LEAST_CHOICES} picks it needs, and "
            f"{no_help}: the search ended with the best so far"
        )
        return None

    def _assisted(self, assistant: Any, images: Tensor) -> Tensor | None:
        """Return the scores (B,) of pictures (B, H, W, 3) by the assistant or a part of it; None if it failed."""
        try:
            return assistant.score(images)
        except Exception as error:
            self.failed(error)
            return None


def _ranked(candidates: Iterable[int], scores: Sequence[float]) -> tuple[int, ...]:
    """Return all candidates, highest score first; NaN last, of equals the earlier one first."""
    pairs = zip(candidates, scores, strict=True)
    return tuple(index for index, _ in sorted(pairs, key=lambda pair: (math.isnan(pair[1]), -pair[1], pair[0])))
