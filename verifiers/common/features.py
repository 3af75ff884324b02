"""Features of pictures, by ComfyUI's CLIP_VISION, and their cosines.

What stands for a picture:

    CLIP      the projected class token (`image_embeds`), what CLIP compares with texts
    DINOv2    the class token after the last layer norm (`image_embeds`)
    SigLIP    the mean of the patches after the last layer norm, since ComfyUI leaves SigLIP's pooling head out

The encoder is used by its public method only, so that ComfyUI loads and unloads it as it does for any node.

The verifiers of an ensemble are given the same pictures one after another. Where two of them name one CLIP file they
share its encoder, and the second finds what the first one computed: features of such an encoder's last batch are kept.
Pictures are told by their content: tensors that hold the same pictures need not be the same, and a tensor may be written
into. That content is hashed only where `share` was told that features are wanted twice.

References:
    Learning Transferable Visual Models From Natural Language Supervision (Radford et al., 2021), arXiv 2103.00020
    DINOv2: Learning Robust Visual Features without Supervision (Oquab et al., 2023), arXiv 2304.07193
    Sigmoid Loss for Language Image Pre-Training (Zhai et al., 2023), arXiv 2303.15343
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor

from .preprocess import in_slices

PICTURES, PIXELS = "pictures", "pixels"  # what is embedded: see `image_features` and `pixel_features`

_last: WeakKeyDictionary[Any, dict[str, tuple[bytes, Tensor]]] = WeakKeyDictionary()
_sharers: WeakKeyDictionary[Any, dict[str, WeakSet[Sharing]]] = WeakKeyDictionary()


class Sharing:
    """Says, as long as it lives, that some verifiers want the same features."""


def share(verifiers: Iterable[Any]) -> Sharing:
    """Have features kept that two of some verifiers want of the same pictures, as long as what is returned lives.

    Args:
        verifiers: those that embed have `clip_vision`, and `embeds` where that is not `PICTURES`.
    """
    sharing, wanted = Sharing(), []
    for one in verifiers:
        vision = getattr(one, "clip_vision", None)
        if vision is not None:
            wanted.append((vision, getattr(one, "embeds", PICTURES)))
    for at, (vision, kind) in enumerate(wanted):
        if any(vision is other and kind == another for other, another in wanted[:at]):
            _sharers.setdefault(vision, {}).setdefault(kind, WeakSet()).add(sharing)
    return sharing


def image_features(clip_vision: Any, images: Tensor) -> Tensor:
    """Embed images (B, H, W, 3) in [0, 1]: (B, D), float32 on the CPU, of length 1; not to be written into.

    Args:
        clip_vision: ComfyUI's CLIP_VISION object (`encode_image`); the middle square of a picture is what it sees, at its
            own resolution.
        images: on any device, float or half.
    """

    def encode(part: Tensor) -> Tensor:
        found = clip_vision.encode_image(part.float(), crop=True)["image_embeds"].float().cpu()
        return found if found.ndim == 2 else found.mean(1)

    return _unit_rows(clip_vision, PICTURES, encode, images)


def pixel_features(clip_vision: Any, encode: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
    """Embed pixels (B, 3, S, S) as they are: (B, D), float32 on the CPU, of length 1; not to be written into.

    Args:
        clip_vision: the encoder.
        encode: what it makes of normalized pixels, (b, D), without the resizing and rounding of its public method.
        pixels: normalized, at the encoder's own resolution.
    """
    return _unit_rows(clip_vision, PIXELS, encode, pixels)


def _unit_rows(clip_vision: Any, kind: str, encode: Callable[[Tensor], Tensor], seen: Tensor) -> Tensor:
    """Return the encoder's rows (B, D), of length 1; those of its last batch are kept if they are wanted twice."""
    if not _sharers.get(clip_vision, {}).get(kind):
        return torch.nn.functional.normalize(in_slices(encode, seen), dim=-1)
    batches, key = _last.setdefault(clip_vision, {}), _content(seen)
    if kind not in batches or batches[kind][0] != key:
        batches[kind] = key, torch.nn.functional.normalize(in_slices(encode, seen), dim=-1)
    return batches[kind][1]


def _content(images: Tensor) -> bytes:
    digest = hashlib.blake2b(f"{images.dtype} {tuple(images.shape)}".encode())
    for image in images:  # one by one: no second copy of a large batch
        digest.update(image.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.digest()
