"""What verifiers there are, for a search: each is recognised once, by what it has, when a scorer is made.

A verifier has a `name` and, where no other kind says otherwise, `score(images, latents)`. These protocols say what a search
uses of the other kinds; `verifiers.common.base` says what a verifier promises. Neither imports the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor


class ComparisonSession(Protocol):
    """One search's questions to people; see `verifiers.human`.

    Attributes:
        verifier: what was asked for.
        asker: carries its questions; None for the verifier's own.
        set_size: most pictures that are shown side by side.
        choices: what people chose so far.
        stopped: why the search is to end, in words; empty if it is not.
        waited: seconds spent waiting for answers.
    """

    verifier: Any
    asker: Any
    choices: Sequence[Any]
    stopped: str
    waited: float

    @property
    def set_size(self) -> int: ...
    def connect(self, recall: Callable[[int], Tensor | None], finishing: Callable[[], bool]) -> None: ...
    def report_failures(self, failed: Callable[[Exception], None]) -> None: ...
    def score_set(self, candidates: Sequence[int], images: Sequence[Tensor]) -> Tensor: ...
    def revised(self) -> Mapping[int, float]: ...


@runtime_checkable
class AsksPeople(Protocol):
    """Asks people, who compare, if `asks_people` is true."""

    asks_people: bool

    def begin(self) -> ComparisonSession: ...


@runtime_checkable
class ScoresRuns(Protocol):
    """Scores runs by their guidance gaps, and needs no picture."""

    def score_runs(self, gaps: Sequence[Sequence[float]]) -> Tensor: ...


@runtime_checkable
class ScoresPairs(Protocol):
    """Compares a picture with what its run promised at the noise level `needs_prediction`."""

    needs_prediction: float

    def score_pairs(self, images: Tensor, predictions: Tensor) -> Tensor: ...


@runtime_checkable
class Combines(Protocol):
    """Is made of parts, whose scores it combines."""

    parts: Sequence[Any]

    def combine(self, scores: Tensor) -> Tensor: ...


@runtime_checkable
class Cascades(Protocol):
    """Is two verifiers: one for every candidate, and one for the finalists."""

    cheap: Any
    expensive: Any

    def finalists_among(self, count: int) -> int: ...


@runtime_checkable
class Compares(Protocol):
    """Compares the best of a pool two at a time, if `finalists` is not 0; see `selection.pairwise`."""

    finalists: int
    near: float

    def compare(self, first: Tensor, second: Tensor) -> float: ...


@runtime_checkable
class Settles(Protocol):
    """Makes something up once, on which all its scores depend."""

    def settle(self, settled: Callable[[Callable[[], Any]], Any]) -> None: ...


# What a verifier may have beside its kind.


@runtime_checkable
class HasBatchSize(Protocol):
    """Says how many pictures it answers at once; others answer one at a time."""

    batch_size: int


@runtime_checkable
class HasNotes(Protocol):
    """Says what it assumed, in words."""

    notes: Sequence[str]


@runtime_checkable
class MayBePaid(Protocol):
    """Says whether its answers are paid for, so that none may be lost."""

    is_paid: bool


@runtime_checkable
class MayDistrustPreviews(Protocol):
    """Says whether it may be asked about half-denoised pictures; others may."""

    trusts_previews: bool


@runtime_checkable
class ScaledByFirst(Protocol):
    """Says how many of a search's first candidates set its scales."""

    reference_rows: int


@runtime_checkable
class MayStandAlone(Protocol):
    """Says whether a candidate's combined score does not depend on other candidates, once its scales are set."""

    stands_alone: bool


@runtime_checkable
class MayRun(Protocol):
    """Combines scores that are added to, a candidate at a time, if `running` returns what does so."""

    def running(self) -> Any | None: ...


