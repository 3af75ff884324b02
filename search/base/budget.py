"""What a search may spend, and why it stopped."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class StopRules:
    """Limits beside the number of images; 0 or None switches one off. Whichever comes first ends the search.

    Attributes:
        max_model_calls: NFE: guided calls on one latent row, candidate 0 included.
        max_seconds: wall-clock of the whole search.
        target_score: stop once the best score reaches it.
        patience: stop after so many candidates in a row without a better one.
    """

    max_model_calls: int = 0
    max_seconds: float = 0.0
    target_score: float | None = None
    patience: int = 0

    def __post_init__(self) -> None:
        for name in ("max_model_calls", "max_seconds", "patience"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"'{name}' must be a finite number, 0 (off) or more, not {value}")
        if self.target_score is not None and not math.isfinite(self.target_score):
            raise ValueError(f"'target_score' must be a finite number, not {self.target_score}")

    @property
    def watch_scores(self) -> bool:
        """Whether the outcome depends on when scores and the clock are looked at."""
        return self.target_score is not None or self.patience > 0 or self.max_seconds > 0


@dataclass
class Budget:
    """The allowance of one search and what it has spent.

    Attributes:
        images: whole images; with `run_cost` known, NFE = images * run_cost.
        rules: further limits.
        run_cost: NFE of candidate 0's full run; None until it ended.
        nfe: model calls spent so far, in latent rows.
        reserved: NFE that are put aside for a later part of the search; counts once `run_cost` is known.
        recalled: NFE among `nfe` whose outcome was taken from a journal.
        halted: nothing more may be spent once candidate 0 is rendered.
        waited: seconds that do not count, since the search waited for the user.
        free: every call is allowed for the moment; see `unlimited`.
        redone: NFE, not among `nfe`, that were spent again: to bring recalled runs back to where they were, or for latents of
            candidates that were dropped.
        given_up: NFE of this search, not among `nfe`, before it was begun anew.
        repeated: NFE, not among `nfe`, that were spent again on runs whose samplers memory had no room for.
        refused: whether a model call was not allowed; whoever wants to know sets it to False before.
        clock: gives seconds; a test may hand in its own.
    """

    images: int
    rules: StopRules = StopRules()
    run_cost: int | None = None
    nfe: int = 0
    reserved: float = 0
    recalled: int = 0
    halted: bool = False
    waited: float = 0.0
    redone: int = 0
    given_up: int = 0
    repeated: int = 0
    refused: bool = False
    clock: Callable[[], float] = time.perf_counter
    started: float = field(init=False)
    free: bool = field(default=False, init=False)
    _redoing: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        if self.images < 1:
            raise ValueError(f"'budget' counts whole images and must be at least 1, not {self.images}")
        self.started = self.clock()

    @property
    def seconds(self) -> float:
        """Wall-clock since the search began, without the time it waited for the user."""
        return self.clock() - self.started - self.waited

    @property
    def cap(self) -> float:
        """Most NFE the search may spend; infinite while candidate 0's cost is unknown and no limit is set."""
        if self.halted and self.run_cost is not None:
            return self.nfe
        images = math.inf if self.run_cost is None else self.images * self.run_cost
        return min(images, self.rules.max_model_calls or math.inf)

    @property
    def runs_left(self) -> int:
        """How many more full runs the number of images pays for, whatever other limits say; all before the first."""
        return self.images if self.run_cost is None else max(0, (self.images * self.run_cost - self.nfe) // self.run_cost)

    def halt(self) -> None:
        """Let nothing more be spent, but for what candidate 0 still needs."""
        self.halted = True

    def resume(self) -> None:
        """Let the rest be spent after all; see `halt`."""
        self.halted = False

    def set_run_cost(self, nfe: int) -> None:
        """Take the NFE of candidate 0's full run, at least 1, as the cost of an image."""
        self.run_cost = max(1, nfe)

    def exclude_wait(self, seconds: float) -> None:
        """Leave out of the search's time what it waited for the user."""
        self.waited += seconds

    @contextmanager
    def reserving(self, nfe: float) -> Iterator[None]:
        """Put NFE aside for a while, for a later part of the search."""
        before, self.reserved = self.reserved, nfe
        try:
            yield
        finally:
            self.reserved = before

    @contextmanager
    def sharing(self, share: float) -> Iterator[None]:
        """Let a part of the search spend a share of the images and of the limits, what was spent before included."""
        images, rules = self.images, self.rules
        calls = max(1, round(share * rules.max_model_calls)) if rules.max_model_calls else 0
        self.images = max(1, min(images, round(share * images)))
        self.rules = replace(rules, max_model_calls=calls, max_seconds=share * rules.max_seconds)
        try:
            yield
        finally:
            self.images, self.rules = images, rules

    @contextmanager
    def unlimited(self) -> Iterator[None]:
        """Allow every call for a while: what the user asked for by name is done, and counted."""
        before, self.free = self.free, True
        try:
            yield
        finally:
            self.free = before

    @property
    def redoing(self) -> bool:
        """Whether calls are counted apart for the moment; see `redo`."""
        return self._redoing

    @contextmanager
    def redo(self) -> Iterator[None]:
        """Allow calls for a while that were paid for before, and count them apart; none once the search is halted."""
        before, self._redoing = self._redoing, True
        try:
            yield
        finally:
            self._redoing = before

    def allows(self, rows: int, least: float = math.inf) -> bool:
        """Whether a model call on `rows` latent rows is inside the allowance. Candidate 0 is always rendered.

        Args:
            rows: of the call.
            least: NFE that candidate 0's full run takes at least, while that is not known; infinite for its own calls.
        """
        free = self.free or (self._redoing and not self.halted)
        cap = self.images * least if self.run_cost is None else self.cap - self.reserved
        allowed = free or self.nfe + rows <= cap
        self.refused = self.refused or not allowed
        return allowed

    def allows_repeats(self) -> bool:
        """Whether calls may be made again that are paid for: not once the search is halted, but for candidate 0's run."""
        allowed = self.free or not self.halted or self.run_cost is None
        self.refused = self.refused or not allowed
        return allowed

    def count(self, rows: int, repeated: int = 0) -> None:
        """Count a model call that was made, for rows of which it is the first, and others for which it is `repeated`."""
        self.repeated += repeated
        if self._redoing:
            self.redone += rows
        else:
            self.nfe += rows

    def recall(self, nfe: int) -> None:
        """Count model calls that a journal spared; none for what is made again, which was counted before."""
        if not self._redoing:
            self.nfe += nfe
            self.recalled += nfe

    def begin_anew(self) -> Budget:
        """Return the budget of this search begun anew: nothing is spent of it but time."""
        other = Budget(self.images, self.rules, given_up=self.given_up + self.nfe + self.redone + self.repeated, clock=self.clock)
        other.started, other.waited = self.started, self.waited
        return other

    @property
    def calls_in_time(self) -> float:
        """NFE that the rest of the time pays for, at the mean time of a model call so far, scoring included."""
        made = self.nfe - self.recalled + self.redone + self.repeated
        if self.rules.max_seconds <= 0 or made == 0 or self.seconds <= 0:
            return math.inf
        return (self.rules.max_seconds - self.seconds) * made / self.seconds

    def affordable(self, cost: float, wanted: int) -> int:
        """Return how many of `wanted` things of `cost` NFE each can be paid for, in model calls and in time."""
        left = min(self.cap - self.nfe, self.calls_in_time) - self.reserved
        return wanted if math.isinf(left) or cost <= 0 else max(0, min(wanted, math.floor(left / cost + 1e-9)))

    def why_over(self, best: float, since: int) -> str:
        """Say, in words, which rule ends the search; empty if none does.

        Args:
            best: the best score so far.
            since: how many candidates were scored after the best one.
        """
        rules = self.rules
        if rules.target_score is not None and best >= rules.target_score:
            return f"the target score {rules.target_score:g} was reached"
        if rules.patience and since >= rules.patience:
            return f"no better candidate among the last {since} (patience {rules.patience})"
        if 0 < rules.max_seconds <= self.seconds:
            return f"the time limit of {rules.max_seconds:g} s was reached"
        if self.run_cost is not None and self.nfe >= self.cap:
            return "the budget is spent"
        return ""

    def why_short(self) -> str:
        """Say, in words, what is too short for another run."""
        if self.calls_in_time < self.cap - self.nfe:
            return f"the rest of the time limit of {self.rules.max_seconds:g} s is too short for another run"
        return "the rest of the budget does not pay for another run"
