"""The parts of a verifier: which there are, what each is asked, and how their scores become one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor


def leaves_of(verifier: Any) -> list[Any]:
    """Return the parts that score by themselves, from left to right; a verifier without parts is its only one."""
    parts = getattr(verifier, "parts", None)
    return [verifier] if parts is None else [leaf for part in parts for leaf in leaves_of(part)]


def asks_people(leaf: Any) -> bool:
    """Whether a part asks people."""
    return getattr(leaf, "asks_people", False)


def scores_runs(leaf: Any) -> bool:
    """Whether a part scores runs and needs no picture."""
    return hasattr(leaf, "score_runs")


def is_paid(leaf: Any) -> bool:
    """Whether the answers of a part are paid for, so that none may be lost."""
    return getattr(leaf, "is_paid", False)


def batches(leaf: Any, sizes: Sequence[int]) -> Iterator[range]:
    """Yield which candidates a part is asked about together: so many pictures as it answers at once, at least a candidate's.

    Args:
        leaf: says it by `batch_size`; a part that does not answers one picture at a time.
        sizes: pictures of each candidate.
    """
    most, first, pictures = getattr(leaf, "batch_size", 1), 0, 0
    for index, size in enumerate(sizes):
        if index > first and pictures + size > most:
            yield range(first, index)
            first, pictures = index, 0
        pictures += size
    if first < len(sizes):
        yield range(first, len(sizes))


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


def reference_rows(verifier: Any) -> int:
    """Return how many of a search's first candidates set a scale of a verifier."""
    parts = getattr(verifier, "parts", None) or ()
    return max([getattr(verifier, "reference_rows", 0), *map(reference_rows, parts)])


def stands_alone(verifier: Any) -> bool:
    """Whether a candidate's combined score does not depend on other candidates."""
    parts = getattr(verifier, "parts", None)
    return parts is None or (getattr(verifier, "stands_alone", False) and all(map(stands_alone, parts)))


def running(verifier: Any) -> Any | None:
    """Return what combines the scores of a verifier's parts a candidate at a time; None if they are combined anew each time."""
    start = getattr(verifier, "running", None)
    return start() if start is not None and all(map(stands_alone, verifier.parts)) else None


def columns_of(ensemble: Any, raw: Tensor, reference: Tensor) -> Tensor:
    """Return the scores (N, parts) that an ensemble combines, of raw ones (N, V)."""
    return _columns(ensemble, raw, reference, 0)[0]


def combine(verifier: Any, raw: Tensor, reference: Tensor, at: int) -> tuple[Tensor, int]:
    """Combine the columns of `raw` (N, V) from `at` on that belong to `verifier`; return (scores, next column).

    `reference` (K, V): raw scores of the search's first candidates, for what sets its scales by them.
    """
    if getattr(verifier, "parts", None) is None:
        return raw[:, at], at + 1
    columns, following = _columns(verifier, raw, reference, at)
    if not getattr(verifier, "reference_rows", 0):
        return verifier.combine(columns), following
    return verifier.combine(columns, _columns(verifier, reference, reference, at)[0]), following


def _columns(ensemble: Any, raw: Tensor, reference: Tensor, at: int) -> tuple[Tensor, int]:
    """Return the combined scores (N, parts) of an ensemble's parts, and the next column."""
    columns = []
    for part in ensemble.parts:
        column, at = combine(part, raw, reference, at)
        columns.append(column)
    return torch.stack(columns, dim=1), at
