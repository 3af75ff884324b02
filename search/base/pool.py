"""Candidates that are compared with one another: their scores, and who is best.

A search asks for its best candidates after every wave. So a pool keeps what is known of the order until something changes, and
where one more member moves scores a little only, it looks again at those alone that can have become the best since.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from threading import RLock
from typing import Any

import torch
from torch import Tensor

from .candidate import Candidate
from .standings import Rows, Standings, rounded

Scored = tuple[Candidate, float]
Known = tuple[float, int, int, float, int]  # what orders a member: -(score - rise * members), index, place, score, members then
LOOKS = 64  # members whose scores are looked at again, one by one, before the order is made anew


class Standing:
    """Where a candidate stands in a pool; what it says changes with the pool."""

    __slots__ = ("place", "pool")

    def __init__(self, pool: Pool, place: int) -> None:
        """Note the place of a member."""
        self.pool, self.place = pool, place

    @property
    def score(self) -> float:
        """Combined score; NaN for none."""
        return self.pool.score(self.place)

    @property
    def scores(self) -> dict[str, float]:
        """Raw score by verifier."""
        return dict(zip(self.pool.names, self.pool.raw(self.place), strict=True))


class Look(Mapping[str, Any]):
    """What was seen of a candidate before its end: what it was (see `journal.entry_name`), "scores", and "score" as it is now."""

    __slots__ = ("_standing", "_what")

    def __init__(self, what: Mapping[str, Any], standing: Standing) -> None:
        """Note a look: `what` it was at, and where the candidate stands among those that were looked at."""
        self._what, self._standing = what, standing

    def __getitem__(self, key: str) -> Any:
        if key in self._what:
            return self._what[key]
        if key not in ("scores", "score"):
            raise KeyError(key)
        return self._standing.scores if key == "scores" else self._standing.score

    def __iter__(self) -> Iterator[str]:
        yield from (*self._what, "scores", "score")

    def __len__(self) -> int:
        return len(self._what) + 2


class Pool:
    """Candidates that are compared with one another, and their combined scores.

    Rank and z-score ensembles depend on the whole pool, so that combined scores change as it grows. It may be read from another
    thread than the search's.

    Attributes:
        members: in order of entry.
        names: of the verifiers, the columns of raw scores.
    """

    def __init__(
        self, combine: Callable[[Tensor], Tensor], names: Sequence[str] = (),
        standings: Callable[[], Standings | None] = lambda: None, state: Callable[[], tuple[Hashable, Hashable]] = lambda: (0, 0),
    ) -> None:  # fmt: skip
        """Start empty.

        Args:
            combine: turns raw scores (N, V) into combined ones (N,).
            names: see above.
            standings: begins what gives the same scores a member at a time; None: `combine` is asked anew whenever the pool grew.
            state: what else combined scores depend on, and who of the members was discarded: another value for every change.
        """
        self.members: list[Candidate] = []
        self.names = tuple(names)
        self._combine, self._begin, self._state = combine, standings, state
        self._raw, self._refined = Rows(), {}
        self._places: dict[int, int] = {}
        self._lock, self._seen = RLock(), state()
        self._standings, self._known = standings(), 0  # and of how many members it knows
        self._combined: list[float] | None = None  # scores of all members, while they are known
        self._ranked: list[Scored] | None = None
        self._heap: list[Known] | None = None  # members with a score; None while their order is not known
        self._unscored: list[tuple[int, int]] = []  # index and place of those without a score, a heap

    def add(self, candidates: Sequence[Candidate], raw: Tensor) -> list[Standing]:
        """Add candidates with their raw scores (n, V); return where they stand. Without any, nothing changes."""
        if not candidates:
            return []
        with self._lock:
            first = len(self.members)
            self._raw.add(raw)
            self.members += candidates
            self._places.update((candidate.index, first + k) for k, candidate in enumerate(candidates))
            self._combined = self._ranked = None
        return [Standing(self, first + k) for k in range(len(candidates))]

    @property
    def entries(self) -> list[tuple[Candidate, Tensor]]:
        """Members with their raw scores (V,), in order of entry."""
        with self._lock:
            return list(zip(self.members, self._raw.tensor(), strict=True))

    def raw(self, place: int) -> list[float]:
        """Return a member's raw scores."""
        return self._raw.row(place)

    def revise(self, column: int, scores: Mapping[int, float]) -> None:
        """Put other raw scores in the place of one part's, by candidate index."""
        with self._lock:
            for place, candidate in enumerate(self.members):
                if candidate.index in scores:
                    self._raw.put(place, column, scores[candidate.index])
            self._forget()

    def refine(self, scores: Mapping[int, float]) -> None:
        """Put other combined scores in the place of those of some members, by candidate index."""
        with self._lock:
            self._refined.update(scores)
            self._forget()

    def combined(self) -> Tensor:
        """Return the combined scores (N,) of all members, in order of entry; NaN for those that the user discarded."""
        return torch.tensor(self._all())

    def score(self, place: int) -> float:
        """Return the combined score of the member that was added after `place` others; NaN for none, and for a discarded one."""
        with self._lock:
            self._update()
            if self._standings is None:
                return self._all()[place]
            return rounded(self._exact(place))

    def score_of(self, candidate: Candidate, otherwise: float = math.nan) -> float:
        """Return the combined score of a candidate, or `otherwise` if it is no member."""
        place = self._places.get(candidate.index)
        return otherwise if place is None else self.score(place)

    def __contains__(self, candidate: Candidate) -> bool:
        """Whether a candidate is a member."""
        return candidate.index in self._places

    def place_of(self, candidate: Candidate) -> int:
        """Return how many members were added before a member."""
        return self._places[candidate.index]

    def ranked(self) -> list[Scored]:
        """Return members with combined scores, best first; NaN last; ties: the earlier candidate first."""
        with self._lock:
            scores = self._all()
            if self._ranked is None:
                self._ranked = sorted(zip(self.members, scores, strict=True), key=lambda pair: _rank(*pair))
            return self._ranked[:]

    def best(self, count: int = 1) -> list[Scored]:
        """Return the first `count` of `ranked`."""
        with self._lock:
            self._update()
            if self._ranked is not None:
                return self._ranked[:count]
            if self._heap is None:
                self._heap = self._build()
            found = [(self.members[place], score) for place, score in self._first(self._heap, count)]
            rest = [heapq.heappop(self._unscored) for _ in range(min(count - len(found), len(self._unscored)))]
            for one in rest:
                heapq.heappush(self._unscored, one)
            return found + [(self.members[place], math.nan) for _, place in rest]

    def in_order_of(self, candidates: Iterable[Candidate]) -> list[Scored]:
        """Return some members with their scores, as `ranked` has them."""
        return sorted(((c, self.score_of(c)) for c in candidates), key=lambda pair: _rank(*pair))

    def in_order(self) -> Iterator[Scored]:
        """Yield members as `ranked` has them, without ranking more than are asked for."""
        given, count = 0, 16
        while given < len(self.members):
            found = self.best(count) if count < len(self.members) else self.ranked()
            yield from found[given:]
            given, count = len(found), 4 * count

    # Inside.

    def _update(self) -> None:
        """Take notice of what changed: members that were added, scales that were set, members that were discarded."""
        state = self._state()
        if state[0] != self._seen[0]:
            self._forget()
        elif state != self._seen:
            self._heap = self._combined = self._ranked = None
        self._seen = state
        new = range(self._known, len(self.members))
        self._known = len(self.members)
        if not new:
            return
        if self._standings is None:
            self._heap = None
            return
        self._standings.add(self._raw.tensor(new.start))
        if self._heap is not None:
            for place in new:
                self._enter(self._heap, place)

    def _forget(self) -> None:
        """Know nothing of combined scores any more."""
        self._standings, self._known = self._begin(), 0
        self._heap = self._combined = self._ranked = None

    def _all(self) -> list[float]:
        """Return the combined scores of all members."""
        with self._lock:
            self._update()
            if self._combined is None:
                scores = None if self._standings is None else self._standings.all()
                if scores is None:
                    scores = self._combine(self._raw.tensor()).float().tolist() if self.members else []
                plain = not self._refined and not any(candidate.discarded for candidate in self.members)
                self._combined = scores if plain else [self._own(place, score) for place, score in enumerate(scores)]
            return self._combined

    def _own(self, place: int, score: float) -> float:
        """Return a member's score, which is `score` unless somebody said something else."""
        candidate = self.members[place]
        return math.nan if candidate.discarded else self._refined.get(candidate.index, score)

    def _exact(self, place: int) -> float:
        """Return a member's score, not rounded to float32."""
        return self._all()[place] if self._standings is None else self._own(place, self._standings.score(place))

    @property
    def _rise(self) -> float:
        return 0.0 if self._standings is None else self._standings.rise

    def _build(self) -> list[Known]:
        """Order all members by their scores; return the heap of those with one."""
        heap: list[Known] = []
        self._unscored = []
        for place in range(len(self.members)):
            self._enter(heap, place)
        return heap

    def _enter(self, heap: list[Known], place: int) -> None:
        """Give a member its place in the order."""
        self._keep(heap, self.members[place].index, place, self._exact(place))

    def _keep(self, heap: list[Known], index: int, place: int, score: float) -> None:
        count = len(self.members)
        if math.isnan(score):
            heapq.heappush(self._unscored, (index, place))
        else:
            heapq.heappush(heap, (self._rise * count - score, index, place, score, count))

    def _first(self, heap: list[Known], count: int) -> list[tuple[int, float]]:
        """Return places and scores of the best `count` with a score, of which `heap` is in order.

        A member's score is at most what it was, plus `rise` for each that was added since: while that is less than the scores of
        those at the top, it need not be known.
        """
        members, rise = len(self.members), self._rise
        ahead: list[tuple[float, int, int, float]] = []
        found: list[tuple[float, int, int, float]] = []
        looks = LOOKS + count + members // 8
        while len(found) < count and (heap or ahead):
            if ahead and (not heap or ahead[0][:2] <= (-rounded(rise * members - heap[0][0]), heap[0][1])):
                found.append(heapq.heappop(ahead))
                continue
            _, index, place, score, then = heapq.heappop(heap)
            if rise and then < members:
                score, looks = self._exact(place), looks - 1
            heapq.heappush(ahead, (-rounded(score), index, place, score))
            if looks < 0:
                self._heap = self._build()
                return self._first(self._heap, count)
        for _, index, place, score in (*found, *ahead):
            self._keep(heap, index, place, score)
        return [(place, -negative) for negative, _, place, _ in found]


def _rank(candidate: Candidate, score: float) -> tuple[bool, float, int]:
    return math.isnan(score), 0.0 if math.isnan(score) else -score, candidate.index
