"""Halving search: exact costs of every rung, who survives, and what it finds."""

from __future__ import annotations

from collections import Counter
from dataclasses import FrozenInstanceError

import pytest
from analytic import (
    SEED,
    Constant,
    Listed,
    LowFrequency,
    Part,
    Quadratic,
    RandomNumbers,
    best,
    draw,
    latent_of,
    mean,
    run,
    said,
    statuses,
    winner,
)

from noise_search.search.base.budget import StopRules
from noise_search.search.methods.halving import HalvingSearch
from noise_search.search.methods.random_search import RandomSearch

# Images, and how many run to 25 %, to 50 % and to the end.
WIDTHS_20 = {
    1: (1,), 2: (2,), 3: (5, 3, 2), 4: (8, 4, 2), 5: (9, 5, 3), 6: (12, 6, 3), 7: (13, 7, 4), 8: (16, 8, 4),
    9: (17, 9, 5), 10: (20, 10, 5), 11: (21, 11, 6), 12: (24, 12, 6),
}  # fmt: skip


def widths(search):
    return tuple(count for count, _ in search.session.rounds)


def looked(search):
    return [len(candidate.looks) for candidate in search.candidates]


@pytest.mark.parametrize("images", WIDTHS_20)
def test_20_steps_cost_exactly_as_many_full_runs(images):
    wanted = WIDTHS_20[images]
    search = run(HalvingSearch(), images)
    assert search.budget.nfe == images * 20
    assert widths(search) == wanted
    assert len(search.session.started) == wanted[0]
    assert search.evaluator.decodes == search.scorer.calls == sum(wanted)
    assert statuses(search).count("finished") == wanted[-1]
    assert statuses(search).count("pruned") == wanted[0] - wanted[-1]
    assert search.stopped == ""
    assert search.notes == []


def test_verifier_calls_are_three_and_a_half_per_image():
    search = run(HalvingSearch(), 8)
    assert search.scorer.calls == search.scorer.verifier.pictures == 28
    assert Counter(c.nfe for c in search.candidates) == {5: 8, 10: 4, 20: 4}
    assert Counter(looked(search)) == {1: 8, 2: 8}
    assert [cut for _, cut in search.session.rounds] == pytest.approx([0.8, 0.55, 0.0])


@pytest.mark.parametrize(
    ("steps", "images", "wanted", "calls"),
    [
        (10, 3, (5, 3, 2), 29), (10, 4, (8, 4, 2), 38), (10, 8, (16, 8, 4), 76), (10, 5, (10, 5, 3), 50),
        (7, 3, (6, 3, 2), 20), (7, 4, (8, 4, 2), 24), (7, 8, (16, 8, 4), 48), (7, 2, (2,), 14),
        (3, 3, (5, 2), 9), (3, 4, (8, 2), 12), (3, 8, (16, 4), 24), (3, 12, (24, 6), 36), (3, 1, (1,), 3),
        (2, 4, (6, 2), 8),
    ],
)  # fmt: skip
def test_other_steps_cost_at_most_as_many(steps, images, wanted, calls):
    """Cuts that fall on one step (3 steps: 0.75 and 1.5) are one cut."""
    search = run(HalvingSearch(), images, steps=steps)
    assert widths(search) == wanted
    assert search.budget.nfe == calls <= images * steps
    assert search.scorer.calls == sum(wanted)


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize("images", range(1, 13))
@pytest.mark.parametrize("steps", [20, 10, 7, 3])
def test_two_calls_per_step_cost_at_most_as_many(images, steps, fixed):
    search = run(HalvingSearch(), images, steps=steps, heun=True, fixed_steps=fixed)
    assert search.budget.nfe <= images * (2 * steps - 1)
    assert search.baseline.status == "finished"
    assert "cut off" not in statuses(search)
    assert search.stopped == ""


def test_unknown_cost_is_measured_on_candidate_0():
    """It runs first, is looked at on its way, and does not run again."""
    search = run(HalvingSearch(), 8, fixed_steps=False)
    assert widths(search) == (1, 1, 1, 15, 7, 1, 2)
    assert search.budget.nfe == 160
    assert search.scorer.calls == 28
    known = run(HalvingSearch(), 8)
    assert said(search) == said(known)


