"""FK steering: exact costs, weights by hand, who is copied, and what lambda 0 leaves alone."""

from __future__ import annotations

import math

import pytest
import torch
from analytic import Constant, LowFrequency, Quadratic, best, mean, run, said, statuses

from noise_search.search.base.budget import StopRules
from noise_search.search.methods.chain import Chain
from noise_search.search.methods.fk_steering import FKSteering, Particle
from noise_search.search.methods.halving import HalvingSearch
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.methods.resampling import effective_size, systematic_resample

NAN, INF = math.nan, math.inf


def steered(images=8, method=None, verifier=None, **more):
    return run(method or FKSteering(ess_threshold=1.0), images, verifier, stochastic=True, **more)


@pytest.mark.parametrize("images", [2, 5, 8, 16])
@pytest.mark.parametrize("steps", [5, 20])
@pytest.mark.parametrize("heun", [False, True])
def test_cost_is_that_of_k_runs(images, steps, heun):
    """Copies answer their first call from the parent's record."""
    search = steered(images, steps=steps, heun=heun)
    run_cost = 2 * steps - 1 if heun else steps
    assert search.budget.nfe == images * run_cost
    assert statuses(search).count("finished") == images
    looks = len(FKSteering().steps(steps))
    assert search.evaluator.decodes == search.scorer.calls == images * (looks + 1)


def test_copies_were_made_and_others_pruned():
    search = steered(16)
    copies = [c for c in search.candidates if c.recipe.cuts]
    assert copies
    assert len(search.candidates) == 16 + len(copies)
    assert statuses(search).count("pruned") == len(copies)
    assert {cut.sigma for c in copies for cut in c.recipe.cuts} <= {search.session.sigmas.tolist()[k - 1] for k in (4, 8, 12, 16)}
    assert all(cut.renoise_to == cut.sigma for c in copies for cut in c.recipe.cuts)


@pytest.mark.parametrize(("total", "steps"), [(20, [4, 8, 12, 16]), (5, [2, 3, 4]), (3, [2]), (2, [])])
def test_steps(total, steps):
    assert FKSteering().steps(total) == steps


def test_steps_of_one_time():
    assert FKSteering(first=0.5, last=0.9, times=1).steps(20) == [10]


def test_candidate_0_is_never_resampled_away():
    for seed in range(5):
        search = steered(8, verifier=Quadratic(seed=seed + 50), seed=seed)
        assert search.baseline.status == "finished"
        assert search.baseline.nfe == 20


def test_lambda_0_resamples_nothing():
    """All weights are equal, so the effective size is k: it is random search."""
    search = steered(8, FKSteering(lam=0.0))
    assert not [c for c in search.candidates if c.recipe.cuts]
    plain = run(RandomSearch(), 8, stochastic=True)
    assert [c.recipe for c in search.candidates] == [c.recipe for c in plain.candidates]
    assert said(search)["order"] == said(plain)["order"]


def test_lambda_0_leaves_the_marginals_alone_even_if_it_resamples():
    """Mean and variance of all finished latents over 60 seeds; copies of an ancestor are no smaller in spread."""
    latents = []
    for seed in range(60):
        search = steered(8, FKSteering(lam=0.0, ess_threshold=1.0), seed=1000 + seed)
        latents += [c.latent for c in search.candidates if c.status == "finished"]
    values = (torch.cat(latents) - 0.1) / 0.9
    count = len(latents) // 2  # copies share much: fewer independent ones than there are
    assert abs(float(values.mean())) < 4 / math.sqrt(count * values.shape[1])
    assert abs(float(values.var()) - 1.0) < 4 * math.sqrt(2 / (count * values.shape[1]))


def test_steering_raises_the_mean_of_the_population():
    """What resampling is for: over 20 seeds the particles, not only the best of them, score higher than unsteered ones."""

    def population(method, seed):
        search = run(method, 8, LowFrequency(), stochastic=True, seed=seed, blur=0.2)
        return mean([c.score for c in search.candidates if c.status == "finished"])

    ours = mean([population(FKSteering(), s) for s in range(20)])
    plain = mean([population(RandomSearch(), s) for s in range(20)])
    assert ours > plain + 0.3


