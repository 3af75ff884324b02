"""Step noise of SDE samplers for runs in lockstep: the numbers of ComfyUI's Brownian trees, drawn for all runs together.

A tree answers with the increment of a Brownian motion between two noise levels, and reaches them by halving an interval some
twenty times. Where to halve is the same for all runs of a schedule: only the seeds differ. So the arithmetic is done once for the
runs that will ask the same, and each interval's normal numbers are drawn once, in place of once for either half.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Any
from weakref import WeakSet, WeakValueDictionary

import numpy as np
import torch
import torchsde
from torch import Tensor

log = logging.getLogger("noise-search")
_STOCK = torchsde.BrownianTree
_STARTING = threading.local()  # forests: of the runs that are being started in this thread
KEPT = 45  # increments that a tree remembers, as torchsde's own
WORD, SHIFT = 0xFFFFFFFF, 16
# Of numpy's SeedSequence, whose stream numpy promises to keep: M. E. O'Neill, "Developing a seed_seq alternative" (2015).
INIT_A, MULT_A, INIT_B, MULT_B, MIX_L, MIX_R = 0x43B0D7E5, 0x931E8875, 0x8B51F9DD, 0x58F38DED, 0xCA01F9DD, 0x4973F715


class Interval:
    """A node of the binary tree over the noise levels of a schedule: an interval, halved where somebody asked within."""

    __slots__ = ("_halves", "depth", "end", "key", "parent", "start")

    def __init__(self, start: float, end: float, parent: Interval | None = None, key: int = 0, depth: int = 0) -> None:
        self.start, self.end, self.parent, self.key, self.depth = start, end, parent, key, depth
        self._halves: tuple[Interval, Interval] | None = None

    def halves(self, digits: int) -> tuple[Interval, Interval]:
        """Return the two halves, their border rounded to so many digits; they are made where they are missing."""
        if self._halves is None:
            middle = round(0.5 * (self.end + self.start), digits)
            self._halves = (
                Interval(self.start, middle, self, 2 * self.key, self.depth + 1),
                Interval(middle, self.end, self, 2 * self.key + 1, self.depth + 1),
            )
        return self._halves


class Forest:
    """The Brownian trees of runs that go through one schedule: one shape of tree, a seed for each."""

    def __init__(self, start: float, end: float, digits: int, pool_size: int) -> None:
        """Prepare trees over [start, end], borders rounded to so many digits, whose seeds have pools of so many words."""
        self.root, self.digits, self.pool_size = Interval(start, end), digits, pool_size
        self.trees: WeakSet[SharedTree] = WeakSet()
        self.checked = self.off = False

    def increment(self, tree: SharedTree, low: float, high: float) -> Tensor | None:
        """Return a tree's increment from `low` to `high`; None if the stock tree has to answer.

        Those of all trees that were asked the same so far are found with it.
        """
        low, high = (round(min(max(t, self.root.start), self.root.end), self.digits) for t in (low, high))
        if self.off or low >= high:
            return None
        if tree.ready is None or tree.ready[0] != (low, high):
            cohort = [other for other in self.trees if other.asked == tree.asked]
            for other, own in zip(cohort, self._increments(cohort, low, high), strict=True):
                other.ready = ((low, high), own)
        tree.asked = (tree.asked[0] + 1, (low, high))
        ready, tree.ready = tree.ready, None
        return None if ready is None else ready[1]

    def _increments(self, trees: Sequence[SharedTree], low: float, high: float) -> Tensor:
        """Return the increments of some trees (n, ...), summed over the intervals that make up the one asked for."""
        first, *others = self._within(low, high)
        total = self._of(trees, first, high)
        for interval in others:
            total = total + self._of(trees, interval, high)
        for tree in trees:
            tree.forget()
        return total

    def _within(self, low: float, high: float) -> list[Interval]:
        """Return the intervals that make up [low, high], from low to high; they are made where they are missing."""
        found, todo = [], [(self.root, low, high)]
        while todo:
            interval, low, high = todo.pop()
            if (low, high) == (interval.start, interval.end):
                found.append(interval)
                continue
            left, right = interval.halves(self.digits)
            if high > right.start:
                todo.append((right, max(low, right.start), high))
            if low < left.end:
                todo.append((left, low, min(high, left.end)))
        return found

    def _of(self, trees: Sequence[SharedTree], interval: Interval, high: float) -> Tensor:
        """Return the increments of some trees (n, ...) over one interval; what lies above `high` is not remembered."""
        path = [interval]
        while path[-1].parent is not None and not all(path[-1] in tree.known for tree in trees):
            path.append(path[-1].parent)
        above = path.pop()
        values = torch.stack([tree.known_of(above) for tree in trees])
        for below in reversed(path):
            left, right = self._halves(trees, above, values, high)
            above, values = below, left if below is above.halves(self.digits)[0] else right
        return values

    def _halves(
        self, trees: Sequence[SharedTree], interval: Interval, values: Tensor, high: float
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Return the increments (n, ...) over the two halves of an interval, given those over all of it; have them remembered."""
        halves, part = interval.halves(self.digits), 1 / (interval.end - interval.start)
        before, after = (half.end - half.start for half in halves)
        mean = before * values * part
        mixed = mixed_in(self.pool_size, (interval.key, interval.depth))
        noise = torch.stack([tree.draw(mixed) for tree in trees])
        left = mean + math.sqrt(before * after * part) * noise
        right = values - left
        for half, increments in zip(halves, (left, right), strict=True):
            if half.start < high:
                for tree, own in zip(trees, increments, strict=True):
                    tree.known[half] = own
        return left, right


