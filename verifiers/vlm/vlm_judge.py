"""A vision-language model asked about the picture: yes or no, five grades, or a check-list.

    yes or no    p(yes) / (p(yes) + p(no)) of "Does this figure show "<prompt>"?" (VQAScore)
    aspects      mean over five aspects of the expected grade, 0 to 10
    check-list   mean or product of p(yes) over single elements of the prompt

A grade is the mean of the digits 0 to 9 under the model's probabilities of them, times 10/9: ten would be two tokens.

References:
    Evaluating Text-to-Visual Generation with Image-to-Text Generation (Lin et al., 2024), arXiv 2404.01291: yes or no
    Inference-Time Scaling for Diffusion Models beyond Scaling Denoising Steps (Ma et al., 2025), arXiv 2501.09732: the
        five aspects of its grader, which it uses to evaluate
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..common.base import check_images, quoted
from .vlm import DIGITS, VisionLanguageModel, check_text, probabilities, spellings, to_pil

YES_NO, ASPECTS, CHECK_LIST = "yes or no", "aspects", "check-list"
ASK = (YES_NO, ASPECTS, CHECK_LIST)
MEAN, PRODUCT = "mean", "product"
COMBINE = (MEAN, PRODUCT)

YES, NO = ("Yes", "yes", "YES"), ("No", "no", "NO")
SHOWS = 'Does this figure show "{}"? Please answer yes or no.'
GRADE = (
    'This image was generated for the prompt "{}". Grade its {}. Answer with one digit, from 0 (very poor) to 9'
    " (excellent), and nothing else."
)
GRADED = (
    "accuracy to the prompt: whether everything the prompt asks for is there, as it asks",
    "originality: whether the idea and its composition are inventive",
    "visual quality and realism: sharpness, lighting, textures and anatomy, free of artifacts",
    "internal consistency: whether its objects, perspective, light and shadows agree with each other",
    "emotional and thematic resonance: whether it conveys a mood that suits the prompt",
)
# Where one element of a prompt ends and the next begins.
BETWEEN = re.compile(r"[,;\n]|\.\s|\sand\s")


def elements_of(text: str) -> tuple[str, ...]:
    """Split a prompt at commas, semicolons, full stops, line ends and "and"; each element once, in order."""
    parts = (part.strip(" \t\r.") for part in BETWEEN.split(text))
    return tuple(dict.fromkeys(part for part in parts if part))


@dataclass(frozen=True, eq=False)
class VLMJudge:
    """A vision-language model's own opinion of a picture.

    Attributes:
        model: the model and its processor.
        prompt: what the image should show.
        ask: one of `ASK`.
        elements: for the check-list; empty: split from the prompt.
        combine: one of `COMBINE`, for the check-list. A product asks for all elements at once.
        max_pixels: larger pictures are shrunk to this area; processors may round further, to whole patches.

    Raises:
        ValueError: there is no text, it holds control tokens, or the tokenizer has no such words.
    """

    model: VisionLanguageModel
    prompt: str
    ask: str = YES_NO
    elements: tuple[str, ...] = ()
    combine: str = MEAN
    max_pixels: int = 512 * 512
    name: str = "VLM Judge"
    needs_prompt: bool = True
    trusts_previews: bool = True

    def __post_init__(self) -> None:
        if self.ask not in ASK:
            raise ValueError(f"{self.name}: input 'ask' is {self.ask!r}; choose one of {', '.join(ASK)}.")
        if self.combine not in COMBINE:
            raise ValueError(f"{self.name}: input 'combine' is {self.combine!r}; choose one of {', '.join(COMBINE)}.")
        check_text(self.model.processor, self.prompt, self.name)
        for element in self.elements:
            check_text(self.model.processor, element, self.name, "elements")
        _ = self.questions, self.choices  # a model that cannot answer is found before the search instead of in it

    @property
    def score_range(self) -> tuple[float, float]:
        """Lowest and highest possible score."""
        return (0.0, 10.0) if self.ask == ASPECTS else (0.0, 1.0)

    def get_models(self) -> list[Any]:
        """Return the model patcher, for ComfyUI's tracking of models in use."""
        return [self.model.held.patcher]

    @cached_property
    def questions(self) -> tuple[str, ...]:
        """What is asked about each picture, one forward pass each."""
        if self.ask == ASPECTS:
            return tuple(GRADE.format(self.prompt.strip(), aspect) for aspect in GRADED)
        if self.ask == YES_NO:
            return (SHOWS.format(self.prompt.strip()),)
        elements = self.elements or elements_of(self.prompt)
        if not elements:
            raise ValueError(f"{self.name}: input 'prompt' is {quoted(self.prompt)}, without an element to ask about. Name some.")
        return tuple(SHOWS.format(element) for element in elements)

    @cached_property
    def choices(self) -> list[list[int]]:
        """The tokens of each answer: digits in order, or yes and no."""
        answers: Sequence[Sequence[str]] = [(digit,) for digit in DIGITS] if self.ask == ASPECTS else [YES, NO]
        return [spellings(self.model.processor, words, self.name) for words in answers]

    def answers(self, image: Tensor) -> Tensor:
        """Ask every question about one picture (H, W, 3) in [0, 1]: (Q,), p(yes) or a grade of 0 to 10."""
        picture = to_pil(image, self.max_pixels)
        rows = [self.model.next_token(self.name, picture, question) for question in self.questions]
        likely = torch.stack([probabilities(logits, self.choices) for logits in rows])
        if self.ask == ASPECTS:
            return likely @ torch.arange(len(DIGITS), dtype=torch.float32) * (10 / 9)
        return likely[:, 0]

    def score(self, images: Tensor, latents: Tensor | None = None) -> Tensor:
        """Score images (B, H, W, 3) in [0, 1]: (B,) float32, one picture and one question at a time."""
        answers = torch.stack([self.answers(image) for image in check_images(images, self.name)])
        return answers.prod(1) if self.ask == CHECK_LIST and self.combine == PRODUCT else answers.mean(1)
