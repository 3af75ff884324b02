"""The oracle: does a picture show what its prompt says? Read off the pixels, with no network.

A pixel belongs to the named colour nearest in hue, by how far it is from grey. The mass of each of the two
colours gives its object's area and centroid; the object's shape is the one whose ideal picture, of that area
at that place, overlaps it best. Six facts follow, each a number in [0, 1] that says yes from 0.5 up.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from .shapes import COLORS, DIRECTIONS, SHAPES, SIZE, Scene, coverage, parse_prompt

FACTS = ("color_a", "color_b", "shape_a", "shape_b", "relation", "nothing_else")
EXACT_FROM = 0.9  # a soft score from here up has all facts right; one with a fact wrong is below 0.87
MIN_AREA, MAX_AREA, MAX_STRAY = 70.0, 520.0, 0.15  # pixels, pixels, share of all colour
MIN_OVERLAP, MIN_LEAD = 0.80, 0.03  # with the ideal shape, and over the next best one


def color_masks(images: Tensor) -> Tensor:
    """Tell how far each pixel is covered by each named colour.

    Args:
        images: Pictures in [0, 1], with shape (B, H, W, 3).

    Returns:
        Soft masks in [0, 1] in the order of `COLORS`, with shape (B, 5, 64, 64).
    """
    pixels = images[..., :3].permute(0, 3, 1, 2).float().clamp(0, 1)  # BHWC -> BCHW
    if pixels.shape[-2:] != (SIZE, SIZE):
        pixels = functional.interpolate(pixels, size=(SIZE, SIZE), mode="area")
    named = torch.tensor(list(COLORS.values()), device=pixels.device)
    named_hue = functional.normalize(named - named.mean(dim=1, keepdim=True), dim=1)  # (5, 3)
    hue = functional.normalize(pixels - pixels.mean(dim=1, keepdim=True), dim=1, eps=1e-4)
    nearest = torch.einsum("bchw,kc->bkhw", hue, named_hue).argmax(dim=1)
    chroma = pixels.amax(dim=1) - pixels.amin(dim=1)
    full = named.amax(dim=1) - named.amin(dim=1)
    covered = ((chroma / full[nearest] - 0.3) / 0.4).clamp(0, 1)  # one half where half the pixel is covered
    return functional.one_hot(nearest, len(COLORS)).permute(0, 3, 1, 2) * covered[:, None]


def measure(mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return an object's area (B,), centroid (B, 2) as (x, y), and overlap with each of `SHAPES` (B, 4).

    Args:
        mask: Soft masks in [0, 1], with shape (B, 64, 64).
    """
    area = mask.sum(dim=(1, 2))
    grid = torch.arange(SIZE, device=mask.device) + 0.5
    x, y = (mask * grid).sum(dim=(1, 2)), (mask * grid[:, None]).sum(dim=(1, 2))
    center = torch.stack([x, y], dim=1) / area.clamp(min=1e-3)[:, None]
    radius = (area / math.pi).sqrt().clamp(min=0.5)
    ideal = torch.stack([coverage(shape, center, radius) for shape in SHAPES], dim=1)  # (B, 4, 64, 64)
    own = mask[:, None]
    overlap = torch.minimum(own, ideal).sum(dim=(2, 3)) / torch.maximum(own, ideal).sum(dim=(2, 3)).clamp(min=1e-3)
    return area, center, overlap


def _ramp(value: Tensor, zero: float, one: float) -> Tensor:
    return ((value - zero) / (one - zero)).clamp(0, 1)


def _area_fact(area: Tensor) -> Tensor:
    return torch.minimum(_ramp(area, 0, 2 * MIN_AREA), _ramp(area, 2 * MAX_AREA, 0))


def _shape_fact(overlap: Tensor, wanted: str) -> Tensor:
    index = SHAPES.index(wanted)
    others = [n for n in range(len(SHAPES)) if n != index]
    lead = overlap[:, index] - overlap[:, others].amax(dim=1)
    fit = _ramp(overlap[:, index], 2 * MIN_OVERLAP - 1, 1)
    return torch.minimum(_ramp(lead, MIN_LEAD - 0.15, MIN_LEAD + 0.15), fit)


def facts(images: Tensor, scene: Scene) -> Tensor:
    """Say how true each of the six `FACTS` is of pictures (B, H, W, 3) in [0, 1], with shape (B, 6)."""
    masks = color_masks(images)
    names = list(COLORS)
    first, second = masks[:, names.index(scene.color_a)], masks[:, names.index(scene.color_b)]
    area_a, center_a, overlap_a = measure(first)
    area_b, center_b, overlap_b = measure(second)
    total = masks.sum(dim=(1, 2, 3))
    stray = (total - area_a - area_b) / total.clamp(min=1e-3)
    color_a, color_b = _area_fact(area_a), _area_fact(area_b)
    offset = center_b - center_a
    direction = torch.tensor(DIRECTIONS[scene.relation], device=images.device)
    along = offset @ direction
    across = (offset @ direction.flip(0)).abs()
    there = torch.minimum(color_a, color_b) >= 0.5
    return torch.stack(
        [
            color_a,
            color_b,
            _shape_fact(overlap_a, scene.shape_a),
            _shape_fact(overlap_b, scene.shape_b),
            _ramp(along - across, -24, 24) * there,
            _ramp(stray, 2 * MAX_STRAY, 0),
        ],
        dim=1,
    )


def soft_score(images: Tensor, prompt: str) -> Tensor:
    """Score pictures (B, H, W, 3) in [0, 1] against a prompt, with shape (B,) in [0, 1].

    Four fifths of the score is the share of facts that are right, one fifth how clearly: more facts win.
    """
    values = facts(images, parse_prompt(prompt))
    return 0.8 * (values >= 0.5).float().mean(dim=1) + 0.2 * values.mean(dim=1)


def exact_score(images: Tensor, prompt: str) -> Tensor:
    """Return 1 for pictures (B, H, W, 3) of which all facts hold and 0 for the others, with shape (B,)."""
    return (facts(images, parse_prompt(prompt)) >= 0.5).all(dim=1).float()
