"""Features of pictures, by ComfyUI's CLIP_VISION, and their cosines.

What stands for a picture:

    CLIP      the projected class token (`image_embeds`), what CLIP compares with texts
    DINOv2    the class token after the last layer norm (`image_embeds`)
    SigLIP    the mean of the patches after the last layer norm, since ComfyUI leaves SigLIP's pooling head out

The encoder is used by its public method only, so that ComfyUI loads and unloads it as it does for any node.

References:
    Learning Transferable Visual Models From Natural Language Supervision (Radford et al., 2021), arXiv 2103.00020
    DINOv2: Learning Robust Visual Features without Supervision (Oquab et al., 2023), arXiv 2304.07193
    Sigmoid Loss for Language Image Pre-Training (Zhai et al., 2023), arXiv 2303.15343
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .preprocess import in_slices


def features_of(clip_vision: Any, images: Tensor) -> Tensor:
    """Return features (B, D), float32 on the CPU, of length 1, of images (B, H, W, 3) in [0, 1]; see the module's text.

    The middle square of a picture is seen, at the encoder's own resolution.
    """

    def encode(part: Tensor) -> Tensor:
        found = clip_vision.encode_image(part.float(), crop=True)["image_embeds"].float().cpu()
        return found if found.ndim == 2 else found.mean(1)

    return torch.nn.functional.normalize(in_slices(encode, images), dim=-1)