class SharedTree(_STOCK):
    """A `torchsde.BrownianTree` that is one of a forest's: its numbers are the same.

    Attributes:
        asked: how often it was asked, and for what last: it is alike for trees that are asked the same.
        ready: an increment that was found beside another tree's, and what it answers.
        known: increments over intervals, of which a few are kept.
    """

    def __init__(self, t0: Any, w0: Tensor, t1: Any = None, w1: Any = None, entropy: int | None = None, **more: Any) -> None:
        """Make the stock tree, and join the forest of those that are like it but for the seed."""
        super().__init__(t0, w0, t1, w1, entropy=entropy, **more)
        top, forests = self._interval, getattr(_STARTING, "forests", None)
        self.asked: tuple[int, tuple[float, float] | None] = (0, None)
        self.ready: tuple[tuple[float, float], Tensor] | None = None
        self.known: dict[Interval, Tensor] = {}
        self.forest: Forest | None = None
        if forests is None or entropy is None or not 0 <= entropy < 2**64:
            return
        self._pool = np.random.SeedSequence(entropy=entropy, pool_size=top._pool_size).pool[0].item()
        self._size, self._generator = top._size, torch.Generator(top._device)
        digits = -int(math.log10(top._tol))
        forest = forests.of((top._start, top._end, digits, top._pool_size, top._size, top._dtype, str(top._device)))
        forest.trees.add(self)
        self.forest = forest

    def __call__(self, t: Any, tb: Any = None, return_U: bool = False, return_A: bool = False) -> Any:  # noqa: N803 - stock names
        """Return what the stock tree does; see there."""
        forest = self.forest
        if forest is None or tb is None or return_U or return_A:
            return super().__call__(t, tb, return_U=return_U, return_A=return_A)
        found = forest.increment(self, float(t), float(tb))
        if found is None or not forest.checked:
            stock = super().__call__(t, tb)
            if found is not None:
                forest.checked, forest.off = True, not (isinstance(stock, Tensor) and torch.equal(found, stock))
                if forest.off:
                    log.warning("step noise of SDE samplers is drawn for each candidate alone: drawn together it is another")
            return stock
        return found

    def known_of(self, interval: Interval) -> Tensor:
        """Return the increment (...) over an interval that is known, the whole one among them."""
        return self._interval._w_h[0] if interval.parent is None else self.known[interval]

    def forget(self) -> None:
        """Keep the increments over intervals that end lowest: noise levels fall, so that those are asked for next."""
        if len(self.known) > KEPT:
            kept = sorted(self.known, key=attrgetter("end"))[:KEPT]
            self.known = {interval: self.known[interval] for interval in kept}

    def draw(self, mixed: Sequence[int]) -> Tensor:
        """Draw the normal numbers (...) by which an interval is halved; `mixed`: see `mixed_in`."""
        top = self._interval
        self._generator.manual_seed(seed_within(self._pool, mixed))
        return torch.randn(self._size, dtype=top._dtype, device=top._device, generator=self._generator)


class Forests:
    """The forests of a session's runs."""

    def __init__(self) -> None:
        self._forests: WeakValueDictionary[Hashable, Forest] = WeakValueDictionary()

    def of(self, key: tuple[Any, ...]) -> Forest:
        """Return the forest of trees over (start, end, digits, pool size, ...): one for each key, as long as it has trees."""
        forest = self._forests.get(key)
        if forest is None:
            forest = self._forests[key] = Forest(*key[:4])
        return forest

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Have the trees that a run makes as it starts join these forests; trees of other threads are stock ones."""
        before, outer = torchsde.BrownianTree, getattr(_STARTING, "forests", None)
        torchsde.BrownianTree = SharedTree if before is _STOCK else before
        _STARTING.forests = self
        try:
            yield
        finally:
            torchsde.BrownianTree, _STARTING.forests = before, outer


def mixed_in(size: int, spawned: Sequence[int]) -> list[int]:
    """Return what numpy's `SeedSequence` mixes into the first word of its pool for a spawn key, word by word.

    Args:
        size: words of the pool.
        spawned: the spawn key, of numbers from 0.
    """
    constant, found = INIT_A * pow(MULT_A, size * size, WORD + 1) & WORD, []  # as it is once the pool is filled and mixed
    for word in (word for number in spawned for word in _words(number)):
        value = (word ^ constant) * (constant * MULT_A & WORD) & WORD
        found.append(MIX_R * (value ^ value >> SHIFT))
        constant = constant * pow(MULT_A, size, WORD + 1) & WORD
    return found


def seed_within(pool: int, mixed: Sequence[int]) -> int:
    """Return the first word that numpy's `SeedSequence` with a spawn key gives.

    Args:
        pool: first word of the pool of the sequence without a spawn key.
        mixed: see `mixed_in`.
    """
    for value in mixed:
        pool = MIX_L * pool - value & WORD
        pool ^= pool >> SHIFT
    value = (pool ^ INIT_B) * (INIT_B * MULT_B & WORD) & WORD
    return value ^ value >> SHIFT


def _words(number: int) -> list[int]:
    """Return a number in words of 32 bits, the lowest first."""
    words = [number & WORD]
    while number := number >> 32:
        words.append(number & WORD)
    return words
