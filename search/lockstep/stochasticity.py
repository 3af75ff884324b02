"""Does a sampler draw noise of its own? Found out by running it twice on a model that predicts nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .model_calls import ModelCall
from .model_options import run_post_cfg
from .trajectory import Trajectory

MOST_CALLS = 1000  # an adaptive sampler may need many, or never end, on a model that predicts nothing


class Probe:
    """A SAMPLER that runs two trajectories of different seeds on zeros; no model call is made.

    Attributes:
        stochastic: whether they parted.
    """

    def __init__(self, one: Trajectory, other: Trajectory) -> None:
        """Prepare the probe of two runs from one noise with different step seeds."""
        self._runs = (one, other)
        self.stochastic = False

    @torch.no_grad()
    def sample(
        self, model_wrap: Any, sigmas: Tensor, extra_args: dict, callback: Any, noise: Tensor,
        latent_image: Tensor | None = None, denoise_mask: Tensor | None = None, disable_pbar: bool = False,
    ) -> Tensor:  # fmt: skip
        """Run both until they part or end; ComfyUI's SAMPLER protocol. Returns zeros, as `noise`."""
        clean = torch.zeros_like(noise) if latent_image is None else latent_image
        try:
            for run in self._runs:
                run.enter(model_wrap, extra_args["model_options"], clean, denoise_mask, noise.dtype)
            for _ in range(MOST_CALLS):
                if self._parted() or any(run.pending is None for run in self._runs):
                    break
                for run in self._runs:
                    run.answer(_nothing(run.request), 0, float(run.request.sigma.flatten()[0]))
            self.stochastic = self._parted()
        finally:
            for run in self._runs:
                run.close()
        return torch.zeros_like(noise)

    def _parted(self) -> bool:
        one, other = (run.rows() if run.pending is None else run.pending.x for run in self._runs)
        return one.shape != other.shape or not torch.equal(one, other)


def _nothing(request: ModelCall) -> Tensor:
    """Answer a model call with zeros, and let the sampler's own post-CFG functions see them: `*_cfg_pp` samplers do."""
    zeros = torch.zeros_like(request.x)
    seen = {
        "denoised": zeros, "cond_denoised": zeros, "uncond_denoised": zeros, "input": request.x, "sigma": request.sigma,
        "cond_scale": 1.0, "model_options": request.options, "model": None, "cond": None, "uncond": None,
    }  # fmt: skip
    return run_post_cfg(request.change.post_cfg, seen) if request.change.post_cfg else zeros
