"""Weights drawn from their names: the same in every process and package, so that no file of them need be kept."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor


def drawn(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """Draw weights for names and shapes as in open_clip's files: float32, on the grid of half precision."""
    return {name: _drawn(name, shape).half().float() for name, shape in shapes.items()}


def _drawn(name: str, shape: list[int]) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    spread = torch.rand(shape, generator=generator) - 0.5
    if not shape:
        return torch.tensor(4.6052)  # logit_scale
    if len(shape) == 1 and name.endswith("weight"):
        return 1 + 0.4 * spread  # of a layer norm
    return 0.4 * spread if len(shape) == 1 else 0.5 * spread
