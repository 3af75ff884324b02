"""ImageReward: how people would like an image as the picture of a text.

Trained on 137,000 comparisons by experts, and standardized by its authors: an average picture has about 0, most lie
between -2 and 2. The text is read while looking at the picture, where CLIP compares two embeddings made apart.

References:
    ImageReward: Learning and Evaluating Human Preferences for Text-to-Image Generation (Xu et al., 2023), arXiv 2304.05977
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..common.base import BATCH, check_images, quoted
from ..common.preprocess import CLIP_MEAN, CLIP_STD, in_slices, normalized, to_bchw
from .wordpiece import encode

log = logging.getLogger("noise-search")

MAX_TOKENS = 35
# What one picture's forward holds at a time, in values for each patch and unit of width: by the largest layer.
HELD_VALUES = 20


@dataclass(frozen=True, eq=False)
class ImageReward:
    """Reward of an image for a prompt.

    Attributes:
        model: Holds a `blip.ImageRewardNetwork`: `module`, `dtype`, `patcher`, and called with work, loads and runs it.
        tokenizer: BERT's, of `wordpiece.load_tokenizer`.
        prompt: The text; beyond 35 tokens it is cut, as in the published code, which is logged once.

    Raises:
        ValueError: If the prompt is empty.
    """

    model: Any
    tokenizer: Any
    prompt: str
    name: str = "ImageReward"
    score_range: tuple[float, float] = (-math.inf, math.inf)
    needs_prompt: bool = True
    trusts_previews: bool = True
    batch_size = BATCH

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise ValueError(
                f"{self.name}: input 'prompt' is {quoted(self.prompt)}; there is no text to judge the images by. Write what"
                " the image should show, or connect the text that your prompt encoder gets."
            )

    def get_models(self) -> list[Any]:
        """Return the model patcher, for ComfyUI's tracking of models in use."""
        return [self.model.patcher]

    @cached_property
    def tokens(self) -> Tensor:
        """The prompt's tokens (1, N), N at most 35, int64 on the CPU; computed once."""
        ids, length = encode(self.tokenizer, self.prompt, MAX_TOKENS)
        if length > MAX_TOKENS:
            log.warning(
                "%s: the prompt has %d tokens, of which the first %d count; put what matters first.",
                self.name, length, MAX_TOKENS,
            )  # fmt: skip
        return torch.tensor([ids])

    def score(self, images: Tensor, latents: Tensor | None = None) -> Tensor:
        """Score images (B, H, W, 3) in [0, 1]: (B,) float32, about 0 for an average picture."""
        images = check_images(images, self.name)
        size = self.model.module.sizes.image_size
        return in_slices(lambda part: self._rewards(preprocess(part, size)), images)

    def _rewards(self, pixels: Tensor) -> Tensor:
        """Score preprocessed pixels (B, 3, S, S): (B,)."""

        def work(network: Any, device: torch.device) -> Tensor:
            return network(pixels.to(device, self.model.dtype), self.tokens.to(device))

        sizes = self.model.module.sizes
        values = HELD_VALUES * sizes.vision[0] * (sizes.image_size // sizes.patch) ** 2
        return self.model(work, len(pixels) * values * self.model.dtype.itemsize)


def preprocess(images: Tensor, size: int) -> Tensor:
    """Resize images (B, H, W, 3) in [0, 1] to `size` on the short side, crop the middle, normalize: (B, 3, size, size).

    As torchvision does with 8-bit PIL pictures, across first and then down (Pillow before 13); of resized photographs, at
    most 1 value in 3000 is apart, by one level of 255.
    """
    pixels = to_bchw(images)
    short = min(pixels.shape[-2:])
    height, width = (int(size * side / short) for side in pixels.shape[-2:])
    if short != size:
        pixels = _resized(_resized(pixels, pixels.shape[-2], width), height, width)
    top, left = (round((side - size) / 2) for side in (height, width))
    return normalized(pixels[..., top : top + size, left : left + size], CLIP_MEAN, CLIP_STD)  # BLIP took CLIP's over


def _resized(pixels: Tensor, height: int, width: int) -> Tensor:
    """Resize (B, 3, H, W) as one of PIL's two passes does: bicubic, a wider kernel where it shrinks, in 8 bits."""
    resized = torch.nn.functional.interpolate(pixels, (height, width), mode="bicubic", antialias=True, align_corners=False)
    return (255 * resized.clamp(0, 1)).round() / 255
