"""The curve of a search as SVG: best score against model calls, with your own seed's score and the budget."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .escape import escaped

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 80, 24, 20, 56
MAX_DOTS = 1000  # candidates drawn: more is a cloud, and a heavy page


def draw_svg(points: Sequence[tuple[int, float]], baseline: float | None, budget: float | None, name: str) -> str:
    """Return an <svg> element that takes its colors from the classes of the page it stands in.

    Args:
        points: (model calls, score) of the scored candidates, in order.
        baseline: score of the user's own seed.
        budget: model calls that might be spent.
        name: of the verifier; any text.
    """
    if not points:
        return "<p>No candidate has a score.</p>"
    known = [score for _, score in points] + ([] if baseline is None else [baseline])
    x_ticks = nice_ticks(0, max([calls for calls, _ in points] + ([] if budget is None else [budget])))
    y_ticks = nice_ticks(min(known), max(known))

    def x(calls: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * calls / (x_ticks[-1] or 1), 2)

    def y(score: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (score - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]), 2)

    parts = [_line("grid", LEFT, y(tick), WIDTH - RIGHT, y(tick)) for tick in y_ticks]
    parts += [_text(LEFT - 8, y(tick) + 4, f"{tick:g}", "end") for tick in y_ticks]
    parts += [_text(x(tick), HEIGHT - BOTTOM + 22, f"{tick:g}", "middle") for tick in x_ticks]
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, "model calls", "middle"))
    shown = points[:: math.ceil(len(points) / MAX_DOTS)]
    parts += [f'<circle class="dot" cx="{x(calls)}" cy="{y(score)}" r="3"/>' for calls, score in shown]
    if budget is not None:
        parts.append(_line("budget", x(budget), TOP, x(budget), HEIGHT - BOTTOM))
        parts.append(_text(x(budget) - 6, HEIGHT - BOTTOM - 8, "budget", "end"))
    if baseline is not None:
        parts.append(_line("baseline", LEFT, y(baseline), WIDTH - RIGHT, y(baseline)))
        parts.append(_text(LEFT + 6, y(baseline) - 6, f"your seed: {baseline:.4g}", "start"))
    steps = best_so_far(points)
    path = f"M{x(steps[0][0])} {y(steps[0][1])}" + "".join(f"H{x(calls)}V{y(score)}" for calls, score in steps[1:])
    parts.append(f'<path class="best" d="{path}H{x(points[-1][0])}"/>')
    label = escaped(f"Best score by {name} against model calls")
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def best_so_far(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return the points that were better than all before them."""
    steps: list[tuple[int, float]] = []
    for calls, score in points:
        if not steps or score > steps[-1][1]:
            steps.append((calls, score))
    return steps


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about `count` round numbers that enclose [low, high]."""
    if high - low <= 1e-9 * max(1.0, abs(high)):
        low, high = low - max(abs(low), 1.0) * 0.05, high + max(abs(high), 1.0) * 0.05
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escaped(text)}</text>'
