"""SigLIP score: how well an image fits a text, by a model that was trained to say yes or no to each pair.

    score = exp(logit_scale) cos(E_image, E_text) + bias

This is the logit of the probability that the two belong together. It orders pictures as the probability does and goes on
telling them apart where that rounds to 0 or 1, which it does for most pairs of a prompt and a picture made for it.

References:
    Sigmoid Loss for Language Image Pre-Training (Zhai et al., 2023), arXiv 2303.15343
    SigLIP 2: Multilingual Vision-Language Encoders (Tschannen et al., 2025), arXiv 2502.14786
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ..common.base import BATCH, check_images
from ..common.preprocess import in_slices, normalized, to_bchw
from ..common.text_repair import joined
from .clip_score import check_prompt

# Bytes of activations per token and unit of width: the MLP is about 4 units wide, in at most 4 bytes.
WORK = 40


@dataclass(frozen=True, eq=False)
class SigLIP:
    """A SigLIP model, and what a picture and a text must become for it.

    Attributes:
        model: transformers' `SiglipModel` in a `HeldModel`.
        tokenizer: transformers' tokenizer of it.
        words: tokens of a text; it is cut or padded to as many.
        size: side of a picture, in pixels; the whole picture is squeezed to a square.
        resample: "bilinear" or "bicubic".
        mean: of the pixels' channels, in [0, 1].
        std: likewise.
        scale: the factor of the cosine.
        bias: what is added.
    """

    model: Any
    tokenizer: Any
    words: int
    size: int
    resample: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    scale: float
    bias: float

    def text_features(self, text: str) -> Tensor:
        """Embed a text, in lower case as in training: (D,), float32 on the CPU, of length 1."""
        cut = {"padding": "max_length", "truncation": True, "max_length": self.words}
        ids = torch.tensor([self.tokenizer(joined(text).lower(), **cut)["input_ids"]])
        return self.model(lambda model, device: _unit(model.get_text_features(input_ids=ids.to(device))))[0]

    def image_features(self, images: Tensor) -> Tensor:
        """Embed images (B, H, W, 3) in [0, 1]: (B, D), float32 on the CPU, of length 1."""
        return in_slices(self._embed, images)

    def pixels(self, images: Tensor) -> Tensor:
        """Return what the model sees of images (B, H, W, 3) in [0, 1]: (B, 3, size, size), float32, normalized."""
        pixels = to_bchw(images)
        if pixels.shape[-2:] != (self.size, self.size):
            pixels = nn.functional.interpolate(pixels, (self.size, self.size), mode=self.resample, antialias=True)
        levels = (pixels.clamp(0, 1) * 255).round() / 255  # of 8 bits, as pictures in files have
        return normalized(levels, self.mean, self.std)

    def _embed(self, images: Tensor) -> Tensor:
        pixels = self.pixels(images)  # where the images are: a large one would take more of the device than the model

        def work(model: Any, device: torch.device) -> Tensor:
            return _unit(model.get_image_features(pixel_values=pixels.to(device, self.model.dtype)))

        vision = self.model.module.config.vision_config
        tokens = (self.size // vision.patch_size) ** 2
        return self.model(work, memory=len(images) * tokens * vision.hidden_size * WORK)


@dataclass(frozen=True, eq=False)
class SigLIPScore:
    """Logit of the probability that image and prompt belong together.

    Raises:
        ValueError: If the prompt is empty.
    """

    siglip: SigLIP
    prompt: str
    name: str = "SigLIP score"
    score_range: tuple[float, float] = (-math.inf, math.inf)
    needs_prompt: bool = True
    trusts_previews: bool = True
    batch_size = BATCH

    def __post_init__(self) -> None:
        check_prompt(self.prompt, self.name)

    def get_models(self) -> list[Any]:
        """Return the model patcher, for ComfyUI's tracking of models in use."""
        return [self.siglip.model.patcher]

    @cached_property
    def text_features(self) -> Tensor:
        """The prompt's embedding (D,), float32 on the CPU, of length 1; computed once."""
        return self.siglip.text_features(self.prompt)

    def score(self, images: Tensor, latents: Tensor | None = None) -> Tensor:
        """Score images (B, H, W, 3) in [0, 1]: (B,) float32, the logit; about -20 to 5."""
        features = self.siglip.image_features(check_images(images, self.name))
        return self.siglip.scale * (features @ self.text_features) + self.siglip.bias


def _unit(output: Any) -> Tensor:
    # transformers 5 answers with an object, 4 with a tensor.
    features = output if isinstance(output, Tensor) else output.pooler_output
    return nn.functional.normalize(features.float(), dim=-1).cpu()
