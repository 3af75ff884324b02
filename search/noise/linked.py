"""Sequences that grow at their end without being copied: each holds its last item and the sequence before it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

T = TypeVar("T")


class Linked(Sequence[T]):
    """An immutable sequence that shares all but its last item with the one it was made from.

    What a candidate's recipe holds grows with every step of a search. With tuples each step would copy, hash and compare all
    steps before it; here an append and a hash take the same time at any length. It equals others of its kind only, not tuples:
    their hashes differ.

    Attributes:
        before: the sequence without its last item; itself if it is empty.
        last: the last item; None if it is empty.
    """

    __slots__ = ("_hash", "_length", "before", "last")
    before: Linked[T]
    last: T
    _length: int
    _hash: int

    def __new__(cls, items: Iterable[T] = ()) -> Linked[T]:
        """Return the sequence of some items; one of this kind is returned as it is."""
        if isinstance(items, Linked):
            return items
        made = _EMPTY
        for item in items:
            made = made.plus(item)
        return made

    def plus(self, item: T) -> Linked[T]:
        """Return this sequence with one more item."""
        made = object.__new__(Linked)
        made.before, made.last, made._length, made._hash = self, item, self._length + 1, hash((self._hash, item))
        return made

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        if not isinstance(index, slice):
            place = index + self._length if index < 0 else index
            if not 0 <= place < self._length:
                raise IndexError(f"{index} is no position of {self._length} items")
            return self._first(place + 1).last
        start, stop, step = index.indices(self._length)
        if step != 1:
            return Linked(list(self)[index])
        until = self._first(max(start, stop))
        return until if start == 0 else Linked(reversed(list(islice(reversed(until), len(until) - start))))

    def _first(self, count: int) -> Linked[T]:
        """Return the sequence of the first items, which this one was made from."""
        found = self
        while found._length > count:
            found = found.before
        return found

    def __iter__(self) -> Iterator[T]:
        return reversed(list(reversed(self)))

    def __reversed__(self) -> Iterator[T]:
        there = self
        while there._length:
            yield there.last
            there = there.before

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Linked):
            return NotImplemented
        one, two = self, other
        if (one._length, one._hash) != (two._length, two._hash):
            return False
        while one is not two:  # the empty one there is once
            if one.last != two.last:
                return False
            one, two = one.before, two.before
        return True

    def __repr__(self) -> str:
        return f"Linked({list(self)!r})"


_EMPTY: Linked[Any] = object.__new__(Linked)
_EMPTY.before, _EMPTY.last, _EMPTY._length, _EMPTY._hash = _EMPTY, None, 0, hash(())
