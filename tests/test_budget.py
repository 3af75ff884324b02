"""Budget and stop rules: exact stopping points, on fixed and on adaptive runs."""

from __future__ import annotations

import math

import pytest
from analytic import Clock, Listed, prepare, run, statuses, winner

from noise_search.search.base.budget import Budget, StopRules
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

METHODS = [
    RandomSearch(), ZeroOrderSearch(), ZeroOrderSearch(on_stall="restart"), HalvingSearch(),
    RandomSearch(draft_steps=5), ZeroOrderSearch(draft_steps=5),
]  # fmt: skip
TOO_SMALL = "the rest of the budget does not pay for another run"
TOO_SHORT = "the rest of the time limit of {} s is too short for another run"


def ids(method):
    return f"{method.name} {getattr(method, 'draft_steps', 0) or ''}{getattr(method, 'on_stall', '')}"


def timed(method, images, seconds, verifier=None, **session):
    """A search in which every model call takes a second."""
    clock = Clock()
    rules = StopRules(max_seconds=seconds)
    return run(method, images, verifier, rules=rules, clock=clock, on_call=clock.tick, **session)


EVERY = [
    *METHODS, AutoSearch(), BacktrackingSearch(), BranchingSearch(renoise=1), Chain(RandomSearch(), RefinementSearch()),
    DraftSearch(), DraftSearch(draft_steps=5), EvolutionSearch(), FKSteering(renoise=1), PathSearch(), RefinementSearch(),
    RolloverSearch(renoise=1), SpectralSearch(), SpectralSearch(draft_steps=5), TrustRegionSearch(),
    TrustRegionSearch(draft_steps=5),
]  # fmt: skip


@pytest.mark.parametrize("method", EVERY, ids=ids)
@pytest.mark.parametrize("looks", [True, False])
@pytest.mark.parametrize("most", [12, 45, 100])
def test_what_limits_do_not_pay_for_is_not_drawn(method, looks, most):
    """However large the budget is: every candidate costs something, so that there are no more than calls."""
    search = run(method, 100_000, rules=StopRules(max_model_calls=most), looks_halfway=looks)
    assert search.budget.nfe <= max(most, 20)
    assert all(candidate.nfe > 0 or candidate.status == "pruned" for candidate in search.candidates)
    assert len(search.candidates) <= max(1, most // 3)


@pytest.mark.parametrize("method", EVERY, ids=ids)
def test_what_time_does_not_pay_for_is_not_drawn(method):
    search = timed(method, 100_000, 100)
    assert "waiting" not in statuses(search)
    assert len(search.candidates) <= 100


@pytest.mark.parametrize("rules", [{"patience": 6}, {"target_score": -1e9}])
@pytest.mark.parametrize("method", [RandomSearch(), EvolutionSearch()], ids=ids)
def test_a_search_that_ends_early_has_drawn_no_others(method, rules):
    search = run(method, 50_000, Listed(numbers=[1.0] + [0.0] * 99), rules=StopRules(**rules))
    assert "waiting" not in statuses(search)
    assert len(search.candidates) <= 32


# The arithmetic.


def test_cap():
    budget = Budget(4, StopRules(max_model_calls=70), clock=Clock())
    assert budget.cap == 70
    budget.run_cost = 20
    assert budget.cap == 70
    budget.run_cost = 15
    assert budget.cap == 60
    assert Budget(4, clock=Clock()).cap == math.inf


def test_allows_to_the_last_call_and_candidate_0_always():
    budget = Budget(2, StopRules(max_model_calls=30), clock=Clock())
    budget.nfe = 100
    assert budget.allows(10)
    budget.run_cost, budget.nfe = 20, 29
    assert budget.allows(1)
    assert not budget.allows(2)
    budget.reserved = 1
    assert not budget.allows(1)


def test_affordable():
    budget = Budget(5, clock=Clock())
    assert budget.affordable(20, 7) == 7
    budget.run_cost, budget.nfe = 20, 20
    assert [budget.affordable(cost, 9) for cost in (10, 20, 26, 27, 80, 81)] == [8, 4, 3, 2, 1, 0]
    assert budget.affordable(20, 3) == 3
    budget.reserved = 41
    assert budget.affordable(20, 9) == 1
    budget.nfe = 200
    assert budget.affordable(20, 9) == 0


def test_affordable_in_time():
    clock = Clock()
    budget = Budget(100, StopRules(max_seconds=60), run_cost=20, nfe=20, clock=clock)
    assert budget.affordable(20, 9) == 9  # no time passed: nothing is known
    clock.now = 10.0
    assert budget.calls_in_time == 100  # 50 s at two calls a second
    assert budget.affordable(20, 9) == 5
    clock.now = 61.0
    assert budget.affordable(20, 9) == 0


def test_seconds_count_from_the_start():
    clock = Clock()
    clock.now = 5.0
    budget = Budget(1, clock=clock)
    clock.now = 7.5
    assert budget.seconds == 2.5


@pytest.mark.parametrize("images", [0, -3])
def test_a_budget_is_at_least_one_image(images):
    with pytest.raises(ValueError, match=f"'budget' counts whole images and must be at least 1, not {images}"):
        Budget(images)


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_model_calls", -1), ("max_seconds", -0.5), ("max_seconds", math.nan), ("max_seconds", math.inf),
     ("patience", -2), ("target_score", math.nan), ("target_score", math.inf)],
)  # fmt: skip
def test_bad_rules(name, value):
    with pytest.raises(ValueError, match=f"'{name}' must be a finite number.* not {value}"):
        StopRules(**{name: value})


