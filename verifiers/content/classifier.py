"""Class verifiers: how sure an image classifier is that a picture shows one class.

    logit             z_c, what the paper's supervised verifiers maximize
    probability       p_c = exp(z_c) / sum over classes exp(z)
    log probability   log p_c = z_c - log sum exp(z)

The log-probability serves a search best. The probability says the same of two pictures but runs into 0 and 1, where small
differences, which a search climbs on and ensembles weigh, are lost. The logit alone does not know of the other classes: it
rises for strong pictures that show something else even more.

References:
    Inference-Time Scaling for Diffusion Models beyond Scaling Denoising Steps (Ma et al., 2025), arXiv 2501.09732, section 3.1:
        supervised verifiers (DINO with a linear head, CLIP zero-shot)
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..common.base import BATCH, check_images, quoted
from ..common.preprocess import in_slices

LOG_PROBABILITY, PROBABILITY, LOGIT = OUTPUTS = ("log probability", "probability", "logit")
RANGES = {LOG_PROBABILITY: (-math.inf, 0.0), PROBABILITY: (0.0, 1.0), LOGIT: (-math.inf, math.inf)}
NEAR = 5  # names shown for one that is not known
LONGEST = 100  # letters of a name that near ones are looked for
DIGITS = 10  # a place with as many is beyond the last class
# Bytes that a network needs for a byte of pixel values, beside its weights: what a ViT-B does, doubled.
MEMORY_FACTOR = 80


@dataclass(frozen=True, eq=False)
class ClassifierLogit:
    """One class of an image classifier: its log-probability, probability or logit.

    Attributes:
        model: Called with work(module, device), which it loads a transformers image classifier for; has `patcher`, `dtype`.
        prepare: From images (B, H, W, 3) in [0, 1] to pixel values (B, 3, h, w).
        labels: Names of the classes, in the order of the logits.
        target: Place of the class.
        output: "log probability", "probability" or "logit".
        exclusive: Whether the probabilities of the classes sum to 1; else each is a sigmoid of its own (multi-label models).

    Raises:
        ValueError: If `output` is none of these, or the model has one class only, whose probability is always 1.
    """

    model: Any
    prepare: Callable[[Tensor], Tensor]
    labels: Sequence[str]
    target: int
    output: str = LOG_PROBABILITY
    exclusive: bool = True
    name: str = "class score"
    needs_prompt: bool = False
    prompt: str = ""
    trusts_previews: bool = True
    batch_size = BATCH

    def __post_init__(self) -> None:
        check_output(self.name, self.output)
        if len(self.labels) < 2 and self.exclusive and self.output != LOGIT:
            raise ValueError(
                f"{self.name}: input 'output' is {self.output!r}, and the model has one class only, whose probability is"
                f" always 1. Choose {LOGIT!r}."
            )

    @property
    def score_range(self) -> tuple[float, float]:
        return RANGES[self.output]

    def get_models(self) -> list[Any]:
        """Return the classifier's model patcher, for ComfyUI's tracking of models in use."""
        return [self.model.patcher]

    def logits(self, images: Tensor) -> Tensor:
        """Return logits (B, C), float32 on the CPU, of images (B, H, W, 3) in [0, 1]."""

        def classify(part: Tensor) -> Tensor:
            pixels = self.prepare(part.float())

            def work(module: Any, device: torch.device) -> Tensor:
                return module(pixel_values=pixels.to(device, self.model.dtype)).logits.float().cpu()

            return self.model(work, MEMORY_FACTOR * 4 * pixels.numel())

        return in_slices(classify, images)

    def score(self, images: Tensor, latents: Tensor | None = None) -> Tensor:
        """Score images (B, H, W, 3) in [0, 1]: (B,) float32."""
        return of_class(self.logits(check_images(images, self.name)), self.target, self.output, self.exclusive)


def check_output(name: str, output: str) -> None:
    """Raise a ValueError for an output that there is not."""
    if output not in OUTPUTS:
        raise ValueError(f"{name}: input 'output' is {output!r}; choose one of {', '.join(OUTPUTS)}.")


def of_class(logits: Tensor, target: int, output: str, exclusive: bool = True) -> Tensor:
    """Return one class's (B,) log-probability, probability or logit of logits (B, C)."""
    if output == LOGIT:
        return logits[:, target]
    logs = logits.log_softmax(1) if exclusive else torch.nn.functional.logsigmoid(logits)
    return logs[:, target] if output == LOG_PROBABILITY else logs[:, target].exp()


def class_index(labels: Sequence[str], wanted: str, name: str) -> int:
    """Return the place of a class.

    Args:
        labels: Names of the classes; of "tabby, tabby cat" (ImageNet's) each part is a name too.
        wanted: A place from 0, as digits, or a name; capitals do not matter.
        name: The verifier's name, for messages.

    Raises:
        ValueError: If it is none of them, naming near ones, or the name of several.
    """
    said = wanted.strip().lower()
    found = f"{name}: input 'class_name' is {quoted(wanted)}"
    if said.isdecimal():
        if len(said) < DIGITS and int(said) < len(labels):
            return int(said)
        raise ValueError(f"{found}; the model has {len(labels)} classes. Choose a number from 0 to {len(labels) - 1}.")
    whole = [index for index, label in enumerate(labels) if label.strip().lower() == said]
    names: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        for part in label.split(","):
            names.setdefault(part.strip().lower(), []).append(index)
    places = whole or names.get(said, [])
    if len(places) == 1:
        return places[0]
    if places:
        both = ", ".join(f"{index} ({labels[index]})" for index in places)
        raise ValueError(f"{found}, a name of several classes: {both}. Give the number.")
    near = difflib.get_close_matches(said[:LONGEST], names, NEAR, 0.5) or [part for part in names if said and said in part][:NEAR]
    some = near or list(names)[:NEAR]
    raise ValueError(f"{found}, no class of the model's {len(labels)}. {'Near ones' if near else 'Some'}: {', '.join(some)}.")
