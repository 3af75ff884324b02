"""Reference similarity: how like a given picture an image is, or how unlike.

    score = mean over the references of cos(F(image), F(reference)), or its negative

F are features of an image encoder: DINOv2's tell same things and scenes, CLIP's same meaning and style.

References:
    DINOv2: Learning Robust Visual Features without Supervision (Oquab et al., 2023), arXiv 2304.07193
    DreamBooth: Fine Tuning Text-to-Image Diffusion Models for Subject-Driven Generation (Ruiz et al., 2022), arXiv 2208.12242:
        the cosines as measures of likeness, as DINO and CLIP-I
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from ..common.base import BATCH, check_images
from ..common.features import image_features

LIKE, UNLIKE = PREFER = ("like", "unlike")


@dataclass(frozen=True, eq=False)
class ReferenceSimilarity:
    """Mean cosine of the features of an image and of reference pictures, or its negative.

    Attributes:
        clip_vision: ComfyUI's CLIP_VISION object (`encode_image`, `patcher`).
        reference: Pictures (N, H, W, 3) in [0, 1].
        prefer: "like" or "unlike".

    Raises:
        ValueError: If the reference is no picture or `prefer` none of these.
    """

    clip_vision: Any
    reference: Tensor
    prefer: str = LIKE
    name: str = "reference similarity"
    score_range: tuple[float, float] = (-1.0, 1.0)
    needs_prompt: bool = False
    prompt: str = ""
    trusts_previews: bool = True
    batch_size = BATCH

    def __post_init__(self) -> None:
        if self.prefer not in PREFER:
            raise ValueError(f"{self.name}: input 'prefer' is {self.prefer!r}; choose one of {', '.join(PREFER)}.")
        check_images(self.reference, f"{self.name}, input 'reference'")

    def get_models(self) -> list[Any]:
        """Return the encoder's model patcher, for ComfyUI's tracking of models in use."""
        return [self.clip_vision.patcher]

    @cached_property
    def mean_feature(self) -> Tensor:
        """Mean (D,) of the references' features; a cosine's mean over them is its product with an image's feature."""
        return image_features(self.clip_vision, check_images(self.reference, self.name)).mean(0)

    def score(self, images: Tensor, latents: Tensor | None = None) -> Tensor:
        """Score images (B, H, W, 3) in [0, 1]: (B,) float32, the mean cosine, or its negative."""
        cosines = (image_features(self.clip_vision, check_images(images, self.name)) * self.mean_feature).sum(-1)
        return cosines.clamp(-1, 1) if self.prefer == LIKE else -cosines.clamp(-1, 1)
