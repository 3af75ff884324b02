"""How many latent rows one model call may hold."""

from __future__ import annotations

from typing import Any

import comfy.model_management as mm

from .sharing import patchers_of

MAX_ROWS = 32  # more rows gain no speed on real models
HEADROOM = 0.85


def rows_that_fit(guider: Any, shape: tuple[int, ...]) -> int:
    """Return how many rows of `shape` fit into one guided call, a power of two from 1 to `MAX_ROWS`.

    ComfyUI evicts other models when a sampling asks for memory, so that all of the device beside this model's
    weights counts.

    Args:
        guider: the user's GUIDER.
        shape: (R, ...) of one candidate's latent, packed if nested.
    """
    patchers = patchers_of(guider)
    device = patchers[0].load_device
    weights = sum({patcher.model: patcher.model_size() for patcher in patchers}.values())
    usable = mm.get_total_memory(device) * HEADROOM - weights - mm.extra_reserved_memory()
    if mm.is_device_cpu(device):
        usable = mm.get_free_memory(device) * HEADROOM
    rows = MAX_ROWS
    while rows > 1 and max(patcher.model.memory_required([rows * 2, *shape[1:]]) for patcher in patchers) > usable:
        rows //= 2
    return rows


def is_oom(error: BaseException) -> bool:
    """Whether an exception means that the device's memory ran out.

    Where torch has no exception of its own for that, ComfyUI takes every `Exception` for it: a cancel still is none.
    """
    if isinstance(error, mm.InterruptProcessingException):
        return False
    known = getattr(mm, "is_oom", None)
    return known(error) if known is not None else isinstance(error, mm.OOM_EXCEPTION)
