"""Self-supervised similarity: how much of the final picture the model promised on the way.

    score = cos(F(x0 prediction at sigma), F(final picture))

F are features of an image encoder (DINO, CLIP). A run that soon promised what it became is a sure one: the paper finds
this strongly correlated with class logits and CLIPScore. It needs no prompt, and no model call that the run did not make.

References:
    Inference-Time Scaling for Diffusion Models beyond Scaling Denoising Steps (Ma et al., 2025), arXiv 2501.09732, section 3.1:
        self-supervised verifiers, at a noise level of 0.4
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..common.base import BATCH, check_images
from ..common.features import image_features


@dataclass(frozen=True, eq=False)
class SelfSimilarity:
    """Cosine of the features of a run's x0 prediction at a noise level and of its picture.

    Attributes:
        clip_vision: ComfyUI's CLIP_VISION object (`encode_image`, `patcher`).
        sigma: The noise level, in the model's own units; above 0. Paper: 0.4, of flow models.

    Raises:
        ValueError: If the noise level is not above 0.
    """

    clip_vision: Any
    sigma: float = 0.4
    name: str = "self similarity"
    score_range: tuple[float, float] = (-1.0, 1.0)
    needs_prompt: bool = False
    prompt: str = ""
    trusts_previews: bool = False  # half-way there is no final picture to compare with
    batch_size = BATCH

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise ValueError(f"{self.name}: input 'sigma' is {self.sigma}; it must be above 0. Usual: 0.4 for flow models.")

    @property
    def needs_prediction(self) -> float:
        """Noise level of the prediction that `score_pairs` is given."""
        return self.sigma

    def get_models(self) -> list[Any]:
        """Return the encoder's model patcher, for ComfyUI's tracking of models in use."""
        return [self.clip_vision.patcher]

    def score_pairs(self, images: Tensor, predictions: Tensor) -> Tensor:
        """Score pictures (B, H, W, 3) in [0, 1] with predictions (B, H, W, 3) of theirs: (B,) float32, their cosines."""
        ends, promises = (image_features(self.clip_vision, check_images(part, self.name)) for part in (images, predictions))
        return (ends * promises).sum(-1).clamp(-1, 1)

    def score(self, images: Tensor, latents: Tensor | None = None) -> Tensor:
        """Refuse pictures alone.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            f"{self.name}: it compares a run's picture with what the model predicted on the way, which pictures alone do not "
            "tell. Connect it to a search, or another verifier here."
        )
