"""What a method asks before it spends: what the budget pays for, what runs cost, and what they allow."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

from ..base.budget import Budget
from ..base.candidate import Candidate
from ..base.session import Session
from ..scoring.scorer import Scorer
from .runs import Runs

T = TypeVar("T")
IN_PARTS = "the sampler calls the model on parts of the latent or at another size, so that a half-finished run shows no picture"
ONLY_FINISHED = "a person is asked about finished pictures only"
WATCHED_WAVE = 4  # runs between two looks at the scores when a stop rule depends on them
LARGE_WAVE = 64  # pictures between two looks at the scores where rounds are large
LARGER = 8  # times as many candidates in a large round, at most


class Planner:
    """What a search may do next. It reads what was spent and what runs cost, and changes nothing.

    Attributes:
        large_rounds: whether every round costs so much beside its model calls that methods go in fewer, larger ones.
    """

    def __init__(
        self, session: Session, scorer: Scorer, budget: Budget, runs: Runs, start: Callable[[], Candidate],
        large_rounds: bool = False,
    ) -> None:  # fmt: skip
        """Read what a search works with; `start` returns the candidate that its method starts from."""
        self._session, self._scorer, self._budget, self._runs = session, scorer, budget, runs
        self._start, self.large_rounds = start, large_rounds

    @property
    def images(self) -> int:
        """How many full runs the budget pays for, the origin's included; all while the cost of one is unknown."""
        if self._budget.run_cost is None:
            return self._budget.images
        more = self._budget.affordable(self._budget.run_cost, self._budget.images)
        return max(1, more + (self._start().status == "finished"))

    @property
    def steps(self) -> int:
        """Steps of a full run."""
        return len(self._session.sigmas) - 1

    @property
    def baseline_first(self) -> bool:
        """Whether candidate 0 must be rendered alone, since what calls a run makes has to be known beforehand."""
        return self._alone_first or not self._session.known_steps

    @property
    def _alone_first(self) -> bool:
        """Whether candidate 0 must be rendered alone even if all others are to make the same calls as it does."""
        rules = self._budget.rules
        return not self._even or rules.max_model_calls > 0 or rules.max_seconds > 0

    def most_expensive(self, steps: int) -> int:
        """Return the most NFE that a run of `steps` steps took so far; 0 before the first ended."""
        costs = self._runs.costs(steps)
        return 0 if costs is None else costs.most

    def wave(self, steps: int) -> int:
        """Return how many runs of `steps` steps to advance together.

        One by one if they differ in cost, so that the end of the budget cuts off one run, not all of a wave.
        """
        costs = self._runs.costs(steps)
        if steps != self.steps and costs is None and not self._session.known_steps:
            return 1  # a draft's cost cannot be told from that of a full run
        if not self._even and (costs is None or costs.runs < 2 or costs.least < costs.most):
            return 1
        wave = WATCHED_WAVE if self._budget.rules.watch_scores else self.group
        return max(wave, self._scorer.set_size - 1)  # a question is about as many, and the best so far

    @property
    def group(self) -> int:
        """How many pictures are decoded, and then scored, together."""
        return max(self._session.wave, LARGE_WAVE) if self.large_rounds else self._session.wave

    @property
    def scores_later(self) -> bool:
        """Whether pictures may wait to be scored with those that follow: rounds are large, and nothing needs the scores.

        A person is asked at once, and what is noted of a candidate's run would be that of its draft by then.
        """
        needed = (
            self._budget.rules.watch_scores
            or self._scorer.asks_people
            or self._scorer.needs_gaps
            or self._scorer.needs_predictions
        )
        return self.large_rounds and not needed

    def round_size(self, usual: int, count: int, least: int = 1) -> int:
        """Return how many candidates a method tries between two looks at the scores.

        Args:
            usual: how many these are where a round costs no more than its model calls.
            count: how many are to be tried in all.
            least: how many large rounds there are to be at least, for what a method learns from one for the next.
        """
        return max(usual, min(LARGER * usual, math.ceil(count / least))) if self.large_rounds else usual

    def merged(self, stages: Sequence[T], most: int) -> list[list[T]]:
        """Return a method's stages, each of which ends with a look at the scores, in those that it goes through at once.

        Each is one for itself; in large rounds consecutive ones are one, so that there are at most so many.
        """
        count = min(most, len(stages)) if self.large_rounds else len(stages)
        ends = [len(stages) * number // max(count, 1) for number in range(count + 1)]
        return [list(stages[start:end]) for start, end in zip(ends, ends[1:], strict=False)]

    def calls(self, high: float, low: float = 0.0) -> int:
        """Return the NFE of a run below the noise level `high` down to and with `low`, by candidate 0's full run.

        That is a branch at `high` whose first call is known; one that was renoised to `high` makes one call more.
        """
        return self.rows * max(0, self._through(low) - self._through(high))

    @property
    def rows(self) -> int:
        """Latent rows of one candidate, so NFE of one call; known once candidate 0 is rendered."""
        return (self._budget.run_cost or 0) // max(len(self._runs.levels), 1)

    @property
    def why_no_branches(self) -> str:
        """Why a method that branches cannot work here, in words; empty if it can."""
        return self.why_no_looks or self.why_no_renoising

    @property
    def why_no_looks(self) -> str:
        """Why half-finished candidates cannot be judged, in words; empty if they can."""
        untrusted = ONLY_FINISHED if self._scorer.asks_people else "the verifier cannot be trusted on half-denoised pictures"
        return self._why_alone or self._why_in_parts or ("" if self._scorer.trusts_previews else untrusted)

    @property
    def why_no_drafts(self) -> str:
        """Why renders of few steps say little of the verifier's scores, in words; empty if they may say much."""
        if self._scorer.asks_people:
            return ONLY_FINISHED
        why = "a verifier compares with a prediction on the way, which few steps make elsewhere"
        return why if self._scorer.needs_predictions else ""

    @property
    def why_no_renoising(self) -> str:
        """Why finished runs cannot be left for others that end anew, in words; empty if they can."""
        uneven = "runs make other model calls than candidate 0's" if self._runs.uneven else "the sampler chooses its own steps"
        return self._why_alone or self._why_in_parts or ("" if self._even else uneven)

    @property
    def _even(self) -> bool:
        """Whether all runs are believed to make the calls of candidate 0's."""
        return self._session.fixed_steps and not self._runs.uneven

    @property
    def _why_in_parts(self) -> str:
        """Why no model call tells of the whole latent at every step, as candidate 0's run showed; empty if they do."""
        return IN_PARTS if self._runs.in_parts else ""

    @property
    def _why_alone(self) -> str:
        """Why runs cannot be suspended, in words; empty if they can."""
        return "" if self._session.looks_halfway else "; ".join(self._session.why_alone) or "its runs cannot be suspended"

    def payable(self, todo: Sequence[Candidate]) -> int:
        """Return how many of `todo` to run now: what is best run together, and what can be paid for."""
        count = min(len(todo), self.wave(self.steps))
        return self._fitting(count, max((self._cost_to_end(c) for c in todo[:count]), default=0))

    def room(self, cost: int = 0) -> int:
        """Return how many candidates that are yet to be drawn could run now, at `cost` NFE each, 0 for that of a full run."""
        return self._fitting(self.wave(self.steps), cost or max(self.most_expensive(self.steps), 1))

    def may_run(self, candidate: Candidate) -> bool:
        """Whether a candidate may be started or go on; candidate 0 always may: what it costs is needed."""
        waits_for_first = self._budget.halted and self._budget.run_cost is None
        return candidate.index == 0 or not (candidate.discarded or waits_for_first)

    # Inside.

    def _fitting(self, count: int, cost: int) -> int:
        """How many of `count` runs of `cost` NFE each can be paid for now; at first candidate 0 may have to go alone."""
        if self._budget.run_cost is None:
            return 1 if self._alone_first or self._budget.halted else count
        return self._budget.affordable(cost, count)

    def _through(self, sigma: float) -> int:
        """How many calls candidate 0's run made until it was below a noise level for good."""
        return max((i + 1 for i, level in enumerate(self._runs.levels) if level >= sigma * (1 - 1e-5)), default=0)

    def _cost_to_end(self, candidate: Candidate) -> int:
        run = self._runs.of(candidate)
        if run is None or not candidate.recipe.cuts:
            return max(self.most_expensive(self.steps) - (0 if run is None else run.nfe), 1)
        if run.levels:  # its first call may have been a twin's, answered or not
            return max(self.calls(run.levels[-1]), 1)
        cut = candidate.recipe.cuts[-1]
        first = self.rows if cut.renoise_to > cut.sigma else 0
        return max(self.calls(cut.renoise_to) + first - run.nfe, 1)


def check_levels(session: Session, scorer: Scorer) -> None:
    """Raise a ValueError if a part wants a prediction above a run's first call, or where it is the picture itself."""
    first, last = float(session.sigmas[0]), float(session.sigmas[-2])
    for name, level in scorer.needs_predictions.items():
        if not first * (1 + 1e-5) >= level > last * (1 + 1e-5):
            raise ValueError(
                f"verifier '{name}': its 'sigma' is {level:g}, and the model calls of {len(session.sigmas) - 1} steps lie "
                f"between the noise levels {first:g} and {last:g}: choose one above the last, which gives the picture itself, "
                "and not above the first (raise denoise, or take more steps)"
            )
