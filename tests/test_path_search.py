"""Path search: exact costs of its loops, which levels they lie at, who survives, and what it finds."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import pytest
from analytic import Clock, prepare, run, statuses

from noise_search.search.base.budget import StopRules
from noise_search.search.methods.path_search import PathSearch

NAN = math.nan
LOCAL = PathSearch(start=0.5, forward=0.3, backward=0.4)  # on 20 steps: .5 .4 .3 .2 .1 0, up by .3
LOCAL_LOOPS = [(10, 4, 12), (12, 6, 14), (14, 8, 16), (16, 10, 18), (18, 12, 20)]


def even(steps):
    return [1.0 - k / steps for k in range(steps + 1)]


def per_level(steps, heun=False):
    """Model calls at each noise level of a full run."""
    return [1, *[2 if heun else 1] * (steps - 1)]


def closed_form(loops, steps, starts, survivors, branches, heun=False):
    """T + (W - 1) a + N M sum_j b_j, counted on the steps."""
    calls = per_level(steps, heun)
    start = sum(calls[: loops[0][0] + 1])
    legs = [1 + sum(calls[up + 1 : down + 1]) for _, up, down in loops]
    return sum(calls) + (starts - 1) * start + survivors * branches * sum(legs)


def fresh(search):
    return sum(not c.recipe.cuts for c in search.candidates)


def index_of(search, sigma):
    return round((1.0 - sigma) * search.session.steps)


# Levels


def test_the_paper_s_levels_on_a_fine_schedule():
    loops = PathSearch().loops(even(100))
    assert [100 - loop.cut for loop in loops] == [11, 8, 5, 2]
    assert [100 - loop.up for loop in loops] == [89, 86, 83, 80]
    assert [100 - loop.down for loop in loops] == [8, 5, 2, 0]


@pytest.mark.parametrize(
    ("steps", "wanted"),
    [
        (50, [(44, 5, 46), (46, 7, 47), (47, 8, 49), (49, 10, 50)]),
        (30, [(27, 3, 28), (28, 4, 30)]),  # .10 .067, and .05 is .067 again: to the end
        (20, [(18, 2, 20)]),  # .08 is .10 again
        (4, [(3, 1, 4)]),  # .89 is nearest to 1, where nothing of the picture is left: .75
        (3, [(2, 1, 3)]), (2, []), (1, []),
    ],
)  # fmt: skip
def test_levels_are_the_user_s_own(steps, wanted):
    assert PathSearch().loops(even(steps)) == wanted


@pytest.mark.parametrize(
    ("shares", "wanted"),
    [
        ([0.94, 0.8, 0.5, 0.2, 0.1, 0.0], [(4, 0, 5)]),  # of an EPS model: the first level is left as it is
        ([0.94, 0.9, 0.5, 0.2, 0.1, 0.07, 0.0], [(4, 1, 5), (5, 1, 6)]),
        ([0.6, 0.4, 0.2, 0.1, 0.0], [(3, 0, 4)]),  # of a picture that is redrawn: no further up than it began
        ([1.0, 0.9, 0.8, 0.7, 0.6], []),  # a first stage: nowhere low enough
        ([1.0, 0.8, 0.5, 0.3, 0.2], [(3, 1, 4)]),  # leftover noise: the end is where the sigmas end
        ([1.0, 0.05, 0.02, 0.0], [(2, 1, 3)]),  # up by one step at least
        ([1.0, 0.05, 0.0], []),  # and not to nothing but noise
    ],
)
def test_levels_of_other_schedules(shares, wanted):
    assert PathSearch().loops(shares) == wanted


def test_every_loop_ends_lower_than_it_began():
    for steps in range(3, 120):
        for method in (PathSearch(), LOCAL, PathSearch(start=0.7, forward=0.1, backward=0.11)):
            loops = method.loops(even(steps))
            assert loops[-1].down == steps
            assert all(0 < loop.up < loop.cut < loop.down for loop in loops)
            assert [loop.down for loop in loops[:-1]] == [loop.cut for loop in loops[1:]]


def test_branches_leave_and_start_at_these_levels():
    search = run(LOCAL, 40, steps=20)
    cuts = [(index_of(search, cut.sigma), index_of(search, cut.renoise_to)) for cut in search.session.branches]
    branches = len(cuts) // 10
    assert cuts == [loop[:2] for loop in LOCAL_LOOPS for _ in range(2 * branches)]
    looks = [index_of(search, until) for _, until in search.session.rounds]
    assert looks == [10, 20, 10, 12, 14, 16, 18, *[20] * -(-2 * branches // 8)]  # the last in waves of 8
    assert search.session.rounds[3][0] == 2 * branches


# Costs


@pytest.mark.parametrize(
    ("images", "starts", "survivors", "branches", "calls"),
    [  # 20 steps: a start costs 19, a branch 18
        (2, 1, 1, 1, 40), (3, 1, 1, 2, 56), (4, 1, 1, 3, 74), (5, 1, 1, 4, 92), (6, 2, 2, 2, 111), (8, 2, 2, 3, 147),
        (9, 2, 2, 3, 147 + 19), (16, 3, 2, 7, 310), (30, 3, 2, 15, 598),
    ],
)  # fmt: skip
def test_cost_of_the_paper_s_levels_on_20_steps(images, starts, survivors, branches, calls):
    search = run(PathSearch(), images)
    assert search.budget.nfe == calls <= images * 20
    assert search.stopped == ""
    if images > 2:
        starts = 3 if images == 9 else starts
        assert calls == 20 + (starts - 1) * 19 + survivors * branches * 18
        assert fresh(search) == starts
        assert statuses(search).count("finished") == 1 + survivors * branches
        assert search.scorer.calls == search.evaluator.decodes == 1 + starts + survivors * branches


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("heun", [False, True])
@pytest.mark.parametrize("survivors", [1, 2, 3, 5])
@pytest.mark.parametrize(("method", "steps"), [("paper", 100), ("paper", 30), ("paper", 20), ("paper", 4), ("local", 20)])
def test_cost_is_the_closed_form(method, steps, survivors, heun, stochastic):
    local = {"start": 0.5, "forward": 0.3, "backward": 0.4} if method == "local" else {}
    spec = PathSearch(survivors=survivors, **local)
    loops, whole = spec.loops(even(steps)), sum(per_level(steps, heun))
    for images in (40, 51):
        search = run(spec, images, steps=steps, heun=heun, stochastic=stochastic)
        branches = len(search.session.branches) // (len(loops) * survivors)
        starts = fresh(search)
        assert search.budget.nfe == closed_form(loops, steps, starts, survivors, branches, heun) <= images * whole
        assert starts >= survivors and branches >= 2
        assert search.notes == [] and search.stopped == "" and "cut off" not in statuses(search)
        # Neither another start nor another branch could be paid for.
        assert closed_form(loops, steps, starts + 1, survivors, branches, heun) > images * whole
        assert closed_form(loops, steps, survivors, survivors, branches + 1, heun) > images * whole


def test_branches_that_are_given_are_kept_to_and_the_rest_pays_for_starts():
    search = run(PathSearch(branches=3), 30)
    starts = 1 + (30 * 20 - 20 - 6 * 18) // 19
    assert fresh(search) == starts == 25
    assert search.budget.nfe == 20 + (starts - 1) * 19 + 6 * 18
    assert len(search.session.branches) == 6
    assert search.notes == []


@pytest.mark.parametrize(
    ("spec", "images", "survivors", "branches", "said_of"),
    [
        (PathSearch(branches=5), 8, 2, 3, "2 survivors of 5 branches each"),
        (PathSearch(branches=5), 4, 1, 3, "2 survivors of 5 branches each"),
        (PathSearch(branches=1, survivors=4), 4, 2, 1, "4 survivors of 1 branches each"),
        (PathSearch(survivors=9), 12, 4, 2, "9 survivors"),
    ],
)
def test_what_the_budget_does_not_pay_for_is_reduced_and_noted(spec, images, survivors, branches, said_of):
    search = run(spec, images)
    assert search.notes == [f"{said_of} are more than the budget pays for: {survivors} of {branches} branches each"]
    assert len(search.session.branches) == survivors * branches
    assert search.budget.nfe == 20 + (fresh(search) - 1) * 19 + survivors * branches * 18 <= images * 20


@pytest.mark.parametrize("limit", [20, 39, 40, 55, 56, 70, 100, 147, 159, 161, 1000])
def test_a_limit_of_model_calls_is_kept_and_candidate_0_finished(limit):
    search = run(PathSearch(), 8, rules=StopRules(max_model_calls=limit))
    assert search.budget.nfe <= min(limit, 160)
    assert search.budget.nfe > min(limit, 160) - 20
    assert search.baseline.status == "finished" and "cut off" not in statuses(search)[:1]
    assert (search.stopped != "") is (160 - search.budget.nfe >= 20)
    assert (not search.session.branches) is (limit < 56)


def test_a_time_limit_is_planned_for():
    clock = Clock()
    search = run(PathSearch(), 100, rules=StopRules(max_seconds=147.0), clock=clock, on_call=clock.tick)
    assert search.budget.nfe == 147 and len(search.session.branches) == 6
    assert search.stopped == "the rest of the time limit of 147 s is too short for another run"


@pytest.mark.parametrize(
    ("delay", "ends", "why"),
    [
        (80.0, [0, 1, 1], "the rest of the time is too short for another loop"),
        (30.0, [0, 1, 1], "the rest of the time is too short for another loop"),
        (200.0, [0], "the time limit of 300 s was reached"),
    ],
)
def test_survivors_are_finished_as_they_are_when_the_time_is_too_short_for_the_loops(delay, ends, why):
    """Planned for 295 calls in 300 s; the first loop takes longer. There is time for no branch, or one of each, more."""
    clock = Clock()

    def tick():
        clock.now += 1.0 + delay if len(search.session.branches) == 4 and clock.now < 125.0 else 1.0

    search = prepare(100, rules=StopRules(max_seconds=300.0), clock=clock, on_call=lambda: tick())
    list(PathSearch(start=0.5, forward=0.3, backward=0.4, branches=2).run(search))
    assert len(search.session.branches) == 4
    ended = [c for c in search.candidates if c.status == "finished"]
    assert [len(c.recipe.cuts) for c in ended] == ends
    assert [c.nfe for c in ended[1:]] == [9 + 7] * (len(ends) - 1)  # to the first look, and from there to the end
    assert search.stopped == why


# The spec


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"survivors": 0}, "'survivors' must be at least 1, not 0"),
        ({"branches": -1}, "'branches' must be 0 .* not -1"),
        ({"start": 0.0}, "0 < start < 1 .* not start 0 and"),
        ({"start": 1.0, "forward": 0.0}, "not start 1 and forward 0"),
        ({"start": 0.3}, "start \\+ forward <= 1, not start 0.3 and forward 0.78"),
        ({"forward": -0.1}, "not start 0.11 and forward -0.1"),
        ({"forward": NAN}, "forward nan"),
        ({"forward": 0.81}, "'backward' must exceed 'forward' .* not 0.81 with forward 0.81"),
        ({"backward": 1.1}, "at most 1, not 1.1"),
        ({"backward": NAN}, "not nan"),
    ],
)
def test_bad_parameters(wrong, message):
    with pytest.raises(ValueError, match=message):
        PathSearch(**wrong)


def test_spec_is_frozen():
    assert PathSearch(forward=0.0, backward=0.0).forward == 0.0
    with pytest.raises(FrozenInstanceError):
        PathSearch().start = 0.1
