"""Zero-shot class verifier: how sure CLIP is that a picture shows one class and not others.

    z_k = s cos(E_image, T_k),    T_k = normalized mean over templates of E_text("a photo of a {class k}.")

s is CLIP's own logit scale (100 in OpenAI's models). The outputs are those of `classifier`.

References:
    Learning Transferable Visual Models From Natural Language Supervision (Radford et al., 2021), arXiv 2103.00020, section 3.1.4:
        classes as texts, ensembles of templates
    Inference-Time Scaling for Diffusion Models beyond Scaling Denoising Steps (Ma et al., 2025), arXiv 2501.09732, section 3.1
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..clip.clip_score import ClipScore
from ..common.base import BATCH, check_images, quoted
from .classifier import LOG_PROBABILITY, RANGES, check_output, of_class

SLOT = "{}"


@dataclass(frozen=True, eq=False)
class ZeroShotClass:
    """One class among others, by CLIP: its log-probability, probability or logit.

    Attributes:
        clip: ComfyUI's CLIP object (`tokenize`, `encode_from_tokens`).
        clip_vision: ComfyUI's CLIP_VISION object (`encode_image`), of the same CLIP model.
        classes: The class asked for, then the others.
        templates: Texts with "{}" where a class belongs.
        output: "log probability", "probability" or "logit".
        scale: CLIP's logit scale.
        notes, network: As `ClipScore` has them.

    Raises:
        ValueError: If there is no other class, a class is given twice, or a template has no "{}".
    """

    clip: Any
    clip_vision: Any
    classes: Sequence[str]
    templates: Sequence[str]
    output: str = LOG_PROBABILITY
    scale: float = 100.0
    name: str = "zero-shot class"
    needs_prompt: bool = False
    prompt: str = ""
    trusts_previews: bool = True
    notes: tuple[str, ...] = ()
    network: tuple[str, ...] = ()
    batch_size = BATCH

    def __post_init__(self) -> None:
        check_output(self.name, self.output)
        if not self.classes or not self.classes[0]:
            raise ValueError(f"{self.name}: input 'class_name' is empty. Write what the pictures should show, such as: dog")
        if len(self.classes) < 2:
            raise ValueError(
                f"{self.name}: input 'other_classes' is empty, so that there is nothing to tell {quoted(self.classes[0])} from."
                " Write what the pictures might show instead, one a line; or use the CLIP Score."
            )
        twice = sorted(word for word, count in Counter(self.classes).items() if count > 1)
        if twice:
            said = quoted(twice[0])
            raise ValueError(f"{self.name}: input 'other_classes' holds {said} twice, or as the class itself. Drop it there.")
        bad = [template for template in self.templates if SLOT not in template]
        if bad or not self.templates:
            said = quoted(bad[0]) if bad else "no line"
            raise ValueError(
                f"{self.name}: input 'templates' has {said}; expected texts with {SLOT} where the class belongs,"
                " one a line, such as: a photo of a {}."
            )

    @property
    def score_range(self) -> tuple[float, float]:
        return RANGES[self.output]

    @property
    def score_version(self) -> tuple[str, ...]:
        """What sets its scores apart from those in older journals; see `ClipScore.score_version`."""
        return tuple(dict.fromkeys(said for encoder in self._encoders for said in encoder.score_version))

    def get_models(self) -> list[Any]:
        """Return the two model patchers, for ComfyUI's tracking of models in use."""
        return [self.clip.patcher, self.clip_vision.patcher]

    @cached_property
    def class_features(self) -> Tensor:
        """Embeddings of the classes (K, D), float32 on the CPU, of length 1; computed once."""
        rows = torch.stack([encoder.text_features for encoder in self._encoders]).unflatten(0, (len(self.classes), -1))
        return torch.nn.functional.normalize(rows.mean(1), dim=-1)

    @cached_property
    def image_encoder(self) -> ClipScore:
        """Embeds images, and refuses encoders that are not of one CLIP."""
        return self._encoder(self.classes[0])

    def logits(self, images: Tensor) -> Tensor:
        """Return logits (B, K), float32 on the CPU, of images (B, H, W, 3) in [0, 1]; the class asked for is first."""
        return self.scale * self.image_encoder.image_features(images) @ self.class_features.T

    def score(self, images: Tensor, latents: Tensor | None = None) -> Tensor:
        """Score images (B, H, W, 3) in [0, 1]: (B,) float32."""
        return of_class(self.logits(check_images(images, self.name)), 0, self.output)

    @property
    def _encoders(self) -> list[ClipScore]:
        """Embed the texts, those of a class one after another."""
        return [self._encoder(template.replace(SLOT, word)) for word in self.classes for template in self.templates]

    def _encoder(self, text: str) -> ClipScore:
        return ClipScore(self.clip, self.clip_vision, text, name=self.name, network=self.network)
