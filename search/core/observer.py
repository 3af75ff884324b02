"""Who is told what happens in a search, as it happens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from ..base.candidate import Candidate
    from .search import Search


class Watcher(Protocol):
    """Follows a search; called in the search's own thread, so that it must be quick."""

    def begin(self, search: Search) -> None:
        """The search is about to begin."""

    def doing(self, words: str) -> None:
        """The search begins to do something that takes its time."""

    def shown(self, candidates: Sequence[Candidate], pictures: Sequence[Tensor], what: Mapping[str, Any]) -> None:
        """Pictures (F, H, W, 3) in [0, 1] of candidates were decoded, before they are scored.

        `what` they are: {} for finished ones, {"sigma": level} half-way, {"draft_steps": steps} for drafts.
        """

    def changed(self, search: Search) -> None:
        """Scores, states, or what the search waits for changed; some time between two model calls."""


class Nobody:
    """A watcher that does not look."""

    def begin(self, search: Search) -> None:
        """Do nothing."""

    def doing(self, words: str) -> None:
        """Do nothing."""

    def shown(self, candidates: Sequence[Candidate], pictures: Sequence[Tensor], what: Mapping[str, Any]) -> None:
        """Do nothing."""

    def changed(self, search: Search) -> None:
        """Do nothing."""
