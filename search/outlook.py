"""What a method may ask before it spends: what the budget pays for, what runs cost, and what they allow."""

from __future__ import annotations

from collections.abc import Sequence

from .budget import Budget
from .candidates import Candidate
from .judge import Judge
from .session import Run, Session

IN_PARTS = "the sampler calls the model on parts of the latent or at another size, so that a half-finished run shows no picture"
ONLY_FINISHED = "a person is asked about finished pictures only"
WATCHED_WAVE = 4  # runs between two looks at the scores when a stop rule depends on them


class Outlook:
    """The part of a search that foresees.

    Attributes:
        session, judge, budget: what it works with.
        baseline: candidate 0, the user's own noise and seed.
        origin: what a method starts from: candidate 0, or the winner of the method before it in a chain.
        uneven: what a run did that candidate 0's did not, in words; empty as long as all are believed to make its calls.
    """

    def __init__(self, session: Session, judge: Judge, budget: Budget, baseline: Candidate) -> None:
        """Have the session note what the judge needs."""
        self.session, self.judge, self.budget = session, judge, budget
        session.gaps_for, session.prediction_levels = "", ()
        self.expect(judge)
        self.baseline = self.origin = baseline
        self._runs: dict[int, Run] = {}
        self._costs: dict[int, list[int]] = {}  # NFE of the ended runs, by their steps
        self._levels: list[float] = []  # of candidate 0's model calls, in order
        self.uneven = ""
        self._in_parts = False  # too few of them saw the whole latent to tell of it at every step

    def expect(self, judge: Judge) -> None:
        """Have the session note of runs what a judge needs: this search's own, or one that is asked at its end.

        Raises:
            ValueError: a part wants a prediction where no run has one.
        """
        check_levels(self.session, judge)
        levels = (*self.session.prediction_levels, *judge.needs_predictions.values())
        self.session.prediction_levels = tuple(dict.fromkeys(levels))
        self.session.gaps_for = self.session.gaps_for or judge.needs_gaps

    @property
    def images(self) -> int:
        """How many full runs the budget pays for, the origin's included; all while the cost of one is unknown."""
        if self.budget.run_cost is None:
            return self.budget.images
        more = self.budget.affordable(self.budget.run_cost, self.budget.images)
        return max(1, more + (self.origin.status == "finished"))

    @property
    def steps(self) -> int:
        """Steps of a full run."""
        return len(self.session.sigmas) - 1

    @property
    def baseline_first(self) -> bool:
        """Whether candidate 0 must be rendered alone, since what calls a run makes has to be known beforehand."""
        return self._alone_first or not self.session.known_steps

    @property
    def _alone_first(self) -> bool:
        """Whether candidate 0 must be rendered alone even if all others are to make the same calls as it does."""
        rules = self.budget.rules
        return not self._even or rules.max_model_calls > 0 or rules.max_seconds > 0

    def dearest(self, steps: int) -> int:
        """Return the most NFE that a run of `steps` steps took so far; 0 before the first ended."""
        return max(self._costs.get(steps, []), default=0)

    def wave(self, steps: int) -> int:
        """Return how many runs of `steps` steps to advance together.

        One by one if they differ in cost, so that the end of the budget cuts off one run, not all of a wave.
        """
        costs = self._costs.get(steps, [])
        if steps != self.steps and not (costs or self.session.known_steps):
            return 1  # a draft's cost cannot be told from that of a full run
        if not self._even and (len(costs) < 2 or len(set(costs)) > 1):
            return 1
        wave = WATCHED_WAVE if self.budget.rules.watch_scores else self.session.wave
        return max(wave, self.judge.set_size - 1)  # a question is about as many, and the best so far

    def calls(self, high: float, low: float = 0.0) -> int:
        """Return the NFE of a run below the noise level `high` down to and with `low`, by candidate 0's full run.

        That is a branch at `high` whose first call is known; one that was renoised to `high` makes one call more.
        """
        return self.rows * max(0, self._through(low) - self._through(high))

    @property
    def running(self) -> set[int]:
        """Candidates that are on their way, by index."""
        return set(self._runs)

    @property
    def rows(self) -> int:
        """Latent rows of one candidate, so NFE of one call; known once candidate 0 is rendered."""
        return (self.budget.run_cost or 0) // max(len(self._levels), 1)

    @property
    def why_no_branches(self) -> str:
        """Why a method that branches cannot work here, in words; empty if it can."""
        return self.why_no_looks or self.why_no_renoising

    @property
    def why_no_looks(self) -> str:
        """Why half-finished candidates cannot be judged, in words; empty if they can."""
        untrusted = ONLY_FINISHED if self.judge.asks_people else "the verifier cannot be trusted on half-denoised pictures"
        return self._why_alone or self._why_in_parts or ("" if self.judge.trusts_previews else untrusted)

    @property
    def why_no_drafts(self) -> str:
        """Why renders of few steps say little of the verifier's scores, in words; empty if they may say much."""
        if self.judge.asks_people:
            return ONLY_FINISHED
        why = "a verifier compares with a prediction on the way, which few steps make elsewhere"
        return why if self.judge.needs_predictions else ""

    @property
    def why_no_renoising(self) -> str:
        """Why finished runs cannot be left for others that end anew, in words; empty if they can."""
        uneven = "runs make other model calls than candidate 0's" if self.uneven else "the sampler chooses its own steps"
        return self._why_alone or self._why_in_parts or ("" if self._even else uneven)

    @property
    def _even(self) -> bool:
        """Whether all runs are believed to make the calls of candidate 0's."""
        return self.session.fixed_steps and not self.uneven

    @property
    def _why_in_parts(self) -> str:
        """Why no model call tells of the whole latent at every step, as candidate 0's run showed; empty if they do."""
        return IN_PARTS if self._in_parts else ""

    @property
    def _why_alone(self) -> str:
        """Why runs cannot be suspended, in words; empty if they can."""
        return "" if self.session.looks_halfway else "; ".join(self.session.why_alone) or "its runs cannot be suspended"

    def _payable(self, todo: Sequence[Candidate]) -> int:
        """How many of `todo` to run now: what is best run together, and what can be paid for."""
        count = min(len(todo), self.wave(self.steps))
        return self._fitting(count, max((self._cost_to_end(c) for c in todo[:count]), default=0))

    @property
    def _room(self) -> int:
        """How many candidates that are yet to be drawn could run now."""
        return self._fitting(self.wave(self.steps), max(self.dearest(self.steps), 1))

    def _fitting(self, count: int, cost: int) -> int:
        """How many of `count` runs of `cost` NFE each can be paid for now; at first candidate 0 may have to go alone."""
        if self.budget.run_cost is None:
            return 1 if self._alone_first or self.budget.halted else count
        return self.budget.affordable(cost, count)

    def _through(self, sigma: float) -> int:
        """How many calls candidate 0's run made until it was below a noise level for good."""
        return max((i + 1 for i, level in enumerate(self._levels) if level >= sigma * (1 - 1e-5)), default=0)

    def _cost_to_end(self, candidate: Candidate) -> int:
        run = self._runs.get(candidate.index)
        if run is None or not candidate.recipe.cuts:
            return max(self.dearest(self.steps) - (0 if run is None else run.nfe), 1)
        if run.levels:  # its first call may have been a twin's, answered or not
            return max(self.calls(run.levels[-1]), 1)
        cut = candidate.recipe.cuts[-1]
        first = self.rows if cut.renoise_to > cut.sigma else 0
        return max(self.calls(cut.renoise_to) + first - run.nfe, 1)


def check_levels(session: Session, judge: Judge) -> None:
    """Raise a ValueError if a part wants a prediction above a run's first call, or where it is the picture itself."""
    first, last = float(session.sigmas[0]), float(session.sigmas[-2])
    for name, level in judge.needs_predictions.items():
        if not first * (1 + 1e-5) >= level > last * (1 + 1e-5):
            raise ValueError(
                f"verifier '{name}': its 'sigma' is {level:g}, and the model calls of {len(session.sigmas) - 1} steps lie "
                f"between the noise levels {first:g} and {last:g}: choose one above the last, which gives the picture itself, "
                "and not above the first (raise denoise, or take more steps)"
            )