@pytest.mark.parametrize("images", [3, 4, 8, 12])
def test_candidate_0_survives_every_rung(images):
    """Even as the worst of all."""

    class Hates(Part):
        def values(self, images):
            return -(latent_of(images) - (0.1 + 0.9 * draw(SEED))).abs().sum(1).lt(1e-2).float()

    search = run(HalvingSearch(), images, Hates(), blur=0.0)
    assert search.baseline.score == -1.0
    assert {c.score for c, _ in search.ranked if c.index} == {0.0}
    assert search.baseline.status == "finished"
    assert looked(search)[0] == 2
    assert search.baseline.nfe == 20


def test_the_best_survive():
    """By the order of the looks, the earlier of equals first."""
    first = [0, 1, 9, 3, 9, 5, 2, 7]  # 8 candidates: 0 and 2, 4, 7 go on
    second = [0, 4, 4, 1]  # 0, 2, 4, 7: 0 and 2 go on
    search = run(HalvingSearch(), 4, Listed(numbers=[*first, *second, 3, 3]))
    assert [c.index for c in search.candidates if len(c.looks) == 2] == [0, 2, 4, 7]
    assert [c.index for c in search.candidates if c.status == "finished"] == [0, 2]
    assert search.candidates[4].nfe == 10
    assert winner(search) == 0


def test_nan_is_dropped_first():
    nan = float("nan")
    first = [nan, nan, 1, nan, 2, nan, nan, 3]  # 7, 4 and 2 go on, in this order
    search = run(HalvingSearch(), 4, Listed(numbers=[*first, nan, 1, 1, nan, 5, 6]))
    assert [c.index for c in search.candidates if len(c.looks) == 2] == [0, 2, 4, 7]
    assert [c.index for c in search.candidates if c.status == "finished"] == [0, 4]
    assert winner(search) == 4


@pytest.mark.parametrize(
    ("cuts", "steps"),
    [((0.7, 0.4), [4, 7]), ((0.75, 0.45), [3, 6]), ((0.7, 0.7), [4]), ((1.0, 0.9), [1, 2]), ((99.0, 2.0), [1])],
)
def test_cuts_by_sigma(cuts, steps):
    """Sigmas are 1, 0.9, ..., 0.1, 0, as float32. On a sigma: after its step; between two: after the upper one's."""
    method = HalvingSearch(*cuts, cut_by="sigma")
    search = run(method, 8, steps=10)
    assert method.cut_steps([float(s) for s in search.session.sigmas]) == steps
    assert search.budget.nfe <= 80
    stops = [cut for _, cut in search.session.rounds][:-1]
    assert stops == pytest.approx([1.1 - 0.1 * k for k in steps])
    assert {c.nfe for c in search.candidates} == {*steps, 10}


def test_shares_of_steps_are_exact():
    """0.29 * 100 is 28.999999999999996."""
    assert HalvingSearch(0.29, 0.58).cut_steps([1.0 - k / 100 for k in range(101)]) == [29, 58]


def test_a_cut_that_drops_nobody_is_no_look():
    """40 of 160 calls: candidate 0, measured with its looks, and one other beside it."""
    search = run(HalvingSearch(), 8, rules=StopRules(max_model_calls=40))
    assert looked(search) == [2, 0]
    assert search.evaluator.decodes == 4


@pytest.mark.parametrize("cuts", [(0.1, 0.05), (0.05, 0.01)])
def test_cuts_at_the_end_are_random_search(cuts):
    search = run(HalvingSearch(*cuts, cut_by="sigma"), 8, steps=10)
    assert search.notes == ["halving search became random search at the same cost: both cuts are at the end of the run"]
    search.notes.clear()
    assert said(search) == said(run(RandomSearch(), 8, steps=10))


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("fixed", [True, False])
def test_one_and_two_images_are_random_search(images, fixed):
    assert said(run(HalvingSearch(), images, fixed_steps=fixed)) == said(run(RandomSearch(), images))


class TrustsNone(Quadratic):
    def __init__(self):
        super().__init__(trusts_previews=False)


