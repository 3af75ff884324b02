"""How many latent rows one model call may hold, and how many runs may be under way."""

from __future__ import annotations

import math
from typing import Any, cast

import comfy.model_management as mm
import comfy.samplers
import torch
from comfy.patcher_extension import WrappersMP
from comfy.sampler_helpers import estimate_memory, get_additional_models

from .batching_policy import conditions_of, patchers_of
from .sampler_traits import needs_no_uncond

MAX_ROWS = 32  # more rows gain no speed on real models
HEADROOM = 0.85
LEAST_RUNS = 8
LEAST_HELD = 9  # latents that a suspended run of the plainest sampler holds


class Room:
    """What memory has room for in the searches of one guider.

    Attributes:
        usable: bytes for model calls and for what suspended runs hold, beside the weights; below 0 where these do not fit.
        weights: bytes of the device that weights take, which ComfyUI offloads as far as a call needs the room.
        held: the most bytes that one of them was found to hold.
    """

    def __init__(self, guider: Any, sampler: Any, shape: tuple[int, ...], latent_bytes: int) -> None:
        """Look at what is free now.

        Args:
            guider: the user's GUIDER.
            sampler: the user's SAMPLER.
            shape: (R, ...) of one candidate's latent, packed if nested.
            latent_bytes: of it, as samplers hold it.
        """
        self._guider, self._shape = guider, shape
        self.held = LEAST_HELD * latent_bytes
        self._both = calls_uncond(guider, sampler)
        self.usable, self.weights = usable_bytes(guider)

    def rows(self) -> int:
        """Return how many rows fit into one guided call beside the runs that it serves.

        A power of two from 1 to `MAX_ROWS`.
        """
        rows = MAX_ROWS
        while rows > 1 and self.call_bytes(rows) + rows / self._shape[0] * self.held > self.usable:
            rows //= 2
        return rows

    def runs(self, rows: int) -> int:
        """Return how many runs may be under way beside a call of so many rows.

        At least as many as such a call serves, and `LEAST_RUNS` if they could be held at all: what a call needs is a guess, and
        a run that is let go has to begin anew. Where weights are offloaded anyway, some more of them are.
        """
        spare = self.usable - self.call_bytes(rows)
        spare += self.weights if spare < 0 else 0
        least = min(LEAST_RUNS * self.held, self.usable + self.weights)
        return max(1, rows // self._shape[0], int(max(spare, least) / max(self.held, 1)))

    def call_bytes(self, rows: int) -> float:
        """Return what ComfyUI takes a guided call of so many rows to need, reference latents included."""
        return max(self._of_model(patcher.model, rows) for patcher in patchers_of(self._guider))

    def _of_model(self, model: Any, rows: int) -> float:
        shapes: dict[str, list[list[int]]] = {}
        for name, entries in getattr(self._guider, "original_conds", {}).items():
            for entry in entries if self._both or name != "negative" else ():
                for key, size in model.extra_conds_shapes(**entry).items():
                    shapes.setdefault(key, []).append([size[0] * rows, *size[1:]])
        together = rows * 2 if self._both else rows
        return model.memory_required([together, *self._shape[1:]], cond_shapes=shapes)


def usable_bytes(guider: Any) -> tuple[float, float]:
    """Return the bytes of the device that model calls and suspended runs may fill, and those that the weights take.

    ComfyUI evicts other models when a sampling asks for memory, so that what they hold counts as free. What other programs
    hold does not, nor the weights of the guider's models and controls and what controls need beside these.
    """
    device = guider.model_patcher.load_device
    models, controls = models_and_controls(guider)
    if mm.is_device_cpu(device):
        return _unused_bytes(device) * HEADROOM - controls, 0.0
    weights = sum({patcher.model: patcher.model_size() for patcher in models}.values())
    return free_bytes(device) * HEADROOM - weights - mm.extra_reserved_memory() - controls, weights


def models_and_controls(guider: Any) -> tuple[list[Any], float]:
    """Return the patchers of a guider's models, controls included, and the bytes that controls need beside their weights."""
    patchers = patchers_of(guider)
    models, controls = get_additional_models({"all": conditions_of(guider)}, patchers[0].model_dtype())
    return [*patchers, *models], controls


def asked_bytes(guider: Any, shape: tuple[int, ...]) -> float:
    """Return the bytes beside the weights for which ComfyUI evicts other models before it samples latents (R, ...).

    It takes every call for a guided one of two rows a latent, at cfg 1, too, and counts each reference latent once: another
    estimate than that of what a call needs, `Room.call_bytes`.
    """
    conds = {"all": conditions_of(guider)}
    work = max(estimate_memory(patcher, shape, conds)[0] for patcher in patchers_of(guider))
    return work + models_and_controls(guider)[1]


def free_bytes(device: torch.device) -> float:
    """Return the bytes of a device that are free, or held by models that ComfyUI can evict."""
    held = (one.model_loaded_memory() for one in mm.current_loaded_models if one.device == device and one.model is not None)
    return _unused_bytes(device) + sum(held)


def _unused_bytes(device: torch.device) -> float:
    return cast(float, mm.get_free_memory(device))  # two numbers only for who asks for torch's own, too


def calls_uncond(guider: Any, sampler: Any) -> bool:
    """Whether a guided call takes the model's prediction for the negative prompt, too, as far as ComfyUI's own code tells.

    At cfg 1 it leaves that out, unless a patch or the sampler needs it.
    """
    if "negative" not in (getattr(guider, "original_conds", None) or {"negative": []}):
        return False
    plain = type(guider).predict_noise is comfy.samplers.CFGGuider.predict_noise
    wrapped = any(patcher.wrappers.get(WrappersMP.PREDICT_NOISE) for patcher in patchers_of(guider))  # may raise cfg again
    options = getattr(guider, "model_options", None) or guider.model_patcher.model_options
    patched = options.get("disable_cfg1_optimization", False)
    return wrapped or patched or not (plain and math.isclose(guider.cfg, 1.0) and needs_no_uncond(sampler))


def is_oom(error: BaseException) -> bool:
    """Whether an exception means that the device's memory ran out.

    Where torch has no exception of its own for that, ComfyUI takes every `Exception` for it: a cancel still is none.
    """
    if isinstance(error, mm.InterruptProcessingException):
        return False
    known = getattr(mm, "is_oom", None)
    return known(error) if known is not None else isinstance(error, mm.OOM_EXCEPTION)
