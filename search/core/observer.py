"""Who is told what happens in a search, as it happens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from ..base.budget import Budget
from ..base.candidate import Candidate, Round
from ..base.pool import Pool
from ..scoring.scorer import Scorer
from .user_requests import UserRequests


class SearchView(Protocol):
    """What an observer may read of a search; see `search.Search`."""

    @property
    def method(self) -> str: ...
    @property
    def steps(self) -> int: ...
    @property
    def budget(self) -> Budget: ...
    @property
    def scorer(self) -> Scorer: ...
    @property
    def user_requests(self) -> UserRequests: ...
    @property
    def baseline(self) -> Candidate: ...
    @property
    def candidates(self) -> Sequence[Candidate]: ...
    @property
    def running(self) -> set[int]: ...
    @property
    def scored(self) -> Sequence[Candidate]: ...
    @property
    def finished(self) -> Pool: ...
    @property
    def ranked(self) -> list[tuple[Candidate, float]]: ...
    @property
    def rounds(self) -> Sequence[Round]: ...


class SearchObserver(Protocol):
    """Follows a search; called in the search's own thread, so that it must be quick."""

    def begin(self, search: SearchView) -> None:
        """The search is about to begin."""

    def doing(self, words: str) -> None:
        """The search begins to do something that takes its time."""

    def shown(self, candidates: Sequence[Candidate], pictures: Sequence[Tensor], what: Mapping[str, Any]) -> None:
        """Pictures (F, H, W, 3) in [0, 1] of candidates were decoded, before they are scored.

        `what` they are: {} for finished ones, {"sigma": level} half-way, {"draft_steps": steps} for drafts.
        """

    def changed(self, search: SearchView) -> None:
        """Scores, states, or what the search waits for changed; some time between two model calls."""


class NullObserver:
    """An observer that does nothing."""

    def begin(self, search: SearchView) -> None:
        """Do nothing."""

    def doing(self, words: str) -> None:
        """Do nothing."""

    def shown(self, candidates: Sequence[Candidate], pictures: Sequence[Tensor], what: Mapping[str, Any]) -> None:
        """Do nothing."""

    def changed(self, search: SearchView) -> None:
        """Do nothing."""
