"""The demo's world: prompts about two coloured shapes, and pictures of them.

A prompt names two shapes of different colours and how they lie: "a red circle left of a blue square".
Pictures are 64x64, drawn from signed distances, so that edges are anti-aliased. Coordinates are pixels, x to
the right and y down.
"""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass

import torch
from torch import Tensor

SIZE = 64
COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.14, 0.16),
    "green": (0.16, 0.66, 0.26),
    "blue": (0.14, 0.34, 0.88),
    "yellow": (0.96, 0.80, 0.12),
    "purple": (0.58, 0.20, 0.74),
}
SHAPES = ("circle", "square", "triangle", "star")
RELATIONS = ("left of", "right of", "above", "below")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
# Unit direction from the first shape's centre to the second's.
DIRECTIONS = {"left of": (1.0, 0.0), "right of": (-1.0, 0.0), "above": (0.0, 1.0), "below": (0.0, -1.0)}

_PATTERN = re.compile(
    rf"an? ({'|'.join(COLORS)}) ({'|'.join(SHAPES)}) ({'|'.join(RELATIONS)}) "
    rf"an? ({'|'.join(COLORS)}) ({'|'.join(SHAPES)})"
)


@dataclass(frozen=True)
class Scene:
    """The five facts of a prompt."""

    color_a: str
    shape_a: str
    relation: str
    color_b: str
    shape_b: str

    @property
    def prompt(self) -> str:
        return f"a {self.color_a} {self.shape_a} {self.relation} a {self.color_b} {self.shape_b}"


def parse_prompt(prompt: str) -> Scene:
    """Read a prompt of the grammar; case, outer blanks and a final full stop do not matter."""
    match = _PATTERN.fullmatch(" ".join(prompt.lower().split()).rstrip("."))
    if match is None:
        raise ValueError(
            f"prompt {prompt!r} is not of the form 'a red circle left of a blue square' "
            f"(colours: {', '.join(COLORS)}; shapes: {', '.join(SHAPES)}; relations: {', '.join(RELATIONS)})"
        )
    if match[1] == match[4]:
        raise ValueError(f"prompt {prompt!r} gives both shapes the colour {match[1]}: they must differ")
    return Scene(*match.groups())


def random_scene(rng: random.Random) -> Scene:
    """Draw the five facts uniformly; the two colours differ."""
    color_a, color_b = rng.sample(list(COLORS), 2)
    return Scene(color_a, rng.choice(SHAPES), rng.choice(RELATIONS), color_b, rng.choice(SHAPES))


def random_prompt(seed: int) -> str:
    """Return the prompt of a seed."""
    return random_scene(random.Random(seed)).prompt


def all_scenes() -> list[Scene]:
    """List every scene of the grammar, in a fixed order."""
    return [
        Scene(color_a, shape_a, relation, color_b, shape_b)
        for color_a in COLORS
        for shape_a in SHAPES
        for relation in RELATIONS
        for color_b in COLORS
        if color_b != color_a
        for shape_b in SHAPES
    ]


def change_one_fact(scene: Scene, rng: random.Random) -> Scene:
    """Return a scene that differs in exactly one fact: a hard negative."""
    fact = rng.choice(("color_a", "color_b", "shape_a", "shape_b", "relation"))
    if fact == "relation":
        value = OPPOSITE[scene.relation] if rng.random() < 0.5 else _other(RELATIONS, scene.relation, rng)
    elif fact.startswith("color"):
        value = rng.choice([c for c in COLORS if c not in (scene.color_a, scene.color_b)])
    else:
        value = _other(SHAPES, getattr(scene, fact), rng)
    return Scene(**{**scene.__dict__, fact: value})


def _other(values: tuple[str, ...], value: str, rng: random.Random) -> str:
    return rng.choice([v for v in values if v != value])


