"""Stochastic samplers that keep the marginals of any model: what steering and branching need where the usual samplers
draw no noise, or the wrong amount of it.

A noisy latent is x = alpha(sigma) x0 + scale(sigma) n; the coefficients are found by probing the model's own noise
scaling, so that one formula serves EPS and V models (alpha 1, scale sigma) and flow models (alpha 1 - sigma, scale sigma).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .noise_scaling import coefficients

Callback = Callable[[dict[str, Any]], None] | None
SEEDS = 2**64


def step_noise(x: Tensor, seed: int | None) -> Callable[[], Tensor]:
    """Return what draws unit Gaussian noise like `x`, from its own generator if there is a seed.

    ComfyUI draws a run's first noise from the seed itself on the CPU; the step noise is that of the seed after it.
    """
    if seed is None:
        return lambda: torch.randn_like(x)
    generator = torch.Generator(device=x.device)
    generator.manual_seed((seed + 1) % SEEDS)
    return lambda: torch.randn(x.size(), dtype=x.dtype, layout=x.layout, device=x.device, generator=generator)


def most_fresh_noise(now: tuple[float, float], then: tuple[float, float]) -> float:
    """Return the deviation of the DDPM posterior's noise: e_max = s' sqrt(1 - ((alpha s') / (alpha' s))^2).

    Args:
        now, then: (alpha, scale) of the present and the next, lower noise level.
    """
    (alpha, scale), (alpha_to, scale_to) = now, then
    if alpha_to == 0.0:  # from pure noise to pure noise nothing is forgotten
        return 0.0
    return scale_to * math.sqrt(max(1.0 - ((alpha * scale_to) / (alpha_to * scale)) ** 2, 0.0))


@torch.no_grad()
def sample_ddim_eta(
    model: Any, x: Tensor, sigmas: Tensor, extra_args: dict | None = None, callback: Callback = None,
    disable: bool | None = None, eta: float = 0.5,
) -> Tensor:  # fmt: skip
    """DDIM with `eta` of the DDPM posterior's noise, for any model: a ComfyUI sampler function of one call a step.

    x' = alpha' x0 + sqrt(s'^2 - e^2) n + e eps,  n = (x - alpha x0) / s,  e = eta e_max: the predicted noise shrinks as
    fresh noise comes in, which keeps the marginals. eta 0 is euler; eta 1 is ancestral sampling (for EPS models core's
    euler_ancestral). On flow models core's euler_ancestral injects less at eta 1: 0.460 instead of 0.496 from 0.8 to 0.75.

    Args:
        model: what ComfyUI gives samplers.
        x: noisy latent (R, ...) at sigmas[0].
        sigmas: noise levels (S + 1,), descending, model units.
        eta: from 0 to 1.

    Raises:
        ValueError: eta is out of range.

    References:
        Denoising Diffusion Implicit Models (Song et al., 2021), arXiv 2010.02502
    """
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"'eta' must be in [0, 1], not {eta:g}")
    extra_args = {} if extra_args is None else extra_args
    draw, levels, ones = step_noise(x, extra_args.get("seed")), _Levels(model, x), x.new_ones([x.shape[0]])
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i] * ones, **extra_args)
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised})
        if float(sigmas[i + 1]) == 0.0:
            x = denoised
            continue
        (alpha, scale), (alpha_to, scale_to) = now, then = levels.of(sigmas[i]), levels.of(sigmas[i + 1])
        fresh = eta * most_fresh_noise(now, then)
        x = alpha_to * denoised + math.sqrt(max(scale_to**2 - fresh**2, 0.0)) * (x - alpha * denoised) / scale
        if fresh > 0.0:
            x = x + fresh * draw()
    return x


@torch.no_grad()
def sample_glass(
    model: Any, x: Tensor, sigmas: Tensor, extra_args: dict | None = None, callback: Callback = None,
    disable: bool | None = None, rho: float = 0.4, inner_steps: int = 2,
) -> Tensor:  # fmt: skip
    """GLASS transitions: each step samples the next latent given the present one, by an inner flow of `inner_steps` calls.

    For any correlation rho of the noises the marginals are kept as the inner steps grow; rho 1 is the ODE. The step to 0 is
    one call: M (S - 1) + 1 calls for S steps. The first call of every step is at x and its sigma.

    Args:
        model: what ComfyUI gives samplers.
        x: noisy latent (R, ...) at sigmas[0].
        sigmas: noise levels (S + 1,), descending, model units.
        rho: correlation between the noise now and at the next level, in [0, 1]; 0.4 in the paper.
        inner_steps: M, model calls of a transition.

    Raises:
        ValueError: a parameter is out of range, or the model's noise levels are of an unknown kind.

    References:
        GLASS Flows: Transition Sampling for Alignment of Flow and Diffusion Models (Holderrieth et al., 2025),
            arXiv 2509.25170
    """
    if not 0.0 <= rho <= 1.0:
        raise ValueError(f"'rho' must be in [0, 1], not {rho:g}; 0.4 is the paper's")
    if inner_steps < 1:
        raise ValueError(f"'inner_steps' must be at least 1, not {inner_steps}")
    extra_args = {} if extra_args is None else extra_args
    draw, levels, ones = step_noise(x, extra_args.get("seed")), _Levels(model, x), x.new_ones([x.shape[0]])
    levels.check(sigmas[0])

    def predict(noisy: Tensor, sigma: Tensor) -> Tensor:
        return model(noisy, sigma * ones, **extra_args)

    for i in range(len(sigmas) - 1):
        first = predict(x, sigmas[i])
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": first})
        if float(sigmas[i + 1]) == 0.0:
            x = first
        else:
            x = _glass_step(predict, levels, x, first, sigmas[i], sigmas[i + 1], rho, inner_steps, draw())
    return x


def _glass_step(
    predict: Callable[[Tensor, Tensor], Tensor], levels: _Levels, x: Tensor, denoised: Tensor, sigma: Tensor,
    following: Tensor, rho: float, inner_steps: int, y: Tensor,
) -> Tensor:  # fmt: skip
    """Return x at the next level.

    x' = g x + y1 with g = rho s' / s, where y1 = A1 x0 + S1 n' has A1 = alpha' - g alpha, S1 = s' sqrt(1 - rho^2). The inner
    flow takes y from noise to y1: at time u, A = u A1 and S = (1 - u) + u S1, and x0 is predicted from x and y together:
    two Gaussian observations of x0, as good as one whose squared signal-to-noise ratio is P = alpha^2 / s^2 + A^2 / S^2.

    Args:
        denoised: the prediction at x: what x and y together say while y is all noise.
    """
    (alpha, scale), (alpha_to, scale_to) = levels.of(sigma), levels.of(following)
    g = rho * scale_to / scale
    a1, s1 = alpha_to - g * alpha, scale_to * math.sqrt(1.0 - rho**2)
    for k in range(inner_steps):
        u = k / inner_steps
        a, s = u * a1, (1.0 - u) + u * s1
        if k > 0:
            information = alpha**2 / scale**2 + a**2 / s**2
            level = levels.at(information, sigma)
            both = (alpha * x / scale**2 + a * y / s**2) / information
            denoised = predict(levels.of(level)[0] * both, level)
        y = y + ((s1 - 1.0) / s * (y - a * denoised) + a1 * denoised) / inner_steps
    return g * x + y


class _Levels:
    """A model's noise levels, by sigma and by how much they tell of x0."""

    def __init__(self, model: Any, like: Tensor) -> None:
        self._sampling, self._like = model.inner_model.inner_model.model_sampling, like

    def of(self, sigma: Tensor) -> tuple[float, float]:
        """Return (alpha, scale)."""
        return coefficients(self._sampling, sigma, self._like)

    def at(self, information: float, like: Tensor) -> Tensor:
        """Return the sigma whose squared signal-to-noise ratio is `information`."""
        ratio = 1.0 / math.sqrt(information)  # of noise to signal
        return torch.as_tensor(ratio / (1.0 + ratio) if self._is_flow(like) else ratio).to(like)

    def check(self, sigma: Tensor) -> None:
        """Refuse a model whose sigma is neither the noise-to-signal ratio nor a flow's time."""
        probe = sigma / 2
        alpha, scale = self.of(probe)
        wanted = 1.0 / float(self.at((alpha / scale) ** 2, probe)) * float(probe)
        if not math.isclose(wanted, 1.0, rel_tol=1e-3):
            raise ValueError("sampler: GLASS does not know how this model's noise levels are counted: use the transition 'ddim'")

    def _is_flow(self, sigma: Tensor) -> bool:
        """Whether sigma is a share of noise: x = (1 - sigma) x0 + sigma n."""
        level = sigma * 0 + 0.5
        alpha, scale = self.of(level)
        return math.isclose(alpha, 0.5, rel_tol=1e-3) and math.isclose(scale, 0.5, rel_tol=1e-3)
