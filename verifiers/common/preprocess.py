"""From images as ComfyUI passes them to what a measurement or a model wants."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Rec. 601 luma, the weighting of 8-bit pictures as they are (gamma-encoded).
LUMA = (0.299, 0.587, 0.114)
# Of the pictures that OpenAI's CLIP was trained on; red, green, blue, in [0, 1].
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# Pixels of one slice: 64 MB in float32.
SLICE_VALUES = 2**24
SLICE_ROWS = 16
# What backends without an exception of their own for it, and the CPU, say in lower case.
NO_ROOM = ("out of memory", "not enough memory", "can't allocate memory")


def to_bchw(images: Tensor) -> Tensor:
    """Move the channels of (B, H, W, C) in front: (B, C, H, W), in float32."""
    return images.movedim(-1, -3).float()


def normalized(pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Return pixels (..., C, H, W) less the mean of each channel, over its deviation."""
    return (pixels - pixels.new_tensor(mean)[:, None, None]) / pixels.new_tensor(std)[:, None, None]


def eight_bit(images: Tensor) -> Tensor:
    """Return pictures (..., H, W, C) in [0, 1] as picture files hold them: uint8, rounded, contiguous, on the CPU."""
    return (images.detach().float().clamp(0, 1) * 255).round().to(device="cpu", dtype=torch.uint8).contiguous()


def luma(pixels: Tensor) -> Tensor:
    """Return the luma (..., H, W) of pixels (..., 3, H, W): Rec. 601, same range."""
    weights = torch.tensor(LUMA, dtype=pixels.dtype, device=pixels.device)
    return (pixels * weights[:, None, None]).sum(-3)


def in_slices(work: Callable[[Tensor], Tensor], images: Tensor, most: int = SLICE_ROWS) -> Tensor:
    """Let a model work on a batch slice by slice; where the device has not the memory, on halves of the slice.

    Args:
        work: what the model makes of some rows, (b, ...); it loads the model, with the memory that b rows need.
        images: (B, H, W, C), cut into slices of about 64 MB. Where one was halved, the rest goes on in slices of that size.
        most: rows of a slice.

    Returns:
        The rows (B, ...), float32 on the CPU.

    Raises:
        Exception: a single row is too much for the device: its own out-of-memory error.
    """
    done, rows, found = 0, max(1, min(most, SLICE_VALUES // max(1, images[0].numel()))), []
    while done < len(images):
        part = images[done : done + rows]
        answer = _unless_out_of_memory(work, part)
        if answer is None:
            rows = (len(part) + 1) // 2
            continue
        found.append(answer)
        done += len(part)
    return torch.cat(found)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error means that a device's memory, or the machine's, ran out."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error).lower() for said in NO_ROOM)


def _unless_out_of_memory(work: Callable[[Tensor], Tensor], part: Tensor) -> Tensor | None:
    """Return None where memory ran out; on return, unlike in an except clause, what the failed attempt held is free."""
    try:
        return work(part).float().cpu()
    except Exception as error:
        if len(part) == 1 or not is_out_of_memory(error):
            raise
    return None
