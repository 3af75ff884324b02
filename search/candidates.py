"""Candidates, the scores of those that are compared with one another, and what is told of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from .recipes import Recipe


@dataclass(eq=False)
class Candidate:
    """One proposal, with what became of it.

    Attributes:
        index: 0 is the user's own seed.
        recipe: makes it again.
        parent: index of the candidate it was derived from, or None.
        scores: raw score by verifier; NaN where a verifier failed.
        score: combined score, higher is better; NaN until scored.
        looks: half-way scores, in order: {"sigma", "scores", "score"}.
        nfe: model calls spent on it, in latent rows.
        status: "waiting", "finished", "pruned", "draft", "cut off" (the budget ended within it) or "discarded".
        discarded: the user dropped it: it has no score any more.
        latent: what the sampler node would have put out, kept for rendering.
        records: model calls of its ended run that a branch may leave it at.
        segment_start: see `session.Run`.
        gaps: guidance gaps of its last run's model calls so far, if the judge needs them.
        predictions: latents that its last ended run promised, by noise level, if the judge needs them.
    """

    index: int
    recipe: Recipe
    parent: int | None = None
    scores: dict[str, float] = field(default_factory=dict)
    score: float = math.nan
    looks: list[dict[str, Any]] = field(default_factory=list)
    nfe: int = 0
    status: str = "waiting"
    discarded: bool = False
    latent: Any = None
    records: Sequence[Any] = ()
    segment_start: Any = None
    gaps: Sequence[float] = ()
    predictions: Mapping[float, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return what the report says of it: plain JSON values, NaN as None."""
        return {
            "index": self.index,
            "parent": self.parent,
            "status": self.status,
            "discarded": self.discarded,
            "score": finite_or_none(self.score),
            "scores": {name: finite_or_none(value) for name, value in self.scores.items()},
            "looks": [
                {**look, "score": finite_or_none(look["score"]),
                 "scores": {name: finite_or_none(value) for name, value in look["scores"].items()}}
                for look in self.looks
            ],
            "model_calls": self.nfe,
            "recipe": self.recipe.to_json(),
        }  # fmt: skip


class Pool:
    """Candidates that are compared with one another, and their combined scores.

    Rank and z-score ensembles depend on the whole pool, so that combined scores change as it grows.
    """

    def __init__(self, combine: Callable[[Tensor], Tensor]) -> None:
        """Start empty; `combine` turns raw scores (N, V) into combined ones (N,)."""
        self._combine = combine
        self.members: list[Candidate] = []
        self._raw: list[Tensor] = []
        self._refined: dict[int, float] = {}

    def add(self, candidates: Sequence[Candidate], raw: Tensor) -> None:
        """Add candidates with their raw scores (n, V)."""
        self.members += candidates
        self._raw += list(raw)

    @property
    def entries(self) -> list[tuple[Candidate, Tensor]]:
        """Members with their raw scores (V,), in order of entry."""
        return list(zip(self.members, self._raw, strict=True))

    def revise(self, column: int, scores: Mapping[int, float]) -> None:
        """Put other raw scores in the place of one part's, by candidate index."""
        for candidate, row in self.entries:
            if candidate.index in scores:
                row[column] = scores[candidate.index]

    def refine(self, scores: Mapping[int, float]) -> None:
        """Put other combined scores in the place of those of some members, by candidate index."""
        self._refined.update(scores)

    def combined(self) -> Tensor:
        """Return the combined scores (N,) of all members, in order of entry; NaN for those that the user discarded."""
        scores = self._combine(torch.stack(self._raw)).float()
        if not self._refined and not any(candidate.discarded for candidate in self.members):
            return scores
        pairs = zip(self.members, scores.tolist(), strict=True)
        return torch.tensor([math.nan if c.discarded else self._refined.get(c.index, score) for c, score in pairs])

    def ranked(self) -> list[tuple[Candidate, float]]:
        """Return members with combined scores, best first; NaN last; ties: the earlier candidate first."""
        if not self.members:
            return []
        pairs = zip(self.members, self.combined().tolist(), strict=True)
        return sorted(pairs, key=lambda pair: _rank(*pair))


@dataclass(frozen=True)
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


def _rank(candidate: Candidate, score: float) -> tuple[bool, float, int]:
    return math.isnan(score), 0.0 if math.isnan(score) else -score, candidate.index


def varied(ranked: Sequence[tuple[Candidate, float]], count: int) -> list[Candidate]:
    """Return the best `count` candidates, best first; of those that branched from one run the best, while others are left.

    Branches are alike: somebody who wants to see four pictures wants to see four layouts. Those without a score come last.
    What the user discarded is among them only if nothing else is there.
    """
    ranked = [pair for pair in ranked if not pair[0].discarded] or ranked[:1]
    runs: dict[Recipe, Candidate] = {}
    for candidate, score in ranked:
        if not math.isnan(score):
            runs.setdefault(replace(candidate.recipe, cuts=()), candidate)
    first = list(runs.values())[:count]
    more = [candidate for candidate, _ in ranked if all(candidate is not one for one in first)][: count - len(first)]
    return [candidate for candidate, _ in ranked if any(candidate is one for one in (*first, *more))]


def calls_of(rounds: Iterable[tuple[Sequence[int], int]]) -> Iterator[tuple[int, int]]:
    """Yield (NFE, candidate's index) of all candidates, in order; those of one round are spread over its calls.

    Args:
        rounds: the candidates of each, and the NFE spent when it was told.
    """
    before = 0
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