# Model calls.


@pytest.mark.parametrize("method", METHODS[:3], ids=ids)
@pytest.mark.parametrize(("limit", "runs"), [(160, 8), (159, 7), (61, 3), (60, 3), (59, 2), (20, 1), (1, 1)])
def test_max_model_calls(method, limit, runs):
    """What cannot be ended is not begun; candidate 0 always is."""
    search = run(method, 8, rules=StopRules(max_model_calls=limit))
    assert search.budget.nfe == runs * 20
    assert len(search.session.started) == runs
    assert statuses(search).count("finished") == runs
    assert set(statuses(search)) <= {"finished", "waiting"}
    assert search.stopped == ("" if runs == 8 else "the budget is spent" if limit <= 20 * runs else TOO_SMALL)


@pytest.mark.parametrize(
    ("limit", "calls", "said"),
    [(160, 160, ""), (159, 140, "the limits pay for 7 of 8 images"), (79, 60, "the limits pay for 3 of 8 images"),
     (59, 40, "the limits pay for 2 of 8 images"), (39, 20, "the limits pay for 1 of 8 images"),
     (7, 20, "the budget is spent")],
)  # fmt: skip
def test_max_model_calls_of_halving(limit, calls, said):
    search = run(HalvingSearch(), 8, rules=StopRules(max_model_calls=limit))
    assert search.budget.nfe == calls
    assert search.stopped == said
    assert "cut off" not in statuses(search)


@pytest.mark.parametrize("method", METHODS[4:], ids=ids)
def test_max_model_calls_of_drafts(method):
    """100 calls: candidate 0, the winner, and 12 drafts of 5."""
    search = run(method, 8, rules=StopRules(max_model_calls=100))
    assert [steps for steps, _ in search.session.started].count(5) == 12
    assert search.budget.nfe == 100
    assert search.notes == ["fewer drafts than planned could be paid for"]
    if isinstance(method, ZeroOrderSearch):
        assert statuses(search).count("waiting") <= 5  # no round is proposed in vain


# Seconds.


@pytest.mark.parametrize("method", METHODS[:3], ids=ids)
@pytest.mark.parametrize(("seconds", "runs"), [(1000, 8), (100, 5), (99, 4), (41, 2), (39, 1), (5, 1)])
def test_max_seconds(method, seconds, runs):
    search = timed(method, 8, seconds)
    assert search.budget.nfe == runs * 20
    assert statuses(search).count("finished") == runs
    over = f"the time limit of {seconds} s was reached"
    short = TOO_SHORT.format(seconds)
    assert search.stopped == ("" if runs == 8 else over if seconds <= 20 * runs else short)


@pytest.mark.parametrize(("seconds", "calls"), [(1000, 160), (100, 100), (99, 80), (39, 20), (5, 20)])
def test_max_seconds_of_halving(seconds, calls):
    search = timed(HalvingSearch(), 8, seconds)
    assert search.budget.nfe == calls
    assert bool(search.stopped) == (calls < 160)


@pytest.mark.parametrize("method", METHODS[4:], ids=ids)
def test_max_seconds_of_drafts(method):
    search = timed(method, 8, 100)
    assert search.budget.nfe == 100
    assert statuses(search).count("finished") == 2


# Scores.


@pytest.mark.parametrize("method", [RandomSearch(), ZeroOrderSearch(neighbors=4)], ids=ids)
@pytest.mark.parametrize("wave", [1, 8])
@pytest.mark.parametrize(("best_at", "random", "zero_order"), [(0, 4, 1), (3, 4, 5), (4, 8, 5), (9, 12, 13)])
def test_target_score_is_looked_at_after_every_four(method, wave, best_at, random, zero_order):
    numbers = [0.0] * 20
    numbers[best_at] = 3.0
    search = run(method, 20, Listed(numbers=numbers), rules=StopRules(target_score=3.0), wave=wave)
    runs = random if isinstance(method, RandomSearch) else zero_order
    assert len(search.finished.members) == runs
    assert search.budget.nfe == 20 * runs
    assert search.stopped == "the target score 3 was reached"
    assert winner(search) == best_at


def test_target_score_that_is_not_reached():
    search = run(RandomSearch(), 20, Listed(numbers=[2.9] * 20), rules=StopRules(target_score=3.0))
    assert (search.budget.nfe, search.stopped) == (400, "")


def test_target_score_reached_by_candidate_0_ends_all_methods():
    rules = StopRules(target_score=0.0, max_model_calls=1000)  # whose runs have to be measured first
    for method in METHODS:
        search = run(method, 8, Listed(numbers=[0.0] * 30), rules=rules)
        assert search.budget.nfe == 20, method
        assert search.stopped == "the target score 0 was reached"


