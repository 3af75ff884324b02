"""Moves between noise, latent and noisy latent: closed forms, and marginals by moments."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from noise_search.search.lockstep.noise_scaling import coefficients, noise_that_gives, renoise, starts_at_maximum
from noise_search.search.lockstep.run_start import Start


class Eps:
    """x = latent + sigma noise; at the largest sigma the noise has the variance of the whole."""

    sigma_max = torch.tensor(14.6)

    def noise_scaling(self, sigma, noise, latent, max_denoise=False):
        noise = noise * (torch.sqrt(1.0 + sigma**2) if max_denoise else sigma)
        noise += latent
        return noise


class Flow:
    """x = (1 - sigma) latent + sigma noise."""

    sigma_max = torch.tensor(1.0)

    def noise_scaling(self, sigma, noise, latent, max_denoise=False):
        return sigma * noise + (1.0 - sigma) * latent


class Preserving:
    """x = cos(t) latent + sin(t) noise, sigma = tan(t): a family that no formula was written for."""

    sigma_max = torch.tensor(50.0)

    def noise_scaling(self, sigma, noise, latent, max_denoise=False):
        return (latent + sigma * noise) / torch.sqrt(1.0 + sigma**2)


FAMILIES = {"eps": Eps(), "flow": Flow(), "preserving": Preserving()}
LEVELS = {"eps": (0.3, 2.0, 14.6), "flow": (0.2, 0.6, 1.0), "preserving": (0.3, 2.0, 50.0)}
PAIRS = [(name, low, high) for name, at in LEVELS.items() for low, high in ((at[0], at[1]), (at[0], at[2]), (at[1], at[2]))]
MEAN, STD, COUNT = 0.7, 0.5, 400_000


def level(value):
    return torch.tensor(value, dtype=torch.float64)


def gaussian(seed, count=COUNT):
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def marginal(sampling, sigma):
    """Mean and variance of a Gaussian picture, noised to `sigma`, in closed form."""
    alpha, scale = coefficients(sampling, level(sigma), torch.zeros(1, dtype=torch.float64))
    return alpha * MEAN, (alpha * STD) ** 2 + scale**2


def deviations(x, mean, variance):
    """How many standard errors the mean and the variance of samples are off."""
    n = x.numel()
    off_mean = float(x.mean() - mean) / math.sqrt(variance / n)
    off_variance = float(x.var() - variance) / (variance * math.sqrt(2.0 / n))
    return abs(off_mean), abs(off_variance)


def noised(sampling, sigma):
    """Samples of the Gaussian picture, noised to `sigma`."""
    return sampling.noise_scaling(level(sigma), gaussian(1), MEAN + STD * gaussian(2))


@pytest.mark.parametrize("name,low,high", PAIRS)
def test_renoise_keeps_the_marginals(name, low, high):
    sampling = FAMILIES[name]
    x = renoise(sampling, noised(sampling, low), level(low), level(high), gaussian(3))
    assert max(deviations(x, *marginal(sampling, high))) < 5.0


@pytest.mark.parametrize("name,low,high", PAIRS)
def test_renoise_in_closed_form(name, low, high):
    """x_to = r x + c eps with r alpha_from = alpha_to and (r scale_from)^2 + c^2 = scale_to^2."""
    sampling, one, zero = FAMILIES[name], torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    r = float(renoise(sampling, one, level(low), level(high), zero))
    c = float(renoise(sampling, zero, level(low), level(high), one))
    (alpha_from, scale_from), (alpha_to, scale_to) = (coefficients(sampling, level(s), zero) for s in (low, high))
    assert math.isclose(r * alpha_from, alpha_to, rel_tol=1e-12, abs_tol=1e-12)
    assert math.isclose((r * scale_from) ** 2 + c**2, scale_to**2, rel_tol=1e-12)


NAIVE = {
    "sqrt(delta)": lambda x, low, high, eps: x + math.sqrt(high - low) * eps,
    "sqrt(delta of squares)": lambda x, low, high, eps: x + math.sqrt(high**2 - low**2) * eps,
    "delta": lambda x, low, high, eps: x + (high - low) * eps,
    "flow step": lambda x, low, high, eps: x * (1 - high) / (1 - low) + (high - low) * eps,
}
RIGHT = {("eps", "sqrt(delta of squares)")}  # the one naive formula that is right for one family


@pytest.mark.parametrize("formula", list(NAIVE))
@pytest.mark.parametrize("name", list(FAMILIES))
def test_naive_formulas_fail_the_same_check(name, formula):
    sampling, (low, high, _) = FAMILIES[name], LEVELS[name]
    x = NAIVE[formula](noised(sampling, low), low, high, gaussian(3))
    worst = max(deviations(x, *marginal(sampling, high)))
    assert worst < 5.0 if (name, formula) in RIGHT else worst > 20.0


@pytest.mark.parametrize("name", list(FAMILIES))
def test_renoise_forgets_as_the_forward_process_does(name):
    """The covariance with the start is r times its variance: a fresh picture at the level would have none."""
    sampling, (low, high, _) = FAMILIES[name], LEVELS[name]
    x = noised(sampling, low)
    y = renoise(sampling, x, level(low), level(high), gaussian(3))
    r = coefficients(sampling, level(high), x)[0] / coefficients(sampling, level(low), x)[0]
    covariance = float(((x - x.mean()) * (y - y.mean())).mean())
    assert math.isclose(covariance, r * float(x.var()), rel_tol=0.02)


def test_renoise_to_pure_noise():
    """Flow at sigma 1 holds nothing of the picture: the noise alone."""
    x, eps = gaussian(1, 100), gaussian(2, 100)
    assert torch.equal(renoise(Flow(), x, level(0.5), level(1.0), eps), eps)


@pytest.mark.parametrize("name,sigma", [(name, sigma) for name, levels in LEVELS.items() for sigma in levels])
def test_renoise_to_the_same_level_is_nothing(name, sigma):
    x = gaussian(1, 100)
    assert torch.equal(renoise(FAMILIES[name], x, level(sigma), level(sigma), gaussian(2, 100)), x)


def test_renoise_only_goes_up():
    with pytest.raises(ValueError, match="goes up in sigma: from 2 to 1 does not"):
        renoise(Eps(), gaussian(1, 10), level(2.0), level(1.0), gaussian(2, 10))


def test_nothing_is_written_to_the_arguments():
    """ComfyUI's EPS adds the latent in place."""
    x, latent = gaussian(1, 100), gaussian(2, 100)
    before = x.clone(), latent.clone()
    noise_that_gives(Eps(), x, level(2.0), latent)
    renoise(Eps(), x, level(2.0), level(3.0), latent)
    assert torch.equal(x, before[0]) and torch.equal(latent, before[1])


