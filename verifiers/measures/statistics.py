"""Image statistics: four measurements of the pixels, no weights to load.

Each term lies in [0, 1]. With Y the Rec. 601 luma in [0, 1]:

    sharpness     s / (s + 0.05),   s = standard deviation of the 4-neighbor Laplacian of Y (border left out)
    exposure      1 - |2 mean(Y) - 1|
    colorfulness  M / (M + 45),     M = sqrt(var(rg) + var(yb)) + 0.3 sqrt(mean(rg)^2 + mean(yb)^2),
                                    rg = R - G, yb = (R + G) / 2 - B, of 8-bit values
    contrast      2 std(Y)

and the score is their mean, weighted: sum(w t) / sum(|w|). Variances are those of the population. The
halfway points are those of ordinary photographs: a Laplacian deviation of 0.05, and M = 45, "averagely
colorful" in the paper.

References:
    Measuring colourfulness in natural images (Hasler and Suesstrunk, 2003), doi:10.1117/12.477378
    Diatom autofocusing in brightfield microscopy (Pech-Pacheco et al., 2000): the Laplacian
    Contrast in complex images (Peli, 1990), doi:10.1364/JOSAA.7.002032: RMS contrast
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..common.base import check_images
from ..common.preprocess import luma, to_bchw

HALF_SHARP = 0.05
HALF_COLORFUL = 45.0


def sharpness(y: Tensor) -> Tensor:
    """Map the spread of the Laplacian of a luma plane (H, W) to [0, 1); 0 below 3x3 pixels."""
    if min(y.shape) < 3:
        return y.new_zeros(())
    center, up, down, left, right = y[1:-1, 1:-1], y[:-2, 1:-1], y[2:, 1:-1], y[1:-1, :-2], y[1:-1, 2:]
    spread = (up + down + left + right - 4 * center).std(correction=0)
    return spread / (spread + HALF_SHARP)


def exposure(y: Tensor) -> Tensor:
    """Score the mean of a luma plane (H, W): 1 at one half, 0 for all black or all white."""
    return 1 - (2 * y.mean() - 1).abs()


def colorfulness(pixels: Tensor) -> Tensor:
    """Return M of pixels (3, H, W) in [0, 1], on the paper's 8-bit scale: 0 grey, 109 extremely colorful."""
    red, green, blue = 255 * pixels
    rg, yb = red - green, (red + green) / 2 - blue
    spread = (rg.var(correction=0) + yb.var(correction=0)).sqrt()
    return spread + 0.3 * (rg.mean().square() + yb.mean().square()).sqrt()


def contrast(y: Tensor) -> Tensor:
    """Return twice the standard deviation of a luma plane (H, W): 1 for half black, half white."""
    return 2 * y.std(correction=0)


@dataclass(frozen=True)
class ImageStatistics:
    """A weighted mean of sharpness, exposure, colorfulness and contrast.

    Attributes:
        sharpness: Weight of the term; below zero prefers less of it, zero leaves it out.
        exposure: Weight, likewise.
        colorfulness: Weight, likewise.
        contrast: Weight, likewise.

    Raises:
        ValueError: If all weights are zero or one is not finite.
    """

    sharpness: float = 1.0
    exposure: float = 1.0
    colorfulness: float = 1.0
    contrast: float = 1.0
    name: str = "image statistics"
    needs_prompt: bool = False
    prompt: str = ""
    trusts_previews: bool = False  # an x0 prediction is soft and grey whatever it will become

    def __post_init__(self) -> None:
        weights = self.weights
        if not all(math.isfinite(weight) for weight in weights) or not any(weights):
            raise ValueError(
                f"{self.name}: inputs 'sharpness', 'exposure', 'colorfulness', 'contrast' are {weights}; they"
                " must be finite and not all 0. Set at least one to 1."
            )

    @property
    def weights(self) -> tuple[float, float, float, float]:
        return self.sharpness, self.exposure, self.colorfulness, self.contrast

    @property
    def score_range(self) -> tuple[float, float]:
        total = sum(abs(weight) for weight in self.weights)
        return sum(min(w, 0) for w in self.weights) / total, sum(max(w, 0) for w in self.weights) / total

    def terms(self, images: Tensor) -> Tensor:
        """Measure images (B, H, W, 3): (B, 4), the four terms in the order above, each in [0, 1]."""
        rows = []
        for image in check_images(images, self.name):  # one by one: a row must not depend on the batch
            pixels = to_bchw(image)
            y, m = luma(pixels), colorfulness(pixels)
            rows.append(torch.stack([sharpness(y), exposure(y), m / (m + HALF_COLORFUL), contrast(y)]))
        return torch.stack(rows).cpu()

    def score(self, images: Tensor, latents: Tensor | None = None) -> Tensor:
        """Score images (B, H, W, 3) in [0, 1]: (B,) float32, the weighted mean of the terms."""
        weights = torch.tensor(self.weights)
        return (self.terms(images) * weights).sum(1) / weights.abs().sum()
