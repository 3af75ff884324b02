"""Trust-region search: exact costs, random search as its limit, how boxes move and change, and what it finds."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import pytest
import torch
from analytic import (
    Constant,
    Layout,
    Listed,
    LowFrequency,
    Quadratic,
    RandomNumbers,
    best,
    draw,
    mean,
    prepare,
    run,
    said,
    statuses,
    winner,
)  # fmt: skip

from noise_search.search.base.budget import StopRules
from noise_search.search.methods.chain import Chain
from noise_search.search.methods.halving import HalvingSearch
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.methods.spectral import SpectralSearch
from noise_search.search.methods.trust_region import TrustRegionSearch
from noise_search.search.methods.zero_order import ZeroOrderSearch
from noise_search.search.noise.recipe import ZERO, Recipe, make_noise

NAN, INF = math.nan, math.inf
ONE = TrustRegionSearch(regions=1, batch=1, warm_up=0.0)  # a climber


def large(seed):
    return torch.randn((1, 4, 64, 64), generator=torch.Generator().manual_seed(seed))


def sides(search):
    """Side of the box that each candidate was drawn in; None for one of its own."""
    return [c.recipe.moves[-1].amount if c.recipe.moves else None for c in search.candidates]


def parents(search):
    return [c.parent for c in search.candidates]


# Costs


@pytest.mark.parametrize(("images", "rounds"), [(1, []), (2, [1]), (10, [1, 6, 2]), (20, [3, 6, 6, 4]), (31, [5, 6, 6, 6, 6, 1])])
@pytest.mark.parametrize(("steps", "heun"), [(20, False), (7, False), (5, True)])
def test_cost_is_images_times_a_run(images, rounds, steps, heun):
    search = run(TrustRegionSearch(), images, LowFrequency(), steps=steps, heun=heun, wave=64)
    assert search.budget.nfe == images * (2 * steps - 1 if heun else steps)
    assert search.evaluator.decodes == search.scorer.calls == images
    assert statuses(search) == ["finished"] * images and search.stopped == "" and search.notes == []
    assert [len(r.candidates) for r in search.rounds] == [1, *rounds]
    assert sides(search).count(None) == max(1, round(0.2 * images))
    assert len({c.recipe for c in search.candidates}) == images


@pytest.mark.parametrize(
    ("images", "steps", "draft", "drafts"), [(8, 20, 5, 24), (30, 50, 10, 140), (3, 20, 6, 3), (2, 20, 5, 0)]
)
def test_draft_cost(images, steps, draft, drafts):
    """2 T + n d with n = ((N - 2) T) // d drafts, candidate 0's among them; T + n d if that is the best."""
    for verifier in (Listed(numbers=range(999)), Constant()):
        search = run(TrustRegionSearch(draft_steps=draft), images, verifier, steps=steps)
        full = 2 if winner(search) else 1
        assert drafts == (images - 2) * steps // draft and (full == 2) == (drafts > 0 and isinstance(verifier, Listed))
        assert search.budget.nfe == full * steps + drafts * draft <= images * steps
        assert statuses(search).count("finished") == full


@pytest.mark.parametrize("then", [ZeroOrderSearch(), SpectralSearch(), HalvingSearch(), TrustRegionSearch(draft_steps=4)])
def test_chains_cost_what_their_parts_cost(then):
    method = TrustRegionSearch(regions=2, batch=3)
    search = run(Chain(method, then, 0.5), 16)
    assert search.budget.nfe <= 16 * 20 and search.budget.nfe >= 15 * 20
    assert [c.recipe for c in search.candidates[:8]] == [c.recipe for c in run(method, 8).candidates]
    again = run(Chain(then, method, 0.5), 16)
    assert 15 * 20 <= again.budget.nfe <= 16 * 20


def test_limits_end_it():
    assert run(TrustRegionSearch(), 20, rules=StopRules(max_model_calls=170)).budget.nfe == 160
    assert run(TrustRegionSearch(), 30, Constant(), rules=StopRules(patience=6)).budget.nfe < 15 * 20


# Random search as its limit


