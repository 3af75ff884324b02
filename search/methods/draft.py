"""Draft and commit: search with fewer steps, render the winner with all of them.

The ranking of drafts carries over to full renders only as far as the sampler is deterministic and the noise decides
the picture: the report holds both scores of the winner, so that it can be checked.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ..candidates import Candidate, Pool
from ..engine import Round, Search

FEWER = "fewer drafts than planned could be paid for"


def check_draft_steps(search: Search, steps: int) -> None:
    """Refuse drafts that are no shorter than the full run."""
    if not 1 <= steps < search.steps:
        most = search.steps - 1
        raise ValueError(f"'draft_steps' must be from 1 to {most} for a run of {most + 1} steps, not {steps} (0: off)")


def check_not_negative(steps: int) -> None:
    """Refuse what no run can be drafted with."""
    if steps < 0:
        raise ValueError(f"'draft_steps' must be 0 (off) or more, not {steps}")


def draft_cost(search: Search, steps: int) -> int:
    """Return a draft's NFE: the dearest so far, or its share of a full run, rounded up."""
    return search.dearest(steps) or math.ceil((search.budget.run_cost or search.steps) * steps / search.steps)


def drafts_affordable(search: Search, steps: int) -> int:
    """Return how many drafts can be paid for beside candidate 0 (rendered) and the winner's full render."""
    budget = search.budget
    if budget.run_cost is None:
        return 0
    left = budget.images * budget.run_cost - budget.nfe - budget.run_cost
    return max(0, left // draft_cost(search, steps))


def draft(search: Search, candidates: Sequence[Candidate], steps: int, pool: Pool) -> bool:
    """Draft candidates in waves, as far as the budget reaches beside the winner's full render; say if any was."""
    budget, todo, before = search.budget, list(candidates), len(pool.members)
    budget.reserved = search.dearest(search.steps)
    while todo and not search.over():
        count = budget.affordable(draft_cost(search, steps), search.wave(steps))
        wave, todo = todo[:count], todo[count:]
        if not wave:
            if FEWER not in search.notes:
                search.notes.append(FEWER)
            break
        search.sketch(wave, steps, pool)
    budget.reserved = 0
    return len(pool.members) > before


def commit(search: Search, drafts: Pool) -> Iterator[Round]:
    """Render the best draft in full."""
    if drafts.members:
        yield from search.render([drafts.ranked()[0][0]])
