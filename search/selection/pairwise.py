"""Compares a pool's best candidates two at a time: what grades tie, a look at both tells apart.

Every two finalists are compared in both orders, so that a judge who prefers what it sees first prefers nobody, and a
finalist's share is the mean of its wins over all others. In such a full round the order by wins is that of the
Bradley-Terry model's strengths, of which the numbers of wins are the sufficient statistic.

References:
    Rank analysis of incomplete block designs: the method of paired comparisons (Bradley and Terry, 1952),
    doi:10.2307/2334029
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from torch import Tensor

from ..base.text import cut
from ..base.verifier_kinds import comparing
from ..core.search import Search
from ..core.status_text import COMPARING


@dataclass(frozen=True)
class Finals:
    """What a comparison of finalists said.

    Attributes:
        shares: Share of wins, 0 to 1, by position in the pool, best first by score.
        scores: The refined score, likewise: the pool's best score, plus `near` times the share.
        comparisons: How many were made.
    """

    shares: dict[int, float]
    scores: dict[int, float]
    comparisons: int


def play(scores: Sequence[float], compare: Callable[[int, int], float], finalists: int, near: float) -> Finals | None:
    """Compare the best of a pool.

    The refined scores keep the finalists above all others, whose scores stay as they are.

    Args:
        scores: (N,), NaN for no score.
        compare: Returns the probability that the first of two, given by position, is better.
        finalists: How many to compare at most.
        near: How far below the best score a finalist's may be.

    Returns:
        What was found; None if fewer than two are near the top.

    Raises:
        ValueError: If a comparison is no probability.
    """
    ranked = sorted((i for i, score in enumerate(scores) if math.isfinite(score)), key=lambda i: -scores[i])
    chosen = [i for i in ranked if scores[i] >= scores[ranked[0]] - near][: max(0, finalists)]
    if len(chosen) < 2:
        return None
    wins = dict.fromkeys(chosen, 0.0)
    for first, second in combinations(chosen, 2):
        won = (_probability(compare(first, second)) + 1 - _probability(compare(second, first))) / 2
        wins[first] += won
        wins[second] += 1 - won
    shares = {i: won / (len(chosen) - 1) for i, won in wins.items()}
    refined = {i: scores[ranked[0]] + near * share for i, share in shares.items()}
    return Finals(shares, refined, len(chosen) * (len(chosen) - 1))


def finals_of(
    verifier: Any, scores: Sequence[float], pictures: Callable[[int], Tensor],
    known: Callable[[int, int, Callable[[], float]], float] = lambda i, j, measure: measure(),
) -> Finals | None:  # fmt: skip
    """Let a verifier compare the best of a pool; None if it is not one that compares, or has nothing to compare.

    Args:
        verifier: Perhaps a `PairwiseVerifier`. Within an ensemble it is not asked: the ensemble's order is not its own.
        scores: (N,), NaN for no score.
        pictures: Gives the pictures (F, H, W, 3) of the one at a position.
        known: Gives the outcome for two positions if it is written down, else what it is handed to ask with.
    """
    verifier = comparing(verifier)
    if verifier is None:
        return None

    def compare(i: int, j: int) -> float:
        return known(i, j, lambda: _probability(verifier.compare(pictures(i), pictures(j))))

    return play(scores, compare, verifier.finalists, verifier.near)


def compare_finalists(search: Search, is_interrupt: Callable[[BaseException], bool]) -> None:
    """Refine the scores of a search's best candidates, and note in `search.finals` what was compared.

    What an earlier search compared is not compared again: that may be paid for, and the answer be another.
    A comparison that fails must not cost the winner: the order by scores stays, and the failure is among the problems.
    Nor has the cheap scorer of a cascade a say in what the dear one decided.
    """
    if search.scorer.dear is not None:
        return
    verifier, pool = search.scorer.verifier, search.finished
    scores = pool.combined().tolist() if pool.members else []
    if search.scorer.comparing is not None:
        search.say(COMPARING)

    def known(i: int, j: int, measure: Callable[[], float]) -> float:
        return search.scorer.settled({"better": True}, measure, pool.members[i], pool.members[j])

    try:
        with search.scorer.timed():
            finals = finals_of(verifier, scores, lambda i: search.evaluator.pictures(pool.members[i]), known)
    except Exception as error:
        if is_interrupt(error):
            raise
        search.scorer.note_problem(f"verifier '{verifier.name}' could not compare the finalists: {cut(str(error))}")
        return
    if finals is None:
        return
    index = [candidate.index for candidate in pool.members]
    pool.refine({index[i]: score for i, score in finals.scores.items()})
    search.set_finals({
        "verifier": verifier.name,
        "comparisons": finals.comparisons,
        "finalists": [{"index": index[i], "score": scores[i], "wins": share} for i, share in finals.shares.items()],
    })  # fmt: skip


def _probability(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ValueError(f"a comparison must be a probability, from 0 to 1, not {value!r}")
    return float(value)
