"""Chains: one method, then another from its winner, at the sum of their costs."""

from __future__ import annotations

import pytest
from analytic import Constant, Listed, LowFrequency, Quadratic, best, mean, prepare, run, said, statuses, winner

from noise_search.search.base.budget import StopRules
from noise_search.search.methods.auto_search import AutoSearch
from noise_search.search.methods.backtracking import BacktrackingSearch
from noise_search.search.methods.branching import BranchingSearch
from noise_search.search.methods.chain import Chain
from noise_search.search.methods.draft_search import DraftSearch
from noise_search.search.methods.evolution import EvolutionSearch
from noise_search.search.methods.fk_steering import FKSteering
from noise_search.search.methods.halving import HalvingSearch
from noise_search.search.methods.path_search import PathSearch
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.methods.refinement import RefinementSearch
from noise_search.search.methods.rollover import RolloverSearch
from noise_search.search.methods.spectral import SpectralSearch
from noise_search.search.methods.trust_region import TrustRegionSearch
from noise_search.search.methods.zero_order import ZeroOrderSearch
from noise_search.search.noise.proposals import NeighborProposal

ALL = [
    AutoSearch(stop_early=False), BacktrackingSearch(), BranchingSearch(), DraftSearch(), EvolutionSearch(), FKSteering(),
    HalvingSearch(), PathSearch(), RandomSearch(), RefinementSearch(), RolloverSearch(), SpectralSearch(), TrustRegionSearch(),
    ZeroOrderSearch(),
]  # fmt: skip


def ids(method):
    return method.name


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


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("limit", [100, 200, 400])
@pytest.mark.parametrize("first", [RandomSearch(), DraftSearch(draft_steps=5)], ids=ids)
def test_each_part_has_its_share_of_a_limit(first, limit, stochastic):
    """A limit far below the number of images is the budget: what is left for the second part is its share."""
    search = run(Chain(first, RefinementSearch(), 0.7), 1000, stochastic=stochastic, rules=StopRules(max_model_calls=limit))
    children = [c for c in search.candidates if c.recipe.cuts]
    before = search.budget.nfe - 5 * len(children)
    assert 0.7 * limit - 20 <= before <= 0.7 * limit and limit - 5 < search.budget.nfe <= limit
    assert search.budget.rules == StopRules(max_model_calls=limit) and search.budget.images == 1000


@pytest.mark.parametrize("then", ALL, ids=ids)
@pytest.mark.parametrize("first", ALL, ids=ids)
def test_any_method_goes_on_from_any_other(first, then):
    search = run(Chain(first, then, 0.5), 12, stochastic=True)
    assert search.budget.nfe <= 12 * 20 and statuses(search)[0] == "finished"
    assert search.runs.scope.lasting == search.runs.scope.levels == ()


@pytest.mark.parametrize("verifier", [Quadratic, lambda: Listed(numbers=[9, *[0] * 999])], ids=["", "candidate 0 wins"])
@pytest.mark.parametrize("trusts_previews", [True, False], ids=["", "finished only"])
@pytest.mark.parametrize("first", ALL, ids=ids)
def test_refinement_after_any_method(first, verifier, trusts_previews):
    """The run of the first winner, or where that branched too late the best that can be left, is kept."""
    scorer = verifier()
    scorer.trusts_previews = trusts_previews
    search = run(Chain(first, RefinementSearch(0.6), 0.5), 24, scorer, stochastic=True)
    step = pytest.approx(tuple(search.session.sigmas[[13, 12]].tolist()))
    children = [c for c in search.candidates if c.recipe.cuts and (c.recipe.cuts[-1].sigma, c.recipe.cuts[-1].renoise_to) == step]
    assert len(children) > 20 and not any(note.startswith("refinement search became") for note in search.notes)
    if not isinstance(scorer, Quadratic):
        assert {child.parent for child in children} == {0}


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
