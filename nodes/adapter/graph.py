"""What the user connected for a search, and latents as nodes hand them on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import comfy.model_management
from torch import Tensor

from ...search.lockstep.rng import RngState

CLEAN = 0.0011  # a last sigma up to this is no leftover noise: uni_pc writes 0.001 over the 0 of the SIGMAS it is given


class LeftoverNoise:
    """A result whose sigmas do not end in 0: what goes on to the next stage, and the picture it promises.

    Attributes:
        samples: the sampler's output, still noisy.
        denoised: the last denoised prediction, which is decoded and scored.
    """

    def __init__(self, samples: Any, denoised: Any) -> None:
        """Hold both, (R, ...) each."""
        self.samples, self.denoised = samples, denoised


def samples_of(latent: Any) -> Any:
    """Return what the sampler put out for a result, leftover noise or not."""
    return latent.samples if isinstance(latent, LeftoverNoise) else latent


@dataclass
class SamplingInputs:
    """What the user connected, for one search.

    Attributes:
        guider, sampler, sigmas: GUIDER, SAMPLER, SIGMAS (S + 1,).
        latent: LATENT dict of the R rows of one candidate, channels repaired.
        noise: the user's NOISE object.
        given: the noise tensor of candidate 0, (R, ...), on the CPU; nested as the latent is.
        given_rng: global random state after that noise was made.
        vae, preview_vae: VAE objects; preview_vae None for the same.
        by_stock: that noise is what stock `prepare_noise` draws for the NOISE's seed.
        row_of_batch: the latent is one row of a larger batch, so that the user's NOISE is not this candidate's.
        by_seed: the noise of other candidates is what the user's NOISE makes at their seeds; else it is Gaussian.
        note: why it is Gaussian, in words; empty if the user's is Gaussian too, or nobody wants to know.
    """

    guider: Any
    sampler: Any
    sigmas: Tensor
    latent: dict[str, Any]
    noise: Any
    given: Any
    given_rng: RngState
    vae: Any
    preview_vae: Any = None
    by_stock: bool = False
    row_of_batch: bool = False
    by_seed: bool = False
    note: str = ""


def to_intermediate(latent: Any) -> Any:
    """Move to where ComfyUI keeps values between nodes, as the stock sampler node does."""
    dtype = getattr(comfy.model_management, "intermediate_dtype", None)
    device = comfy.model_management.intermediate_device()
    moved = latent.to(device) if dtype is None else latent.to(device=device, dtype=dtype())
    return moved if moved.is_nested else moved.clone()
