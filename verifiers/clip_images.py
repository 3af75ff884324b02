"""Image embeddings by ComfyUI's CLIP_VISION objects; those of an encoder's last batch are kept.

The verifiers of an ensemble are given the same pictures one after another. Where two of them name one CLIP file they
share its encoder, and the second finds what the first one computed. Pictures are told by their content: tensors that
hold the same pictures need not be the same, and a tensor may be written into.
"""

from __future__ import annotations

import hashlib
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from .preprocess import in_slices

_last: WeakKeyDictionary[Any, tuple[bytes, Tensor]] = WeakKeyDictionary()


def image_features(clip_vision: Any, images: Tensor) -> Tensor:
    """Embed images (B, H, W, 3) in [0, 1]: (B, D), float32 on the CPU, of length 1; not to be written into.

    Args:
        clip_vision: ComfyUI's CLIP_VISION object (`encode_image`); the middle square of a picture is what it sees.
        images: on any device, float or half.
    """

    def encode(part: Tensor) -> Tensor:
        return clip_vision.encode_image(part.float(), crop=True)["image_embeds"]

    key = _content(images)
    kept = _last.get(clip_vision)
    if kept is None or kept[0] != key:
        rows = in_slices(encode, images)
        kept = _last[clip_vision] = key, torch.nn.functional.normalize(rows, dim=-1)
    return kept[1]


def _content(images: Tensor) -> bytes:
    digest = hashlib.blake2b(f"{images.dtype} {tuple(images.shape)}".encode())
    for image in images:  # one by one: no second copy of a large batch
        digest.update(image.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.digest()
