"""Moves between noise, latent and noisy latent that hold for any model sampling (EPS, V, flow, ...).

ComfyUI's `noise_scaling(sigma, noise, latent)` is affine in noise and latent: x = b(sigma) noise + a(sigma) latent.
The coefficients are found by probing it, so that no family of models has to be known here.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def starts_at_maximum(model_sampling: Any, sigma: float) -> bool:
    """Say whether a run from `sigma` starts at the model's largest noise level, as ComfyUI's samplers decide it."""
    largest = float(model_sampling.sigma_max)
    return math.isclose(largest, sigma, rel_tol=1e-05) or sigma > largest


def noise_that_gives(model_sampling: Any, x: Tensor, sigma: Tensor, latent: Tensor) -> Tensor:
    """Return the noise with which a run over [sigma, ...] on `latent` starts at exactly `x`.

    Args:
        model_sampling: the model's sampling object, with `noise_scaling` and `sigma_max`.
        x: noisy latent (R, ...) at `sigma`, in model units.
        sigma: first noise level of the run, 0-d, > 0.
        latent: the latent image (R, ...) in model space that the run will be given.
    """
    at_max = starts_at_maximum(model_sampling, float(sigma))
    a = model_sampling.noise_scaling(sigma, torch.zeros_like(x), latent.clone(), at_max)
    b = model_sampling.noise_scaling(sigma, torch.ones_like(x), latent.clone(), at_max) - a
    return (x - a) / b


def coefficients(model_sampling: Any, sigma: Tensor, like: Tensor) -> tuple[float, float]:
    """Return (alpha, scale) of x = alpha latent + scale noise at `sigma`."""
    zero, one = torch.zeros_like(like).flatten()[:1], torch.ones_like(like).flatten()[:1]
    alpha = model_sampling.noise_scaling(sigma, zero.clone(), one.clone(), False)
    scale = model_sampling.noise_scaling(sigma, one.clone(), zero.clone(), False)
    return float(alpha), float(scale)


def renoise(model_sampling: Any, x: Tensor, sigma_from: Tensor, sigma_to: Tensor, eps: Tensor) -> Tensor:
    """Carry `x` from one noise level up to a higher one by the forward process, keeping the marginals.

    x_to = r x + sqrt(scale_to^2 - (r scale_from)^2) eps,  r = alpha_to / alpha_from.

    Args:
        model_sampling: the model's sampling object.
        x: noisy latent (R, ...) at `sigma_from`.
        sigma_from: present noise level, 0-d, model units.
        sigma_to: wanted noise level, 0-d, >= sigma_from.
        eps: unit Gaussian (R, ...).

    Raises:
        ValueError: `sigma_to` is below `sigma_from`.
    """
    if float(sigma_to) < float(sigma_from):
        raise ValueError(f"renoising goes up in sigma: from {float(sigma_from):g} to {float(sigma_to):g} does not")
    if float(sigma_to) == float(sigma_from):
        return x.clone()  # also where nothing of the picture is left, and r would be 0 / 0
    alpha_from, scale_from = coefficients(model_sampling, sigma_from, x)
    alpha_to, scale_to = coefficients(model_sampling, sigma_to, x)
    r = alpha_to / alpha_from
    return r * x + math.sqrt(max(scale_to**2 - (r * scale_from) ** 2, 0.0)) * eps
