"""The parts of a verifier: what each is asked about together, and how their scores become one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..base.verifier_kinds import Group, Leaf, Part


def batches(leaf: Leaf, sizes: Sequence[int]) -> Iterator[range]:
    """Yield which candidates a part is asked about together: so many pictures as it answers at once, at least a candidate's.

    Args:
        leaf: says it by `batch_size`.
        sizes: pictures of each candidate.
    """
    most, first, pictures = leaf.batch_size, 0, 0
    for index, size in enumerate(sizes):
        if index > first and pictures + size > most:
            yield range(first, index)
            first, pictures = index, 0
        pictures += size
    if first < len(sizes):
        yield range(first, len(sizes))


def reference_rows(part: Part) -> int:
    """Return how many of a search's first candidates set a scale of a part, or of one of its parts."""
    return 0 if isinstance(part, Leaf) else max([part.own_reference_rows, *map(reference_rows, part.parts)])


def stands_alone(part: Part) -> bool:
    """Whether a candidate's combined score does not depend on other candidates."""
    return isinstance(part, Leaf) or part.stands_alone


def running(part: Part) -> Any | None:
    """Return what combines the scores of a part's parts a candidate at a time; None if they are combined anew each time."""
    return None if isinstance(part, Leaf) or part.runs is None else part.runs.running()


def columns_of(group: Group, raw: Tensor, reference: Tensor) -> Tensor:
    """Return the scores (N, parts) that a group combines, of raw ones (N, V)."""
    return _columns(group, raw, reference, 0)[0]


def combine(part: Part, raw: Tensor, reference: Tensor, at: int) -> tuple[Tensor, int]:
    """Combine the columns of `raw` (N, V) from `at` on that belong to a part; return (scores, next column).

    `reference` (K, V): raw scores of the search's first candidates, for what sets its scales by them.
    """
    if isinstance(part, Leaf):
        return raw[:, at], at + 1
    columns, following = _columns(part, raw, reference, at)
    if not part.own_reference_rows:
        return part.verifier.combine(columns), following
    verifier: Any = part.verifier  # one that sets its scales takes their scores too
    return verifier.combine(columns, _columns(part, reference, reference, at)[0]), following


def _columns(group: Group, raw: Tensor, reference: Tensor, at: int) -> tuple[Tensor, int]:
    """Return the combined scores (N, parts) of a group's parts, and the next column."""
    columns = []
    for part in group.parts:
        column, at = combine(part, raw, reference, at)
        columns.append(column)
    return torch.stack(columns, dim=1), at
