"""Stochastic transitions keep the marginals: mean, spread and skew of a mixture of Gaussians, whose denoiser is exact.

The formulas of public code that do not are held against the same checks, and fail them.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from test_affine import FAMILIES, level

from noise_search.search.lockstep.noise_scaling import coefficients, renoise
from noise_search.search.lockstep.samplers import sample_ddim_eta, sample_glass, step_noise

WEIGHTS, MEANS, STDS = (0.3, 0.7), (-2.0, 1.2), (0.5, 0.3)
COUNT, STEPS = 60_000, 320
START = {"eps": 14.6, "flow": 0.999, "preserving": 14.6}  # the start is drawn from the true marginal
INSIDE = {"eps": 0.5, "flow": 0.35, "preserving": 0.5}  # a level at which both parts of the mixture are seen


def true_moments() -> tuple[float, float, float]:
    """Mean, standard deviation and skew of the mixture."""
    parts = list(zip(WEIGHTS, MEANS, STDS, strict=True))
    mean = sum(w * m for w, m, _ in parts)
    variance = sum(w * (s**2 + (m - mean) ** 2) for w, m, s in parts)
    third = sum(w * ((m - mean) ** 3 + 3 * (m - mean) * s**2) for w, m, s in parts)
    return mean, math.sqrt(variance), third / variance**1.5


def moments(x: torch.Tensor) -> tuple[float, float, float]:
    mean, std = x.mean(), x.std()
    return float(mean), float(std), float(((x - mean) / std).pow(3).mean())


def error(found, wanted=None) -> float:
    """The largest error of mean, spread and skew, each in units in which 1 is far more than chance and step size explain.

    0.025 spreads of the mean, 1.5 % of the spread, 0.04 of the skew: 6, 5 and 4 standard errors of 60 000 draws.
    """
    wanted = true_moments() if wanted is None else wanted
    off = [abs(a - b) for a, b in zip(found, wanted, strict=True)]
    return max(off[0] / (0.025 * wanted[1]), off[1] / (0.015 * wanted[1]), off[2] / 0.04)


def pictures(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    which = (torch.rand(COUNT, generator=generator) < WEIGHTS[1]).long()
    return torch.tensor(MEANS)[which].double() + torch.tensor(STDS)[which].double() * noise(seed + 1)


def noise(seed: int) -> torch.Tensor:
    return torch.randn(COUNT, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def noised(sampling, sigma: float, seed: int = 1) -> torch.Tensor:
    return sampling.noise_scaling(level(sigma), noise(seed + 10), pictures(seed))


class Model:
    """The exact denoiser of the mixture, as samplers see a model; notes the levels of its calls."""

    def __init__(self, name: str) -> None:
        self.sampling, self.levels = FAMILIES[name], []
        self.inner_model = SimpleNamespace(inner_model=SimpleNamespace(model_sampling=self.sampling))

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, **args) -> torch.Tensor:
        self.levels.append(float(sigma[0]))
        a, b = coefficients(self.sampling, sigma.flatten()[0].double(), x.double())
        logs, means = [], []
        for w, m, s in zip(WEIGHTS, MEANS, STDS, strict=True):
            variance = (a * s) ** 2 + b**2
            logs.append(math.log(w) - 0.5 * (x - a * m) ** 2 / variance - 0.5 * math.log(variance))
            means.append(m + a * s**2 / variance * (x - a * m))
        return (torch.softmax(torch.stack(logs), 0) * torch.stack(means)).sum(0)


def sigmas_for(name: str, steps: int = STEPS) -> torch.Tensor:
    """Even in the logarithm of the noise-to-signal ratio, then 0."""
    top = START[name] / (1 - START[name]) if name == "flow" else START[name]
    ratios = torch.logspace(math.log10(top), -2, steps, dtype=torch.float64)
    levels = ratios / (1 + ratios) if name == "flow" else ratios
    return torch.cat([levels, torch.zeros(1, dtype=torch.float64)])


def run(sampler, name: str, *, steps: int = STEPS, seed: int = 4, **options) -> torch.Tensor:
    sigmas = sigmas_for(name, steps)
    return sampler(Model(name), noised(FAMILIES[name], float(sigmas[0])), sigmas, {"seed": seed}, **options)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", list(FAMILIES))
def test_ddim_eta_keeps_the_marginals(name, eta):
    assert error(moments(run(sample_ddim_eta, name, eta=eta))) < 1.0


@pytest.mark.parametrize("rho", [0.0, 0.4, 0.9])
@pytest.mark.parametrize("name", list(FAMILIES))
def test_glass_keeps_the_marginals(name, rho):
    assert error(moments(run(sample_glass, name, steps=20, rho=rho, inner_steps=40))) < 1.0


@pytest.mark.parametrize("name", list(FAMILIES))
def test_one_glass_transition_keeps_the_marginals(name):
    """From half-way to a lower level: the law there is known."""
    high, low = 2.0 * INSIDE[name] if name != "flow" else 0.6, INSIDE[name]
    x = noised(FAMILIES[name], high)
    sampling, model = FAMILIES[name], Model(name)
    found = sample_glass(model, x, torch.tensor([high, low]).double(), {"seed": 3}, rho=0.4, inner_steps=150)
    assert error(moments(found), moments(noised(sampling, low, seed=50))) < 1.0


def naive_renoise(kind):
    return {
        "x + noise": lambda x, low, high, eps: x + math.sqrt(high**2 - low**2) * eps,
        "x + step of noise": lambda x, low, high, eps: x + (high - low) * eps,
        "flow step": lambda x, low, high, eps: x * (1 - high) / (1 - low) + (high - low) * eps,
    }[kind]


@pytest.mark.parametrize("name", list(FAMILIES))
def test_renoise_keeps_the_marginals(name):
    sampling, low = FAMILIES[name], INSIDE[name]
    x = renoise(sampling, noised(sampling, low), level(low), level(1.6 * low), noise(99))
    assert error(moments(x), moments(noised(sampling, 1.6 * low, seed=50))) < 1.0


@pytest.mark.parametrize("kind", ["x + noise", "x + step of noise", "flow step"])
@pytest.mark.parametrize("name", list(FAMILIES))
def test_naive_renoising_fails(name, kind):
    """`x + noise` is right for EPS models, and for no other."""
    sampling, low = FAMILIES[name], INSIDE[name]
    x = naive_renoise(kind)(noised(sampling, low), low, 1.6 * low, noise(99))
    off = error(moments(x), moments(noised(sampling, 1.6 * low, seed=50)))
    assert off < 1.0 if (name, kind) == ("eps", "x + noise") else off > 2.0


# What public code does


def steps_of(model, x, sigmas, seed):
    """Yield, for every step but the last: x, prediction, both levels with their coefficients, fresh noise; take x back."""
    draw, sampling = step_noise(x, seed), model.sampling
    for here, below in zip(sigmas[:-1], sigmas[1:], strict=True):
        d = model(x, here * torch.ones(1))
        if below == 0:
            x = d
            break
        levels = [*coefficients(sampling, here, x), *coefficients(sampling, below, x)]
        x = yield x, d, float(here), float(below), levels, draw()
    yield x


def with_formula(formula, name):
    sigmas = sigmas_for(name)
    model = Model(name)
    steps = steps_of(model, noised(model.sampling, float(sigmas[0])), sigmas, 4)
    given = next(steps)
    while isinstance(given, tuple):
        given = steps.send(formula(*given))
    return given


def most(a, b, a2, b2):
    return b2 * math.sqrt(1 - (a * b2 / (a2 * b)) ** 2)


def right(x, d, here, below, levels, eps):
    a, b, a2, b2 = levels
    e = 0.7 * most(*levels)
    return a2 * d + math.sqrt(b2**2 - e**2) * (x - a * d) / b + e * eps


def unshrunk(x, d, here, below, levels, eps):
    """Noise on top of the deterministic step: the predicted noise keeps its full share."""
    a, b, a2, b2 = levels
    return a2 * d + b2 * (x - a * d) / b + 0.7 * most(*levels) * eps


def ancestral(x, d, here, below, levels, eps):
    """The ancestral step of EPS models."""
    up = math.sqrt(below**2 * (here**2 - below**2) / here**2)
    down = math.sqrt(below**2 - up**2)
    return x + (x - d) / here * (down - here) + up * eps


def euler_with_noise(x, d, here, below, levels, eps):
    """An Euler-Maruyama step of a flow whose drift is not corrected for the noise."""
    return x + (x - d) / here * (below - here) + 0.7 * math.sqrt(here - below) * eps


def test_the_check_passes_the_right_formula():
    assert all(error(moments(with_formula(right, name))) < 1.0 for name in FAMILIES)
    assert error(moments(with_formula(ancestral, "eps"))) < 1.0


@pytest.mark.parametrize(
    ("formula", "name"),
    [(unshrunk, "eps"), (unshrunk, "flow"), (unshrunk, "preserving"), (ancestral, "flow"), (ancestral, "preserving"),
     (euler_with_noise, "flow")],
)  # fmt: skip
def test_naive_transitions_fail(formula, name):
    assert error(moments(with_formula(formula, name))) > 2.0


# What ComfyUI needs


def test_ddim_eta_in_closed_form():
    """EPS: the ancestral step with eta, as ComfyUI writes it."""
    sigmas, x, draw = level([3.0, 2.0]), torch.linspace(-2, 2, 5).double(), step_noise(torch.zeros(5).double(), 8)
    model = Model("eps")
    found = sample_ddim_eta(model, x, sigmas, {"seed": 8}, eta=0.6)
    up = 0.6 * math.sqrt(4 * (9 - 4) / 9)
    d, down = model(x, torch.tensor([3.0])), math.sqrt(4 - up**2)
    assert torch.allclose(found, x + (x - d) / 3 * (down - 3) + up * draw())


def test_the_first_step_from_pure_noise_forgets_it():
    """Flow at sigma 1, eta 1: the next x holds none of it."""
    sigmas = level([1.0, 0.8])
    one, other = (sample_ddim_eta(Model("flow"), noise(s)[:9], sigmas, {"seed": 8}, eta=1.0) for s in (1, 2))
    mean = sum(w * m for w, m in zip(WEIGHTS, MEANS, strict=True))
    assert torch.allclose(one, other) and torch.allclose(one, 0.2 * mean + 0.8 * step_noise(other, 8)())


def test_eta_0_and_the_same_seed_repeat():
    for sampler, options in ((sample_ddim_eta, {"eta": 0.5}), (sample_glass, {"inner_steps": 2})):
        one, same, other = (run(sampler, "flow", steps=6, seed=seed, **options) for seed in (1, 1, 2))
        assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(*(run(sample_ddim_eta, "flow", steps=6, seed=seed, eta=0.0) for seed in (1, 2)))


def test_step_noise_is_not_the_runs_first_noise():
    """ComfyUI draws that from the seed itself, on the CPU."""
    first = torch.randn(9, generator=torch.Generator().manual_seed(5))
    assert not torch.equal(step_noise(first, 5)(), first)
    assert torch.isfinite(step_noise(first, 2**64 - 1)()).all()
    torch.manual_seed(3)
    want = torch.randn(9)
    torch.manual_seed(3)
    assert torch.equal(step_noise(first, None)(), want)


@pytest.mark.parametrize("name", list(FAMILIES))
@pytest.mark.parametrize("inner", [1, 3])
def test_calls_of_glass(name, inner):
    """M for every step but the last, the first of each at x and sigma themselves; reported once a step."""
    model, sigmas, told = Model(name), sigmas_for(name, 6), []
    sample_glass(model, noised(model.sampling, float(sigmas[0])), sigmas, {}, told.append, inner_steps=inner)
    assert len(model.levels) == 5 * inner + 1
    assert model.levels[::inner] == pytest.approx(sigmas[:-1].tolist())
    assert [t["i"] for t in told] == list(range(6)) and [float(t["sigma"]) for t in told] == sigmas[:-1].tolist()


def test_calls_of_ddim():
    model, sigmas, told = Model("flow"), sigmas_for("flow", 6), []
    sample_ddim_eta(model, noised(model.sampling, float(sigmas[0])), sigmas, {}, told.append)
    assert model.levels == pytest.approx(sigmas[:-1].tolist()) and len(told) == 6


def test_glass_refuses_a_model_whose_levels_it_does_not_know():
    class Odd:
        def noise_scaling(self, sigma, noise, latent, max_denoise=False):
            return latent + sigma**2 * noise

    model = Model("eps")
    model.inner_model.inner_model.model_sampling = Odd()
    with pytest.raises(ValueError, match="use the transition 'ddim'"):
        sample_glass(model, noise(1), level([3.0, 2.0, 0.0]), {})
    assert torch.isfinite(sample_ddim_eta(model, noise(1), level([3.0, 2.0, 0.0]), {})).all()


@pytest.mark.parametrize(
    ("sampler", "wrong", "message"),
    [
        (sample_ddim_eta, {"eta": 1.1}, "'eta' must be in"), (sample_ddim_eta, {"eta": -0.1}, "'eta' must be in"),
        (sample_glass, {"rho": 1.1}, "'rho' must be in"), (sample_glass, {"inner_steps": 0}, "'inner_steps' must be"),
    ],
)  # fmt: skip
def test_bad_parameters(sampler, wrong, message):
    with pytest.raises(ValueError, match=message):
        run(sampler, "flow", steps=3, **wrong)
