"""Draft and commit: search with fewer steps, render the winner with all of them.

The ranking of drafts carries over to full renders only as far as the sampler is deterministic and the noise decides
the picture: the report holds both scores of the winner, so that it can be checked.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ..base.candidate import Candidate, Round
from ..core.search import Search
from ..noise.proposals import NoiseProposal

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
        if draft_steps and search.scorer.asks_people:
            search.note(f"every candidate was rendered in full, none as a draft: {search.planner.why_no_drafts}")
            draft_steps = 0
        if draft_steps and not draft_steps < search.planner.steps:
            most = search.planner.steps - 1
            raise ValueError(f"'draft_steps' must be from 1 to {most} for a run of {most + 1} steps, not {draft_steps} (0: off)")
        self.search, self.steps, self._finals = search, draft_steps, finals
        self.pool = search.evaluator.pool() if draft_steps else search.finished
        self.left = 0
        self._first: list[Candidate] = []  # to be drafted with the next

    def begin(self, score_origin: bool = True) -> Iterator[Round]:
        """Render the origin in full; drafts are compared with its draft, unless it is not to be among them.

        In large rounds the first to be tried are scored with it, and drafted too if it is known what a draft costs.
        """
        yield from self.search.render([self.search.start_candidate], later=True)
        if not self.steps:
            self.left = self.search.budget.runs_left
            return
        self.left = self._affordable()
        if self.left > 0 and score_origin:
            self._first = [self.search.start_candidate]
            if self.search.planner.scores_later and self.search.session.known_steps:
                self.left -= 1
            else:
                self._draft([])
                self.left = self._affordable()  # what a draft costs is known now

    def score(self, candidates: Sequence[Candidate]) -> Iterator[Round]:
        """Try candidates, at most as many as are left, in waves, as far as the budget reaches."""
        candidates = list(candidates)[: self.left]
        self.left -= len(candidates)
        if self.steps:
            self._draft(candidates)
        else:
            yield from self.search.render(candidates)

    def draw(self, count: int, proposal: NoiseProposal | None = None) -> Iterator[Round]:
        """Try new candidates, each drawn only when it can be paid for, in waves, as far as the budget reaches."""
        count = max(0, min(count, self.left))
        self.left -= count
        if self.steps:
            self._draft([], count, proposal)
        else:
            yield from self.search.render([], count, proposal)

    def end(self) -> Iterator[Round]:
        """Render the best drafts in full."""
        if self.steps:
            yield from self.search.render([candidate for candidate, _ in self.pool.best(self._finals)])

    @property
    def going_on(self) -> bool:
        """Whether there is something left to try that can be paid for; notes why if there is not."""
        if self.left <= 0 or self.search.should_stop():
            return False
        if self.most(1) == 0:
            self._end_short()
        return self.left > 0

    def most(self, wanted: int, beside: int = 0) -> int:
        """Return how many of `wanted` new candidates can be tried now, beside others that are waiting to be."""
        budget = self.search.budget
        if self.steps:
            paid = int(max(0, min(budget.cap - budget.nfe, budget.calls_in_time) - self._aside) // self._cost())
        else:
            paid = budget.affordable(self.search.planner.most_expensive(self.search.planner.steps), wanted + beside)
        return max(0, min(wanted, self.left - beside, paid - beside))

    def score_of(self, candidate: Candidate, otherwise: float = math.nan) -> float:
        """Return a candidate's combined score; NaN if it has none, `otherwise` if it was not tried."""
        return self.pool.score_of(candidate, otherwise)

    @property
    def drafted(self) -> int:
        """How many drafts there are, with one that is about to be made."""
        return len(self.pool.members) + len(self._first)

    def _cost(self) -> int:
        """NFE of a draft: the dearest so far, or its share of a full run, rounded up."""
        search = self.search
        return search.planner.most_expensive(self.steps) or math.ceil(
            (search.budget.run_cost or search.planner.steps) * self.steps / search.planner.steps
        )

    def _affordable(self) -> int:
        """How many drafts can be paid for beside the full renders of the best."""
        budget = self.search.budget
        if budget.run_cost is None:
            return 0
        self.left = max(0, budget.images * budget.run_cost - budget.nfe - self._aside) // self._cost()
        limited = self.most(self.left)
        if limited < self.left:
            self._say_fewer()
        return limited

    @property
    def _aside(self) -> int:
        """NFE of the full renders of the best drafts."""
        return self._finals * (self.search.budget.run_cost or 0)

    def _end_short(self) -> None:
        """Try nothing more: what is left does not pay for it."""
        self.left = 0
        if self.steps:
            self._say_fewer()
        else:
            self.search.stop(self.search.budget.why_short())

    def _say_fewer(self) -> None:
        self.search.note(FEWER, once=True)

    def _draft(self, candidates: Sequence[Candidate], fresh: int = 0, proposal: NoiseProposal | None = None) -> None:
        """Draft candidates, and `fresh` new ones, in waves, as far as the budget reaches beside the full renders of the best."""
        search, budget, todo = self.search, self.search.budget, [*self._first, *candidates]
        self._first = []
        with budget.reserving(self._finals * search.planner.most_expensive(search.planner.steps)):
            while (todo or fresh) and not search.should_stop():
                room = budget.affordable(self._cost(), search.planner.wave(self.steps))
                drawn = [search.propose(proposal) for _ in range(min(fresh, room - len(todo)))]
                wave, fresh = [*todo, *drawn][:room], fresh - len(drawn)
                todo = todo[len(wave) :]
                if not wave:
                    self._end_short()
                    break
                search.draft(wave, self.steps, self.pool)


def check_draft_steps(steps: int) -> None:
    """Refuse what no run can be drafted with."""
    if steps < 0:
        raise ValueError(f"'draft_steps' must be 0 (off) or more, not {steps}")
