"""Path search: who survives, what becomes random search, chains and stop rules, and what it finds."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from analytic import Constant, Listed, LowFrequency, Quadratic, best, mean, prepare, run, said, statuses, winner
from test_path_search import LOCAL, LOCAL_LOOPS, closed_form, even, fresh, index_of

from noise_search.search.base.budget import StopRules
from noise_search.search.methods.chain import Chain
from noise_search.search.methods.halving import HalvingSearch
from noise_search.search.methods.path_search import PathSearch
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.methods.zero_order import ZeroOrderSearch

NAN = math.nan
RANDOM = "path search became random search at the same cost: "

# Who survives


TWO = PathSearch(branches=2, start=0.5, forward=0.3, backward=0.4)


def test_the_best_of_all_branches_survive_whosever_they_are():
    """2..5 of 0, 1: 3 (5) and 4 (4) go on. 6..9 of 3, 4: 8, 9 (9, 9). 10..13: 12, 13 (8, 8). 14..17: 14, 15. 18..21 end."""
    scores = [1, 1, 1, 3, 5, 4, 2, 0, 0, 9, 9, 7, 6, 8, 8, 1, 1, 1, 1, 2, 2, 3, 1]
    search = run(TWO, 11, Listed(numbers=scores), rules=StopRules(max_model_calls=207))
    assert search.budget.nfe == closed_form(LOCAL_LOOPS, 20, 2, 2, 2) == 20 + 11 + 4 * (4 * 9 + 8)
    branched = search.candidates[2:]
    assert [c.parent for c in branched] == [0, 0, 1, 1, 3, 3, 4, 4, 8, 8, 9, 9, 12, 12, 13, 13, 14, 14, 15, 15]
    assert statuses(search) == ["finished", *["pruned"] * 17, *["finished"] * 4]
    assert winner(search) == 20
    lineage = search.candidates[20].recipe
    assert len(lineage.cuts) == 5 and lineage.start == search.candidates[1].recipe.start
    assert [index_of(search, cut.sigma) for cut in lineage.cuts] == [10, 12, 14, 16, 18]


def test_no_two_branches_draw_the_same():
    search = run(LOCAL, 40)
    cuts = search.session.branches
    assert len({cut.noise_seed for cut in cuts}) == len({cut.seed for cut in cuts}) == len(cuts)


@pytest.mark.parametrize(("scores", "parents"), [((0, 1, 9, 2, 8), [2, 4]), ((9, 1, 3, 2, 8), [0, 4]), ((5, 5, 5, 5, 5), [0, 1])])
def test_the_best_of_more_starts_go_on_candidate_0_among_them(scores, parents):
    """Its look counts, not its end."""
    first, *others = scores
    search = run(PathSearch(branches=2), 9, Listed(numbers=[first, 100, *others, *[0] * 20]))
    assert fresh(search) == 5
    assert [c.parent for c in search.candidates[5:]] == [parents[0]] * 2 + [parents[1]] * 2
    assert statuses(search)[1:5] == ["pruned"] * 4
    assert winner(search) == 0


def test_nan_survives_last():
    scores = [NAN, 1, NAN, NAN, NAN, 4, NAN, NAN, 2, NAN, 1, 3, 3, 3, 3, 3, 3, 3, 3, NAN, NAN, NAN, NAN]
    search = run(TWO, 11, Listed(numbers=scores), rules=StopRules(max_model_calls=207))
    assert [c.parent for c in search.candidates[6:10]] == [4, 4, 2, 2]  # 2 is the earliest of those without
    assert [c.parent for c in search.candidates[10:14]] == [7, 7, 9, 9]
    assert winner(search) == 0


def test_without_any_score_it_returns_candidate_0():
    search = run(PathSearch(), 12, Constant(number=NAN))
    assert winner(search) == 0 and len(search.notes) == 1
    assert search.budget.nfe == closed_form([(18, 2, 20)], 20, fresh(search), 2, 5)


def test_runs_that_are_given_up_are_closed_at_once_and_nothing_is_kept_but_the_winner_s():
    search = prepare(20)
    list(PathSearch(start=0.3, forward=0.4, backward=0.5).run(search))
    assert all(run.closed or run.finished for run in search.session.runs)
    assert search.runs.scope.levels == ()
    kept = [c.index for c in search.candidates if c.records]
    assert kept == [winner(search)]


@pytest.mark.parametrize("branches", [0, 2])
def test_what_nobody_branches_from_any_more_is_freed(branches):
    """Kept are at most one model call of each run that waits, and of candidate 0 until the first loop."""
    kept = []

    def look_around():
        branches = len(search.session.branches)
        if branches:
            kept.append(len(search.baseline.records))
        kept.extend(len(run.records) - 1 for run in search.session.runs)

    search = prepare(20, on_call=lambda: look_around())
    list(replace(LOCAL, branches=branches).run(search))
    survived = any(c.parent == 0 for c in search.candidates)
    assert max(kept) == 0 and survived is (branches == 0)


# Random search


@pytest.mark.parametrize("images", [1, 2, 5, 12])
@pytest.mark.parametrize("fixed", [True, False])
def test_paths_without_renoise_are_the_best_of_n(images, fixed):
    spec = PathSearch(survivors=images, forward=0.0)
    assert said(run(spec, images, fixed_steps=fixed)) == said(run(RandomSearch(), images, fixed_steps=fixed))


@pytest.mark.parametrize(
    ("session", "verifier", "spec", "why"),
    [
        ({"looks_halfway": False}, Quadratic(), PathSearch(), "its runs cannot be suspended"),
        ({"fixed_steps": False}, Quadratic(), PathSearch(), "the sampler chooses its own steps"),
        ({}, Quadratic(trusts_previews=False), PathSearch(), "the verifier cannot be trusted on half-denoised pictures"),
        ({"steps": 2}, Quadratic(), PathSearch(), "the sigmas have no steps around a noise share of 0.11"),
    ],
)
def test_where_nothing_can_branch_it_is_random_search(session, verifier, spec, why):
    search = run(spec, 6, verifier, **session)
    assert search.notes == [RANDOM + why]
    search.notes.clear()
    assert said(search) == said(run(RandomSearch(), 6, verifier, **session)) | {"spent": said(search)["spent"]}
    assert search.budget.nfe == 6 * search.steps


@pytest.mark.parametrize(
    ("spec", "images", "session", "why"),
    [
        (PathSearch(), 1, {}, "the budget does not pay for a loop"),
        (PathSearch(), 2, {}, "the budget does not pay for a loop"),
        (PathSearch(), 6, {"calls": lambda seed: 13}, "the sampler makes no model call at the noise level 0.1 of the sigmas"),
        (LOCAL, 6, {"calls": lambda seed: 8}, "the sampler makes no model call at the noise level 0.4 of the sigmas"),
    ],
)
def test_where_it_turns_out_late_it_goes_on_as_random_search(spec, images, session, why):
    search = run(spec, images, **session)
    plain = run(RandomSearch(), images, **session)
    assert search.notes == [RANDOM + why]
    assert [(c.recipe, c.score) for c in search.candidates] == [(c.recipe, c.score) for c in plain.candidates]
    assert search.budget.nfe == plain.budget.nfe
    assert search.runs.scope.levels == () and not any(c.records for c in search.candidates)


# Chains and stop rules


@pytest.mark.parametrize("other", [HalvingSearch(), RandomSearch(), ZeroOrderSearch()])
def test_a_chain_that_ends_with_paths_starts_them_anew_and_costs_the_sum(other):
    search = run(Chain(other, PathSearch()), 20)
    first = run(other, 10)
    assert first.budget.nfe == 200
    own = search.candidates[len(first.candidates) :]
    starts, branches = sum(not c.recipe.cuts for c in own), len(search.session.branches)
    assert branches % 2 == 0 and branches >= 4 and starts >= 2
    assert search.budget.nfe == 200 + starts * 19 + branches * 18 <= 400  # no run of candidate 0, and no start of its own
    assert 400 - search.budget.nfe < 19
    assert {c.parent for c in own if c.recipe.cuts} <= {c.index for c in own}


def test_a_chain_that_begins_with_paths():
    search = run(Chain(PathSearch(), HalvingSearch()), 16)
    first = run(PathSearch(), 8)
    assert [c.recipe for c in search.candidates[: len(first.candidates)]] == [c.recipe for c in first.candidates]
    images = (320 - first.budget.nfe) // 20 + 1  # what is left over, and the winner
    rest = run(HalvingSearch(), images).budget.nfe - 20
    assert first.budget.nfe < search.budget.nfe <= 320
    assert search.budget.nfe - first.budget.nfe <= rest
    assert any("near its first noise only" in note for note in search.notes) is bool(first.ranked[0][0].recipe.cuts)


def test_paths_after_paths_go_on_from_the_winner():
    """It is one of the starts, and keeps its place."""
    spec = PathSearch(start=0.3, forward=0.4, backward=0.5)
    search = run(Chain(spec, spec), 40)
    first = run(spec, 20)
    best_of_first = winner(first)
    assert best_of_first > 0
    later = search.candidates[len(first.candidates) :]
    starts = [c for c in later if not c.recipe.cuts]
    branched = [c for c in later if c.recipe.cuts]
    parents = list(dict.fromkeys(c.parent for c in branched))
    assert parents[0] == best_of_first
    assert parents[1] in {c.index for c in starts}
    assert branched[0].recipe.cuts[:-1] == search.candidates[best_of_first].recipe.cuts
    loops = spec.loops(even(20))
    branches = len(branched) // len(loops)
    assert [c.parent for c in branched[:branches]] == [parents[0]] * (branches // 2) + [parents[1]] * (branches // 2)
    cost = closed_form(loops, 20, len(starts) + 1, 1, branches) - 20
    assert search.budget.nfe == first.budget.nfe + cost


def test_one_survivor_after_paths_is_the_winner_of_those():
    """Starts beside it would have no place."""
    spec = PathSearch(start=0.3, forward=0.4, backward=0.5)
    search = run(Chain(spec, replace(spec, survivors=1, branches=2)), 40)
    first = run(spec, 20)
    later = search.candidates[len(first.candidates) :]
    assert len(later) == 6 and all(c.recipe.cuts for c in later)
    assert later[0].parent == winner(first)
    assert search.notes[1:] == ["the winner of the method before is the one survivor: there is no place for another start"]
    assert search.stopped == ""


def test_more_starts_after_paths_compete_for_the_other_places():
    spec = PathSearch(start=0.3, forward=0.4, backward=0.5)
    search = run(Chain(spec, replace(spec, branches=2)), 40)
    later = search.candidates[len(run(spec, 20).candidates) :]
    assert sum(not c.recipe.cuts for c in later) > 5
    branched = [c for c in later if c.recipe.cuts]
    assert len(branched) == 4 * len(spec.loops(even(20)))
    assert len({c.parent for c in branched[:4]}) == 2 and branched[0].parent == winner(run(spec, 20))


def test_a_target_that_candidate_0_reaches_ends_it():
    search = run(PathSearch(), 20, Constant(), rules=StopRules(target_score=0.1))
    assert search.budget.nfe == 20 and len(search.candidates) == 1
    assert "target score" in search.stopped and search.runs.scope.levels == ()


def test_patience_ends_the_last_loop():
    search = run(PathSearch(), 30, Constant(), rules=StopRules(patience=3))
    assert "patience" in search.stopped
    assert "cut off" not in statuses(search) and all(c.nfe for c in search.candidates)  # what is not begun is not made


@pytest.mark.parametrize("spec", [PathSearch(), LOCAL])
def test_same_seed_same_search_whatever_the_wave(spec):
    first = said(run(spec, 24))
    assert first == said(run(spec, 24)) == said(run(spec, 24, wave=1)) == said(run(spec, 24, wave=5))
    assert first != said(run(spec, 24, seed=8))


# What it finds


@pytest.mark.parametrize(("verifier", "more"), [(Quadratic, 5.0), (LowFrequency, 0.15)])
@pytest.mark.parametrize("stochastic", [False, True])
def test_beats_random_search_with_small_steps(verifier, more, stochastic):
    """Renoised by a third of the way, a branch keeps most of what its parent is worth."""
    seeds = range(20)
    found = [best(run(LOCAL, 40, verifier(), seed=seed, stochastic=stochastic)) for seed in seeds]
    drawn = [best(run(RandomSearch(), 40, verifier(), seed=seed, stochastic=stochastic)) for seed in seeds]
    assert sum(a > b for a, b in zip(found, drawn, strict=True)) >= 16
    assert mean(found) > mean(drawn) + more


def test_the_winner_branched():
    search = run(LOCAL, 40)
    assert len(search.ranked[0][0].recipe.cuts) == 5
    assert best(search) > search.baseline.score + 15


def test_without_looks_that_tell_it_loses_what_it_gained():
    """A verifier of noise chooses blindly: no better than what was drawn."""
    seeds = range(20)
    seen = mean([best(run(LOCAL, 30, Quadratic(), seed=seed)) for seed in seeds])
    blind = mean([best(run(LOCAL, 30, Quadratic(), seed=seed, blur=50.0)) for seed in seeds])
    assert blind < seen - 5.0
