"""Backtracking search: exact costs, limits, what becomes random search, chains, and what it finds."""

from __future__ import annotations

import pytest
from analytic import Clock, Constant, Listed, LowFrequency, Quadratic, best, mean, prepare, run, said, statuses, winner
from test_backtracking import EAGER, closed_form, ups

from noise_search.search.base.budget import StopRules
from noise_search.search.methods.backtracking import BacktrackingSearch
from noise_search.search.methods.chain import Chain
from noise_search.search.methods.halving import HalvingSearch
from noise_search.search.methods.path_search import PathSearch
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.methods.zero_order import ZeroOrderSearch
from noise_search.search.noise.proposals import NeighborProposal

RANDOM = "backtracking search became random search at the same cost: "


# Costs


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("heun", [False, True])
@pytest.mark.parametrize("steps", [20, 7, 30])
@pytest.mark.parametrize("spec", [BacktrackingSearch(), EAGER, BacktrackingSearch(threshold=0.0, retries=3, back=1)])
def test_cost_is_the_closed_form(spec, steps, heun, stochastic):
    whole = 2 * steps - 1 if heun else steps
    for images in (1, 2, 3, 6, 13):
        for seed in (7, 8):
            search = run(spec, images, steps=steps, heun=heun, stochastic=stochastic, seed=seed)
            assert search.budget.nfe == closed_form(search, heun) <= images * whole
            assert images * whole - search.budget.nfe < whole  # another start could not be paid for
            assert "cut off" not in statuses(search) and search.stopped == "" and search.notes == []
            assert search.baseline.nfe == whole


@pytest.mark.parametrize("limit", range(19, 90, 3))
def test_every_run_that_was_begun_is_ended(limit):
    """Whatever is left: the way to the end is put aside before a retry."""
    for verifier in (Quadratic(), LowFrequency()):
        for spec in (EAGER, BacktrackingSearch(threshold=1e9, retries=4)):
            search = run(spec, 8, verifier, rules=StopRules(max_model_calls=limit))
            assert search.budget.nfe == closed_form(search) <= max(limit, 20)
            assert "cut off" not in statuses(search)
            assert (search.stopped != "") is (160 - search.budget.nfe >= 20)
            ended = {c.recipe.start for c, _ in search.ranked}
            assert ended == {c.recipe.start for c in search.candidates}


@pytest.mark.parametrize(("limit", "count"), [(23 + 2, 0), (26, 1), (28, 1), (29, 2), (60, 2)])
def test_as_many_branches_as_can_be_paid_for(limit, count):
    """At step 16 each costs 3, and 3 calls more end it."""
    spec = BacktrackingSearch(back=2, max_back=2)
    search = run(spec, 3, Listed(numbers=[1, 2, 3, 2, 5, *[0] * 20]), rules=StopRules(max_model_calls=limit))
    assert len(ups(search)) == count


def test_a_time_limit_is_planned_for():
    clock = Clock()
    search = run(EAGER, 100, rules=StopRules(max_seconds=100.0), clock=clock, on_call=clock.tick)
    assert 80 < search.budget.nfe <= 100 and "cut off" not in statuses(search)
    assert search.stopped == "the rest of the time limit of 100 s is too short for another run"


def test_one_image_is_candidate_0_without_a_look():
    assert said(run(EAGER, 1)) == said(run(RandomSearch(), 1))


@pytest.mark.parametrize(
    ("session", "verifier", "why"),
    [
        ({"looks_halfway": False}, Quadratic(), "its runs cannot be suspended"),
        ({"fixed_steps": False}, Quadratic(), "the sampler chooses its own steps"),
        ({}, Quadratic(trusts_previews=False), "the verifier cannot be trusted on half-denoised pictures"),
        ({"steps": 2}, Quadratic(), "too few steps to go back in"),
        ({"calls": lambda seed: 13}, Quadratic(), "the sampler makes no model call at the noise level 0.8 of the sigmas"),
    ],
)
def test_where_nothing_can_branch_it_is_random_search(session, verifier, why):
    search = run(BacktrackingSearch(), 6, verifier, **session)
    plain = run(RandomSearch(), 6, verifier, **session)
    assert search.notes == [RANDOM + why]
    assert [(c.recipe, c.score) for c in search.candidates] == [(c.recipe, c.score) for c in plain.candidates]
    assert search.budget.nfe == plain.budget.nfe
    assert search.runs.scope.levels == () and not any(c.records for c in search.candidates)


