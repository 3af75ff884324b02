"""A chain: one method finds a good candidate, another goes on from it, under one budget."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..engine import Method, Round, Search


@dataclass(frozen=True)
class Chain:
    """Spend a share of the budget on one method, and the rest on another that starts from its winner.

    The winner is never rendered again, so that the costs add up: NFE = that of `first` with round(share N) images plus
    that of `then` with the others. What `first` leaves over goes to `then`.

    Attributes:
        first: the method that begins.
        then: the method that goes on from its winner.
        share: how much of the budget `first` gets, in (0, 1).
    """

    first: Method
    then: Method
    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 < self.share < 1.0:
            raise ValueError(f"'then_after' must be above 0 and below 1, not {self.share:g}; 0.5 is half of the budget each")

    @property
    def name(self) -> str:
        """Both names."""
        return f"{self.first.name}, then {self.then.name}"

    def run(self, search: Search) -> Iterator[Round]:
        whole = search.budget.images
        around, wanted = search.lasting_levels, wanted_by(self.then, search)
        search.lasting_levels = around + wanted
        with _spending(search, max(1, min(whole, round(self.share * whole)))):
            yield from self.first.run(search)
        search.lasting_levels = around
        if search.over():
            return
        search.origin = search.ranked[0][0]
        if search.origin.recipe.cuts and not wanted:
            search.notes.append(
                f"the winner of {self.first.name} branched on its way: {self.then.name} draws near its first noise only"
            )
        yield from self.then.run(search)

    def leaves_at(self, search: Search) -> tuple[float, ...]:
        """Return the noise levels at which the first method's candidates will leave the winner before it."""
        return wanted_by(self.first, search)


def wanted_by(method: Method, search: Search) -> tuple[float, ...]:
    """Return the noise levels at which a method wants the winner of the one before it recorded; most want none."""
    wanted = getattr(method, "leaves_at", None)
    return () if wanted is None else wanted(search)


@contextmanager
def _spending(search: Search, images: int) -> Iterator[None]:
    """Let a part of the search spend the budget up to `images` only; stop rules are asked anew afterwards."""
    whole, search.budget.images = search.budget.images, images
    try:
        yield
    finally:
        search.budget.images, search.stopped = whole, ""
