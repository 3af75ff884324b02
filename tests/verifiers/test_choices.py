"""Strengths from comparisons, against closed forms."""

from __future__ import annotations

import math
import random

import pytest

from noise_search.verifiers.human.choices import MODEL, REFERENCE, YOU, Choice, bradley_terry

WIDE = 1e5  # a prior that is as good as none


def test_two_items_differ_by_the_log_odds_of_their_wins():
    found = bradley_terry([(4, 9)] * 3 + [(9, 4)], WIDE)
    assert found[4] - found[9] == pytest.approx(math.log(3), abs=1e-6)
    assert found[4] + found[9] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("deviation", [0.5, 2.0, 10.0])
def test_one_win_is_where_the_prior_balances_it(deviation):
    found = bradley_terry([(0, 1)], deviation)
    assert found[0] == pytest.approx(-found[1], abs=1e-9)
    assert found[0] / deviation**2 == pytest.approx(1 / (1 + math.exp(2 * found[0])), abs=1e-9)


def test_a_path_has_the_log_odds_of_each_of_its_steps():
    pairs = [(0, 1)] * 2 + [(1, 0)] + [(1, 2)] * 7 + [(2, 1)] * 2
    found = bradley_terry(pairs, WIDE)
    assert found[0] - found[1] == pytest.approx(math.log(2), abs=1e-6)
    assert found[1] - found[2] == pytest.approx(math.log(3.5), abs=1e-6)


def test_symmetric_comparisons_give_equal_strengths():
    circle = [(item, (item + 1) % 5) for item in range(5)]
    assert list(bradley_terry(circle).values()) == pytest.approx([0.0] * 5, abs=1e-9)
    star = [(0, item) for item in range(1, 6)]
    found = bradley_terry(star)
    assert len({round(found[item], 9) for item in range(1, 6)}) == 1
    assert found[0] == pytest.approx(-5 * found[1], abs=1e-9)


def test_wins_equal_what_the_strengths_expect():
    """The condition of the maximum, for a random tournament: wins less expected wins are the prior's pull."""
    lots = random.Random(3)
    pairs = [tuple(lots.sample(range(12), 2)) for _ in range(60)]
    found = bradley_terry(pairs, 3.0)
    for item, strength in found.items():
        wins = sum(winner == item for winner, _ in pairs)
        met = [(found[w] if loser == item else found[loser]) for w, loser in pairs if item in (w, loser)]
        expected = sum(1 / (1 + math.exp(other - strength)) for other in met)
        assert wins - expected == pytest.approx(strength / 9, abs=1e-8)


def test_order_and_names_do_not_matter():
    lots = random.Random(5)
    pairs = [tuple(lots.sample(range(9), 2)) for _ in range(40)]
    found, shuffled = bradley_terry(pairs), bradley_terry(lots.sample(pairs, len(pairs)))
    renamed = bradley_terry([(100 - a, 100 - b) for a, b in pairs])
    for item, strength in found.items():
        assert shuffled[item] == pytest.approx(strength, abs=1e-8)
        assert renamed[100 - item] == pytest.approx(strength, abs=1e-8)


def test_groups_that_were_never_compared_have_strengths_too():
    found = bradley_terry([(0, 1), (5, 6), (6, 7)])
    assert found[0] > 0 > found[1] and found[5] > found[6] > found[7]
    assert found[0] + found[1] == pytest.approx(0, abs=1e-9)
    assert bradley_terry([]) == {}


@pytest.mark.parametrize("moves", [1.0, 0.5, 0.05])
def test_the_last_pick_is_always_the_best(moves):
    """However long the best so far has won, what is picked over it is stronger."""
    lots, best, pairs = random.Random(0), 0, []
    for round_ in range(150):
        new = [3 * round_ + k for k in (1, 2, 3)]
        pick = lots.choice(new) if lots.random() < moves else best
        pairs += Choice((best, *new), (pick,)).comparisons
        if round_ % 10 == 9:
            found = bradley_terry(pairs)
            assert max(found, key=found.get) == pick
        best = pick


def test_comparisons_of_a_choice():
    assert Choice((3, 4, 5), (4,)).comparisons == [(4, 3), (4, 5)]
    assert Choice((3, 4, 5, 6), (6, 3)).comparisons == [(6, 3), (6, 4), (6, 5), (3, 4), (3, 5)]
    assert Choice((3, 4, 5), (5, 3, 4)).comparisons == [(5, 3), (5, 4), (3, 4)]
    assert Choice((3, 4), ()).comparisons == [(REFERENCE, 3), (REFERENCE, 4)]
    assert Choice((3, 4, 5), (), best=3).comparisons == [(REFERENCE, 4), (REFERENCE, 5), (3, 4), (3, 5)]
    assert Choice((3, 4, 5), (4,), best=3).comparisons == [(4, 3), (4, 5)]


def test_all_bad_leaves_the_earlier_best_above_all():
    """However often it is said: the best is not worn down by it."""
    pairs = Choice((0, 1, 2), (1,)).comparisons
    for new in range(3, 33, 2):
        pairs += Choice((1, new, new + 1), (), best=1).comparisons
    found = bradley_terry(pairs)
    del found[REFERENCE]
    assert max(found, key=found.get) == 1
    assert found[3] == pytest.approx(found[32], abs=1e-8)
    assert found[3] < found[0]  # that was not called bad


@pytest.mark.parametrize(
    ("said", "what"),
    [
        (((1,), (1,)), "'shown' is"),
        (((1, 1), ()), "'shown' is"),
        (((-1, 2), ()), "'shown' is"),
        (((1, 2), (3,)), "'ranking' is"),
        (((1, 2), (1, 1)), "'ranking' is"),
        (((1, 2), (1,), "nobody"), "'by' is 'nobody'"),
        (((1, 2), (), YOU, 3), "'best' is 3"),
    ],
)
def test_what_is_no_choice_is_refused(said, what):
    with pytest.raises(ValueError, match=what):
        Choice(*said)


def test_a_choice_as_reports_tell_it():
    assert Choice((7, 2, 9), (2, 9), MODEL, 7).as_dict() == {"shown": [7, 2, 9], "ranking": [2, 9], "by": "model", "best": 7}
