"""What kind of sampler it is, as far as that is known before it ran: for some of ComfyUI's own."""

from __future__ import annotations

from typing import Any

import comfy.samplers
import torch
from comfy.k_diffusion.sampling import sample_euler, sample_euler_cfg_pp

from ...search.lockstep.samplers import sample_ddim_eta, sample_glass
from .batching_policy import origin

NO_GRAD = torch.no_grad()(len).__code__.co_filename
OWN = (sample_ddim_eta, sample_glass)
# ComfyUI's own whose calls do not follow the user's steps; dpm_fast and dpm_adaptive are closures of `ksampler`.
OTHER_STEPS = {"dpm_fast_function", "dpm_adaptive_function", "sample_dpm_fast", "sample_dpm_adaptive", "sample_ar_video"}


def calls_every_step(sampler: Any) -> bool:
    """Whether a SAMPLER is known, before it ran, to call the model at every one of the user's steps, at its noise level.

    `tests/core/test_lockstep.py` tries all of ComfyUI's own. What others do, candidate 0's run tells.
    """
    function = _function(sampler)
    return function in OWN or (is_core(sampler) and getattr(function, "__name__", "") not in OTHER_STEPS)


def is_core(sampler: Any) -> bool:
    """Whether a SAMPLER's function is written in ComfyUI's own library; most are inside of torch's `no_grad`."""
    function = _function(sampler)
    while getattr(getattr(function, "__code__", None), "co_filename", "") == NO_GRAD and hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return function is not None and origin(function)[0].startswith("comfy/")


def is_adaptive(sampler: Any) -> bool:
    """Whether a SAMPLER is known to choose its step sizes by what the model predicts."""
    return is_core(sampler) and "adaptive" in _function(sampler).__name__


def needs_no_uncond(sampler: Any) -> bool:
    """Whether a SAMPLER is known to do without the prediction for the negative prompt where guidance does: see `*_cfg_pp`."""
    if getattr(sampler, "extra_options", {}).get("cfg_pp"):
        return False
    return (is_core(sampler) or _function(sampler) in OWN) and "cfg_pp" not in _function(sampler).__name__


def euler_like(sampler: Any) -> Any:
    """Return euler, with classifier-free guidance and inpainting done as the given sampler does them."""
    name = getattr(_function(sampler), "__name__", "")
    function = sample_euler_cfg_pp if "cfg_pp" in name else sample_euler
    return comfy.samplers.KSAMPLER(function, {}, getattr(sampler, "inpaint_options", {}))


def _function(sampler: Any) -> Any:
    """The function behind ComfyUI's own samplers; None for a SAMPLER of another make."""
    return getattr(sampler, "sampler_function", None)
