"""Spectral search: exact costs, the cross-entropy method it reduces to, moments, and what it can and cannot find."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import pytest
import torch
from analytic import (
    SEED,
    Constant,
    Layout,
    Listed,
    LowFrequency,
    Quadratic,
    RandomNumbers,
    Stripes,
    best,
    draw,
    mean,
    run,
    statuses,
    winner,
)  # fmt: skip

from noise_search.search.base.budget import StopRules
from noise_search.search.methods import spectral
from noise_search.search.methods.chain import Chain
from noise_search.search.methods.halving import HalvingSearch
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.methods.spectral import SpectralSearch
from noise_search.search.methods.zero_order import ZeroOrderSearch
from noise_search.search.noise import moves
from noise_search.search.noise.moves import low_band, with_low_band
from noise_search.search.noise.proposals import LowFrequencyProposal
from noise_search.search.noise.recipe import GIVEN, Recipe, derived_seed, make_noise

NAN = math.nan
SMALL = SpectralSearch(population=4, elites=3)


def large(seed):
    return torch.randn((1, 4, 64, 64), generator=torch.Generator().manual_seed(seed))


def noise(candidate, draw=draw):
    return make_noise(candidate.recipe, draw)


def elites_of(candidate):
    """What a candidate was drawn from, as seeds; the origin as None."""
    lineage = candidate.recipe.moves[-1].lineage
    return [None if place == 0 else lineage[place - 1].seed for place in lineage[-1].parents] if lineage else []


# Costs


@pytest.mark.parametrize(("images", "rounds"), [(1, []), (2, [1]), (11, [10]), (12, [10, 1]), (36, [10, 10, 10, 5])])
@pytest.mark.parametrize(("steps", "heun"), [(20, False), (7, False), (5, True)])
def test_cost_is_images_times_a_run(images, rounds, steps, heun):
    search = run(SpectralSearch(), images, LowFrequency(), steps=steps, heun=heun, wave=64)
    assert search.budget.nfe == images * (2 * steps - 1 if heun else steps)
    assert search.evaluator.decodes == search.scorer.calls == images
    assert statuses(search) == ["finished"] * images and search.stopped == "" and search.notes == []
    assert [len(r.candidates) for r in search.rounds] == [1, *rounds]
    assert len({c.recipe for c in search.candidates}) == images


@pytest.mark.parametrize(
    ("images", "steps", "draft", "drafts"), [(8, 20, 5, 24), (30, 50, 10, 140), (3, 20, 6, 3), (2, 20, 5, 0)]
)
def test_draft_cost(images, steps, draft, drafts):
    """2 T + n d with n = ((N - 2) T) // d drafts, candidate 0's among them; T + n d if that is the best."""
    for verifier in (Listed(numbers=range(999)), Constant()):
        search = run(SpectralSearch(draft_steps=draft), images, verifier, steps=steps)
        full = 2 if winner(search) else 1
        assert drafts == (images - 2) * steps // draft and (full == 2) == (drafts > 0 and isinstance(verifier, Listed))
        assert search.budget.nfe == full * steps + drafts * draft <= images * steps
        assert search.evaluator.decodes == search.scorer.calls == drafts + full
        assert statuses(search).count("finished") == full


@pytest.mark.parametrize("then", [ZeroOrderSearch(), SpectralSearch(), HalvingSearch(), RandomSearch(draft_steps=4)])
def test_chains_cost_what_their_parts_cost(then):
    search = run(Chain(SMALL, then, 0.5), 16)
    assert search.budget.nfe == 16 * 20
    first = run(SMALL, 8)
    assert [c.recipe for c in search.candidates[:8]] == [c.recipe for c in first.candidates]
    again = run(Chain(then, SMALL, 0.5), 16)
    assert again.budget.nfe == 16 * 20 and best(again) >= max(c.score for c in again.finished.members[:1])


def test_limits_end_it():
    assert run(SMALL, 20, rules=StopRules(max_model_calls=170)).budget.nfe == 160
    assert run(SMALL, 20, Constant(), rules=StopRules(patience=6)).budget.nfe < 13 * 20


# What it does


