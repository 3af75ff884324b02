"""Rollover search: what blocks may spend and pass on, who goes on, exact costs, and what it finds."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import FrozenInstanceError

import pytest
import torch
from analytic import Constant, Part, best, mean, run, said, statuses

from noise_search.search.base.budget import StopRules
from noise_search.search.methods.chain import Chain
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.methods.rollover import RolloverSearch

NAN = math.nan


def rolled(method=None, images=8, verifier=None, **more):
    return run(method or RolloverSearch(), images, verifier, **{"stochastic": True, **more})


class Rising(Part):
    """Every picture scores more than all before it."""

    def values(self, images):
        first = self.pictures - len(images)
        return torch.arange(first, self.pictures).float()


class Numbered(Part):
    """Given numbers in the order in which pictures come; then 0."""

    def __init__(self, *numbers):
        super().__init__()
        self.numbers = numbers

    def values(self, images):
        first = self.pictures - len(images)
        return torch.tensor([float(self.numbers[i]) if i < len(self.numbers) else 0.0 for i in range(first, self.pictures)])


def per_block(search, lineage=0):
    """How many children each block of the first lineage tried."""
    first = [c for c in search.candidates if c.recipe.start == search.candidates[lineage].recipe.start]
    counts = Counter(len(c.recipe.cuts) for c in first)
    return [counts[n] for n in range(1, max(counts) + 1)]


# Cost


@pytest.mark.parametrize("heun", [False, True])
@pytest.mark.parametrize(("steps", "block"), [(20, 1), (20, 4), (10, 3), (3, 1), (2, 1)])
@pytest.mark.parametrize("images", [2, 3, 8])
def test_cost_if_no_child_is_ever_better(images, steps, block, heun):
    """Every block spends its quota: by hand, with the shares of the rest F in proportion to what a child costs."""
    search = rolled(RolloverSearch(block), images, Constant(), steps=steps, heun=heun)
    full, each = (2 * steps - 1, 2) if heun else (steps, 1)
    points = [*range(0, steps - 1, block), steps - 1]
    costs = [each * (b - a) for a, b in zip(points, points[1:], strict=False)]
    left, purse, wanted = (images - 1) * full, 0.0, []
    for cost in costs:
        purse += left * cost / sum(costs)
        wanted.append(math.floor(purse / cost + 1e-6))
        purse -= wanted[-1] * cost
    assert per_block(search) == wanted
    spent = full + sum(n * c for n, c in zip(wanted, costs, strict=True))
    assert images * full - spent < 1 + sum(costs)  # no second lineage
    assert search.budget.nfe == spent <= images * full and "cut off" not in statuses(search)
    assert search.scorer.calls == 1 + sum(wanted)


@pytest.mark.parametrize("images", [2, 3, 8, 20])
def test_cost_if_every_child_is_better(images):
    """The first block spends its quota q; then one child a block; each further lineage costs 1 to its first level."""
    search = rolled(images=images, verifier=Rising())
    left, found, nfe = (images - 1) * 20, 0, 20
    while left >= 19 + (found > 0):
        own = (found > 0) + math.floor((left - (found > 0)) / 19 + 1e-6) + 18
        left, nfe, found = left - own, nfe + own, found + 1
    assert search.budget.nfe == nfe <= images * 20
    assert sum(1 for c in search.candidates if not c.recipe.cuts) == found and (images == 2 or found > 1)
    assert per_block(search)[1:] == [1] * 18
    assert statuses(search).count("finished") == 1 + found


@pytest.mark.parametrize("renoise", [1, 3])
@pytest.mark.parametrize("block", [1, 4])
def test_cost_with_renoised_children(renoise, block):
    search = run(RolloverSearch(block, renoise), 16, Constant())
    points = [*range(renoise, 19, block), 20]
    costs = [1 + min(b, 19) - (a - renoise) for a, b in zip(points, points[1:], strict=False)]
    assert search.budget.nfe == 20 + sum(n * c for n, c in zip(per_block(search), costs, strict=True)) <= 320
    assert 320 - search.budget.nfe < sum(costs) + renoise + 1
    sigmas = search.session.sigmas.tolist()
    for cut in (cut for c in search.candidates for cut in c.recipe.cuts):
        assert sigmas.index(cut.sigma) - sigmas.index(cut.renoise_to) == renoise


@pytest.mark.parametrize(("calls", "nfe"), [(160, 160), (60, 60), (39, 39), (38, 20), (7, 20)])
def test_a_limit_of_model_calls(calls, nfe):
    search = rolled(verifier=Constant(), rules=StopRules(max_model_calls=calls))
    assert search.budget.nfe == nfe and "cut off" not in statuses(search)


# Who goes on


def test_the_first_better_child_goes_on_and_the_rest_rolls_over():
    """Three steps, so two blocks of one call; 6 NFE, 3 children each: of the first block the best, 5, is the incumbent."""
    search = rolled(images=3, steps=3, verifier=Numbered(0, 1, 5, 2, 4, 9))
    assert per_block(search) == [3, 2] and search.baseline.score == 0.0
    assert [c.parent for c in search.candidates if len(c.recipe.cuts) == 2] == [2, 2]
    assert best(search) == 9.0 and search.budget.nfe == 8  # one NFE is left: too little for another lineage

    search = rolled(images=3, steps=4, verifier=Numbered(0, 1, 5, 6, 3, 4, 5, 9))
    # Three blocks, 8 NFE: 2 of the first, 1 accepted, and what is left over: 8 - 3 = 5, of which the third is better.
    assert per_block(search) == [2, 1, 4] and best(search) == 9.0


def test_what_was_accepted_is_the_one_to_beat():
    """10 NFE in four blocks: 2 children, 5 the best; then 6 at once; then 4 that are better than 5, but not than 6."""
    search = rolled(images=3, steps=5, verifier=Numbered(0, 1, 5, 6, 5.5, 5.2, 5.9, 5.1, 1, 2, 7))
    assert per_block(search) == [2, 1, 4, 3]
    assert {c.parent for c in search.candidates if len(c.recipe.cuts) == 4} == {6} and best(search) == 7.0


def test_where_none_is_better_the_best_goes_on_and_the_incumbent_stays():
    """8 NFE in three blocks: 2, 3 and 3 children. 7 is the incumbent, 6 the best of the next; 6.5 is better than that only."""
    search = rolled(images=3, steps=4, verifier=Numbered(0, 7, 5, 3, 4, 6, 2, 6.5, 1))
    parents = {n: {c.parent for c in search.candidates if len(c.recipe.cuts) == n} for n in (1, 2, 3)}
    assert parents == {1: {0}, 2: {1}, 3: {5}} and best(search) == 6.5
    assert statuses(search) == ["finished", *["pruned"] * 5, *["finished"] * 3]


def test_nan_is_never_better():
    search = rolled(images=3, steps=4, verifier=Numbered(0, NAN, 5, NAN, 4, NAN, NAN))
    parents = {n: {c.parent for c in search.candidates if len(c.recipe.cuts) == n} for n in (2, 3)}
    assert parents == {2: {2}, 3: {4}}
    search = rolled(verifier=Constant(number=NAN))
    assert search.ranked[0][0].index == 0 and search.budget.nfe <= 160


def test_scores_that_depend_on_the_others_are_compared_in_one_pool():
    """With ranks, a look alone in its pool would always be the best."""

    class Ranks(Part):
        names = ("one",)

        @property
        def parts(self):
            return [Rising()] if not hasattr(self, "_made") else self._made

        def combine(self, raw):
            return raw[:, 0].argsort().argsort().float() / max(len(raw) - 1, 1)

    verifier = Ranks()
    verifier._made = [Constant(number=1.0)]
    falling = Numbered(*range(100, 0, -1))
    verifier._made = [falling]
    search = rolled(images=3, steps=5, verifier=verifier)
    assert per_block(search) == per_block(rolled(images=3, steps=5, verifier=Numbered(*range(100, 0, -1))))


def test_same_seed_same_search_whatever_the_wave():
    assert said(rolled()) == said(rolled()) == said(rolled(wave=1))
    assert said(rolled()) != said(rolled(seed=8))


# What it finds


@pytest.mark.parametrize("method", [RolloverSearch(), RolloverSearch(block=3)])
def test_beats_random_search_where_looks_tell(method):
    seeds = range(30)
    drawn = mean([best(run(RandomSearch(), 9, seed=seed, stochastic=True)) for seed in seeds])
    assert mean([best(rolled(method, 9, seed=seed, blur=0.3)) for seed in seeds]) > drawn + 3.0


# Where it cannot work


def test_a_deterministic_sampler_is_refused():
    with pytest.raises(ValueError, match="rollover search copies .* draws no noise .* 'renoise' to 1"):
        run(RolloverSearch(), 8)


@pytest.mark.parametrize(
    ("session", "images", "why"),
    [
        ({"looks_halfway": False}, 8, "its runs cannot be suspended"),
        ({"fixed_steps": False}, 8, "the sampler chooses its own steps"),
        ({"steps": 1}, 8, "too few steps to branch in"),
        ({"steps": 20, "renoise": 9}, 2, "the budget does not pay for a child of every step"),
    ],
)
def test_else_it_is_random_search_at_the_same_cost(session, images, why):
    method = RolloverSearch(renoise=session.pop("renoise", 0))
    search = run(method, images, **session)
    assert search.notes == [f"rollover search became random search at the same cost: {why}"]
    search.notes.clear()
    assert said(search) == said(run(RandomSearch(), images, **session))
    assert said(rolled(images=1)) == said(run(RandomSearch(), 1, stochastic=True))


def test_in_a_chain():
    search = rolled(Chain(RandomSearch(), RolloverSearch(), 0.5), 8, Constant())
    assert 160 - 20 < search.budget.nfe <= 160 and statuses(search)[:4] == ["finished"] * 4
    assert not search.candidates[4].recipe.cuts and search.candidates[4].status == "pruned"
    search = rolled(Chain(RolloverSearch(), RandomSearch(), 0.5), 8)
    assert search.budget.nfe <= 160 and search.runs.scope.levels == ()
    assert [c.index for c in search.candidates if c.records] in ([], [search.start_candidate.index])


def test_stop_rules():
    search = rolled(rules=StopRules(target_score=-1e9))
    assert statuses(search) == ["finished"] and "target score" in search.stopped
    search = rolled(images=20, verifier=Rising(), rules=StopRules(target_score=60.0))
    assert "target score" in search.stopped and search.budget.nfe < 200


@pytest.mark.parametrize(("wrong", "message"), [({"block": 0}, "'block' must be"), ({"renoise": -1}, "'renoise' must be")])
def test_bad_parameters(wrong, message):
    with pytest.raises(ValueError, match=message):
        RolloverSearch(**wrong)


def test_spec_is_frozen():
    with pytest.raises(FrozenInstanceError):
        RolloverSearch().block = 2
