"""The plot output: best score against model calls, as a picture."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ...search.reporting.svg import nice_ticks

WIDTH, HEIGHT = 960, 600
LEFT, RIGHT, TOP, BOTTOM = 110, 40, 80, 80
INK, FAINT, GRID = (30, 30, 30), (130, 130, 130), (226, 226, 226)
CURVE, DOT, BASE, GOOD = (31, 97, 169), (150, 182, 214), (190, 74, 42), (31, 97, 169)


@dataclass(frozen=True)
class Curve:
    """What is drawn.

    Attributes:
        calls: model calls when each candidate's score was known, in latent rows.
        scores: those candidates' scores, higher is better; NaN for none.
        baseline: candidate 0's score.
        title: one line.
        score_name: name of the score axis.
    """

    calls: list[int]
    scores: list[float]
    baseline: float
    title: str
    score_name: str


def draw_curve(curve: Curve) -> Tensor:
    """Return the plot as an IMAGE (1, 600, 960, 3) in [0, 1]."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen = ImageDraw.Draw(picture)
    points = [(c, s) for c, s in zip(curve.calls, curve.scores, strict=True) if math.isfinite(s)]
    pen.text((LEFT, 26), curve.title, fill=INK, font=_font(22))
    if not points:
        pen.text((LEFT, HEIGHT // 2), "no candidate has a score", fill=FAINT, font=_font(20))
        return _tensor(picture)
    known = [s for _, s in points] + ([curve.baseline] if math.isfinite(curve.baseline) else [])
    y_ticks = nice_ticks(min(known), max(known))
    x_ticks = nice_ticks(0, max(c for c, _ in points))
    scale = _Scale(x_ticks[-1] or 1, y_ticks[0], y_ticks[-1])
    _axes(pen, scale, x_ticks, y_ticks, curve.score_name)
    for calls, score in points:
        x, y = scale(calls, score)
        pen.ellipse((x - 5, y - 5, x + 5, y + 5), fill=DOT)
    if math.isfinite(curve.baseline):
        y = scale(0, curve.baseline)[1]
        for x in range(LEFT, WIDTH - RIGHT, 14):
            pen.line((x, y, min(x + 7, WIDTH - RIGHT), y), fill=BASE, width=2)
        pen.text((LEFT + 8, y - 24), f"your seed: {curve.baseline:.4g}", fill=BASE, font=_font(17))
    _best_line(pen, scale, points)
    return _tensor(picture)


@dataclass(frozen=True)
class _Scale:
    x_max: float
    y_min: float
    y_max: float

    def __call__(self, x: float, y: float) -> tuple[float, float]:
        right = LEFT + (WIDTH - LEFT - RIGHT) * x / self.x_max
        up = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - self.y_min) / (self.y_max - self.y_min)
        return right, up


def _axes(pen: ImageDraw.ImageDraw, scale: _Scale, x_ticks: list[float], y_ticks: list[float], name: str) -> None:
    for tick in y_ticks:
        y = scale(0, tick)[1]
        pen.line((LEFT, y, WIDTH - RIGHT, y), fill=GRID)
        pen.text((LEFT - 12, y), f"{tick:g}", fill=FAINT, font=_font(16), anchor="rm")
    for tick in x_ticks:
        x = scale(tick, scale.y_min)[0]
        pen.line((x, HEIGHT - BOTTOM, x, HEIGHT - BOTTOM + 6), fill=FAINT)
        pen.text((x, HEIGHT - BOTTOM + 10), f"{tick:g}", fill=FAINT, font=_font(16), anchor="ma")
    pen.line((LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM), fill=FAINT, width=2)
    pen.text(((LEFT + WIDTH - RIGHT) // 2, HEIGHT - 34), "model calls", fill=INK, font=_font(18), anchor="ma")
    pen.text((LEFT - 90, TOP - 24), f"score ({name})", fill=INK, font=_font(16))


def _best_line(pen: ImageDraw.ImageDraw, scale: _Scale, points: list[tuple[int, float]]) -> None:
    """Draw the best score so far as steps, and mark where it ended."""
    best, path = -math.inf, []
    for calls, score in points:
        if path:
            path.append(scale(calls, best))
        best = max(best, score)
        path.append(scale(calls, best))
    if len(path) > 1:
        pen.line(path, fill=CURVE, width=4, joint="curve")
    x, y = path[-1]
    pen.ellipse((x - 7, y - 7, x + 7, y + 7), fill=GOOD)
    anchor = "rs" if x > WIDTH / 2 else "ls"
    pen.text((x, y - 12), f"best: {best:.4g}", fill=GOOD, font=_font(19), anchor=anchor)


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255.0).unsqueeze(0)