def test_beats_random_search_on_a_smooth_objective():
    ours = mean([best(run(FKSteering(), 16, LowFrequency(), stochastic=True, seed=s, blur=0.2)) for s in range(30)])
    plain = mean([best(run(RandomSearch(), 16, LowFrequency(), stochastic=True, seed=s)) for s in range(30)])
    assert ours > plain


@pytest.mark.parametrize(
    ("potential", "weights"),
    [("max", [2 * 1.0, 2 * (1.0 + 1.0), 2 * (1.0 + 1.0 + 3.0)]), ("difference", [2 * 1.0, 2 * 0.5, 2 * 3.0]),
     ("sum", [2 * 1.0, 2 * (1.0 + 1.5), 2 * (1.0 + 1.5 + 4.5)])],
)  # fmt: skip
def test_potentials_by_hand(potential, weights):
    """Rewards 1, 0.5, 3 at lambda 2; log-weights are carried on while nothing is resampled."""
    particle, method = Particle(None), FKSteering(potential=potential, lam=2.0)
    for reward, weight in zip([1.0, 0.5, 3.0], weights, strict=True):
        method.weigh(particle, reward)
        assert particle.log_weight == pytest.approx(weight)


def test_max_starts_at_the_first_reward_not_at_zero():
    particle = Particle(None)
    FKSteering(potential="max", lam=1.0).weigh(particle, -5.0)
    assert particle.log_weight == -5.0


def test_nan_weighs_nothing_and_stays_so():
    particle = Particle(None)
    for reward in (1.0, NAN, 2.0):
        FKSteering(potential="difference", lam=1.0).weigh(particle, reward)
    assert particle.log_weight == -INF


def test_huge_scores_do_not_overflow():
    class Huge(LowFrequency):
        def values(self, images):
            return 1e30 * super().values(images)

    search = steered(8, FKSteering(normalize=False, ess_threshold=1.0), Huge())
    assert statuses(search).count("finished") == 8


def test_normalized_scores_make_lambda_mean_the_same():
    class Scaled(LowFrequency):
        def values(self, images):
            return 64.0 * super().values(images)

    one, other = steered(16, verifier=LowFrequency()), steered(16, verifier=Scaled())
    assert [c.recipe for c in one.candidates] == [c.recipe for c in other.candidates]
    raw = FKSteering(normalize=False, ess_threshold=1.0, lam=0.1)
    one, other = steered(16, raw, LowFrequency()), steered(16, raw, Scaled())
    assert [c.recipe for c in one.candidates] != [c.recipe for c in other.candidates]


def test_all_scores_equal_or_none_at_all():
    assert statuses(steered(4, FKSteering(), Constant())).count("finished") == 4
    assert statuses(steered(4, FKSteering(), Constant(number=NAN))).count("finished") == 4


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_resampling_is_skipped_above_the_threshold(threshold):
    search = steered(8, FKSteering(ess_threshold=threshold, lam=1e-3), LowFrequency())
    assert not [c for c in search.candidates if c.recipe.cuts]


def test_deterministic_sampler_is_refused():
    with pytest.raises(ValueError, match=r"draws no noise .* 'renoise' to 1"):
        run(FKSteering(), 8)


@pytest.mark.parametrize("images", [4, 8, 16])
def test_renoised_copies_stay_in_the_budget(images):
    """A copy at l is taken one step up: R + c(u, l) = 2 calls more, at four levels in the worst case."""
    search = run(FKSteering(renoise=1, ess_threshold=1.0), images, LowFrequency())
    copies = [c for c in search.candidates if c.recipe.cuts]
    count = 1 + ((images - 1) * 20) // (20 + 4 * 2)
    fresh = (images * 20 - count * 20 - 2 * len(copies)) // 20  # what copies left over
    assert search.budget.nfe == (count + fresh) * 20 + 2 * len(copies) <= images * 20
    assert statuses(search).count("finished") == count + fresh
    assert all(cut.renoise_to == pytest.approx(cut.sigma + 0.05) for c in copies for cut in c.recipe.cuts[-1:])


def test_limits():
    search = steered(16, rules=StopRules(max_model_calls=100))
    assert search.budget.nfe <= 100
    assert search.baseline.status == "finished"
    assert statuses(search).count("finished") == 5


