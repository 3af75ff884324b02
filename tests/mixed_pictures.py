"""Thirty pictures of mixed sizes and aspects, the same in every process and package: photographs, enlarged, and drawings."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

PHOTOS = Path(__file__).resolve().parent / "verifiers" / "fixtures" / "photos.safetensors"
# Height and width: squares, portraits, landscapes, strips, smaller and larger than a tiny model's input.
SIZES = (
    (64, 64), (512, 512), (333, 500), (500, 333), (768, 432), (432, 768), (90, 640), (640, 90), (31, 47), (47, 31),
    (20, 20), (127, 381), (381, 127), (224, 225), (255, 257), (96, 32), (33, 32), (600, 600), (71, 713), (150, 149),
    (448, 320), (320, 448), (17, 200), (200, 17), (100, 101), (832, 480), (480, 832), (350, 700), (62, 124), (13, 9),
)  # fmt: skip


def mixed_pictures() -> list[Tensor]:
    """Return pictures (H, W, 3), uint8, of `SIZES`."""
    photos = load_file(PHOTOS)
    return [_drawing(k, size) if k % 2 else _enlarged(photos[f"photo_{k // 2 % 3}"], size) for k, size in enumerate(SIZES)]


def _enlarged(photo: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarge a photograph by whole factors, without smoothing, and cut the first corner out."""
    times = max(-(-wanted // there) for wanted, there in zip(size, photo.shape[:2], strict=True))
    return photo.repeat_interleave(times, 0).repeat_interleave(times, 1)[: size[0], : size[1]].contiguous()


def _drawing(k: int, size: tuple[int, int]) -> Tensor:
    """Draw checks, rings and stripes in strong colors, whose edges overshoot when they are resized."""
    y, x = torch.arange(size[0])[:, None], torch.arange(size[1])[None]
    checks, stripes = (y // (k + 3) + x // (k + 3)) % 2, ((2 * y + x) // (k + 2)) % 3
    rings = ((y - size[0] // 2) ** 2 + (x - size[1] // 2) ** 2) // (40 * k + 50) % 4
    levels = torch.stack([255 * checks, 127 * stripes, 85 * rings], -1)
    return levels.roll(k, -1).to(torch.uint8)
