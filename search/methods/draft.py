"""Draft and commit: search with fewer steps, render the winner with all of them.

The ranking of drafts carries over to full renders only as far as the sampler is deterministic and the noise decides
the picture: the report holds both scores of the winner, so that it can be checked.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ..candidates import Candidate, Pool, Round
from ..engine import Search

FEWER = "fewer drafts than planned could be paid for"


class Trials:
    """Scores whole candidates, as full renders or as drafts, for methods that ask for noise and are told scores.

    Attributes:
        pool: what was scored; scores in it can be compared.
        left: how many more candidates are to be tried.
    """

    def __init__(self, search: Search, draft_steps: int, finals: int = 1) -> None:
        """Prepare trials of `draft_steps` steps, 0 for full renders; `finals` of the best drafts are rendered in full.

        Where a person judges, all are full renders, and a note says so.

        Raises:
            ValueError: drafts would be no shorter than the full run.
        """
        if draft_steps and search.judge.asks_people:
            search.notes.append(f"every candidate was rendered in full, none as a draft: {search.why_no_drafts}")
            draft_steps = 0
        if draft_steps and not draft_steps < search.steps:
            most = search.steps - 1
            raise ValueError(f"'draft_steps' must be from 1 to {most} for a run of {most + 1} steps, not {draft_steps} (0: off)")
        self.search, self.steps, self._finals = search, draft_steps, finals
        self.pool = Pool(search.judge.combine) if draft_steps else search.finished
        self.left = 0

    def begin(self, score_origin: bool = True) -> Iterator[Round]:
        """Render the origin in full; drafts are compared with its draft, unless it is not to be among them."""
        yield from self.search.render([self.search.origin])
        if not self.steps:
            self.left = self.search.budget.runs_left
            return
        self.left = self._affordable()
        if self.left > 0 and score_origin:
            self._draft([self.search.origin])
            self.left = self._affordable()  # what a draft costs is known now

    def score(self, candidates: Sequence[Candidate]) -> Iterator[Round]:
        """Try candidates, at most as many as are left, in waves, as far as the budget reaches."""
        candidates = list(candidates)[: self.left]
        self.left -= len(candidates)
        if self.steps:
            self._draft(candidates)
        else:
            yield from self.search.render(candidates)

    def end(self) -> Iterator[Round]:
        """Render the best drafts in full."""
        if self.steps:
            yield from self.search.render([candidate for candidate, _ in self.pool.ranked()[: self._finals]])

    @property
    def going_on(self) -> bool:
        """Whether there is something left to try."""
        return self.left > 0 and not self.search.over()

    @property
    def scores(self) -> dict[int, float]:
        """Combined scores by the candidates' indices."""
        return {candidate.index: score for candidate, score in self.pool.ranked()}

    def _cost(self) -> int:
        """NFE of a draft: the dearest so far, or its share of a full run, rounded up."""
        search = self.search
        return search.dearest(self.steps) or math.ceil((search.budget.run_cost or search.steps) * self.steps / search.steps)

    def _affordable(self) -> int:
        """How many drafts can be paid for beside the full renders of the best."""
        budget = self.search.budget
        if budget.run_cost is None:
            return 0
        aside, cost = self._finals * budget.run_cost, self._cost()
        planned = max(0, budget.images * budget.run_cost - budget.nfe - aside) // cost
        limited = max(0, min(budget.cap - budget.nfe, budget.calls_in_time) - aside) // cost
        if limited < planned:
            self._say_fewer()
        return int(min(limited, planned))

    def _say_fewer(self) -> None:
        if FEWER not in self.search.notes:
            self.search.notes.append(FEWER)

    def _draft(self, candidates: Sequence[Candidate]) -> None:
        """Draft candidates in waves, as far as the budget reaches beside the full renders of the best."""
        search, budget, todo = self.search, self.search.budget, list(candidates)
        budget.reserved = self._finals * search.dearest(search.steps)
        while todo and not search.over():
            wave = todo[: budget.affordable(self._cost(), search.wave(self.steps))]
            todo = todo[len(wave) :]
            if not wave:
                self.left = 0
                self._say_fewer()
                break
            search.sketch(wave, self.steps, self.pool)
        budget.reserved = 0


def check_draft_steps(steps: int) -> None:
    """Refuse what no run can be drafted with."""
    if steps < 0:
        raise ValueError(f"'draft_steps' must be 0 (off) or more, not {steps}")
