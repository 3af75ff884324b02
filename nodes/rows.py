"""Row b of everything a latent batch comes with: search b of a batch of B uses it for all its candidates."""

from __future__ import annotations

import copy
from types import MethodType
from typing import Any

from torch import Tensor

# Conditioning entries that hold one row for each latent of the batch; core repeats them cyclically.
ROW_ENTRIES = ("cross_attn", "pooled_output", "attention_mask", "concat_latent_image", "concat_mask", "mask",
               "noise_augmentation_image", "conditioning_llama3", "guidance")  # fmt: skip


def row_guider(guider: Any, row: int) -> Any:
    """Return the guider with row `row` of all conditioning and control hints; itself if nothing has rows."""
    conds = getattr(guider, "original_conds", None)
    if not conds:
        return guider
    picked = {name: [row_cond(cond, row) for cond in entries] for name, entries in conds.items()}
    if all(a is b for name in conds for a, b in zip(conds[name], picked[name], strict=True)):
        return guider
    return guider_with(guider, picked)


def guider_with(guider: Any, conds: dict[str, list[dict[str, Any]]]) -> Any:
    """Return a copy of the guider with other conditioning; its replaced methods, if any, become the copy's own."""
    clone = copy.copy(guider)
    for name, value in vars(guider).items():
        if is_own(guider, name):
            setattr(clone, name, MethodType(value.__func__, clone))
    clone.original_conds = conds
    return clone


def is_own(guider: Any, name: str) -> bool:
    """Whether what was written over a guider's method is a method of that guider, so that a copy can have it too."""
    value = vars(guider).get(name)
    return isinstance(value, MethodType) and value.__self__ is guider


def row_cond(cond: dict[str, Any], row: int) -> dict[str, Any]:
    """Return a conditioning entry cut to one row; itself if it has no rows."""
    changed = {
        name: value[row % value.shape[0] : row % value.shape[0] + 1]
        for name, value in cond.items()
        if name in ROW_ENTRIES and isinstance(value, Tensor) and value.ndim > 1 and value.shape[0] > 1
    }
    control = cond.get("control")
    if control is not None:
        cut = row_control(control, row)
        if cut is not control:
            changed["control"] = cut
    return {**cond, **changed} if changed else cond


def row_control(control: Any, row: int) -> Any:
    """Return a control (and those chained to it) with one row of its hint; itself if no hint has rows."""
    before = getattr(control, "previous_controlnet", None)
    previous = None if before is None else row_control(before, row)
    hint = getattr(control, "cond_hint_original", None)
    has_rows = isinstance(hint, Tensor) and hint.shape[0] > 1
    if not has_rows and previous is before:
        return control
    clone = control.copy()
    if has_rows:
        clone.cond_hint_original = hint[row % hint.shape[0] : row % hint.shape[0] + 1]
    clone.previous_controlnet = previous
    return clone
