"""Per-step branching and rollover: exact costs, who has children, and what they find."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from analytic import Constant, LowFrequency, Part, best, mean, run, said, statuses

from noise_search.search.base.budget import StopRules
from noise_search.search.methods.branching import BranchingSearch
from noise_search.search.methods.chain import Chain
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.methods.rollover import RolloverSearch

BOTH = [BranchingSearch(), RolloverSearch()]


def grown(images, method, verifier=None, **more):
    return run(method, images, verifier, **{"stochastic": True, **more})


@pytest.mark.parametrize(("images", "lineages", "children"), [(3, 1, 2), (9, 1, 8), (9, 2, 4), (10, 2, 4), (16, 3, 5)])
@pytest.mark.parametrize("block", [1, 3, 4, 7])
@pytest.mark.parametrize("heun", [False, True])
def test_branching_costs_its_closed_form(images, lineages, children, block, heun):
    """T + L M (T - 1) + (L - 1): children's first call is their parent's, and lineages of their own begin with one."""
    search = grown(images, BranchingSearch(0, lineages, block), heun=heun)
    cost = 39 if heun else 20
    assert search.budget.nfe == cost + lineages * children * (cost - 1) + (lineages - 1) <= images * cost
    blocks = math.ceil(19 / block)
    assert search.scorer.calls == search.evaluator.decodes == 1 + lineages * children * blocks + (lineages - 1)
    assert statuses(search).count("finished") == 1 + lineages * children


def test_children_leave_the_best_of_their_family():
    search = grown(9, BranchingSearch(0, 2, 5), LowFrequency())
    levels = [search.session.sigmas.tolist()[k] for k in (0, 5, 10, 15)]
    families = [[0], [1]]
    for place, level in enumerate(levels):
        following = []
        for family in families:
            looked = {k: look["score"] for k in family for look in search.candidates[k].looks if look["sigma"] == level}
            parent = max(looked, key=looked.get) if place else family[0]
            children = [c for c in search.candidates if c.parent == parent and c.recipe.cuts[-1].sigma == level]
            assert len(children) == 4
            assert {c.recipe.cuts[-1].renoise_to for c in children} == {level}
            following.append([c.index for c in children])
        families = following
    assert all(search.candidates[k].status == "finished" for family in families for k in family)


def test_no_run_is_made_twice():
    search = grown(9, BranchingSearch(0, 2, 5))
    assert set(Counter(c.recipe.to_json() for c in search.candidates).values()) == {1}


def test_temperature_0_is_the_limit_of_small_ones():
    cold, colder = grown(9, BranchingSearch(temperature=1e-9)), grown(9, BranchingSearch())
    assert said(cold)["candidates"] == said(colder)["candidates"]
    warm = [grown(9, BranchingSearch(temperature=50.0), seed=s) for s in range(10)]
    best_ones = [grown(9, BranchingSearch(), seed=s) for s in range(10)]
    assert [c.recipe for s in warm for c in s.candidates] != [c.recipe for s in best_ones for c in s.candidates]
    assert said(grown(9, BranchingSearch(temperature=1.0))) == said(grown(9, BranchingSearch(temperature=1.0)))


@pytest.mark.parametrize(("images", "block"), [(5, 4), (9, 4), (9, 1), (16, 6)])
def test_rollover_stops_when_no_lineage_is_paid_for(images, block):
    search = grown(images, RolloverSearch(block), LowFrequency())
    assert images * 20 - 20 < search.budget.nfe <= images * 20  # the cheapest lineage costs 19 and one to begin
    assert search.scorer.calls == search.evaluator.decodes
    assert search.baseline.nfe == 20


def test_rollover_takes_the_first_child_that_is_better():
    """The first block spends its quota 8 * 19 * 4 / 19 / 4 = 8; later ones stop as soon as one child is better."""
    search = grown(9, RolloverSearch(4), LowFrequency(), blur=0.0)
    parent, before, purse = 0, None, 0.0
    for level, ending in ((1.0, 0.8), (0.8, 0.6), (0.6, 0.4), (0.4, 0.2)):
        tried = [c for c in search.candidates if c.recipe.cuts and c.parent == parent
                 and c.recipe.cuts[-1].sigma == pytest.approx(level)]  # fmt: skip
        scores = [next(look["score"] for look in c.looks if look["sigma"] == pytest.approx(ending)) for c in tried]
        purse += 160 * 4 / 19
        if before is None:
            assert len(tried) == math.floor(purse / 4)
        else:
            assert all(score <= before for score in scores[:-1])
            assert scores[-1] > before or len(tried) == math.floor(purse / 4 + 1e-6)
        purse -= 4 * len(tried)
        best_place = max(range(len(tried)), key=scores.__getitem__)
        before = scores[best_place] if before is None else max(before, scores[best_place])
        parent = tried[best_place].index


def test_rollover_goes_on_with_the_best_seen_if_none_is_better():
    class Falling(Part):
        """Every look scores less than the one before."""

        def values(self, images):
            import torch

            return torch.tensor([-float(self.pictures - k) for k in range(len(images))])

    search = grown(5, RolloverSearch(block=10), Falling())
    assert search.baseline.status == "finished"
    assert search.budget.nfe <= 100
    assert statuses(search).count("finished") > 1


@pytest.mark.parametrize("method", BOTH)
def test_deterministic_sampler_is_refused(method):
    with pytest.raises(ValueError, match=r"draws no noise .* 'renoise' to 1"):
        run(method, 9)


@pytest.mark.parametrize("images", [5, 9, 16])
def test_renoised_children_cost_their_way_back(images):
    """Blocks of 5 from the second step on, one step up: children of four blocks make 1 + 1 + 5 calls, the last 1 + 1 + 3."""
    search = run(BranchingSearch(renoise=1, block=5), images)
    children = (images * 20 - 20) // (3 * 7 + 5)
    assert search.budget.nfe == 20 + children * 26 <= images * 20
    rolled = run(RolloverSearch(5, renoise=1), images)
    assert rolled.budget.nfe <= images * 20


@pytest.mark.parametrize("method", [*BOTH, BranchingSearch(0, 2, 2)])
def test_beats_random_search_on_a_smooth_objective(method):
    ours = mean([best(grown(17, method, LowFrequency(), seed=s, blur=0.1)) for s in range(25)])
    plain = mean([best(grown(17, RandomSearch(), LowFrequency(), seed=s)) for s in range(25)])
    assert ours > plain + 0.2


@pytest.mark.parametrize("method", BOTH)
@pytest.mark.parametrize("verifier", [Constant(), Constant(number=math.nan)])
def test_flat_and_missing_scores(method, verifier):
    search = grown(6, method, verifier)
    assert search.budget.nfe <= 120
    assert search.baseline.status == "finished"


@pytest.mark.parametrize("method", BOTH)
def test_limits(method):
    search = grown(16, method, rules=StopRules(max_model_calls=150))
    assert search.budget.nfe <= 150
    assert statuses(search).count("finished") >= 2


@pytest.mark.parametrize(("images", "method"), [(1, BOTH[0]), (1, BOTH[1]), (2, BOTH[0])])
def test_too_small_a_budget_is_random_search(method, images):
    search = grown(images, method)
    assert search.budget.nfe == images * 20
    assert statuses(search) == ["finished"] * images


@pytest.mark.parametrize("method", BOTH)
def test_chains(method):
    search = grown(16, Chain(RandomSearch(), method))
    assert search.budget.nfe <= 16 * 20
    assert any(c.recipe.cuts for c in search.candidates)
    assert 300 < grown(16, Chain(method, RandomSearch())).budget.nfe <= 16 * 20


@pytest.mark.parametrize("method", BOTH)
def test_where_runs_cannot_be_looked_at(method):
    search = grown(6, method, looks_halfway=False, why_alone=["a patch"])
    assert search.notes == [f"{method.name} became random search at the same cost: a patch"]
    assert search.budget.nfe == 120


def test_children_that_were_asked_for():
    search = grown(9, BranchingSearch(children=3))
    assert search.budget.nfe == 20 + 3 * 19
    reduced = grown(6, BranchingSearch(children=9))
    assert reduced.budget.nfe == 20 + 5 * 19
    assert reduced.notes == ["the budget pays for 1 lineages of 5 children each"]


@pytest.mark.parametrize(
    ("cls", "settings"),
    [(BranchingSearch, {"lineages": 0}), (BranchingSearch, {"block": 0}), (BranchingSearch, {"children": -1}),
     (BranchingSearch, {"renoise": -1}), (BranchingSearch, {"temperature": -1.0}), (RolloverSearch, {"block": 0}),
     (RolloverSearch, {"renoise": -1})],
)  # fmt: skip
def test_bad_settings(cls, settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        cls(**settings)
