"""The table of what was tested to leave candidates alone: guiders, patchers, what is patched into models, and what limits that.

Each entry is a file and a qualified name: the file as ComfyUI has it or, of other packs, the last two parts of its path, in
small letters. `tests/core` runs each in lockstep against stock runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

GUIDERS = {
    ("comfy/samplers.py", "CFGGuider"),
    ("comfy_extras/nodes_custom_sampler.py", "Guider_Basic"),
    ("comfy_extras/nodes_custom_sampler.py", "Guider_DualCFG"),
    ("comfy_extras/nodes_custom_sampler.py", "Guider_DualModel"),
}
PATCHERS = {("comfyui-gguf/nodes.py", "GGUFModelPatcher")}  # its layers decode their weights anew in each call
# Row by row, without memory, without random numbers: tested. Not PerpNeg (it projects on the whole batch), nor
# RenormCFG and TemporalScoreRescaling (they fail on more than one row).
CALLABLES = {
    ("comfy_extras/nodes_model_advanced.py", "RescaleCFG"),
    ("comfy_extras/nodes_tcfg.py", "TCFG"),
    ("comfy_extras/nodes_fresca.py", "FreSca"),
    ("comfy_extras/nodes_eps.py", "EpsilonScaling"),
    ("comfy_extras/nodes_pag.py", "PerturbedAttentionGuidance"),
    ("comfy_extras/nodes_sag.py", "SelfAttentionGuidance"),
    ("comfy_extras/nodes_slg.py", "SkipLayerGuidanceDiT"),
    ("comfy_extras/nodes_slg.py", "SkipLayerGuidanceDiTSimple"),
    ("comfy_extras/nodes_freelunch.py", "FreeU"),
    ("comfy_extras/nodes_freelunch.py", "FreeU_V2"),
    ("comfy_extras/nodes_cfg.py", "CFGZeroStar"),
    ("comfy_extras/nodes_cfg.py", "CFGNorm"),
    ("comfy_extras/nodes_custom_sampler.py", "CFGOverride"),
    ("comfy_extras/nodes_differential_diffusion.py", "DifferentialDiffusion"),
    ("comfy_extras/nodes_hypernetwork.py", "load_hypernetwork_patch"),
    ("comfy_extras/nodes_model_downscale.py", "PatchModelAddDownscale"),
    ("comfy_extras/nodes_nag.py", "NAGuidance"),
    ("comfy/context_windows.py", "IndexListContextHandler"),
    ("comfy/context_windows.py", "_prepare_sampling_wrapper"),
    ("comfy_api/torch_helpers/torch_compile.py", "apply_torch_compile_factory"),
}
# Entries that need calls of one candidate each, and why; between the calls they leave no trace.
ONE_A_CALL = {
    ("comfy_extras/nodes_nag.py", "NAGuidance"): "it does nothing where ComfyUI has no room for both prompts of a call together",
    ("comfy/context_windows.py", "IndexListContextHandler"): "its windows cut the noise levels of a call to frames, not to rows",
}
STATELESS_SCHEDULES = ("standard_static", "batched")  # the others go by the number of the last whole step


def _rescales(patch: Any, conditions: list[dict[str, Any]]) -> str:
    return "it takes a mean over the batch" if _variable(patch, "rescaling_scale") else ""


def _drops_out(patch: Any, conditions: list[dict[str, Any]]) -> str:
    layers = (layer for part in patch.hypernet.values() for layer in part.modules())
    return "it draws random numbers (dropout)" if any(isinstance(layer, torch.nn.Dropout) for layer in layers) else ""


def _looks_back(patch: Any, conditions: list[dict[str, Any]]) -> str:
    """Where a negative prompt has a time range, attention of an earlier call is used outside of it."""
    ranged = any("start_percent" in entry or "end_percent" in entry for entry in conditions)
    return "with time ranges in the conditioning it remembers earlier calls" if ranged else ""


def _windows(patch: Any, conditions: list[dict[str, Any]]) -> str:
    if patch.dim == 0:
        return "its windows are of the batch"
    if getattr(patch, "freenoise", False):
        return "FreeNoise shuffles the noise of a run as it begins"
    if patch.callbacks or patch.context_schedule.name not in STATELESS_SCHEDULES:
        return "its windows depend on the step of an earlier call; 'standard_static' ones do not"
    return ""


def _variable(function: Any, name: str) -> Any:
    """Return a variable of the enclosing function that a function uses."""
    return inspect.getclosurevars(function).nonlocals.get(name)


# What an entry is not tested for: given what is patched and all entries of the conditioning, says why; empty for nothing.
LIMITED: dict[tuple[str, str], Callable[[Any, list[dict[str, Any]]], str]] = {
    ("comfy_extras/nodes_slg.py", "SkipLayerGuidanceDiT"): _rescales,
    ("comfy_extras/nodes_hypernetwork.py", "load_hypernetwork_patch"): _drops_out,
    ("comfy_extras/nodes_sag.py", "SelfAttentionGuidance"): _looks_back,
    ("comfy/context_windows.py", "IndexListContextHandler"): _windows,
}
