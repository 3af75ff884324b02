"""Object check: whether the things that were asked for are in a picture, as many, as colored and where they should be.

An open-vocabulary detector (see `detector`) finds boxes, and rules (see `object_rules`) give each check a value in
[0, 1]; the score is their mean.

References:
    GenEval: An Object-Focused Framework for Evaluating Text-to-Image Alignment (Ghosh et al., 2023), arXiv 2310.11513
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..common.base import BATCH, check_images, quoted
from .colors import color_share
from .object_rules import Check, Thing, belief, check_value, distinct, parse


@dataclass(frozen=True, eq=False)
class ObjectCheck:
    """Mean of the values of checks.

    Attributes:
        detector: a `Detector`.
        checks: the checks, one a line.
        threshold: the confidence at which a box counts half, in (0, 1).

    Raises:
        ValueError: If there is no check, one cannot be read, or a name is too long for the detector.
    """

    detector: Any
    checks: str
    threshold: float
    name: str = "object check"
    score_range: tuple[float, float] = (0.0, 1.0)
    needs_prompt: bool = True
    trusts_previews: bool = True  # what is where is settled early
    batch_size = BATCH

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ValueError(
                f"{self.name}: input 'threshold' is {self.threshold}; it must lie between 0 and 1. Usual: 0.1 to 0.3."
            )
        try:
            if not self.parsed:
                raise ValueError("no line says what to look for; write for instance 'a red cup' or '2 cats'")
            self.detector.check_labels(self.labels)
        except ValueError as error:
            raise ValueError(f"{self.name}: input 'checks' is {quoted(self.checks)}; {error}.") from error

    @property
    def prompt(self) -> str:
        return self.checks

    @cached_property
    def parsed(self) -> tuple[Check, ...]:
        return parse(self.checks)

    @cached_property
    def things(self) -> tuple[Thing, ...]:
        return tuple(dict.fromkeys(thing for check in self.parsed for thing in check.things))

    @cached_property
    def labels(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(thing.label for thing in self.things))

    def get_models(self) -> list[Any]:
        """Return the model patcher, for ComfyUI's tracking of models in use."""
        return [self.detector.model.patcher]

    def values(self, images: Tensor) -> Tensor:
        """Judge images (B, H, W, 3) in [0, 1]: (B, C) float32, the value of each check in [0, 1], in their order."""
        images = check_images(images, self.name)
        rows = []
        for image, (boxes, scores) in zip(images, self.detector.detect(images, self.labels), strict=True):
            found = {thing: self._found(thing, image, boxes, scores) for thing in self.things}
            rows.append([check_value(check, found) for check in self.parsed])
        return torch.tensor(rows)

    def score(self, images: Tensor, latents: Tensor | None = None) -> Tensor:
        """Score images (B, H, W, 3) in [0, 1]: (B,) float32 in [0, 1], the mean value of the checks."""
        return self.values(images).mean(1)

    def _found(self, thing: Thing, image: Tensor, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Return the boxes (n, 4) of a thing, of those of all (N, 4) with confidences (N, L), and their q (n,)."""
        scores = scores[:, self.labels.index(thing.label)]
        places = distinct(boxes, scores)
        boxes, q = boxes[places], belief(scores[places], self.threshold)
        if thing.color is not None:
            shares = torch.tensor([color_share(image, box, thing.color) for box in boxes])
            q = q * (2 * shares).clamp_max(1)
        return boxes, q
