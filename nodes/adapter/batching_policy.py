"""May candidates share model calls? Decided from a table of what was tested; anything else runs alone.

A patch that remembers across calls, takes a mean over the batch or draws global random numbers would change the
images of candidates that share a call. That cannot be read off a function, so every callable that the graph put
into the model must be on the list in `tested`, by file and qualified name.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comfy.hooks
import comfy.utils
import torch
from comfy.patcher_extension import WrappersMP

from .module_code import COMFYUI, foreign_code
from .tested_patches import CALLABLES, GUIDERS, LIMITED, ONE_A_CALL, PATCHERS

# Entries of model options that hold no code to run.
DATA = {"sample_sigmas", "registered_hooks", "to_load_options", "torch_compile_kwargs"}
CONTROLS = {"ControlNet", "ControlLora", "ControlNetSD35", "T2IAdapter"}
COMPILES = ("comfy_api/torch_helpers/torch_compile.py", "apply_torch_compile_factory")  # TorchCompileModel's wrapper
FRAME_MODELS = {"SVD_img2vid", "SV3D_u", "SV3D_p"}


def why_alone(guider: Any) -> list[str]:
    """Return what keeps candidates of this guider from sharing a model call, in words; empty if nothing does.

    Args:
        guider: the user's GUIDER, between samplings.
    """
    reasons = []
    if origin(type(guider)) not in GUIDERS:
        reasons.append(f"guider {type(guider).__qualname__} is not known")
    reasons += _unknown_callables(getattr(guider, "model_options", {}), guider)
    reasons += [f"guider.{name} is replaced" for name in replaced_methods(guider)]
    for patcher in patchers_of(guider):
        reasons += _patcher_reasons(patcher, guider)
    if len(patchers_of(guider)) > 1 and hooks_of(guider):
        reasons.append("hooks are not tested with two models")
    return list(dict.fromkeys(reasons + _cond_reasons(guider)))


def why_one_a_call(guider: Any) -> list[str]:
    """Return what needs model calls of one candidate each, in words; empty if nothing does.

    Args:
        guider: the user's GUIDER, between samplings.
    """
    on_it = [[patcher.model_options, patcher.wrappers] for patcher in patchers_of(guider)]
    found = [(thing, ONE_A_CALL.get(origin(thing))) for thing in callables_in([getattr(guider, "model_options", {}), *on_it])]
    return list(dict.fromkeys(f"patch {_full_name(thing)}: {why}" for thing, why in found if why))


def patchers_of(guider: Any) -> list[Any]:
    """Return the model patchers of a guider: one, or two where the negative prompt goes through a model of its own."""
    second = getattr(guider, "uncond_model_patcher", None)
    return [guider.model_patcher] if second is None else [guider.model_patcher, second]


def _patcher_reasons(patcher: Any, guider: Any) -> list[str]:
    cls, reasons = type(patcher), []
    if not in_comfyui(cls) and pack_origin(cls) not in PATCHERS:
        reasons.append(f"model patcher {cls.__qualname__} is not ComfyUI's")
    reasons += _unknown_callables(patcher.model_options, guider)
    for group in (patcher.wrappers, patcher.callbacks):
        reasons += _unknown_callables(group, guider, "wrapper")
    reasons += [f"object patch '{name}' is not known" for name, value in patcher.object_patches.items()
                if not _plain_object(patcher, name, value)]  # fmt: skip
    if getattr(patcher, "injections", None):
        reasons.append("the model carries injections")
    return reasons + _model_reasons(patcher.model)


def keeps_guidance(guider: Any) -> bool:
    """Whether a guider that begins without guidance is known to go on without it."""
    wrapped = any(patcher.wrappers.get(WrappersMP.PREDICT_NOISE) for patcher in patchers_of(guider))
    return origin(type(guider)) in GUIDERS and not wrapped


def is_compiled(guider: Any) -> bool:
    """Whether torch compiles a guider's model, or a part of it: for every number of rows anew."""
    return any(map(_compiles, patchers_of(guider)))


def _compiles(patcher: Any) -> bool:
    on_it = callables_in([patcher.model_options, patcher.wrappers, patcher.object_patches])
    if any(hasattr(thing, "_orig_mod") or origin(thing) == COMPILES for thing in on_it):
        return True
    return any("_orig_mod" in part._modules or part._compiled_call_impl is not None for part in patcher.model.modules())


def rows_are_frames(guider: Any) -> bool:
    """Whether the rows of a latent are the frames of one video, so that a candidate is all of them."""
    return any(map(_rows_are_frames, patchers_of(guider)))


def _rows_are_frames(patcher: Any) -> bool:
    model = any(cls.__name__ in FRAME_MODELS for cls in type(patcher.model).__mro__)
    animated = hasattr(patcher, "motion_models") or "ADE" in str(list(patcher.wrappers) + list(patcher.attachments))
    return model or animated


def seed_conditions(model: Any) -> bool:
    """Whether the model's conditioning draws from the sampling seed (unCLIP, the SD x4 upscaler)."""
    for cls in type(model).__mro__:
        for name in ("extra_conds", "encode_adm", "concat_cond"):
            code = getattr(cls.__dict__.get(name), "__code__", None)
            if code is not None and "seed" in code.co_consts:
                return True
    return False


def origin(thing: Any) -> tuple[str, str]:
    """Return where a class or callable was written: (file, relative to ComfyUI if in it; outermost name)."""
    file, name = code_name(thing)
    return (file, name.split(".")[0])


