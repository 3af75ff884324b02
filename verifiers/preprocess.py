"""From images as ComfyUI passes them to what a measurement or a model wants."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

# Rec. 601 luma, the weighting of 8-bit pictures as they are (gamma-encoded).
LUMA = (0.299, 0.587, 0.114)
# Pixels of one slice: 64 MB in float32.
SLICE_VALUES = 2**24
SLICE_ROWS = 16


def to_bchw(images: Tensor) -> Tensor:
    """Move the channels of (B, H, W, C) in front: (B, C, H, W), in float32."""
    return images.movedim(-1, -3).float()


def luma(pixels: Tensor) -> Tensor:
    """Return the luma (..., H, W) of pixels (..., 3, H, W): Rec. 601, same range."""
    weights = torch.tensor(LUMA, dtype=pixels.dtype, device=pixels.device)
    return (pixels * weights[:, None, None]).sum(-3)


def slices(images: Tensor) -> Iterator[Tensor]:
    """Cut a batch (B, H, W, C) into slices of at most 16 rows and about 64 MB, in order."""
    rows = max(1, min(SLICE_ROWS, SLICE_VALUES // max(1, images[0].numel())))
    yield from images.split(rows)


def in_halves(work: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return work(images), row by row of (B, ...); in halves, and halves of these, where the device has not the memory."""
    try:
        return work(images)
    except torch.cuda.OutOfMemoryError:
        if len(images) == 1:
            raise
    return torch.cat([in_halves(work, half) for half in images.chunk(2)])
