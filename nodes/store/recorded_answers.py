"""What a person chose is written to the journal, so that nobody is asked the same question twice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from ...search.journal.journal import Journal
from ...verifiers.human.questions import Answer, AnswerProvider, Question

PERSON = "person"  # in the place of a verifier's signature


@dataclass(frozen=True)
class RememberingAsker:
    """An asker that knows the answers of earlier searches.

    Attributes:
        asker: asks what is not known.
        journal: of the search.
        name: of the finished picture of a candidate, by its index; see `entry_name`.
    """

    asker: AnswerProvider
    journal: Journal
    name: Callable[[int], str]

    def ask(self, question: Question, finishing: Callable[[], bool]) -> Answer:
        """Return what was chosen of these pictures before, or ask."""
        names = [self.name(index) for index in question.candidates]
        key = hashlib.sha256(" ".join(sorted(names)).encode()).hexdigest()[: len(names[0])]
        known = self.journal.scores(key, PERSON)
        if known is not None and sorted(known) == sorted(names):
            ranks = [(known[name], index) for name, index in zip(names, question.candidates, strict=True)]
            return Answer(tuple(index for rank, index in sorted(pair for pair in ranks if pair[0] is not None)))
        answer = self.asker.ask(question, finishing)
        if not answer.take_over:
            places = {index: float(place) for place, index in enumerate(answer.ranking)}
            chosen = {name: places.get(index) for name, index in zip(names, question.candidates, strict=True)}
            self.journal.add_scores(key, PERSON, chosen, at_once=True)
        return answer