def signed_distance(shape: str, x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    """Distance to a shape's edge, negative inside, for a shape centred on its centroid.

    All shapes of one `radius` have about the area of the circle of that radius.

    Args:
        shape: One of `SHAPES`.
        x: Horizontal offsets from the centroid, with shape (*).
        y: Vertical offsets, down, with shape (*).
        radius: In pixels, broadcastable to (*).
    """
    if shape == "circle":
        return (x * x + y * y).sqrt() - radius
    if shape == "square":
        return torch.maximum(x.abs(), y.abs()) - radius * (math.sqrt(math.pi) / 2)
    if shape == "triangle":  # equilateral, apex up; inradius from area = 3 sqrt(3) inradius^2
        inradius = radius * math.sqrt(math.pi / (3 * math.sqrt(3)))
        sides = (math.sqrt(3) / 2) * x.abs() - 0.5 * y
        return torch.maximum(sides, y) - inradius
    if shape == "star":
        return _star_distance(x, y, radius * 1.62)
    raise ValueError(f"unknown shape {shape!r}")


def _star_distance(x: Tensor, y: Tensor, outer: Tensor, inner_ratio: float = 0.42) -> Tensor:
    """Distance to a five-pointed star with one point up; exact inside, a lower bound outside its tips."""
    sector = 2 * math.pi / 5
    angle = torch.atan2(x, -y).abs()
    angle = torch.remainder(angle + sector / 2, sector) - sector / 2  # fold onto the nearest point
    length = (x * x + y * y).sqrt()
    along, across = length * angle.cos(), length * angle.sin().abs()
    inner_x, inner_y = inner_ratio * math.cos(sector / 2), inner_ratio * math.sin(sector / 2)
    edge_x, edge_y = inner_x - 1.0, inner_y  # from the tip (1, 0) to the inner corner
    norm = math.hypot(edge_x, edge_y)
    return ((along - outer) * edge_y - across * edge_x) / norm


def coverage(shape: str, center: Tensor, radius: Tensor, size: int = SIZE) -> Tensor:
    """Share of each pixel that a shape covers.

    Args:
        shape: One of `SHAPES`.
        center: Centroids as (x, y) in pixels, with shape (N, 2).
        radius: Radii in pixels, with shape (N,).
        size: Side of the picture.

    Returns:
        Coverage in [0, 1], with shape (N, size, size).
    """
    grid = torch.arange(size, dtype=center.dtype, device=center.device) + 0.5
    x = grid[None, None, :] - center[:, 0, None, None]
    y = grid[None, :, None] - center[:, 1, None, None]
    return (0.5 - signed_distance(shape, x, y, radius[:, None, None])).clamp(0, 1)


def _background(count: int, generator: torch.Generator) -> Tensor:
    """Nearly grey backgrounds with a soft slope, one in four dark, with shape (N, 3, H, W)."""
    dark = torch.rand(count, 1, generator=generator) < 0.25
    level = torch.rand(count, 1, generator=generator)
    level = torch.where(dark, 0.10 + 0.14 * level, 0.78 + 0.18 * level)
    tint = (torch.rand(count, 3, generator=generator) - 0.5) * 0.05
    slope = (torch.rand(count, 2, generator=generator) - 0.5) * 0.10
    grid = torch.linspace(-1, 1, SIZE)
    ramp = slope[:, 0, None, None] * grid[None, None, :] + slope[:, 1, None, None] * grid[None, :, None]
    return ((level + tint)[:, :, None, None] + ramp[:, None]).clamp(0, 1)


def _places(scenes: list[Scene], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw centres (N, 2, 2) and radii (N, 2) such that no shape touches the other or the border."""
    count = len(scenes)
    direction = torch.tensor([DIRECTIONS[s.relation] for s in scenes])
    radius = 7.0 + 3.0 * torch.rand(count, 2, generator=generator)
    radius = radius * (15 / (1.62 * radius.mean(dim=1, keepdim=True))).clamp(max=1)  # two wide ones would not fit
    reach = 1.62 * radius  # no shape reaches further from its centroid than a star's points
    nearest, farthest = reach.sum(dim=1), SIZE - 4 - reach.sum(dim=1)
    apart = torch.lerp(nearest, torch.maximum(nearest, farthest), 0.7 * torch.rand(count, generator=generator))
    aside = (torch.rand(count, generator=generator) - 0.5) * 0.7 * apart
    offset = direction * apart[:, None] + direction.flip(1).abs() * aside[:, None]
    low = torch.maximum(reach[:, :1], reach[:, 1:] - offset) + 2
    high = torch.minimum(SIZE - reach[:, :1], SIZE - reach[:, 1:] - offset) - 2
    low, high = torch.minimum(low, high), torch.maximum(high, low)
    first = low + (high - low) * torch.rand(count, 2, generator=generator)
    return torch.stack([first, first + offset], dim=1), radius


def draw(scenes: list[Scene], generator: torch.Generator) -> Tensor:
    """Draw one picture for each scene; size, place, shade and background vary.

    Args:
        scenes: The facts, N of them.
        generator: Source of the variety; consumed.

    Returns:
        Pictures in [0, 1], with shape (N, 64, 64, 3).
    """
    picture = _background(len(scenes), generator)
    center, radius = _places(scenes, generator)
    shade = 1 + 0.16 * (torch.rand(len(scenes), 2, 1, generator=generator) - 0.5)
    tint = (torch.rand(len(scenes), 2, 3, generator=generator) - 0.5) * 0.06
    named = torch.tensor([[COLORS[s.color_a], COLORS[s.color_b]] for s in scenes])
    color = (named * shade + tint).clamp(0, 1)
    kinds = [(s.shape_a, s.shape_b) for s in scenes]
    for i in range(2):
        mask = torch.zeros(len(scenes), SIZE, SIZE)
        for shape in SHAPES:
            rows = torch.tensor([n for n, kind in enumerate(kinds) if kind[i] == shape], dtype=torch.long)
            if len(rows) > 0:
                mask[rows] = coverage(shape, center[rows, i], radius[rows, i])
        picture = torch.lerp(picture, color[:, i, :, None, None].expand_as(picture), mask[:, None])
    return picture.permute(0, 2, 3, 1).contiguous()  # BCHW -> BHWC
