"""Renders a recipe again, segment by segment."""

from __future__ import annotations

from dataclasses import replace

from .recipes import Cut, Recipe
from .session import Run, Session


def replay(session: Session, recipe: Recipe) -> Run:
    """Return the ended last run of a recipe, from the session's journal if it has one that knows it.

    Raises:
        ValueError: a run of the recipe makes no model call where it was left.
    """
    recall = getattr(session, "recall", None)
    if recall is not None and (known := recall(recipe)) is not None:
        return known
    cuts = [*recipe.cuts, None]
    run = session.start(replace(recipe, cuts=()), _level(cuts[0]))
    try:
        for cut, following in zip(cuts, cuts[1:], strict=False):
            session.advance([run], cut.sigma)
            if not run.records:
                raise ValueError(
                    f"recipe: no model call at its cut, sigma {cut.sigma:g}: it was found with other sigmas or sampler"
                )
            run.close()
            run = session.branch(run.records[-1], cut, _level(following))
        session.advance([run])
    finally:
        run.close()  # an ended run stays as it is
    return run


def _level(cut: Cut | None) -> tuple[float, ...]:
    return () if cut is None else (cut.sigma,)
