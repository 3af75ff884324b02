"""Draft and commit: search with fewer steps, render the winner with all of them.

The ranking of drafts carries over to full renders only as far as the sampler is deterministic and the noise decides
the picture: the report holds both scores of the winner, so that it can be checked.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..candidates import Pool
from ..engine import Round, Search


def check_draft_steps(search: Search, steps: int) -> None:
    """Refuse drafts that are no shorter than the full run."""
    full = len(search.session.sigmas) - 1
    if not 1 <= steps < full:
        raise ValueError(f"'draft_steps' must be from 1 to {full - 1} for a run of {full} steps, not {steps} (0: off)")


def draft_cost(search: Search, steps: int) -> int:
    """Return an upper bound of a draft's NFE, known once candidate 0 was rendered in full."""
    full = len(search.session.sigmas) - 1
    return math.ceil((search.budget.run_cost or full) * steps / full)


def drafts_affordable(search: Search, steps: int) -> int:
    """Return how many drafts can be paid for beside candidate 0 (rendered) and the winner's full render."""
    budget = search.budget
    if budget.run_cost is None:
        return 0
    left = budget.cap - budget.nfe - budget.run_cost
    return max(0, int(left // draft_cost(search, steps)))


def commit(search: Search, drafts: Pool) -> Iterator[Round]:
    """Render the best draft in full."""
    if drafts.members:
        yield from search.render([drafts.ranked()[0][0]])
