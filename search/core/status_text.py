"""What a search is doing, in words for the person who watches it."""

from __future__ import annotations

from collections.abc import Sequence

from ..base.candidate import Candidate
from ..base.text import many

COMPARING = "comparing the finalists"


def rendering(candidates: Sequence[Candidate]) -> str:
    """Say which candidates run to their end: "4 neighbors of candidate 7"."""
    own, others = [c for c in candidates if c.index == 0], [c for c in candidates if c.index > 0]
    return " and ".join([*(["your own seed"] if own else []), *([_others(others)] if others else [])])


def looking(count: int) -> str:
    """Say that candidates run to a look half-way."""
    return f"looking half-way at {count}"


def drafting(count: int, steps: int) -> str:
    """Say that candidates are rendered in few steps."""
    return f"drafting {many(count, 'noise')} with {many(steps, 'step')}"


def decoding(count: int) -> str:
    """Say that latents become pictures."""
    return f"decoding {many(count, 'picture')}"


def scoring(count: int) -> str:
    """Say that a verifier looks."""
    return f"scoring {many(count, 'candidate')}"


def judging(count: int) -> str:
    """Say that the dear verifier of a cascade looks at the best."""
    return f"the second verifier scores {many(count, 'finalist')}"


def restored(calls: int) -> str:
    """Say what it took to make latents again that were not kept."""
    return f"{many(calls, 'model call')} beside the budget rendered candidates again whose latents had been dropped"


def done(count: int, calls: int, stopped: str) -> str:
    """Say what a search that ended came to, and why it ended if that was not the budget alone."""
    return f"done: best of {count} after {many(calls, 'model call')}" + (f" ({stopped})" if stopped else "")


def _others(candidates: Sequence[Candidate]) -> str:
    count, parents = len(candidates), {c.parent for c in candidates}
    if all(c.status == "draft" for c in candidates):
        return f"{many(count, 'draft')} in full"
    if all(c.looks for c in candidates):
        return f"the {count} that are left, to the end"
    if None in parents:
        return many(count, "new noise")
    kind = "branch" if all(c.recipe.cuts for c in candidates) else "neighbor"
    return f"{many(count, kind)} of {_name(*parents) if len(parents) == 1 else many(len(parents), 'candidate')}"


def _name(index: int | None) -> str:
    return "your own seed" if index == 0 else f"candidate {index}"