@dataclass(frozen=True)
class Leaf:
    """A part of a verifier that scores by itself.

    Attributes:
        name: unique among the parts.
        verifier: what is asked; of a verifier that asks people, the sitting.
        sitting: the sitting, if it asks people; else None.
        runs: it, if it scores runs; else None.
        pairs: it, if it compares pictures with predictions; else None.
        settles: it, if it makes something up; else None.
        is_paid: whether its answers are paid for.
        trusts_previews: whether it may be asked about half-denoised pictures.
    """

    name: str
    verifier: Any
    sitting: ComparisonSession | None
    runs: ScoresRuns | None
    pairs: ScoresPairs | None
    settles: Settles | None
    is_paid: bool
    trusts_previews: bool
    _batching: HasBatchSize | None
    _noting: HasNotes | None

    @property
    def batch_size(self) -> int:
        """Most pictures that it answers at once."""
        return 1 if self._batching is None else self._batching.batch_size

    @property
    def notes(self) -> Sequence[str]:
        """What it assumed, in words."""
        return () if self._noting is None else self._noting.notes


@dataclass(frozen=True)
class Group:
    """A part of a verifier that combines the scores of others.

    Attributes:
        verifier: itself.
        parts: the others.
        own_reference_rows: how many of a search's first candidates set its scales; 0 if none do.
        stands_alone: whether a candidate's combined score depends on no other candidate, in none of its parts either.
        runs: it, if it combines scores a candidate at a time and its parts' scores stand alone; else None.
    """

    verifier: Combines
    parts: tuple[Part, ...]
    own_reference_rows: int
    stands_alone: bool
    runs: MayRun | None


Part = Leaf | Group


def cascade_of(verifier: Any) -> Cascades | None:
    """Return a verifier if it is a cascade; else None."""
    return verifier if isinstance(verifier, Cascades) else None


def comparing(verifier: Any) -> Compares | None:
    """Return a verifier if it compares the best of a pool; else None."""
    return verifier if isinstance(verifier, Compares) and verifier.finalists else None


def parts_of(verifier: Any) -> Part:
    """Return what kinds a verifier and its parts are; a sitting of each that asks people begins."""
    names = iter(unique_names([one.name for one in _leaves(verifier)]))
    return _part(verifier, names)


def leaves_of(part: Part) -> list[Leaf]:
    """Return the parts that score by themselves, from left to right."""
    return [part] if isinstance(part, Leaf) else [leaf for one in part.parts for leaf in leaves_of(one)]


def unique_names(names: Sequence[str]) -> list[str]:
    """Return names with a number behind those that are there already."""
    out: dict[str, None] = {}
    following: dict[str, int] = {}
    for name in names:
        unique, count = name, following.get(name, 2)
        while unique in out:
            unique, count = f"{name} {count}", count + 1
        out[unique], following[name] = None, count
    return list(out)


def _leaves(verifier: Any) -> list[Any]:
    return [leaf for part in verifier.parts for leaf in _leaves(part)] if isinstance(verifier, Combines) else [verifier]


def _part(verifier: Any, names: Iterator[str]) -> Part:
    if not isinstance(verifier, Combines):
        return _leaf(verifier, next(names))
    parts = tuple(_part(one, names) for one in verifier.parts)
    alone = all(isinstance(one, Leaf) or one.stands_alone for one in parts)
    return Group(
        verifier, parts,
        own_reference_rows=verifier.reference_rows if isinstance(verifier, ScaledByFirst) else 0,
        stands_alone=alone and isinstance(verifier, MayStandAlone) and verifier.stands_alone,
        runs=verifier if alone and isinstance(verifier, MayRun) else None,
    )  # fmt: skip


def _leaf(verifier: Any, name: str) -> Leaf:
    sitting = verifier.begin() if isinstance(verifier, AsksPeople) and verifier.asks_people else None
    asked: Any = verifier if sitting is None else sitting
    return Leaf(
        name, asked, sitting,
        runs=asked if isinstance(asked, ScoresRuns) else None,
        pairs=asked if isinstance(asked, ScoresPairs) else None,
        settles=asked if isinstance(asked, Settles) else None,
        is_paid=isinstance(asked, MayBePaid) and asked.is_paid,
        trusts_previews=not isinstance(asked, MayDistrustPreviews) or asked.trusts_previews,
        _batching=asked if isinstance(asked, HasBatchSize) else None,
        _noting=asked if isinstance(asked, HasNotes) else None,
    )  # fmt: skip
