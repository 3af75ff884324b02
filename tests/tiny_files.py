"""Tiny files in the place of those that the examples need, in a test server's folders: verifiers' models, a picture."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from examples import INPUT_PICTURE, TINY_AESTHETIC, TINY_CLIP, TINY_IMAGE_REWARD, TINY_PICK_SCORE
from PIL import Image, ImageDraw
from tiny_clip import make_clip, make_head
from tiny_image_reward import write_model


def write_tiny_files(base: Path) -> None:
    """Write the files that `examples.DEMO_VALUES` names, in the published formats, and the picture to load.

    Args:
        base: the server's base folder (`Server.base`); its folders `models` and `input` are where ComfyUI looks.
    """
    write_input_picture(base)
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


def write_input_picture(base: Path) -> None:
    """Write a picture of the demo's world, 64 pixels square: a green triangle above a red circle."""
    picture = Image.new("RGB", (64, 64), (232, 230, 226))
    pen = ImageDraw.Draw(picture)
    pen.polygon([(32, 5), (18, 29), (46, 29)], fill=(41, 168, 66))
    pen.ellipse((21, 35, 43, 57), fill=(219, 36, 41))
    (base / "input").mkdir(exist_ok=True)
    picture.save(base / "input" / INPUT_PICTURE)
