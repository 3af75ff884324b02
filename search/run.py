"""Runs a method as long as the user lets it, and goes on around a candidate when asked to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from math import isfinite, nan

from .base.candidate import Candidate
from .core.control import FINISHED, Halted
from .core.runs import CannotBranch
from .core.search import Method, Round, Search
from .methods.branches import fall_back_to_random
from .methods.chain import begins
from .methods.zero_order import ZeroOrderSearch


def run_search(search: Search, method: Method) -> Iterator[Round]:
    """Run a method; when the user wants more like a candidate, spend the rest of the budget around that one.

    That is done by zero-order search, with the settings of the method where it is or begins with one.
    """
    search.begin(method)
    while True:
        search.use_method(method.name)
        with suppress(Halted):
            yield from _run(search, method)
        yield from search.score()
        if search.baseline.status != "finished":
            search.budget.resume()
            with suppress(Halted):  # it may be asked to end once more
                yield from search.render([search.baseline])
        search.checkpoint()  # what was asked while the last pictures were scored
        search.abandon()
        favorite = search.control.take_favorite()
        if favorite is None or search.ended:
            break
        first = begins(method)
        method = first if isinstance(first, ZeroOrderSearch) else ZeroOrderSearch()
        search.note(f"you asked for more like candidate {favorite.index}: {method.name} went on around it")
        search.go_on_from(_startable(search, favorite))
    if search.ended == FINISHED:
        _commit(search)
    search.finish()


def _run(search: Search, method: Method) -> Iterator[Round]:
    """Run a method; one whose runs cannot branch where candidate 0's run could leaves the rest of the budget to random search."""
    try:
        yield from method.run(search)
    except CannotBranch as error:
        search.abandon()
        yield from fall_back_to_random(search, search.method, None, str(error))


def _commit(search: Search) -> None:
    """Render the best draft in full when the user ends a search of drafts: it is what they saw leading."""
    drafts = [(score, c) for c in search.candidates if not c.discarded and isfinite(score := _draft_score(c))]
    if drafts:
        search.choose(max(drafts, key=lambda draft: draft[0])[1])


def _draft_score(candidate: Candidate) -> float:
    """Return the score of a candidate's last draft; NaN without any."""
    return next((look["score"] for look in reversed(candidate.looks) if "draft_steps" in look), nan)


def _startable(search: Search, favorite: Candidate) -> Candidate:
    """Return a candidate that a method can start from: a branch that never ended is taken by its first noise."""
    if favorite.status == "finished" or not favorite.recipe.cuts:
        return favorite
    return search.add(replace(favorite.recipe, cuts=()), favorite.index)
