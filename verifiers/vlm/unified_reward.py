"""UnifiedReward 2.0: a vision-language model trained to grade generated pictures on three axes, 1 to 5.

Its answer is three lines, "Alignment Score (1-5): 2.69...", and so on for coherence and style. Here the lines are given
to it up to each number, and the number is the mean under the model's own probabilities of its first two digits:

    E = sum over d of p(d) (d + sum over t of p(t | "d.") t / 10)

The number it would write is the most likely text only: it jumps where two texts are equally likely, is found in some
eighty steps of generation instead of a few forward passes, and may be no number. Each line but the first
follows the lines before it with their expected values filled in, as a written answer would.

References:
    Unified Reward Model for Multimodal Understanding and Generation (Wang et al., 2025), arXiv 2503.05236
    https://github.com/CodeGoat24/UnifiedReward, inference_qwen/UnifiedReward-2.0-inference: the form of question and answer
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..common.base import check_images
from .vlm import DIGITS, VisionLanguageModel, check_text, probabilities, spellings, to_pil

AXES = ("alignment", "coherence", "style")
MEAN = "mean"
AXIS = (MEAN, *AXES)
# The words that the model was trained on; another question would be another scale.
QUESTION = (
    "You are presented with a generated image and its associated text caption. Your task is to analyze the image across"
    " multiple dimensions in relation to the caption. Specifically:\n"
    "Provide overall assessments for the image along the following axes (each rated from 1 to 5):\n"
    "- Alignment Score: How well the image matches the caption in terms of content.\n"
    "- Coherence Score: How logically consistent the image is (absence of visual glitches, object distortions, etc.).\n"
    "- Style Score: How aesthetically appealing the image looks, regardless of caption accuracy.\n\n"
    "Output your evaluation using the format below:\n\n"
    "Alignment Score (1-5): X\n"
    "Coherence Score (1-5): Y\n"
    "Style Score (1-5): Z\n\n"
    "Your task is provided as follows:\n"
    "Text Caption: [{}]"
)
LINE = "{} Score (1-5): "
HIGHEST = 5
# A first digit less likely than this is not asked for its tenths: the most it can move the number by is half of that.
UNLIKELY = 0.01
MEAN_TENTHS = 0.45


@dataclass(frozen=True, eq=False)
class UnifiedReward:
    """Alignment, coherence and style as UnifiedReward 2.0 grades them, 1 to 5.

    Attributes:
        model: the model and its processor.
        prompt: the text that the picture was made from.
        axis: one of `AXIS`.
        max_pixels: larger pictures are shrunk to this area.

    Raises:
        ValueError: there is no text, it holds control tokens, or the tokenizer has no digits.
    """

    model: VisionLanguageModel
    prompt: str
    axis: str = MEAN
    max_pixels: int = 1024 * 1024
    name: str = "UnifiedReward"
    score_range: tuple[float, float] = (1.0, 5.0)
    needs_prompt: bool = True
    trusts_previews: bool = True

    def __post_init__(self) -> None:
        if self.axis not in AXIS:
            raise ValueError(f"{self.name}: input 'axis' is {self.axis!r}; choose one of {', '.join(AXIS)}.")
        check_text(self.model.processor, self.prompt, self.name)
        _ = self.digits

    def get_models(self) -> list[Any]:
        """Return the model patcher, for ComfyUI's tracking of models in use."""
        return [self.model.held.patcher]

    @property
    def question(self) -> str:
        """What the model is asked."""
        return QUESTION.format(self.prompt.strip())

    @cached_property
    def digits(self) -> list[list[int]]:
        """The tokens of each digit, 0 to 9."""
        return [spellings(self.model.processor, (digit,), self.name) for digit in DIGITS]

    def grades(self, image: Tensor) -> Tensor:
        """Grade one picture (H, W, 3) in [0, 1]: the axes up to the one that is wanted, 1 to 5, in order."""
        picture = to_pil(image, self.max_pixels)
        wanted = AXES if self.axis == MEAN else AXES[: AXES.index(self.axis) + 1]
        found, answer = [], ""
        for axis in wanted:
            answer += LINE.format(axis.capitalize())
            found.append(self._number(picture, answer))
            answer += f"{found[-1]:.1f}\n"
        return torch.tensor(found)

    def score(self, images: Tensor, latents: Tensor | None = None) -> Tensor:
        """Score images (B, H, W, 3) in [0, 1]: (B,) float32, the mean of the three axes or one of them."""
        grades = [self.grades(image) for image in check_images(images, self.name)]
        return torch.stack([row.mean() if self.axis == MEAN else row[-1] for row in grades])

    def _number(self, picture: Any, answer: str) -> float:
        """Return the expected number after the answer so far, to the tenth."""
        value = 0.0
        for digit, p in enumerate(self._likely(picture, answer, range(1, HIGHEST + 1)), start=1):
            tenths = 0.0 if digit == HIGHEST else MEAN_TENTHS
            if p > UNLIKELY and digit < HIGHEST:
                after = self._likely(picture, f"{answer}{digit}.", range(10))
                tenths = sum(t * q for t, q in enumerate(after)) / 10
            value += p * (digit + tenths)
        return value

    def _likely(self, picture: Any, answer: str, digits: range) -> list[float]:
        """Return how likely each of some digits is to come next."""
        logits = self.model.next_token(self.name, picture, self.question, answer)
        return probabilities(logits, [self.digits[digit] for digit in digits]).tolist()
