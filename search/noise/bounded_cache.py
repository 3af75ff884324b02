"""What is made again and again, kept up to a size."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, NamedTuple, TypeVar

T = TypeVar("T")


def bytes_of(tensor: Any) -> int:
    """Return the bytes that a tensor takes."""
    return tensor.nbytes


class BoundedCache(Generic[T]):
    """Values by keys that say how each is made; those that were used longest ago go first. Threads may share it."""

    def __init__(self, limit: int, size_of: Callable[[T], int] = bytes_of) -> None:
        """Start empty.

        Args:
            limit: most size of all values together; one alone is kept whatever its size, unless this is 0.
            size_of: of a value; by default the bytes of a tensor.
        """
        self._limit, self._size_of = limit, size_of
        self._values: OrderedDict[Hashable, T] = OrderedDict()
        self._lock = threading.Lock()
        self.size = 0

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Hashable) -> T | None:
        """Return the value of a key, which nobody may write into; None if it is not kept."""
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
            return value

    def add(self, key: Hashable, value: T) -> None:
        """Keep a value, and let go of others if they are too many then."""
        with self._lock:
            if self._limit <= 0 or key in self._values:
                return
            self._values[key] = value
            self.size += self._size_of(value)
            while self.size > self._limit and len(self._values) > 1:
                self.size -= self._size_of(self._values.popitem(last=False)[1])

    def under(self, base: Hashable) -> KeptUnder:
        """Return a view of what is made from one thing, by keys that need not name it."""
        return KeptUnder(self, base)


class KeptUnder(NamedTuple):
    """What is kept of all that is made from `base`."""

    kept: BoundedCache
    base: Hashable

    def get(self, key: Hashable) -> Any:
        """Return the value of a key; None if it is not kept."""
        return self.kept.get((self.base, key))

    def add(self, key: Hashable, value: Any) -> None:
        """Keep a value."""
        self.kept.add((self.base, key), value)