@pytest.mark.parametrize("images", [1, 7, 24])
@pytest.mark.parametrize("warm_up", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("stochastic", [False, True])
def test_one_region_without_end_is_random_search(images, warm_up, stochastic):
    method = TrustRegionSearch(regions=1, batch=4, warm_up=warm_up, side=INF, side_max=INF)
    got, want = (said(run(m, images, stochastic=stochastic)) for m in (method, RandomSearch()))
    assert got == want


def test_also_several_and_of_noise_that_is_all_zero():
    method = TrustRegionSearch(side=INF, side_max=INF)
    assert said(run(method, 15)) == said(run(RandomSearch(), 15))
    for spec in (TrustRegionSearch(), method):
        search = prepare(15, stochastic=True)
        search.baseline.recipe = Recipe(ZERO, 5)
        if spec is method:
            assert [len(told.candidates) for told in spec.run(search)]
        else:
            with pytest.raises(ValueError, match="neighbors of all-zero noise do not exist"):
                list(spec.run(search))


# Boxes


def test_boxes_are_around_the_best_of_all():
    """Warm-up 0 to 3; then two regions, centred on the best two, three each in turn."""
    numbers = [1, 5, 3, 4, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 8]
    search = run(TrustRegionSearch(regions=2, batch=6, warm_up=0.25), 16, Listed(numbers=numbers))
    assert parents(search) == [None, None, None, None, 1, 3, 1, 3, 1, 3, 6, 1, 6, 1, 6, 1]


def test_regions_take_turns_over_iterations():
    search = run(TrustRegionSearch(regions=3, batch=2, warm_up=0.3), 12, Listed(numbers=[3, 2, 1, 0] + [0] * 8))
    assert parents(search)[4:] == [0, 1, 2, 0, 1, 2, 0, 1]


def test_a_box_grows_after_three_successes_and_shrinks_after_three_failures():
    """Success by success: 0.8 three times, then 1.2 ..., 1.8, 2.4 at most; a failure between resets the count."""
    search = run(ONE, 14, Listed(numbers=range(14)))
    assert sides(search)[1:] == pytest.approx([0.8] * 3 + [1.2] * 3 + [1.8] * 3 + [2.4] * 4)
    assert parents(search)[1:] == list(range(13))
    search = run(ONE, 8, Listed(numbers=[0, 1, 2, -1, 3, 4, 5, 5]))
    assert sides(search)[1:] == pytest.approx([0.8] * 6 + [1.2])
    search = run(ONE, 8, Listed(numbers=[0, -1, -1, 1, 0, 0, 0, 0]))
    assert sides(search)[1:] == pytest.approx([0.8] * 6 + [0.8 / 1.5])
    search = run(ONE, 8, Constant())
    assert sides(search)[1:] == pytest.approx([0.8] * 3 + [0.8 / 1.5] * 3 + [0.8 / 2.25])


def test_a_box_that_gets_too_small_starts_again():
    search = run(TrustRegionSearch(regions=1, batch=1, warm_up=0.0, side_min=0.5), 13, Constant())
    assert sides(search)[1:] == pytest.approx([0.8] * 3 + [0.8 / 1.5] * 3 + [0.8] * 3 + [0.8 / 1.5] * 3)


def test_each_region_has_a_side_of_its_own():
    """The second region's centre is beaten in each of three iterations, the first one's never."""
    numbers = [9, 1, 0, 2, 0, 3, 0, 4, 0, 5]
    search = run(TrustRegionSearch(regions=2, batch=2, warm_up=0.2), 10, Listed(numbers=numbers))
    assert parents(search)[2:] == [0, 1, 0, 3, 0, 5, 0, 7]
    assert sides(search)[2:] == pytest.approx([0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8 / 1.5, 1.2])


def test_one_success_of_a_batch_is_a_success():
    search = run(TrustRegionSearch(regions=1, batch=2, warm_up=0.0), 9, Listed(numbers=[0, 1, 0, 0, 2, 3, 0, 0, 0]))
    assert sides(search)[1:] == pytest.approx([0.8] * 6 + [1.2] * 2)


def test_without_a_score_there_is_the_origin():
    search = run(ONE, 5, Constant(number=NAN))
    assert parents(search) == [None, 0, 0, 0, 0]
    search = run(TrustRegionSearch(regions=2, batch=2, warm_up=0.5), 4, Listed(numbers=[NAN, 1, 0, 0]))
    assert parents(search) == [None, None, 1, 1]  # no region around the one without
    search = run(ONE, 5, Listed(numbers=[NAN, 1, NAN, 2, 0]))
    assert parents(search) == [None, 0, 1, 1, 3]


@pytest.mark.parametrize("verifier", [Layout(), RandomNumbers()])
def test_noise_keeps_its_length_and_step_seed(verifier):
    """For ten steps one after another and more; also for any other latent that the recipes are drawn for."""
    search = run(TrustRegionSearch(side=2.0), 70, verifier)
    deepest = 0
    for candidate in search.candidates[1:]:
        recipe = Recipe.from_json(candidate.recipe.to_json())
        assert recipe == candidate.recipe
        x = make_noise(recipe, draw)
        if candidate.parent is not None:
            pivot = search.candidates[candidate.parent].recipe
            assert recipe.seed == pivot.seed
            assert float(x.norm()) == pytest.approx(float(make_noise(pivot, draw).norm()), rel=1e-6)
        deepest = max(deepest, len(recipe.moves))
    longest = max((c.recipe for c in search.candidates), key=lambda r: len(r.moves))
    assert float(make_noise(longest, large).square().mean()) == pytest.approx(1.0, abs=0.05)
    if isinstance(verifier, Layout):
        assert deepest >= 5


def test_ten_generations_of_boxes_stay_noise():
    search = run(ONE, 12, Listed(numbers=range(12)))
    recipe = search.candidates[-1].recipe
    assert len(recipe.moves) == 11
    x = make_noise(recipe, large).double()
    assert float(x.square().mean()) == pytest.approx(1.0, abs=0.05)
    assert abs(float((x**4).mean()) / float(x.square().mean()) ** 2 - 3) < 0.15


# What it finds


def gains(method, images, verifier, count=12):
    """How much more it finds than random search, by seed."""
    pairs = [(run(method, images, verifier, seed=s), run(RandomSearch(), images, verifier, seed=s)) for s in range(count)]
    return torch.tensor([best(a) - best(b) for a, b in pairs])


@pytest.mark.parametrize("method", [TrustRegionSearch(), ZeroOrderSearch()], ids=["trs", "zo"])
def test_it_beats_random_search_on_a_smooth_objective(method):
    gain = gains(method, 80, Layout())
    assert float(gain.mean()) > 2 * float(gain.std()) / 12**0.5 > 0


def test_it_does_not_where_there_is_nothing_to_follow():
    """The test above can fail: scores by chance."""
    gain = [best(run(TrustRegionSearch(), 40, RandomNumbers(s), seed=s)) for s in range(16)]
    by_chance = [best(run(RandomSearch(), 40, RandomNumbers(s), seed=s)) for s in range(16)]
    assert gain == by_chance


@pytest.mark.parametrize("verifier", [Layout(), RandomNumbers(), Quadratic()])
def test_the_best_so_far_never_falls(verifier):
    search = run(TrustRegionSearch(), 40, verifier)
    scores = [told.score for told in search.rounds]
    assert scores == sorted(scores) and scores[-1] == best(search) == max(c.score for c in search.candidates)


def test_step_noise_does_not_drown_it():
    """With a sampler of which three quarters are its own noise, steps are small only if the step seeds stay."""
    gain = mean([best(run(TrustRegionSearch(), 60, Quadratic(), seed=s, stochastic=True)) for s in range(8)])
    one = mean([best(run(RandomSearch(), 1, Quadratic(), seed=s, stochastic=True)) for s in range(8)])
    assert gain > one
    search = run(TrustRegionSearch(), 40, Quadratic(), stochastic=True)
    assert all(c.recipe.seed == search.candidates[c.parent].recipe.seed for c in search.candidates if c.parent is not None)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"regions": 0}, "'regions' must be at least 1, not 0"),
        ({"batch": 0}, "'batch' must be at least 1, not 0"),
        ({"warm_up": 1.1}, r"'warm_up' must be in \[0, 1\], not 1.1"),
        ({"warm_up": NAN}, "'warm_up' must be"),
        ({"side": 3.0}, "side_min <= side <= side_max, not 0.05, 3 and 2.4"),
        ({"side_min": 0.0}, "0 < side_min"),
        ({"side_min": NAN}, "0 < side_min"),
        ({"side_min": 1e-9}, "side of a box must be"),
        ({"side": INF, "side_max": 1e9}, "side_min <= side <= side_max"),
        ({"side_max": 1e9}, "side of a box must be"),
        ({"draft_steps": -1}, "'draft_steps' must be 0"),
    ],
)
def test_bad_parameters(wrong, message):
    with pytest.raises(ValueError, match=message):
        TrustRegionSearch(**wrong)


def test_spec_is_frozen():
    with pytest.raises(FrozenInstanceError):
        TrustRegionSearch().side = 2