# Chains, stop rules, what is left behind


@pytest.mark.parametrize("other", [HalvingSearch(), RandomSearch(), ZeroOrderSearch(), PathSearch()])
def test_a_chain_that_ends_with_it_begins_with_a_start(other):
    search = run(Chain(other, EAGER), 20)
    first = run(other, 10)
    own = search.candidates[len(first.candidates) :]
    starts = sum(not c.recipe.cuts for c in own)
    retries = sum(1 + mark - up for mark, up in ups(search)[len(first.session.branches) :])
    assert own[0].parent is None and retries > 0
    assert search.budget.nfe == first.budget.nfe + 20 * starts + retries <= 400


def test_starts_of_a_chain_may_be_near_the_winner():
    search = run(Chain(RandomSearch(), BacktrackingSearch(proposal=NeighborProposal(0.9))), 8)
    first = winner(run(RandomSearch(), 4))
    later = [c for c in search.candidates[4:] if not c.recipe.cuts]
    assert later and all(c.parent == first and c.recipe.moves for c in later)


def test_a_chain_that_begins_with_it():
    search = run(Chain(EAGER, HalvingSearch()), 16)
    first = run(EAGER, 8)
    assert [c.recipe for c in search.candidates[: len(first.candidates)]] == [c.recipe for c in first.candidates]
    assert first.budget.nfe < search.budget.nfe <= 320


def test_a_target_that_candidate_0_reaches_ends_it():
    search = run(EAGER, 20, Constant(), rules=StopRules(target_score=0.1))
    assert search.budget.nfe == 20 and "target score" in search.stopped


def test_patience_counts_what_was_ended():
    search = run(EAGER, 20, Constant(), rules=StopRules(patience=2))
    assert len(search.ranked) == 3 and "patience" in search.stopped


def test_runs_that_are_given_up_are_closed_and_nothing_is_kept_but_the_winner_s():
    search = prepare(12)
    list(BacktrackingSearch(threshold=0.0).run(search))
    assert all(run.closed or run.finished for run in search.session.runs)
    assert search.runs.scope.levels == () and search.budget.reserved == 0
    assert {c.index for c in search.candidates if len(c.records)} <= {winner(search)}


def test_what_ended_and_is_not_the_best_keeps_nothing():
    search = prepare(12)
    for _ in EAGER.run(search):
        keeping = {c.index for c in search.candidates if len(c.records)}
        assert keeping <= {winner(search), search.rounds[-1].candidates[0]} | (
            {search.rounds[-2].best} if search.rounds[1:] else set()
        )


def test_no_two_branches_draw_the_same():
    cuts = run(EAGER, 12).session.branches
    assert len({cut.noise_seed for cut in cuts}) == len({cut.seed for cut in cuts}) == len(cuts) > 10


def test_same_seed_same_search_whatever_the_wave():
    first = said(run(EAGER, 12))
    assert first == said(run(EAGER, 12)) == said(run(EAGER, 12, wave=1))
    assert first != said(run(EAGER, 12, seed=8))


# What it finds


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize(("verifier", "more"), [(Quadratic, 5.0), (LowFrequency, 0.15)])
def test_beats_random_search(verifier, more, stochastic):
    """With a threshold it climbs as long as it gets better."""
    seeds, spec = range(12), BacktrackingSearch(threshold=0.0, max_back=4)
    found = [best(run(spec, 40, verifier(), seed=seed, stochastic=stochastic)) for seed in seeds]
    drawn = [best(run(RandomSearch(), 40, verifier(), seed=seed, stochastic=stochastic)) for seed in seeds]
    assert sum(a > b for a, b in zip(found, drawn, strict=True)) >= 10
    assert mean(found) > mean(drawn) + more


def test_going_back_by_gain_improves_a_run():
    """What replaced candidate 0 on its way against candidate 0, where looks do not mislead."""
    gains = []
    for seed in range(20):
        search = run(BacktrackingSearch(min_gain=1e9, retries=4), 4, seed=seed, blur=0.0)
        own = [c.score for c in search.candidates if c.recipe.start == seed and c.status == "finished"]
        assert len(own) <= 2
        gains.append(own[-1] - own[0])
    assert min(gains) >= 0.0
    assert mean(gains) > 5.0
