"""A chain: one method finds a good candidate, another goes on from it, under one budget."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ..core.search import Method, Round, Search


@runtime_checkable
class GoesOn(Protocol):
    """A method that can branch from the winner of the one before it."""

    def wanted_levels(self, search: Search) -> tuple[float, ...]:
        """Return the noise levels at which it wants that winner's run recorded."""


@dataclass(frozen=True)
class Chain:
    """Spend a share of the budget and its limits on one method, and the rest on another that starts from its winner.

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
        with search.lasting(levels_of(self.then, search)):
            search.use_method(self.first.name)
            with search.budget_share(self.share):
                yield from self.first.run(search)
                yield from search.score()
        if search.should_stop():
            return
        search.start_from(search.best[0])
        if search.start_candidate.recipe.cuts and not levels_of(begins(self.then), search):
            search.note(f"the winner of {self.first.name} branched on its way: {self.then.name} draws near its first noise only")
        search.use_method(self.then.name)
        yield from self.then.run(search)

    def wanted_levels(self, search: Search) -> tuple[float, ...]:
        """Return the noise levels at which either method may leave the winner of the one before them."""
        return levels_of(self.first, search) + levels_of(self.then, search)


def begins(method: Method) -> Method:
    """Return the method that a chain, or a method alone, begins with."""
    return begins(method.first) if isinstance(method, Chain) else method


def levels_of(method: Method, search: Search) -> tuple[float, ...]:
    """Return the noise levels at which a method wants the winner of the one before it recorded; most want none."""
    return method.wanted_levels(search) if isinstance(method, GoesOn) else ()
