"""Sequences that grow without a copy: they are what a tuple is, and share what they have in common."""

from __future__ import annotations

import gc
from dataclasses import dataclass

import pytest

from noise_search.search.noise.linked import Linked

ITEMS = ("a", "b", "c", "d")


@pytest.mark.parametrize("count", range(5))
def test_it_is_the_sequence_of_its_items(count):
    wanted = ITEMS[:count]
    for made in (Linked(wanted), Linked(list(wanted)), Linked(iter(wanted))):
        assert tuple(made) == wanted and tuple(reversed(made)) == wanted[::-1]
        assert len(made) == count and bool(made) == bool(wanted)
        assert [made[k] for k in range(-count, count)] == [wanted[k] for k in range(-count, count)]
        for part in [slice(a, b, c) for a in (None, 0, 1, 3, -1, 9) for b in (None, 0, 2, 3, -1, 9) for c in (None, 1, 2, -1)]:
            assert made[part] == Linked(wanted[part]), part
        for index in (count, -count - 1):
            with pytest.raises(IndexError):
                made[index]


def test_equal_ones_are_equal_however_they_were_made():
    one, two = Linked(ITEMS), Linked("ab").plus("c").plus("d")
    assert one == two and hash(one) == hash(two) and len({one, two}) == 1
    assert one != Linked("abd") and one != Linked("abce") and Linked("ba") != Linked("ab") and Linked() == Linked([])
    assert one != ITEMS and Linked() != ()


def test_what_comes_before_is_shared():
    one = Linked(ITEMS)
    assert one.plus("e").before is one and one.plus("e")[:-1] is one and Linked(one) is one
    assert one.last == "d" and one.before == Linked("abc")


@dataclass(frozen=True)
class Counted:
    number: int
    told: list[int]

    def __hash__(self) -> int:
        self.told.append(self.number)
        return hash(self.number)

    def __eq__(self, other: object) -> bool:
        self.told.append(self.number)
        return self.number == other.number


def test_an_append_and_a_hash_look_at_one_item_at_any_length():
    told: list[int] = []
    long = Linked(Counted(k, told) for k in range(1000))
    told.clear()
    longer, same = long.plus(Counted(1000, told)), long.plus(Counted(1000, told))
    assert longer == same and {longer: 1}[same] == 1
    assert set(told) == {1000} and len(told) <= 6


def test_a_very_long_one_is_freed_and_compared_without_recursion():
    long, other = Linked(range(200_000)), Linked(range(200_000))
    assert long == other and len(long) == 200_000
    del long, other
    gc.collect()
