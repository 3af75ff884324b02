"""The end of a cascade: when a search is over, the dear scorer puts the best candidates in order.

Methods know nothing of it: target score, patience and every choice on the way go by the cheap scorer.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..base.candidate import Candidate
from ..core.search import Search
from ..core.status_text import judging

GROUP = 9  # finalists that are asked about at a time, if their pictures fit: eight, and candidate 0
NOT_SCORED = "the second verifier gave no finalist a score: the order is the first verifier's"


def judge_finalists(search: Search) -> None:
    """Ask the dear scorer about the best candidates and candidate 0, once each; they lead from then on, in its order.

    Pictures that were dropped are decoded again. A finalist without a score stays among the others; if the scorer
    fails, or the user cancels, the search is left as it was. Nothing is asked about what the user discarded. Without a
    cascade nothing happens.
    """
    scorer, ranked = search.scorer.dear, [candidate for candidate, _ in search.ranked if not candidate.discarded]
    if scorer is None or not ranked:
        return
    chosen = ranked[: search.scorer.finalists_among(len(ranked))]
    if search.baseline in ranked and search.baseline not in chosen:
        chosen.append(search.baseline)
    search.say(judging(len(chosen)))
    judged, evaluator = scorer.pool(lambda: search.evaluator.discards), search.evaluator

    def told(some: Sequence[Candidate], raw: Tensor) -> None:
        scored = scorer.combine(raw).isfinite()
        judged.add([c for c, there in zip(some, scored.tolist(), strict=True) if there], raw[scored])
        scorer.revise(judged)
        evaluator.image_cache.keep(judged.ranked() or search.ranked)

    for first in range(0, len(chosen), GROUP):
        evaluator.scored_by(scorer, chosen[first : first + GROUP], told)
    evaluator.set_finalists(judged)
    if scorer.ended:
        search.note(scorer.ended)
    if not judged.members:
        search.note(NOT_SCORED)


def final_score(search: Search, candidate: Candidate) -> float:
    """Return the score that the order goes by where a candidate is: the dear scorer's if it gave any.

    NaN for a candidate that cannot be compared with the winner: it was no finalist.
    """
    finalists = search.evaluator.finalists
    return candidate.score if finalists is None or not finalists.members else finalists.score_of(candidate)