@pytest.mark.parametrize("name,sigma", [(name, sigma) for name, levels in LEVELS.items() for sigma in levels])
@pytest.mark.parametrize("shape", [(1, 4, 8, 8), (2, 16, 3, 4, 4), (1, 1, 50)])
def test_the_noise_that_gives_x(name, sigma, shape):
    sampling, count = FAMILIES[name], math.prod(shape)
    x, latent = 4.0 * gaussian(1, count).reshape(shape), gaussian(2, count).reshape(shape)
    noise = noise_that_gives(sampling, x, level(sigma), latent)
    start = sampling.noise_scaling(level(sigma), noise.clone(), latent, starts_at_maximum(sampling, sigma))
    assert torch.allclose(start, x, rtol=1e-12, atol=1e-12)


def guider_of(sampling, kept=None):
    """A guider inside its `sample`, whose model keeps the noised latent around a mask, or what `kept` gives."""

    def scale_latent_inpaint(x, sigma, noise, latent_image, denoise_mask):
        if kept is not None:
            return kept(sigma, latent_image)
        return sampling.noise_scaling(sigma[0], noise, latent_image)

    return SimpleNamespace(inner_model=SimpleNamespace(model_sampling=sampling, scale_latent_inpaint=scale_latent_inpaint))


@pytest.mark.parametrize("edge", ["hard", "soft"])
@pytest.mark.parametrize("sigma", [14.6, 2.0])
def test_the_noise_that_gives_what_the_first_call_sees_around_a_mask(sigma, edge):
    """Outside of the mask the call sees the latent noised without the maximum's scale: the noise is found for both."""
    x, latent, n = Eps(), gaussian(2, 100), gaussian(3, 100)
    mask = torch.linspace(0, 1, 100, dtype=torch.float64)
    mask = mask.round() if edge == "hard" else mask

    def first_call(noise):
        start = x.noise_scaling(level(sigma), noise, latent, starts_at_maximum(x, sigma))
        return start * mask + x.noise_scaling(level(sigma), noise, latent) * (1 - mask)

    found = Start(guider_of(x), torch.stack([level(sigma), level(0.0)]), latent, mask).noise_that_gives(first_call(n))
    assert torch.allclose(found, n, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sigma,at_max", [(14.6, True), (14.60001, True), (20.0, True), (14.59, False), (1.0, False)])
def test_where_a_run_starts_at_the_maximum(sigma, at_max):
    assert starts_at_maximum(Eps(), sigma) == at_max
