"""LAION aesthetic score: how much people like a picture, from 1 to 10, by its CLIP-L/14 embedding. No prompt.

    score = head(E_image),   |E_image| = 1

The published head is five linear layers (1024, 128, 64, 16, 1 wide) with dropout between them and no activation: one
linear function, and kept as one. The first version's head is one linear layer.

References:
    CLIP+MLP Aesthetic Score Predictor (Schuhmann, 2022), https://github.com/christophschuhmann/improved-aesthetic-predictor
    LAION-Aesthetics Predictor V1 (Schuhmann, 2022), https://github.com/LAION-AI/aesthetic-predictor
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..common.base import BATCH, check_images
from ..common.features import image_features

# Width of each layer, by its number in the published file; the other numbers are dropout's.
LAYERS = {0: 1024, 2: 128, 4: 64, 6: 16, 7: 1}


FIRST, ONLY = "layers.0.weight", "weight"  # of the head, and of the first version's


def head_shapes(sd: Mapping[str, Tensor], embedding: int = 768) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes that a head's weights should have.

    Args:
        sd: the weights; the first one tells the version and the width of the embedding.
        embedding: that width where the first weight is none (CLIP-L/14: 768).
    """
    name = ONLY if ONLY in sd else FIRST
    width = sd[name].shape[1] if name in sd and sd[name].ndim == 2 else embedding
    if name == ONLY:
        return {ONLY: (1, width), "bias": (1,)}
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, next_width in LAYERS.items():
        shapes |= {f"layers.{layer}.weight": (next_width, width), f"layers.{layer}.bias": (next_width,)}
        width = next_width
    return shapes


def fold_head(sd: Mapping[str, Tensor]) -> tuple[Tensor, float]:
    """Multiply the head's layers out: weights (D,), float32, and the bias."""
    if ONLY in sd:
        return sd[ONLY][0].float(), sd["bias"].item()
    matrix, bias = torch.ones(1, 1, dtype=torch.float64), 0.0
    for layer in reversed(LAYERS):
        bias += (matrix @ sd[f"layers.{layer}.bias"].double()).item()
        matrix = matrix @ sd[f"layers.{layer}.weight"].double()
    return matrix[0].float(), bias


@dataclass(frozen=True, eq=False)
class Aesthetic:
    """LAION's aesthetic score, as trained on SAC, Logos and AVA.

    Attributes:
        clip_vision: ComfyUI's CLIP_VISION object (`encode_image`), of CLIP-L/14.
        weight: (D,), the head.
        bias: The head's.
        notes: What was assumed of the CLIP, in words; the report tells it.
        score_version: What is known of the CLIP beside its weights, where it is not what those would make one assume.
    """

    clip_vision: Any
    weight: Tensor
    bias: float
    name: str = "aesthetic score"
    score_range: tuple[float, float] = (-math.inf, math.inf)  # 1 to 10 in the data, but nothing holds it there
    needs_prompt: bool = False
    prompt: str = ""
    trusts_previews: bool = True
    notes: tuple[str, ...] = ()
    score_version: tuple[str, ...] = ()
    batch_size = BATCH

    def get_models(self) -> list[Any]:
        """Return the model patcher, for ComfyUI's tracking of models in use."""
        return [self.clip_vision.patcher]

    def score(self, images: Tensor, latents: Tensor | None = None) -> Tensor:
        """Score images (B, H, W, 3) in [0, 1]: (B,) float32, about 1 to 10."""
        features = image_features(self.clip_vision, check_images(images, self.name))
        return (features * self.weight).sum(-1) + self.bias