@pytest.mark.parametrize(
    ("session", "verifier", "why"),
    [
        ({"looks_halfway": False}, Quadratic, "its runs cannot be suspended"),
        ({"looks_halfway": False, "why_alone": ("a", "b")}, Quadratic, "a; b"),
        ({}, TrustsNone, "the verifier cannot be trusted on half-denoised pictures"),
        ({"steps": 1}, Quadratic, "both cuts are at the end of the run"),
    ],
)
def test_without_a_half_way_it_is_random_search_at_the_same_cost(session, verifier, why):
    search = run(HalvingSearch(), 8, verifier(), **session)
    assert search.notes == [f"halving search became random search at the same cost: {why}"]
    assert search.budget.nfe == 8 * search.steps
    search.notes.clear()
    assert said(search) == said(run(RandomSearch(), 8, verifier(), **session))


def test_random_numbers_choose_no_seed_over_another():
    """Of 8 candidates two reach the end, one of them candidate 0: it wins half the time, the others 1/14 each."""
    times = 700
    verifier = RandomNumbers()
    wins = Counter(winner(run(HalvingSearch(), 4, verifier, steps=4, seed=seed)) for seed in range(times))
    wanted = [times / 2, *[times / 14] * 7]
    chi2 = sum((wins[k] - w) ** 2 / w for k, w in enumerate(wanted))
    assert set(wins) == set(range(8))
    assert chi2 < 18.5  # 1 % of the chi-square distribution of 7 degrees of freedom


def test_constant_scores_keep_the_earliest():
    search = run(HalvingSearch(), 4, Constant())
    assert [c.index for c in search.candidates if c.status == "finished"] == [0, 1]
    assert winner(search) == 0


def test_beats_a_single_run():
    for seed in range(10):
        search = run(HalvingSearch(), 8, seed=seed)
        assert best(search) >= search.baseline.score
    assert mean([best(run(HalvingSearch(), 8, seed=s)) - run(RandomSearch(), 1, seed=s).baseline.score for s in range(10)]) > 5


def test_beats_random_search_where_half_way_pictures_tell():
    seeds = range(120)
    drawn = mean([best(run(RandomSearch(), 8, steps=8, seed=seed)) for seed in seeds])
    for blur, more in ((0.0, 1.5), (0.5, 0.0)):  # 16 candidates against 8: 1.77 spreads against 1.42
        assert mean([best(run(HalvingSearch(), 8, steps=8, blur=blur, seed=seed)) for seed in seeds]) > drawn + more


def test_loses_to_random_search_where_half_way_pictures_tell_nothing():
    """It ends 4 runs, drawn blindly."""
    seeds = range(80)
    drawn = mean([best(run(RandomSearch(), 8, LowFrequency(), steps=8, seed=seed)) for seed in seeds])
    halved = mean([best(run(HalvingSearch(), 8, LowFrequency(), steps=8, blur=50.0, seed=seed)) for seed in seeds])
    assert halved < drawn


@pytest.mark.parametrize("fixed", [True, False])
def test_same_seed_same_search_whatever_the_wave(fixed):
    first = said(run(HalvingSearch(), 8, fixed_steps=fixed))
    assert first == said(run(HalvingSearch(), 8, fixed_steps=fixed))
    assert first == said(run(HalvingSearch(), 8, fixed_steps=fixed, wave=1))
    assert first != said(run(HalvingSearch(), 8, fixed_steps=fixed, seed=8))


def test_a_larger_budget_keeps_the_first_candidates():
    few, many = run(HalvingSearch(), 4), run(HalvingSearch(), 9)
    assert [c.recipe for c in few.candidates] == [c.recipe for c in many.candidates][:8]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"cut_by": "time"}, "'cut_by' must be 'steps' or 'sigma', not 'time'"),
        ({"first_cut": 0.0}, "first_cut .* not 0 and 0.5"),
        ({"first_cut": 0.6}, "first_cut <= second_cut .* not 0.6 and 0.5"),
        ({"second_cut": 1.0}, "second_cut < 1, not 0.25 and 1"),
        ({"second_cut": float("nan")}, "not 0.25 and nan"),
        ({"cut_by": "sigma"}, "first_cut >= second_cut > 0, not 0.25 and 0.5"),
        ({"cut_by": "sigma", "second_cut": 0.0}, "not 0.25 and 0"),
    ],
)
def test_bad_parameters(wrong, message):
    with pytest.raises(ValueError, match=message):
        HalvingSearch(**wrong)


def test_spec_is_frozen():
    with pytest.raises(FrozenInstanceError):
        HalvingSearch().first_cut = 0.1
