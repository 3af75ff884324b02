"""Samplers as other packs write them: outside of ComfyUI's own modules, with manners of their own.

foreign("euler")      ComfyUI's own euler, written again
foreign("sizes")      calls the model on every second row and column as well, and on an enlarged latent (Euler-Dy and SMEA do)
foreign("lying")      euler that tells the model a lower noise level in the middle of the schedule (Detail Daemon does)
foreign("churn")      takes noise up before every call, to levels that are not the user's
foreign("blocks")     calls the model on a few frames at a time (ComfyUI 0.33's `sample_ar_video` does)
foreign("chooses")    takes as many steps as the picture needs: runs differ
foreign("settles")    euler that ends as soon as the picture hardly changes: runs differ late
"""

from __future__ import annotations

from typing import Any

from inprocess import boot

boot()

import comfy.samplers
import torch
from torch.nn.functional import interpolate


def slope(x: torch.Tensor, sigma: torch.Tensor, denoised: torch.Tensor) -> torch.Tensor:
    return (x - denoised) / sigma


def called(callback: Any, i: int, x: torch.Tensor, sigma: torch.Tensor, denoised: torch.Tensor) -> None:
    if callback is not None:
        callback({"x": x, "i": i, "sigma": sigma, "sigma_hat": sigma, "denoised": denoised})


@torch.no_grad()
def euler(model, x, sigmas, extra_args=None, callback=None, disable=None, ends=None):
    rows = x.new_ones([x.shape[0]])
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i] * rows, **extra_args)
        called(callback, i, x, sigmas[i], denoised)
        x = x + slope(x, sigmas[i], denoised) * (sigmas[i + 1] - sigmas[i])
        if ends is not None and ends(i, x, denoised):
            return denoised
    return x


def settles(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """Ends two steps early where the picture's first value is above zero."""
    last = len(sigmas) - 4
    return euler(model, x, sigmas, extra_args, callback, ends=lambda i, x, denoised: i == last and denoised.flatten()[0] > 0)


@torch.no_grad()
def at_another_size(model, x, sigma, step, extra_args, size):
    """One euler step on the latent at another size; mask, latent and noise of the inpainting model go along."""
    held = model.latent_image, model.noise
    small, args = interpolate(x, size=size, mode="nearest-exact"), dict(extra_args)
    model.latent_image, model.noise = (interpolate(part, size=size, mode="nearest-exact") for part in held)
    if args.get("denoise_mask") is not None:
        args["denoise_mask"] = interpolate(args["denoise_mask"], size=size, mode="nearest-exact")
    try:
        denoised = model(small, sigma * small.new_ones([small.shape[0]]), **args)
    finally:
        model.latent_image, model.noise = held
    return interpolate(small + slope(small, sigma, denoised) * step, size=x.shape[2:], mode="nearest-exact")


@torch.no_grad()
def sizes(model, x, sigmas, extra_args=None, callback=None, disable=None):
    rows, shape = x.new_ones([x.shape[0]]), x.shape[2:]
    for i in range(len(sigmas) - 1):
        step = sigmas[i + 1] - sigmas[i]
        denoised = model(x, sigmas[i] * rows, **extra_args)
        if i == 1:
            x = x + 0.1 * at_another_size(model, x, sigmas[i], step, extra_args, [side // 2 for side in shape])
        if i == 2:
            x = x + 0.1 * at_another_size(model, x, sigmas[i], step, extra_args, [side * 5 // 4 for side in shape])
        called(callback, i, x, sigmas[i], denoised)
        x = x + slope(x, sigmas[i], denoised) * step
    return x


@torch.no_grad()
def lying(model, x, sigmas, extra_args=None, callback=None, disable=None, inner=euler, share=0.8, first=1):
    known = sigmas.tolist()

    def told(x, sigma, **args):
        index = min(range(len(known)), key=lambda k: abs(known[k] - float(sigma.max())))
        return model(x, sigma * (share if first <= index < len(known) - 2 else 1.0), **args)

    return inner(told, x, sigmas, extra_args=extra_args, callback=callback)


@torch.no_grad()
def churn(model, x, sigmas, extra_args=None, callback=None, disable=None):
    rows = x.new_ones([x.shape[0]])
    for i in range(len(sigmas) - 1):
        up = sigmas[i] * 1.4
        x = x + torch.randn_like(x) * (up**2 - sigmas[i] ** 2) ** 0.5
        denoised = model(x, up * rows, **extra_args)
        called(callback, i, x, sigmas[i], denoised)
        x = x + slope(x, up, denoised) * (sigmas[i + 1] - up)
    return x


@torch.no_grad()
def blocks(model, x, sigmas, extra_args=None, callback=None, disable=None, frames=1):
    """Denoises block after block of frames; at the end of each the model is called once more at 0."""
    rows, out = x.new_ones([x.shape[0]]), torch.zeros_like(x)
    state = {"seen": torch.zeros_like(x)}
    extra_args["model_options"]["transformer_options"]["block_state"] = state
    for first in range(0, x.shape[2], frames):
        part = x[:, :, first : first + frames]
        for i in range(len(sigmas) - 1):
            denoised = model(part, sigmas[i] * rows, **extra_args)
            called(callback, i, part, sigmas[i], denoised)
            part = denoised
            if sigmas[i + 1] > 0:
                torch.manual_seed(extra_args["seed"] + 1000 * first + i)
                part = (1 - sigmas[i + 1]) * denoised + sigmas[i + 1] * torch.randn_like(denoised)
        out[:, :, first : first + frames] = part
        model(part, 0 * rows, **extra_args)
    return out


@torch.no_grad()
def chooses(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """Goes down faster where the slope is small."""
    rows, sigma, i = x.new_ones([x.shape[0]]), sigmas[0], 0
    while float(sigma) > float(sigmas[-2]):
        denoised = model(x, sigma * rows, **extra_args)
        d = slope(x, sigma, denoised)
        called(callback, i, x, sigma, denoised)
        lower = torch.maximum(sigma * (0.5 + 0.3 * torch.sigmoid(20 * (d.square().mean() - 1))), sigmas[-2])
        x, sigma, i = x + d * (lower - sigma), lower, i + 1
    return model(x, sigma * rows, **extra_args)


FUNCTIONS = {
    "euler": euler, "sizes": sizes, "lying": lying, "churn": churn, "blocks": blocks, "chooses": chooses, "settles": settles,
}  # fmt: skip


def foreign(name: str, **options: Any) -> Any:
    """Return a SAMPLER of another pack."""
    return comfy.samplers.KSAMPLER(FUNCTIONS[name], options)
