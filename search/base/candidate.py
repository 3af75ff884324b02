"""Candidates, the scores of those that are compared with one another, and what is told of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from ..noise.recipe import Recipe
from .levels import same_level


class Scores(Protocol):
    """The scores of a candidate, as they are now; see `pool.Standing`."""

    @property
    def score(self) -> float: ...
    @property
    def scores(self) -> dict[str, float]: ...


@dataclass(eq=False, slots=True)
class Candidate:
    """One proposal, with what became of it.

    Attributes:
        index: 0 is the user's own seed.
        recipe: makes it again.
        parent: index of the candidate it was derived from, or None.
        standing: where it stands among the finished; None until it is scored.
        looks: half-way scores, in order: {"sigma", "scores", "score"}.
        nfe: model calls spent on it, in latent rows.
        status: "waiting", "finished", "pruned", "draft", "cut off" (the budget ended within it) or "discarded".
        discarded: the user dropped it: it has no score any more.
        latent: what the sampler node would have put out; None before its end, and where it was dropped: see `Search.restore`.
        records: model calls of its ended run that a branch may leave it at; empty where they were dropped.
        levels: noise levels of the calls that a branch may leave it at, dropped or not.
        segment_start: see `session.Run`.
        gaps: guidance gaps of its last run's model calls so far, if the scorer needs them.
        predictions: latents that its last ended run promised, by noise level, if the scorer needs them.
    """

    index: int
    recipe: Recipe
    parent: int | None = None
    standing: Scores | None = None
    looks: list[Mapping[str, Any]] = field(default_factory=list)
    nfe: int = 0
    status: str = "waiting"
    discarded: bool = False
    latent: Any = None
    records: Sequence[Any] = ()
    levels: tuple[float, ...] = ()
    segment_start: Any = None
    gaps: Sequence[float] = ()
    predictions: Mapping[float, Any] = field(default_factory=dict)

    @property
    def scores(self) -> dict[str, float]:
        """Raw score by verifier, NaN where a verifier failed; empty until it is scored."""
        return {} if self.standing is None else self.standing.scores

    @property
    def score(self) -> float:
        """Combined score, higher is better; NaN until it is scored."""
        return math.nan if self.standing is None else self.standing.score

    def add_calls(self, nfe: int) -> None:
        """Count NFE that were spent on it."""
        self.nfe += nfe

    def note_run(self, gaps: Sequence[float], predictions: Mapping[float, Any]) -> None:
        """Take what its last run noted for verifiers: guidance gaps, and predictions by noise level."""
        self.gaps, self.predictions = gaps, predictions

    def place_among_finished(self, standing: Scores) -> None:
        """Take where it stands among the finished, with its score."""
        self.standing = standing

    def finish(self) -> None:
        """Note that its full run came to its end."""
        self.status = "finished"

    def end(self, status: str) -> None:
        """Note why its run was ended, "pruned" or "cut off"; a finished candidate stays finished, a discarded one discarded."""
        if self.status != "finished":
            self.status, self.predictions = "discarded" if self.discarded else status, {}

    def end_draft(self) -> None:
        """Note that a draft of it was rendered."""
        self.status = "finished" if self.status == "finished" else "draft"

    def discard(self) -> None:
        """Note that the user dropped it."""
        self.discarded = True

    def hold(self, run: Any) -> None:
        """Hold what an ended run left behind; see `session.Run`."""
        self.latent, self.segment_start, self.predictions = run.latent, run.segment_start, run.predictions
        self.records = run.records
        self.levels = tuple(record.sigma for record in self.records)

    def drop_latent(self) -> None:
        """Free its latent and what belongs to it; it can be made again."""
        self.latent, self.segment_start, self.predictions = None, None, {}

    def drop_records(self) -> None:
        """Free what branches start from; it can be made again."""
        self.records = ()

    def release_records(self) -> None:
        """Free what branches start from, for good: no branch may leave it any more."""
        self.records, self.levels = (), ()

    def can_branch_at(self, level: float) -> bool:
        """Whether its ended run can be left at a noise level."""
        return any(same_level(own, level) for own in self.levels)


@dataclass(frozen=True, slots=True)
class Round:
    """What a search tells after a group of candidates.

    Attributes:
        index: count of rounds before it.
        candidates: indices of those that were scored.
        best: index of the best finished candidate.
        score: its combined score.
        nfe: model calls spent so far, in latent rows.
        seconds: since the search began.
    """

    index: int
    candidates: tuple[int, ...]
    best: int
    score: float
    nfe: int
    seconds: float


def select_diverse(ranked: Iterable[tuple[Candidate, float]], count: int) -> list[Candidate]:
    """Return the best `count` candidates, best first; of those that branched from one run the best, while others are left.

    Branches are alike: somebody who wants to see four pictures wants to see four layouts. Those without a score come last.
    What the user discarded is among them only if nothing else is there.
    """
    runs: dict[Recipe, Candidate] = {}
    others: list[Candidate] = []  # in order, those of `runs` among them
    discarded = None
    for candidate, score in ranked:
        if candidate.discarded:
            discarded = discarded or candidate
            continue
        others.append(candidate)
        if not math.isnan(score) and count > 1:
            runs.setdefault(replace(candidate.recipe, cuts=()), candidate)
        if len(runs) == count or count == 1:
            break
    if not others and discarded is not None:
        return [discarded][:count]
    first = {id(candidate) for candidate in runs.values()}
    more = [id(candidate) for candidate in others if id(candidate) not in first][: count - len(first)]
    return [candidate for candidate in others if id(candidate) in first.union(more)]


def calls_of(rounds: Iterable[tuple[Sequence[int], int]], before: int = 0) -> Iterator[tuple[int, int]]:
    """Yield (NFE, candidate's index) of all candidates, in order; those of one round are spread over its calls.

    Args:
        rounds: the candidates of each, and the NFE spent when it was told.
        before: NFE spent before the first of them.
    """
    for candidates, nfe in rounds:
        for place, index in enumerate(candidates, 1):
            yield before + round((nfe - before) * place / len(candidates)), index
        before = nfe


def rankable(score: float) -> float:
    """Return a score as comparisons take it: NaN, no score, is below all."""
    return -math.inf if math.isnan(score) else score


def finite_or_none(value: float) -> float | None:
    """Return a finite number, or None for NaN and infinities: JSON has no word for those."""
    return float(value) if math.isfinite(value) else None