def code_name(thing: Any) -> tuple[str, str]:
    """Return where a class or callable was written: (file, relative to ComfyUI if in it; qualified name)."""
    while isinstance(thing, functools.partial):
        thing = thing.func
    thing = getattr(thing, "__func__", thing)
    code = getattr(thing, "__code__", None)
    if code is None and not isinstance(thing, type):
        thing = type(thing)
    file = code.co_filename if code is not None else getattr(sys.modules.get(thing.__module__), "__file__", "") or ""
    return (_relative(file), getattr(thing, "__qualname__", type(thing).__qualname__))


@functools.lru_cache(maxsize=4096)
def _relative(file: str) -> str:
    """Return a file's path, relative to ComfyUI if it is in it; "?" for none."""
    path = Path(file).resolve() if file else Path("?")
    return path.relative_to(COMFYUI).as_posix() if path.is_relative_to(COMFYUI) else str(path)


def in_comfyui(cls: type) -> bool:
    """Whether a class is written in ComfyUI's own library."""
    return origin(cls)[0].startswith("comfy/")


def pack_origin(cls: type) -> tuple[str, str]:
    """Return where a class of another pack was written: (its folder, as cloned or installed, and file; outermost name)."""
    file, name = origin(cls)
    folder = Path(file).parent.name.lower().removesuffix("-main")  # of an archive that was unpacked
    return (f"{folder}/{Path(file).name}", name)


def _unknown_callables(value: Any, guider: Any, what: str = "patch") -> list[str]:
    reasons = []
    for thing in callables_in(value):
        known, limit = origin(thing) in CALLABLES, LIMITED.get(origin(thing))
        why = limit(thing, conditions_of(guider)) if known and limit is not None else ""
        if why or not known:
            reasons.append(f"{what} {_full_name(thing)} may couple candidates" + (f": {why}" if why else ""))
    return reasons


def _full_name(thing: Any) -> str:
    full = getattr(thing, "__qualname__", type(thing).__qualname__)
    return f"{full.replace('.<locals>', '')} ({Path(origin(thing)[0]).name})"


def callables_in(value: Any) -> Iterator[Any]:
    """Yield all in nested containers that is or may hold code: callables, and objects that are no plain data."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in DATA:
                yield from callables_in(inner)
    elif isinstance(value, (list, tuple, set)):
        for inner in value:
            yield from callables_in(inner)
    elif callable(value) or not isinstance(value, (bool, int, float, str, bytes, type(None), torch.Tensor)):
        yield value


def replaced_methods(thing: Any) -> list[str]:
    """Name the methods of a class that foreign code replaced on one of its objects."""
    if not hasattr(thing, "__dict__"):
        return []
    cls = type(thing)
    return [name for name, value in vars(thing).items() if callable(value) and callable(getattr(cls, name, None))]


def _plain_object(patcher: Any, name: str, value: Any) -> bool:
    """Whether an object patch works row by row: a setting, a sampling or latent format, the compiled original."""
    if isinstance(value, (bool, int, float, str, torch.dtype, type(None))):
        return True
    original = getattr(value, "_orig_mod", None)
    if original is not None:
        there = (comfy.utils.get_attr(patcher.model, name), patcher.object_patches_backup.get(name))
        return any(original is module for module in there)
    if name not in ("model_sampling", "latent_format"):
        return False
    classes = [cls for cls in type(value).__mro__ if cls not in (object, torch.nn.Module)]
    return all(origin(cls)[0].startswith(("comfy/", "comfy_extras/")) for cls in classes)


def _model_reasons(model: Any) -> list[str]:
    reasons = []
    if not in_comfyui(type(model)):
        reasons.append(f"model class {type(model).__qualname__} is not ComfyUI's")
    reasons += foreign_code(model)
    if seed_conditions(model):
        reasons.append("the model's conditioning draws from the seed")
    return reasons


def hooks_of(guider: Any) -> list[Any]:
    """Return all hooks on a guider's conditioning, those that its controls bring included."""
    conds = conditions_of(guider)
    groups = [cond.get("hooks") for cond in conds]
    groups += [getattr(control, "extra_hooks", None) for cond in conds for control in controls_of(cond.get("control"))]
    return [hook for group in groups for hook in getattr(group, "hooks", [])]


def conditions_of(guider: Any) -> list[dict[str, Any]]:
    """Return the entries of a guider's conditioning, of all its parts."""
    return [cond for conds in getattr(guider, "original_conds", {}).values() for cond in conds]


def _cond_reasons(guider: Any) -> list[str]:
    controls = [control for cond in conditions_of(guider) for control in controls_of(cond.get("control"))]
    unknown = [c for c in controls if type(c).__name__ not in CONTROLS or not in_comfyui(type(c))]
    reasons = [f"control {type(control).__qualname__} is not known" for control in unknown]
    reasons += [f"hook {type(hook).__qualname__} is not known" for hook in hooks_of(guider) if not _plain_hook(hook)]
    if any("gligen" in cond for cond in conditions_of(guider)):
        reasons.append("GLIGEN is not tested")
    return reasons


def _plain_hook(hook: Any) -> bool:
    """Whether a hook is ComfyUI's own change of weights, with ComfyUI's own keyframes."""
    classes = (comfy.hooks.WeightHook, comfy.hooks.HookKeyframeGroup)
    known = (type(hook), type(hook.hook_keyframe)) == classes
    return known and hook.custom_should_register is comfy.hooks.default_should_register


def controls_of(control: Any) -> Iterator[Any]:
    """Yield a control and those chained to it."""
    while control is not None:
        yield control
        control = getattr(control, "previous_controlnet", None)