def test_in_a_chain():
    search = run(Chain(RandomSearch(), FKSteering(ess_threshold=1.0)), 16, stochastic=True)
    assert search.budget.nfe == 16 * 20
    both = run(Chain(FKSteering(), HalvingSearch()), 16, stochastic=True)
    assert both.budget.nfe <= 16 * 20


def test_where_runs_cannot_be_looked_at():
    search = steered(6, looks_halfway=False, why_alone=["a patch"])
    assert search.notes == ["FK steering became random search at the same cost: a patch"]
    assert search.budget.nfe == 120


def test_the_same_answer_twice():
    assert said(steered(8)) == said(steered(8))


@pytest.mark.parametrize(
    "settings",
    [{"potential": "min"}, {"lam": -1.0}, {"lam": NAN}, {"first": 0.0}, {"last": 1.0}, {"first": 0.9, "last": 0.8},
     {"times": 0}, {"ess_threshold": 1.5}, {"renoise": -1}],
)  # fmt: skip
def test_bad_settings(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        FKSteering(**settings)


def test_effective_size():
    assert effective_size([0.0] * 4) == pytest.approx(4.0)
    assert effective_size([0.0, -INF, -INF]) == pytest.approx(1.0)
    assert effective_size([math.log(3), 0.0]) == pytest.approx(1 / (0.75**2 + 0.25**2))
    assert effective_size([1e6, 1e6]) == pytest.approx(2.0)
    assert effective_size([-INF, -INF]) == pytest.approx(2.0)


@pytest.mark.parametrize("u", [0.0, 0.3, 0.999])
@pytest.mark.parametrize("count", [1, 3, 8])
def test_systematic_offspring_are_floor_or_ceil(u, count):
    weights = [0.05, 0.4, 0.0, 0.25, 0.3]
    offspring = systematic_resample([math.log(w) if w else -INF for w in weights], count, u)
    assert sum(offspring) == count
    for got, weight in zip(offspring, weights, strict=True):
        assert math.floor(count * weight + 1e-9) <= got <= math.ceil(count * weight - 1e-9)


def test_systematic_offspring_by_hand():
    """Positions (u + j) / 4 = .05 .3 .55 .8 in the cumulated weights .1 .6 1."""
    assert systematic_resample([math.log(w) for w in (0.1, 0.5, 0.4)], 4, 0.2) == [1, 2, 1]
    assert systematic_resample([math.log(w) for w in (0.1, 0.5, 0.4)], 4, 0.5) == [0, 2, 2]


def test_systematic_offspring_are_unbiased():
    weights = [0.1, 0.25, 0.65]
    draws = [systematic_resample([math.log(w) for w in weights], 3, (k + 0.5) / 1000) for k in range(1000)]
    for place, weight in enumerate(weights):
        assert mean([d[place] for d in draws]) == pytest.approx(3 * weight, abs=2e-3)


@pytest.mark.parametrize("steps", [5, 8, 20])
def test_renoised_copies_are_never_twins(steps):
    """At the first noise level there is nothing to be renoised to: no look is made there."""
    search = run(FKSteering(renoise=1, ess_threshold=1.0), 12, steps=steps)
    ends = [c for c in search.candidates if c.status == "finished"]
    assert len({tuple(c.latent.flatten().tolist()) for c in ends}) == len(ends) > 1
    assert all(cut.renoise_to > cut.sigma for c in search.candidates for cut in c.recipe.cuts)


@pytest.mark.parametrize("potential", ["max", "sum", "difference"])
def test_a_look_without_scores_is_forgotten(potential):
    class Once(Quadratic):
        def values(self, images):
            first = self.pictures - len(images)
            return torch.where(torch.arange(first, self.pictures) < 8, NAN, super().values(images))

    search = steered(8, FKSteering(potential, ess_threshold=1.0), Once(), wave=64)
    assert sum(bool(c.recipe.cuts) for c in search.candidates) > 8


def test_a_chain_whose_rest_pays_for_no_copies():
    search = run(Chain(RandomSearch(), FKSteering(renoise=1), 0.8), 5)
    assert search.budget.nfe == 100 and statuses(search) == ["finished"] * 5


def test_one_image_is_the_users_own():
    assert said(steered(1)) == said(run(RandomSearch(), 1, stochastic=True))
