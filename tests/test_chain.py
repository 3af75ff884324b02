"""Chains: one method, then another from its winner, at the sum of their costs."""

from __future__ import annotations

import pytest
from analytic import Constant, Listed, LowFrequency, best, mean, prepare, run, said, statuses, winner

from noise_search.search.budget import StopRules
from noise_search.search.methods.chain import Chain
from noise_search.search.methods.halving import HalvingSearch
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.methods.zero_order import ZeroOrderSearch
from noise_search.search.proposals import NeighborProposal


@pytest.mark.parametrize(
    ("images", "share", "first", "second"), [(16, 0.5, 8, 8), (9, 0.3, 3, 6), (2, 0.5, 1, 1), (3, 0.99, 3, 0)]
)
def test_cost_is_the_sum(images, share, first, second):
    search = run(Chain(RandomSearch(), ZeroOrderSearch(), share), images)
    assert search.budget.nfe == images * 20 == (first + second) * 20
    assert statuses(search) == ["finished"] * images
    assert [c.parent for c in search.candidates[:first]] == [None] * first
    found = max(search.candidates[:first], key=lambda c: c.score)
    assert [c.parent for c in search.candidates[first : first + 4]] == [found.index] * min(4, second)
    assert search.budget.images == images


@pytest.mark.parametrize("images", [8, 16])
def test_halving_then_zero_order(images):
    """Halving spends its half to the call, zero-order the rest around the winner, which is not rendered again."""
    search = run(Chain(HalvingSearch(), ZeroOrderSearch()), images)
    alone = run(HalvingSearch(), images // 2)
    assert said(alone)["candidates"] == said(search)["candidates"][: len(alone.candidates)]
    assert search.budget.nfe == images * 20 == 2 * alone.budget.nfe
    around = search.candidates[len(alone.candidates) :]
    assert [c.parent for c in around[:4]] == [winner(alone)] * 4
    assert len(search.session.started) == len(set(map(str, search.session.started)))


@pytest.mark.parametrize("images", [8, 16])
def test_zero_order_then_halving_keeps_the_winner(images):
    """The winner has halving's slot at no cost: N/2 + 1 images are compared in the second half, one of them paid for."""
    search = run(Chain(ZeroOrderSearch(), HalvingSearch(proposal=NeighborProposal(0.9))), images)
    half = images // 2
    widths = HalvingSearch.widths(half + 1, [5, 10, 20])
    first = 5 * (widths[0] - 1) + 5 * (widths[1] - 1) + 10 * (widths[2] - 1)
    assert search.budget.nfe == half * 20 + first <= images * 20
    pivots = {c.parent for c in search.candidates[half:]}
    assert pivots == {max(search.candidates[:half], key=lambda c: c.score).index}


def test_three_in_a_row():
    search = run(Chain(RandomSearch(), Chain(ZeroOrderSearch(), RandomSearch(), 0.5), 0.5), 16)
    assert search.budget.nfe == 320
    assert [c.parent is None for c in search.candidates] == [True] * 8 + [False] * 8 or statuses(search) == ["finished"] * 16


def test_chain_of_a_method_with_nothing_for_the_next_is_that_method():
    chained, alone = run(Chain(RandomSearch(), ZeroOrderSearch(), 0.99), 5), run(RandomSearch(), 5)
    assert {**said(chained), "said": None} == {**said(alone), "said": None}


def test_a_target_that_was_reached_ends_the_chain():
    search = run(Chain(RandomSearch(), ZeroOrderSearch()), 16, Constant(number=0.5), rules=StopRules(target_score=0.4))
    assert len(search.candidates) <= 8
    assert "target" in search.stopped


def test_the_end_of_the_first_part_is_no_reason_to_stop():
    search = run(Chain(RandomSearch(), RandomSearch()), 8)
    assert search.stopped == ""
    assert len(search.finished.members) == 8


def test_limits_hold_for_the_whole_chain():
    search = run(Chain(RandomSearch(), ZeroOrderSearch()), 16, rules=StopRules(max_model_calls=200))
    assert search.budget.nfe == 200
    assert any(c.parent is not None for c in search.candidates) == (200 > 160)


def test_the_budget_is_put_back_when_a_part_fails():
    class Failing:
        name = "failing"

        def run(self, search):
            raise RuntimeError("out of order")
            yield

    search = prepare(8)
    with pytest.raises(RuntimeError):
        list(Chain(Failing(), RandomSearch()).run(search))
    assert search.budget.images == 8


def test_the_winner_may_come_from_either_part():
    assert winner(run(Chain(RandomSearch(), ZeroOrderSearch()), 4, Listed(numbers=[0, 5, 1, 2]))) == 1
    assert winner(run(Chain(RandomSearch(), ZeroOrderSearch()), 4, Listed(numbers=[0, 5, 6, 2]))) == 2


def test_refining_beats_going_on_at_random_on_a_smooth_objective():
    """Over 30 seeds, at 48 images: half of them spent around the winner is better than all of them spread."""
    method = Chain(RandomSearch(), ZeroOrderSearch(cosine=0.8))
    chained = mean([best(run(method, 48, LowFrequency(), seed=s)) for s in range(30)])
    spread = mean([best(run(RandomSearch(), 48, LowFrequency(), seed=s)) for s in range(30)])
    assert chained > spread + 0.2


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, float("nan")])
def test_bad_share(share):
    with pytest.raises(ValueError, match="then_after"):
        Chain(RandomSearch(), RandomSearch(), share)


def test_name():
    assert Chain(HalvingSearch(), ZeroOrderSearch()).name == "halving search, then zero-order search"