def cem(images, score, population, elites, floor):
    """The cross-entropy method on whole noises, by itself: noises of all candidates, in order."""
    made = [draw(SEED)]
    while len(made) < images:
        generation = [draw(derived_seed(SEED, len(made) + k)) for k in range(min(population, images - len(made)))]
        if len(made) > 1:
            order = sorted(range(len(made)), key=lambda k: -score(made[k]))[:elites]
            best = torch.stack([made[k].double() for k in sorted(order)])
            mu, var = best.mean(0), best.var(0).clamp(min=floor)
            scale = (mu**2 + var).mean().sqrt()
            generation = [((mu + var.sqrt() * eps.double()) / scale).float() for eps in generation]
        made += generation
    return made


def test_of_the_whole_noise_it_is_the_cross_entropy_method():
    verifier = Quadratic()
    wanted = cem(48, lambda x: float(verifier.values((0.5 + 0.05 * (0.1 + 0.9 * x)).reshape(-1, 4, 4, 3))), 10, 5, 0.1)
    search = run(SpectralSearch(levels=0), 48, Quadratic())
    for candidate, x in zip(search.candidates, wanted, strict=True):
        assert torch.allclose(noise(candidate), x, rtol=0, atol=1e-6)
    assert torch.equal(noise(search.candidates[10]), wanted[10])
    assert max(len(c.recipe.moves[-1].lineage) for c in search.candidates[1:]) > 6


def test_the_high_band_stays():
    search = run(SpectralSearch(levels=2), 40, Layout())
    x = draw(SEED)
    for candidate in search.candidates[1:]:
        y = noise(candidate)
        assert torch.allclose(with_low_band(x, low_band(y, 2), 2).float(), y, atol=1e-6)
        assert candidate.recipe.seed == SEED and candidate.parent == 0
        assert len(candidate.recipe.moves) == 1


def test_elites_are_the_best_of_all_generations_and_the_origin_can_be_one():
    numbers = [5, 1, 4, 2, 3, 0, 6, 0, 0, 0, 0, 0, 0]
    search = run(SMALL, 13, Listed(numbers=numbers))
    seeds = [None, *(c.recipe.moves[-1].seed for c in search.candidates[1:])]
    for candidate in search.candidates[1:5]:
        assert candidate.recipe.moves == LowFrequencyProposal(4).propose(SEED, candidate.index, Recipe(SEED, SEED)).moves
    for candidate in search.candidates[5:9]:
        assert elites_of(candidate) == [None, seeds[2], seeds[4]]
    for candidate in search.candidates[9:13]:
        assert elites_of(candidate) == [None, seeds[2], seeds[6]]


def test_a_candidate_without_a_score_is_no_elite():
    search = run(SMALL, 9, Listed(numbers=[NAN, 1, NAN, 2, NAN, 0, 0, 0, 0]))
    seeds = [None, *(c.recipe.moves[-1].seed for c in search.candidates[1:])]
    assert elites_of(search.candidates[5]) == [seeds[1], seeds[3]]
    search = run(SMALL, 9, Constant(number=NAN))
    assert all(not c.recipe.moves[-1].lineage for c in search.candidates[1:])


@pytest.mark.parametrize("levels", [0, 2, 4])
@pytest.mark.parametrize("verifier", [Layout(), RandomNumbers(), Stripes()])
def test_second_moment_is_one_for_ten_generations(levels, verifier):
    """The recipes of a search say what to draw for any latent."""
    search = run(SpectralSearch(levels=levels), 111, verifier)
    for candidate in search.candidates[::10]:
        x = noise(candidate, large).double()
        assert float(x.square().mean()) == pytest.approx(1.0, abs=0.05)
    lows = [low_band(noise(candidate, large), levels) for candidate in search.candidates[-30:]]
    allowed = 0.05 + 4 * math.sqrt(2 / lows[0].numel() / 5)  # they have five elites' numbers in common
    assert mean([float(low.square().mean()) for low in lows]) == pytest.approx(1.0, abs=allowed)


def test_elites_of_large_norm_do_not_make_large_noise():
    """A verifier that likes loud noise gets none that is louder than noise is."""

    class Loud(Stripes):
        def values(self, images):
            return images.sub(0.5).square().mean((1, 2, 3))

    search = run(SpectralSearch(levels=0), 101, Loud())
    moments = [float(noise(c).square().mean()) for c in search.candidates]
    assert mean(moments[-40:]) == pytest.approx(1.0, abs=0.15)


