"""Renders a recipe again, segment by segment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..base.session import RecallsRuns, Run, Session
from ..noise.recipe import BranchPoint, Recipe


def replay(session: Session, recipe: Recipe, keep: Sequence[float] = ()) -> Run:
    """Return the ended last run of a recipe, from the session's journal if it has one that knows it.

    Args:
        session: renders it.
        recipe: of a candidate.
        keep: noise levels at which branches may leave that run.

    Raises:
        ValueError: a run of the recipe makes no model call where it was left.
    """
    if isinstance(session, RecallsRuns) and (known := session.recall(recipe, keep)) is not None:
        return known
    cuts = [*recipe.cuts, None]
    run = session.start(replace(recipe, cuts=()), _levels(cuts[0], keep))
    try:
        for cut, following in zip(cuts, cuts[1:], strict=False):
            session.advance([run], cut.sigma)
            if not run.records:
                raise ValueError(
                    f"recipe: no model call at its cut, sigma {cut.sigma:g}: it was found with other sigmas or sampler"
                )
            run.close()
            run = session.branch(run.records[-1], cut, _levels(following, keep))
        session.advance([run])
    finally:
        run.close()  # an ended run stays as it is
    return run


def _levels(cut: BranchPoint | None, keep: Sequence[float]) -> Sequence[float]:
    """Return the levels that a segment is kept at: that of the cut after it, or those asked for at the end."""
    return keep if cut is None else (cut.sigma,)
