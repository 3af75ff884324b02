"""HPSv2.1: which of two pictures people prefer for a prompt, by a CLIP-H that learned it from their rankings.

    score = 100 cos(E_image, E_text)

This is the scale of the published benchmark; the reference's `score()` returns a hundredth of it. It sees the whole
picture: the longer side is made to fit and the rest is black, where other CLIP models get the middle square. The resized
picture is neither rounded to 8 bits nor clamped, so that edges overshoot [0, 1] as in the reference.

References:
    Human Preference Score v2: A Solid Benchmark for Evaluating Human Preferences of Text-to-Image Synthesis
    (Wu et al., 2023), arXiv 2306.09341; the pictures' preprocessing after `hpsv2` 1.2.0 (`ResizeMaxSize`)
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..common.features import PIXELS, pixel_features
from ..common.preprocess import CLIP_MEAN, CLIP_STD, normalized, to_bchw
from .clip_score import ClipScore

MARK = re.compile(r"<\|(startoftext|endoftext)\|>")


@dataclass(frozen=True, eq=False)
class HPSv2(ClipScore):
    """Cosine of the HPSv2.1 embeddings of image and prompt, times 100.

    Attributes:
        encode: Embeds normalized pixels (B, 3, S, S) by the vision encoder, as they are: (B, D).
    """

    encode: Callable[[Tensor], Tensor] = field(kw_only=True)
    name: str = "HPS v2.1"
    embeds = PIXELS

    @property
    def text(self) -> str:
        """What hpsv2's tokenizer reads of the prompt: the marks of OpenAI's are words to it."""
        return MARK.sub(r"<| \1 |>", super().text)

    @property
    def score_version(self) -> tuple[str, ...]:
        """What sets its scores apart from those in older journals: the pixels, and perhaps the text."""
        return ("pixels", *super().score_version)

    def embed(self, images: Tensor) -> Tensor:
        """Embed images (B, H, W, 3) in [0, 1], each whole: (B, D), float32 on the CPU, of length 1."""
        size = self.clip_vision.image_size
        pixels = torch.cat([letterbox(image[None], size) for image in images])
        return pixel_features(self.clip_vision, self.encode, normalized(pixels, CLIP_MEAN, CLIP_STD))


def letterbox(images: Tensor, size: int) -> Tensor:
    """Fit images (B, H, W, 3) into a square, black around them: (B, 3, size, size), float32, edges beyond [0, 1]."""
    height, width = images.shape[1:3]
    scale = size / max(height, width)
    fitted = max(1, round(height * scale)), max(1, round(width * scale))
    pixels = to_bchw(images)
    if fitted != (height, width):
        pixels = torch.nn.functional.interpolate(pixels, fitted, mode="bicubic", antialias=True)
    above, left = (size - fitted[0]) // 2, (size - fitted[1]) // 2
    around = (left, size - fitted[1] - left, above, size - fitted[0] - above)
    return torch.nn.functional.pad(pixels, around)