def test_variance_does_not_collapse():
    search = run(SpectralSearch(levels=0), 101, Quadratic())
    last = torch.cat([noise(c) for c in search.candidates[-10:]])
    assert float(last.var(0).mean()) > 0.05


def test_every_recipe_is_rendered_again_from_its_text():
    search = run(SpectralSearch(levels=2), 60, Layout())
    for candidate in search.candidates:
        again = Recipe.from_json(candidate.recipe.to_json())
        assert again == candidate.recipe and len(candidate.recipe.to_json()) < 3000
        for draws in (draw, large):
            assert torch.equal(make_noise(again, draws), noise(candidate, draws))


def test_a_given_noise_is_its_origin():
    search = run(Chain(RandomSearch(), SMALL), 2)
    search.baseline.recipe = Recipe(GIVEN, 5)
    recipe = LowFrequencyProposal().propose(1, 1, search.baseline.recipe)
    assert recipe.start == GIVEN and recipe.seed == 5


def test_a_lineage_that_no_recipe_could_hold_ends_the_learning(monkeypatch):
    monkeypatch.setattr(spectral, "MAX_LINEAGE", 8)
    monkeypatch.setattr(moves, "MAX_LINEAGE", 8)
    search = run(SMALL, 41, Quadratic())
    assert search.budget.nfe == 41 * 20
    assert max(len(c.recipe.moves[-1].lineage) for c in search.candidates[1:]) <= 8
    assert search.notes == ["spectral search went on without learning more: a recipe could not hold more ancestors"]


# What it finds


def seeds_averaged(method, images, verifier, count=16):
    return mean([best(run(method, images, verifier, seed=seed)) for seed in range(count)])


def test_it_beats_random_search_where_low_frequencies_matter():
    """Paired over seeds, by more than twice the standard error; random search does not beat itself so."""
    method = SpectralSearch(levels=3)
    gains = [best(run(method, 50, Layout(), seed=s)) - best(run(RandomSearch(), 50, Layout(), seed=s)) for s in range(16)]
    error = torch.tensor(gains).std().item() / 4
    assert mean(gains) > 2 * error > 0


def test_it_only_ties_where_high_frequencies_matter():
    """Every candidate is as good as candidate 0: the stripes are in the band that stays."""
    for seed in range(4):
        search = run(SpectralSearch(levels=3), 30, Stripes(), seed=seed)
        assert max(abs(c.score - search.baseline.score) for c in search.candidates) < 1e-4
    assert seeds_averaged(RandomSearch(), 30, Stripes(), 4) > seeds_averaged(SpectralSearch(levels=3), 30, Stripes(), 4) + 0.1
    assert best(run(SpectralSearch(levels=0), 30, Stripes())) > search.baseline.score + 0.1


@pytest.mark.parametrize("verifier", [Layout(), RandomNumbers(), Quadratic()])
def test_the_best_so_far_never_falls(verifier):
    search = run(SpectralSearch(), 40, verifier)
    scores = [told.score for told in search.rounds]
    assert scores == sorted(scores) and scores[-1] == best(search)
    assert winner(search) == max(range(40), key=lambda k: (search.candidates[k].score, -k))


def test_with_its_own_step_noise_a_sampler_is_searched_too():
    """Step seeds stay the origin's: what the low band decides is not drowned."""
    search = run(SpectralSearch(), 20, Layout(), stochastic=True)
    assert {c.recipe.seed for c in search.candidates} == {SEED}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"population": 0}, "'population' must be at least 1, not 0"),
        ({"elites": 1}, "'elites' must be from 2 .* not 1"),
        ({"elites": 33}, "'elites' must be from 2 .* not 33"),
        ({"levels": -1}, "'levels' must be from 0"),
        ({"least_variance": -0.1}, r"'variance_floor' must be in \[0, 1\], not -0.1"),
        ({"least_variance": NAN}, "'variance_floor' must be"),
        ({"draft_steps": -1}, "'draft_steps' must be 0"),
    ],
)
def test_bad_parameters(wrong, message):
    with pytest.raises(ValueError, match=message):
        SpectralSearch(**wrong)


def test_spec_is_frozen():
    with pytest.raises(FrozenInstanceError):
        SpectralSearch().levels = 2
