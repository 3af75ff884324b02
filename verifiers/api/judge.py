"""API judge: a vision-language model behind a chat-completions endpoint grades pictures.

    five aspects       mean of five grades, 0 to 10: the seed paper's grader
    check-list         share of the prompt's elements that the picture shows, 0 to 1
    compare finalists  five aspects, and at the end of a search the best few two at a time

One request for each picture; a picture that was graded before in the same execution is not asked about again. The
model's answer is read as data and nothing else.

References:
    Inference-Time Scaling for Diffusion Models beyond Scaling Denoising Steps (Ma et al., 2025), arXiv 2501.09732
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..common.base import check_images, quoted
from ..common.preprocess import eight_bit
from .access import NAME
from .client import Client
from .questions import HIGHEST, Question, better, check_list, elements, five_aspects
from .replies import WrongAnswer

FIVE_ASPECTS, CHECK_LIST, COMPARE = ASKS = ("five aspects", "check-list", "compare finalists")
ANSWERS = 3  # to one question, before a model that gives wrong ones is given up
FINALISTS = 4
NEAR = 0.5  # grades: what a second look at the same picture may differ by

log = logging.getLogger("noise-search")


@dataclass(frozen=True, eq=False)
class ApiJudge:
    """Grades by a model behind an endpoint.

    Attributes:
        client: Talks to the endpoint; holds no key.
        model: The model's name there.
        prompt: What the pictures should show.
        ask: One of `ASKS`.
        max_pixels: Larger pictures are shrunk to so many pixels.
        max_tokens: The longest answer.

    Raises:
        ValueError: For an empty prompt or model, another `ask`, or less than 1 pixel or token.
    """

    client: Client
    model: str
    prompt: str
    ask: str = FIVE_ASPECTS
    max_pixels: int = 589_824
    max_tokens: int = 1000
    name: str = NAME
    needs_prompt: bool = True
    trusts_previews: bool = False  # each look costs a request, and blur is graded as bad quality
    is_paid: bool = True  # perhaps not by this user, but an endpoint does not say so

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise ValueError(f"{NAME}: input 'prompt' is {quoted(self.prompt)}; write what the picture should show.")
        if not self.model.strip():
            raise ValueError(f"{NAME}: input 'model' is {quoted(self.model)}; write a vision model's name at the endpoint.")
        if self.ask not in ASKS:
            raise ValueError(f"{NAME}: input 'ask' is {self.ask!r}; choose one of {', '.join(ASKS)}.")
        if self.max_pixels < 1 or self.max_tokens < 1:
            raise ValueError(f"{NAME}: inputs 'max_pixels' and 'max_tokens' are {self.max_pixels}, {self.max_tokens}; at least 1"
                             " each.")  # fmt: skip

    @property
    def score_range(self) -> tuple[float, float]:
        return 0.0, 1.0 if self.ask == CHECK_LIST else float(HIGHEST)

    @property
    def finalists(self) -> int:
        """How many of a pool's best to compare two at a time; 0 for none."""
        return FINALISTS if self.ask == COMPARE else 0

    @property
    def near(self) -> float:
        """How far below the best score a finalist may be."""
        return NEAR

    def score(self, images: Tensor, latents: Tensor | None = None) -> Tensor:
        """Score images (B, H, W, 3) in [0, 1]: (B,) float32."""
        images = check_images(images, self.name)
        return torch.tensor([self._answer(self._question(), image) for image in images], dtype=torch.float32)

    def compare(self, first: Tensor, second: Tensor) -> float:
        """Compare two candidates' pictures (F, H, W, 3) in [0, 1], of a video the middle frames.

        Returns:
            1 if the first is better, 0 if the second, 0.5 if neither.
        """
        pair = [check_images(images, self.name)[len(images) // 2] for images in (first, second)]
        return self._answer(better(self.prompt), *pair)

    def settle(self, settled: Callable[[Callable[[], list[str]]], list[str]]) -> None:
        """Judge by the check-list of earlier searches, so that all candidates of a search that goes on are judged by one.

        Args:
            settled: returns the list that is written down, or what it is handed gives.
        """
        if self.ask == CHECK_LIST:
            self.client.once(self._list, lambda: settled(self._elements))

    def _question(self) -> Question:
        return check_list(self.client.once(self._list, self._elements)) if self.ask == CHECK_LIST else five_aspects(self.prompt)

    @property
    def _list(self) -> str:
        return f"elements of {self.prompt}"

    def _elements(self) -> list[str]:
        """Ask for the check-list: once in an execution."""
        found = self._answer(elements(self.prompt))
        log.info("%s: check-list: %s", self.name, self.client.shown("; ".join(found)))
        return list(found)

    def _answer(self, question: Question, *images: Tensor) -> Any:
        """Ask about images (H, W, 3) and return the answer's value."""
        pictures = [{"type": "image_url", "image_url": {"url": data_url(image, self.max_pixels)}} for image in images]
        asked = json.dumps([self.model, self.max_tokens, question.text, pictures])
        return self.client.once(hashlib.sha256(asked.encode()).hexdigest(), lambda: self._asked(question, pictures))

    def _asked(self, question: Question, pictures: list[dict[str, Any]]) -> Any:
        """Ask until the answer is what was asked for, at most `ANSWERS` times."""
        text, wrong = question.text, ""
        for _ in range(ANSWERS):
            messages = [{"role": "user", "content": [{"type": "text", "text": text}, *pictures]}]
            try:
                return question.answer(self.client.complete(self.model, messages, question.schema, self.max_tokens))
            except WrongAnswer as error:
                wrong = self.client.shown(str(error))
            text = f"{question.text}\n\nAn earlier answer could not be used: {wrong}\nAnswer with the JSON object alone."
        raise self.client.error(f"model {quoted(self.model)} gave {ANSWERS} answers that cannot be used, the last: {wrong}")


def data_url(image: Tensor, max_pixels: int) -> str:
    """Encode a picture (H, W, 3) in [0, 1] as the data URL of a PNG of at most `max_pixels` pixels."""
    from PIL import Image

    pixels = eight_bit(image)
    height, width = pixels.shape[:2]
    picture = Image.frombytes("RGB", (width, height), pixels.numpy().tobytes())
    if width * height > max_pixels:
        shrink = math.sqrt(max_pixels / (width * height))
        width, height = max(1, int(width * shrink)), max(1, int(height * shrink))
        picture = picture.resize((min(width, max_pixels), min(height, max_pixels)), Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    picture.save(encoded, "PNG")
    return "data:image/png;base64," + base64.b64encode(encoded.getvalue()).decode("ascii")
