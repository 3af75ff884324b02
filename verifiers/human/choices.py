"""Choices among pictures, and how strong they say each picture is.

A choice is what was said of a few pictures shown side by side. It counts as comparisons of two: the pick beats every
other picture shown, a ranking is all its ordered pairs, and "all bad" says that the earlier best beats all the new ones,
and so does a picture just good enough, the reference. Strengths s are those of Bradley and Terry's model, in log odds,

    P(i beats j) = 1 / (1 + exp(s_j - s_i)),

and maximize the sum of log P over all comparisons minus |s|^2 / (2 d^2). The wide Gaussian prior d makes them exist, be
unique and sum to 0, whatever was compared with what; without it the strength of what never lost would be infinite.

References:
    Rank Analysis of Incomplete Block Designs I: The Method of Paired Comparisons (Bradley and Terry, 1952),
        doi:10.2307/2334029
    MM Algorithms for Generalized Bradley-Terry Models (Hunter, 2004), doi:10.1214/aos/1079120141: when the maximum exists
        without a prior; here Newton's method, which the prior makes safe
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

YOU, MODEL, ASSISTANT = BY = ("you", "model", "assistant")
REFERENCE = -1  # stands for the picture that is just good enough
PRIOR_DEVIATION = 10.0  # wide: a pick must never be pulled below what it was picked over
TOLERANCE = 1e-9  # of the gradient
MOST_STEPS = 200
Linear = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Choice:
    """What was said of some pictures side by side.

    Attributes:
        shown: candidates, by index; two or more.
        ranking: the best of them, best first, up to all; empty for "all bad".
        by: "you", "model" or "assistant".
        best: which of them was the best before; None if none was.
    """

    shown: tuple[int, ...]
    ranking: tuple[int, ...]
    by: str = YOU
    best: int | None = None

    def __post_init__(self) -> None:
        if len(self.shown) < 2 or len(set(self.shown)) < len(self.shown) or min(self.shown) < 0:
            raise ValueError(f"'shown' is {list(self.shown)}: two or more different candidates, by index from 0")
        if len(set(self.ranking)) < len(self.ranking) or not set(self.ranking) <= set(self.shown):
            raise ValueError(f"'ranking' is {list(self.ranking)}: each at most once, and among those shown: {list(self.shown)}")
        if self.by not in BY:
            raise ValueError(f"'by' is {self.by!r}: one of {', '.join(BY)}")
        if self.best is not None and self.best not in self.shown:
            raise ValueError(f"'best' is {self.best}: it must be among those shown: {list(self.shown)}")

    @property
    def comparisons(self) -> list[tuple[int, int]]:
        """Pairs (winner, loser)."""
        if not self.ranking:
            winners = [REFERENCE] if self.best is None else [REFERENCE, self.best]
            return [(winner, one) for winner in winners for one in self.shown if one != self.best]
        rest = tuple(one for one in self.shown if one not in self.ranking)
        return [(one, other) for place, one in enumerate(self.ranking) for other in self.ranking[place + 1 :] + rest]

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"shown": list(self.shown), "ranking": list(self.ranking), "by": self.by, "best": self.best}


def bradley_terry(comparisons: Sequence[tuple[int, int]], deviation: float = PRIOR_DEVIATION) -> dict[int, float]:
    """Return the strength of everything that was compared, in log odds.

    Args:
        comparisons: pairs (winner, loser); each counts, in any order.
        deviation: of the prior on each strength.
    """
    items = sorted({item for pair in comparisons for item in pair})
    if not items:
        return {}
    place = {item: number for number, item in enumerate(items)}
    winners, losers = (torch.tensor([place[item] for item in side]) for side in zip(*comparisons, strict=True))
    start = torch.zeros(len(items), dtype=torch.float64)
    strengths = fit_preferences(
        lambda v: v[winners] - v[losers],
        lambda u: torch.zeros_like(start).index_add(0, winners, u).index_add(0, losers, -u),
        start, deviation**-2,
    )  # fmt: skip
    return dict(zip(items, strengths.tolist(), strict=True))


def fit_preferences(
    times: Linear, transposed: Linear, start: Tensor, precision: float, tolerance: float = TOLERANCE
) -> Tensor:  # fmt: skip
    """Return the weights (D,) that maximize sum log sigmoid(X w) - precision |w|^2 / 2, by Newton's method.

    Args:
        times, transposed: products of X (C, D), features of each comparison's winner minus those of its loser, with a vector
            (D,), and of its transpose with a vector (C,).
        start: weights to start from, (D,) float64.
        precision: of the Gaussian prior on each weight; above 0.
        tolerance: largest entry of the gradient that is let stand.
    """

    def objective(weights: Tensor) -> Tensor:
        return torch.nn.functional.logsigmoid(times(weights)).sum() - precision * weights @ weights / 2

    weights = start
    for _ in range(MOST_STEPS):
        margins = times(weights)
        gradient = transposed(torch.sigmoid(-margins)) - precision * weights
        if gradient.abs().max() <= tolerance:
            break
        curvature = torch.sigmoid(margins) * torch.sigmoid(-margins)
        step = _solve(lambda v, c=curvature: transposed(c * times(v)) + precision * v, gradient, tolerance / 10)
        here, length = objective(weights), 1.0
        while objective(weights + length * step) < here and length > 1e-6:  # a full step may overshoot
            length /= 2
        weights = weights + length * step
    return weights


def _solve(product: Linear, right: Tensor, tolerance: float) -> Tensor:
    """Solve A x = right up to |A x - right| <= tolerance by conjugate gradients; A, positive definite, is given by products."""
    x, residual = torch.zeros_like(right), right.clone()
    direction, norm = residual, residual @ residual
    for _ in range(2 * len(right) + 10):
        if norm <= tolerance**2:
            break
        moved = product(direction)
        share = norm / (direction @ moved)
        x, residual = x + share * direction, residual - share * moved
        norm, before = residual @ residual, norm
        direction = residual + norm / before * direction
    return x
