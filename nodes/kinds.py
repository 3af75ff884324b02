"""What kind of sampler it is: known for ComfyUI's own ones."""

from __future__ import annotations

from typing import Any

import comfy.samplers
from comfy.k_diffusion.sampling import sample_euler, sample_euler_cfg_pp

from ..search.transitions import sample_ddim_eta, sample_glass


def has_fixed_steps(sampler: Any) -> bool:
    """Whether every run of a SAMPLER is known to take the same number of model calls.

    `dpm_adaptive`, `dpm_fast` (its steps are not the user's) and foreign ones have to be measured.
    """
    function = _function(sampler)
    module = getattr(function, "__module__", "") or ""
    known = module.startswith("comfy.") or function in (sample_ddim_eta, sample_glass)
    return known and not is_adaptive(sampler) and "fast" not in function.__name__


def is_adaptive(sampler: Any) -> bool:
    """Whether a SAMPLER chooses its step sizes by what the model predicts."""
    return "adaptive" in getattr(_function(sampler), "__name__", "")


def euler_like(sampler: Any) -> Any:
    """Return euler, with classifier-free guidance and inpainting done as the given sampler does them."""
    name = getattr(_function(sampler), "__name__", "")
    function = sample_euler_cfg_pp if "cfg_pp" in name else sample_euler
    return comfy.samplers.KSAMPLER(function, {}, getattr(sampler, "inpaint_options", {}))


def _function(sampler: Any) -> Any:
    """The function behind ComfyUI's own samplers; None for a SAMPLER of another make."""
    return getattr(sampler, "sampler_function", None)
