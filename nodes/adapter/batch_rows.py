"""Row b of everything a latent batch comes with: search b of a batch of B uses it for all its candidates.

ComfyUI's models give row b of a latent batch row b of each conditioning entry, and begin anew where an entry has fewer
rows. So do the searches, also inside lists, dictionaries and CLIP vision outputs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any

import comfy.clip_vision
from torch import Tensor

# Conditioning entries whose tensors hold one row for each row of the latent batch.
ROW_ENTRIES = {
    "attention_mask", "attention_mask_mt5xl", "audio_codes", "audio_embed", "camera_conditions", "clip_vision_output",
    "clip_vision_output_pose", "clip_vision_output_ref", "clip_vision_outputs", "condition", "conditioning_byt5small",
    "conditioning_llama3", "conditioning_lyrics", "conditioning_mt5xl", "conditioning_scale", "context_latents",
    "control_video", "cross_attn", "cross_attn_controlnet", "cross_attn_pose", "degrade_sigma", "driving_mask_28ch",
    "embeds", "face_video_pixels", "guidance", "guide_attention_entries", "keyframe_idxs", "lq_latent", "mask",
    "noise_augmentation_image", "noise_concat", "ofs", "pooled_output", "pose_video_latent", "ref_audio", "ref_latent",
    "ref_mask_28ch", "reference_audio_timbre_latents", "reference_latents", "reference_latents_text_embeds",
    "reference_motion", "stable_cascade_prior", "text_input_ids", "time_conditioning", "time_dim_concat",
    "time_dim_replace", "vace_frames", "vace_mask",
}  # fmt: skip
VECTOR_ENTRIES = {"degrade_sigma", "ofs"}  # of one number a row; all other rows have more dimensions
# Such whose rows core spreads evenly over the batch: two of them over four rows as 0, 0, 1, 1.
SPREAD_ENTRIES = {"concat_image", "concat_latent_image", "concat_mask"}
# The first dimension of their tensors is another: pictures that are all used, points, places.
OTHER_ENTRIES = {"gligen", "proj_feat_pack", "unclip_conditioning"}
OTHER_PREFIX = "trellis2_"

Pick = Callable[[int], "int | None"]  # the row to take of so many; None to leave them


def row_guider(guider: Any, row: int, shape: Sequence[int]) -> Any:
    """Return the guider with one row of all conditioning and control hints; itself if nothing has rows.

    Args:
        guider: the user's GUIDER.
        row: of the latent batch.
        shape: of the whole latent batch, packed if nested.
    """
    conds = getattr(guider, "original_conds", None)
    if not conds:
        return guider
    picked = {name: [row_cond(cond, row, shape) for cond in entries] for name, entries in conds.items()}
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


def row_cond(cond: dict[str, Any], row: int, shape: Sequence[int]) -> dict[str, Any]:
    """Return a conditioning entry cut to one row; itself if it has no rows."""
    cut = {name: _row_of_entry(name, value, row, shape) for name, value in cond.items()}
    changed = {name: value for name, value in cut.items() if value is not cond[name]}
    return {**cond, **changed} if changed else cond


def row_control(control: Any, row: int) -> Any:
    """Return a control (and those chained to it) with one row of its hint; itself if no hint has rows."""
    before = getattr(control, "previous_controlnet", None)
    previous = None if before is None else row_control(before, row)
    hint = getattr(control, "cond_hint_original", None)
    rows = hint if isinstance(hint, Tensor) and hint.shape[0] > 1 and not _hint_is_a_video(control) else None
    if rows is None and previous is before:
        return control
    clone = control.copy()
    if rows is not None:
        own = row % rows.shape[0]
        clone.cond_hint_original = rows[own : own + 1]
        clone.extra_concat_orig = [_cut(extra, lambda rows: own % rows) for extra in getattr(control, "extra_concat_orig", [])]
    clone.previous_controlnet = previous
    return clone


def _row_of_entry(name: str, value: Any, row: int, shape: Sequence[int]) -> Any:
    count = shape[0]
    if name == "control":
        return value if value is None else row_control(value, row)
    if name in OTHER_ENTRIES or name.startswith(OTHER_PREFIX):
        return value
    if name == "mask" and isinstance(value, Tensor) and value.ndim < len(shape) - 1:
        return value  # one mask: of a picture, or the frames of a video
    if name in VECTOR_ENTRIES and isinstance(value, Tensor) and value.ndim == 1:
        return _take(value, len(value), lambda rows: row % rows)
    if name in SPREAD_ENTRIES:
        return _cut(value, lambda rows: _spread(row, rows, count))
    if name in ROW_ENTRIES:
        return _cut(value, lambda rows: row % rows)
    return _cut(value, lambda rows: row if rows == count else None)  # of another pack


def _spread(row: int, rows: int, count: int) -> int:
    """Return which of so many rows core gives to a row of a batch, as `comfy.utils.resize_to_batch_size` does."""
    if count == 1:
        return 0
    place = round(row * (rows - 1) / (count - 1)) if rows > count else math.floor((row + 0.5) * rows / count)
    return min(place, rows - 1)


def _cut(value: Any, pick: Pick) -> Any:
    """Return a value with one row of each tensor in it; itself if none has rows."""
    if isinstance(value, Tensor):
        return _take(value, value.shape[0], pick) if value.ndim > 1 else value
    if type(value) is dict:
        cut = {name: _cut(inner, pick) for name, inner in value.items()}
        return value if all(cut[name] is value[name] for name in value) else cut
    if type(value) in (list, tuple):
        if all(isinstance(inner, (list, tuple)) and _are_numbers(inner) for inner in value):
            return _take(value, len(value), pick)
        inner = [_cut(one, pick) for one in value]
        return value if all(a is b for a, b in zip(value, inner, strict=True)) else type(value)(inner)
    if isinstance(value, comfy.clip_vision.Output):
        cut = _cut(vars(value), pick)
        if cut is vars(value):
            return value
        clone = copy.copy(value)
        vars(clone).update(cut)
        return clone
    return value


def _take(value: Any, rows: int, pick: Pick) -> Any:
    row = pick(rows) if rows > 1 else None
    return value if row is None else value[row : row + 1]


def _are_numbers(values: Sequence[Any]) -> bool:
    return bool(values) and all(isinstance(value, (int, float)) for value in values)


def _hint_is_a_video(control: Any) -> bool:
    """Whether a control's own VAE takes the rows of a hint for the frames of one."""
    vae = getattr(control, "vae", None)
    return getattr(vae, "latent_dim", 2) == 3 and not getattr(vae, "not_video", False)
