"""What methods that copy candidates share: weights in logarithms, resampling, and what tells copies apart."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..core.search import Search
from ..noise.recipe import DRAWN_SEED_LIMIT, derived_seed


def check_renoise(steps: int) -> None:
    """Refuse a negative number of steps to renoise."""
    if steps < 0:
        raise ValueError(f"'renoise' must be 0 (the sampler's own noise) or more steps, not {steps}")


def refuse_twins(search: Search, name: str, renoise: int) -> None:
    """Raise a ValueError if copies would all be the same: a sampler without noise of its own, and none added."""
    if not renoise and not search.session.stochastic:
        raise ValueError(
            f"method: {name} copies good candidates, and this sampler draws no noise that would tell the copies apart: choose "
            "an ancestral or SDE sampler or the Stochastic Sampler node, or set 'renoise' to 1 or more"
        )


def uniform(seed: int, *path: int | str) -> float:
    """Return a number in [0, 1) that follows from a seed and a path."""
    return derived_seed(seed, *path) / DRAWN_SEED_LIMIT


def spread(scores: Sequence[float]) -> float:
    """Return the standard deviation of the finite scores; 1 where there is none."""
    finite = [score for score in scores if math.isfinite(score)]
    mean = math.fsum(finite) / max(len(finite), 1)
    return math.sqrt(math.fsum((score - mean) ** 2 for score in finite) / max(len(finite), 1)) or 1.0


def normalized(log_weights: Sequence[float]) -> list[float]:
    """Return weights that sum to 1; -inf and NaN weigh nothing, and if all do, all weigh the same."""
    known = [-math.inf if math.isnan(value) else value for value in log_weights]
    top = max(known)
    if top == -math.inf:
        return [1.0 / len(known)] * len(known)
    raw = [math.exp(value - top) for value in known]
    return [value / math.fsum(raw) for value in raw]


def effective_size(log_weights: Sequence[float]) -> float:
    """Return the effective sample size 1 / sum(w^2), from 1 to the number of particles."""
    return 1.0 / math.fsum(w * w for w in normalized(log_weights))


def systematic_resample(log_weights: Sequence[float], count: int, u: float) -> list[int]:
    """Return how many of `count` offspring each particle gets: floor or ceil of count w, with one random number.

    Offspring j sits at (u + j) / count of the cumulated weights; u is in [0, 1).

    References:
        Monte Carlo Filter and Smoother for Non-Gaussian Nonlinear State Space Models (Kitagawa, 1996)
    """
    weights, offspring, total, j = normalized(log_weights), [], 0.0, 0
    for weight in weights:
        total += weight
        first = j
        while j < count and (u + j) / count < total - 1e-12:
            j += 1
        offspring.append(j - first)
    offspring[max(range(len(weights)), key=weights.__getitem__)] += count - j  # what rounding left over
    return offspring
