"""What a suspended run holds in memory: the latents that can be reached from the frames of its sampler."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import CellType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor

from .guider_stand_in import GuiderStandIn
from .trajectory import Trajectory

MOST_OBJECTS = 20_000  # looked at; a sampler that keeps more than that keeps numbers
PLAIN = (str, bytes, int, float, complex, bool, type(None), type, ModuleType, torch.nn.Module, torch.dtype, torch.device)
GROUPS = (list, tuple, set, frozenset)


def held_bytes(run: Trajectory) -> int:
    """Return the bytes of the latents, and of what is shaped like them, that a suspended run holds; 0 if it holds none.

    Its own predictions and records are among them. What it shares with all runs (the guider, the model) is not looked at, and
    other tensors are not counted: they are small, or parts of the model.
    """
    if run.pending is None:
        return 0
    shape, found = run.pending.x.shape[1:], {}
    seen: set[int] = {id(run)}
    todo = [run.pending.x, run.noise, run.denoised, run.noted, [vars(record) for record in run.records], *_frames(run)]
    while todo and len(seen) < MOST_OBJECTS:
        value = todo.pop()
        if id(value) in seen or type(value) is GuiderStandIn or isinstance(value, PLAIN):
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            if value.ndim >= len(shape) and value.shape[value.ndim - len(shape) :] == shape:
                found[value.data_ptr()] = min(value.nbytes, value.untyped_storage().nbytes())  # others may hold parts of it
        else:
            todo += _parts(value)
    return sum(found.values())


def _frames(run: Trajectory) -> Iterator[Any]:
    """Yield the local variables of a suspended sampler, innermost first."""
    frame: FrameType | None = run.frame
    while frame is not None:
        yield from frame.f_locals.values()
        frame = frame.f_back


def _parts(value: Any) -> list[Any]:
    """Return what an object holds, but for what its type or module does."""
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, GROUPS):
        return list(value)
    if isinstance(value, MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, FunctionType):
        return [*map(_contents, value.__closure__ or ()), *(value.__defaults__ or ())]
    slots = [name for kind in type(value).__mro__ for name in _names(getattr(kind, "__slots__", ()))]
    return [*getattr(value, "__dict__", {}).values(), *(getattr(value, name) for name in slots if hasattr(value, name))]


def _contents(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a variable that is not bound yet
        return None


def _names(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)
