"""Names of colors: eleven basic ones, told from the pixels.

With hue h in degrees, saturation s and value v of the HSV model, a pixel is the first that fits of

    black   v < 0.2
    white   little chroma (s < 0.15 or s v < 0.1) and v > 0.85
    grey    little chroma
    red     h >= 345 or h < 15; pink if s < 0.6 and v > 0.7, brown if v < 0.55 and s < 0.8
    orange  15 to 42; brown if v < 0.75 or s < 0.5
    yellow  42 to 70; if v <= 0.55, brown up to 55 and green above
    green   70 to 170
    blue    170 to 255
    purple  255 to 345; pink from 300 if v > 0.7

Of the two-word colors of the XKCD survey (412 names such as "brick red" or "mustard yellow", left out the plain, dark
and light ones) 89 % get the name that people gave them.

References:
    Basic Color Terms (Berlin and Kay, 1969): the eleven names
    GenEval (Ghosh et al., 2023), arXiv 2310.11513: ten of them (no grey), told by CLIP; pixels need no second model
    The XKCD color survey (Munroe, 2010), https://blog.xkcd.com/2010/05/03/color-survey-results
"""

from __future__ import annotations

import torch
from torch import Tensor

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "grey")
SPELLINGS = {color: color for color in COLORS} | {"gray": "grey", "violet": "purple"}


def name_colors(pixels: Tensor) -> Tensor:
    """Name colors (..., 3) in [0, 1]: (...) int64, places in `COLORS`."""
    value, strongest = pixels.max(-1)
    chroma = value - pixels.min(-1).values
    saturation = chroma / value.clamp_min(1e-6)
    red, green, blue = pixels.unbind(-1)
    turns = torch.stack([(green - blue), (blue - red), (red - green)], -1) / chroma.clamp_min(1e-6)[..., None]
    hue = 60 * (turns.gather(-1, strongest[..., None])[..., 0] + 2 * strongest) % 360
    pale = (saturation < 0.15) | (chroma < 0.1)
    rules = [  # the first that holds
        ("black", value < 0.2),
        ("white", pale & (value > 0.85)),
        ("grey", pale),
        ("pink", ((hue >= 345) | (hue < 15)) & (saturation < 0.6) & (value > 0.7)),
        ("brown", ((hue >= 345) | (hue < 15)) & (saturation < 0.8) & (value < 0.55)),
        ("red", (hue >= 345) | (hue < 15)),
        ("brown", (hue < 42) & ((value < 0.75) | (saturation < 0.5))),
        ("orange", hue < 42),
        ("yellow", (hue < 70) & (value > 0.55)),
        ("brown", hue < 55),
        ("green", hue < 170),
        ("blue", hue < 255),
        ("pink", (hue >= 300) & (value > 0.7)),
    ]
    names = torch.full(value.shape, COLORS.index("purple"), device=pixels.device)
    for color, holds in reversed(rules):
        names = torch.where(holds, COLORS.index(color), names)
    return names


def color_share(image: Tensor, box: Tensor, color: str) -> float:
    """Return which part of what is in a box has a color, in [0, 1].

    What is in a box is taken to be the ellipse that touches its sides: a corner is background more often than not.

    Args:
        image: (H, W, 3) in [0, 1].
        box: (4,), left, top, right, bottom in pixels; what lies outside of the picture is left out.
        color: one of `COLORS`.
    """
    left, top, right, bottom = box.tolist()
    x0, y0 = max(0, int(left)), max(0, int(top))
    pixels = image[y0 : max(y0, int(bottom) + 1), x0 : max(x0, int(right) + 1)].float()
    height, width = pixels.shape[:2]
    x = (torch.arange(x0, x0 + width, device=image.device) + 0.5 - (left + right) / 2) / max((right - left) / 2, 1e-6)
    y = (torch.arange(y0, y0 + height, device=image.device) + 0.5 - (top + bottom) / 2) / max((bottom - top) / 2, 1e-6)
    inside = x.square() + y.square()[:, None] <= 1
    if not inside.any():
        return 0.0
    return (name_colors(pixels[inside]) == COLORS.index(color)).float().mean().item()
