"""How a run begins: what its first model call sees of the noise that it is given, and which noise gives a wanted call.

ComfyUI scales the noise to the first noise level, and where there is a mask blends in what the model's own
`scale_latent_inpaint` keeps of the latent: noised for most models, clean or scaled for some. All of it is affine in the noise
and is found by probing, so that no family of models has to be known here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .model_options import Options
from .noise_scaling import noise_that_gives, renoise, starts_at_maximum

BLIND = 1e-6  # of the noise's share in the start of a run: less in a model call tells nothing of it


@dataclass(frozen=True)
class Start:
    """The first model call of a run over `sigmas`.

    Attributes:
        guider: inside its `sample`: it has an `inner_model`.
        sigmas: noise levels of the run (S + 1,), on the device of the latent.
        latent: latent image (R, ...), model space.
        mask: denoise mask (R, ...) or None.
        options: model options; a `denoise_mask_function` in them changes the mask.
    """

    guider: Any
    sigmas: Tensor
    latent: Tensor
    mask: Tensor | None = None
    options: Options = field(default_factory=dict)

    def noise_that_gives(self, x: Tensor) -> Tensor:
        """Return the noise (R, ...) with which the first model call is at exactly `x` (R, ...).

        Where the call sees nothing of the noise, it is the noise with which the sampler itself holds `x`.
        """
        held = self._noise_of_held(x)
        if self.mask is None:
            return held
        zero, one = torch.zeros_like(x), torch.ones_like(x)
        a = self._call(zero)
        b, scale = self._call(one) - a, self._scaled(one) - self._scaled(zero)
        blind = b.abs() <= BLIND * scale.abs()
        return torch.where(blind, held, (x - a) / torch.where(blind, scale, b))

    def noise_that_gives_renoised(self, x: Tensor, sigma: Tensor, eps: Tensor) -> Tensor:
        """Return the noise (R, ...) of a run whose first call is at `x` (R, ...), seen at `sigma`, taken up by `eps` (R, ...).

        The forward process is that of what the sampler holds. Where a model keeps the latent clean around a mask, its
        calls see that in part only.

        Args:
            x: noisy latent that a model call saw.
            sigma: its noise level, 0-d, at most that of this run's start.
            eps: unit Gaussian.
        """
        sampling = self.guider.inner_model.model_sampling
        if self._keeps_noised:
            return self.noise_that_gives(renoise(sampling, x, sigma, self.sigmas[0], eps))
        lower = torch.cat([sigma.reshape(1), self.sigmas[self.sigmas < sigma * (1 - 1e-6)]])
        seen = Start(self.guider, lower, self.latent, self.mask, self.options)
        held = seen._scaled(seen.noise_that_gives(x))
        return self._noise_of_held(renoise(sampling, held, sigma, self.sigmas[0], eps))

    @property
    def _keeps_noised(self) -> bool:
        """Whether what is kept around the mask is the latent noised as the sampler's own, as most models have it."""
        if self.mask is None:
            return True
        noise = torch.ones_like(self.latent)
        own = self.guider.inner_model.model_sampling.noise_scaling(self.sigmas[0], noise, self.latent.clone(), False)
        return bool(torch.allclose(self._kept(own, torch.ones_like(self.latent), self.mask), own, rtol=1e-4, atol=1e-6))

    def _call(self, noise: Tensor) -> Tensor:
        """What the model is called with, as ComfyUI's inpainting blends it."""
        x = self._scaled(noise)
        if self.mask is None:
            return x
        mask = self.mask
        if "denoise_mask_function" in self.options:
            given = {"model": self.guider, "sigmas": self.sigmas}
            mask = self.options["denoise_mask_function"](self._sigma_of_rows, mask, extra_options=given)
        return x * mask + self._kept(x, noise, mask) * (1.0 - mask)

    def _noise_of_held(self, x: Tensor) -> Tensor:
        """Return the noise with which the sampler begins at `x`."""
        return noise_that_gives(self.guider.inner_model.model_sampling, x, self.sigmas[0], self.latent)

    def _scaled(self, noise: Tensor) -> Tensor:
        """What the sampler begins with."""
        sampling = self.guider.inner_model.model_sampling
        at_max = starts_at_maximum(sampling, float(self.sigmas[0]))
        return sampling.noise_scaling(self.sigmas[0], noise.clone(), self.latent.clone(), at_max)

    def _kept(self, x: Tensor, noise: Tensor, mask: Tensor) -> Tensor:
        """What the model keeps of the latent outside of the mask."""
        return self.guider.inner_model.scale_latent_inpaint(
            x=x, sigma=self._sigma_of_rows, noise=noise.clone(), latent_image=self.latent.clone(), denoise_mask=mask
        )

    @property
    def _sigma_of_rows(self) -> Tensor:
        return self.sigmas[0] * self.latent.new_ones([self.latent.shape[0]])