@pytest.mark.parametrize(("patience", "runs"), [(1, 4), (2, 4), (3, 8), (4, 8), (5, 8), (6, 8), (7, 12), (30, 20)])
def test_patience(patience, runs):
    """Candidate 1 is the best: 2 are behind it after 4, 6 after 8, 10 after 12."""
    search = run(RandomSearch(), 20, Listed(numbers=[1, 2, *[0] * 18]), rules=StopRules(patience=patience))
    assert len(search.finished.members) == runs
    behind = runs - 2
    assert search.stopped == ("" if runs == 20 else f"no better candidate among the last {behind} (patience {patience})")


def test_patience_counts_anew_from_a_better_one():
    numbers = [1, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0]
    search = run(RandomSearch(), 16, Listed(numbers=numbers), rules=StopRules(patience=4))
    assert len(search.finished.members) == 12


def test_a_tie_is_not_better():
    search = run(RandomSearch(), 16, Listed(numbers=[1] * 16), rules=StopRules(patience=3))
    assert len(search.finished.members) == 4


def test_patience_counts_in_the_order_of_rendering():
    """Halving renders the survivors best first, whatever their index."""
    search = prepare(8, Listed(numbers=[1, 2, 3]), rules=StopRules(patience=2), wave=1)
    first, second = search.propose(), search.propose()
    list(search.render([search.baseline]))
    list(search.render([second]))
    list(search.render([first]))
    assert [c.index for c, _ in search.ranked] == [1, 2, 0]
    assert not search.should_stop()
    search = prepare(8, Listed(numbers=[1, 3, 2, 0]), rules=StopRules(patience=2), wave=1)
    first, second, third = (search.propose() for _ in range(3))
    for candidate in (search.baseline, third, first, second):
        list(search.render([candidate]))
    assert [c.index for c, _ in search.ranked] == [3, 1, 0, 2]
    assert search.should_stop()


# Runs that differ in cost.


def uneven(seed):
    return 12 + seed % 17


@pytest.mark.parametrize("method", METHODS, ids=ids)
@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("images", [1, 3, 8])
def test_adaptive_runs_stay_under_the_budget(method, seed, images):
    search = run(method, images, seed=seed, calls=uneven, fixed_steps=False)
    assert search.budget.run_cost == uneven(seed)
    assert search.budget.nfe <= images * uneven(seed)
    assert search.baseline.status == "finished"
    assert search.baseline.nfe == uneven(seed) * (2 if search.baseline.looks and method.name != "halving search" else 1)
    assert statuses(search).count("cut off") <= max(1, len(search.candidates) // 4)
    for candidate in search.candidates:
        if candidate.status == "waiting":
            assert candidate.nfe == 0
        if candidate.status == "cut off":
            assert candidate.nfe > 0


def test_nothing_goes_on_after_the_cap():
    """Candidate 0 takes 10 calls, all others 25: 8 images are 80 calls, and the third other one is cut off."""
    search = run(RandomSearch(), 8, calls=lambda seed: 10 if seed == 7 else 25, fixed_steps=False)
    assert statuses(search) == ["finished", "finished", "finished"]
    assert search.budget.nfe == 60  # 20 calls are left: known to be too few
    assert search.stopped == TOO_SMALL
    search = run(RandomSearch(), 2, calls=lambda seed: 10 if seed == 7 else 25, fixed_steps=False)
    assert statuses(search) == ["finished", "cut off"]
    assert search.budget.nfe == 20
    assert [c.index for c, _ in search.ranked] == [0]
    assert search.candidates[1].latent is None


def test_cut_off_runs_cost_one_candidate_not_a_wave():
    search = run(RandomSearch(), 12, calls=uneven, fixed_steps=False, seed=3)
    assert statuses(search).count("cut off") <= 1
    assert [count for count, _ in search.session.rounds] == [1] * len(search.session.rounds)


def test_runs_that_prove_equal_go_in_waves():
    search = run(RandomSearch(), 12, fixed_steps=False)
    assert [count for count, _ in search.session.rounds] == [1, 1, 8, 2]


@pytest.mark.parametrize("factor", [1.0, 1.5, 2.0])
def test_halving_keeps_enough_to_end_runs_that_cost_more_than_candidate_0(factor):
    search = run(HalvingSearch(), 8, calls=lambda seed: 20 if seed == 7 else int(20 * factor), fixed_steps=False)
    assert search.budget.nfe <= 160
    assert statuses(search).count("finished") >= 2


def test_nothing_is_allowed_because_a_cost_is_not_known():
    """Before candidate 0 ended, the budget is so many times what its run takes at least; its own calls are free."""
    budget = Budget(3, clock=Clock())
    budget.nfe = 5
    assert budget.allows(1, least=2) and not budget.allows(2, least=2) and budget.refused
    assert budget.allows(2)
    with budget.unlimited():
        assert budget.allows(2, least=2)
    budget.run_cost = 10
    assert budget.allows(25, least=0) and not budget.allows(26)
