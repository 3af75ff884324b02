"""Tiny models in the place of those that the examples' verifiers need, in a test server's model folders."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from examples import TINY_AESTHETIC, TINY_CLIP, TINY_IMAGE_REWARD, TINY_PICK_SCORE
from tiny_clip import make_clip, make_head
from tiny_image_reward import write_model


def write_tiny_files(base: Path) -> None:
    """Write the files that `examples.DEMO_VALUES` names, in the published formats.

    Args:
        base: the server's base folder (`Server.base`); its folder `models` is where ComfyUI looks.
    """
    clip_vision, verifiers = (base / "models" / name for name in ("clip_vision", "verifiers"))
    for folder in (clip_vision, verifiers):
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(make_clip(Path(folder), text_layers=2).path)
        clip.replace(clip_vision / TINY_CLIP)
        pick_score = Path(make_clip(Path(folder), text_layers=24, vision_layers=32, vision_width=64).path)  # as deep as CLIP-H
        pick_score.replace(clip_vision / TINY_PICK_SCORE)
    torch.save(make_head().state_dict(), verifiers / TINY_AESTHETIC)
    write_model(verifiers, TINY_IMAGE_REWARD)
