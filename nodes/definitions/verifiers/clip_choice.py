"""Where a node's CLIP comes from: two connected encoders, or one file with both."""

from __future__ import annotations

from typing import Any

import folder_paths
from comfy_api.latest import io

from ...weights.clip import CLIP_FOLDER, CLIP_SOURCE, ClipPair, load_clip_pair
from ...weights.files import Wanted, file_path
from ..schema import inp

CONNECTED = "none (use the connected models)"


def clip_inputs() -> list[io.Input]:
    """Return the inputs `clip`, `clip_vision` and `model_name`."""
    return [
        inp(
            io.Clip, "clip", optional=True,
            tooltip="Text encoder, with 'model_name' at none. Must be the partner of 'clip_vision': SD2's CLIP-H or SDXL's CLIP"
            " (its bigG half is used). SD 1.5's CLIP-L has no projection and is refused.",
        ),
        inp(
            io.ClipVision, "clip_vision", optional=True,
            tooltip="Vision encoder, with 'model_name' at none: ViT-H for CLIP-H, ViT-bigG for SDXL's CLIP.",
        ),
        inp(
            io.Combo, "model_name", options=[CONNECTED, *folder_paths.get_filename_list(CLIP_FOLDER)], default=CONNECTED,
            tooltip="A Hugging Face CLIPModel file with both towers, in models/clip_vision. The usual one (and the seed paper's)"
            f" is CLIP-L/14: {CLIP_SOURCE}. Or none: then connect both models.",
        ),
    ]  # fmt: skip


def chosen_pair(wanted: Wanted, model_name: str, clip: Any | None, clip_vision: Any | None) -> ClipPair:
    """Return the towers of the chosen file, or the connected ones.

    Raises:
        ValueError: there are neither or both, or the file is not such a model.
    """
    connected = {"clip": clip is not None, "clip_vision": clip_vision is not None}
    if model_name == CONNECTED and not all(connected.values()):
        lacking = " and ".join(f"'{name}'" for name, there in connected.items() if not there)
        raise ValueError(
            f"{wanted.node}: input 'model_name' is {model_name!r}, and nothing is connected to {lacking}. Connect both, or put"
            f" a file with both towers ({CLIP_SOURCE}) into models/{CLIP_FOLDER} and choose it."
        )
    if model_name == CONNECTED:
        return ClipPair(clip, clip_vision)
    if any(connected.values()):
        given = " and ".join(f"'{name}'" for name, there in connected.items() if there)
        raise ValueError(
            f"{wanted.node}: input 'model_name' is {model_name!r} and {given} is connected too. Disconnect it, or set"
            f" 'model_name' to {CONNECTED!r}."
        )
    return load_clip_pair(file_path(wanted, model_name), wanted)
