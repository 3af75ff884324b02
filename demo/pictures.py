"""The pictures that `make demo` leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

CELL, GAP, HEAD, FOOT = 160, 18, 64, 34
GREEN, RED, INK = (34, 139, 74), (190, 60, 50), (35, 35, 35)
COLUMNS = ("your own seed", "default search, by CLIP", "best of N, by CLIP", "best of N, by the oracle")


def picture(image: Tensor, side: int) -> Image.Image:
    """Return an image (H, W, 3) in [0, 1] enlarged to `side` pixels."""
    pixels = (image.clamp(0, 1) * 255).round().byte().cpu().numpy()
    return Image.fromarray(np.ascontiguousarray(pixels)).resize((side, side), Image.Resampling.BICUBIC)


def save_best(results: list[dict], path: Path, best_of: Callable) -> None:
    """Save the picture that the oracle scores highest, of all searches."""
    winners = [(max(r["truth"]), r) for r in results]
    result = max(winners, key=lambda pair: pair[0])[1]
    picture(result["pictures"][best_of(result["truth"], len(result["truth"]))], 512).save(path)


def save_grid(results: list[dict], path: Path, best_of: Callable, right: Callable) -> None:
    """Save baseline against winners, one row of pictures for each prompt, framed green where they are right."""
    label = 250
    size = (label + len(COLUMNS) * (CELL + GAP) + GAP, HEAD + len(results) * (CELL + GAP) + FOOT)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for column, title in enumerate(COLUMNS):
        x = label + column * (CELL + GAP) + CELL // 2
        pen.multiline_text((x, HEAD - 10), title.replace(", ", ",\n"), fill=INK, font=_font(16), anchor="md",
                           align="center")  # fmt: skip
    for row, result in enumerate(results):
        y = HEAD + row * (CELL + GAP)
        pen.multiline_text((16, y + CELL // 2), _wrapped(result["prompt"]), fill=INK, font=_font(17), anchor="lm")
        count = len(result["truth"])
        chosen = [0, None, best_of(result["clip"], count), best_of(result["truth"], count)]
        for column, index in enumerate(chosen):
            shown = result["default"]["picture"] if index is None else result["pictures"][index]
            truth = result["default"]["truth"] if index is None else result["truth"][index]
            x = label + column * (CELL + GAP)
            pen.rectangle((x - 4, y - 4, x + CELL + 3, y + CELL + 3), fill=GREEN if right(truth) else RED)
            sheet.paste(picture(shown, CELL), (x, y))
    pen.text((16, size[1] - FOOT + 6), "Green frame: every fact of the prompt is right (oracle). Red: something is wrong.",
             fill=INK, font=_font(15))  # fmt: skip
    sheet.save(path)


def save_curve(counts: list[int], curves: dict[str, list[float]], steps: int, path: Path) -> None:
    """Save the share of prompts that came out right against model calls."""
    figure = Figure(figsize=(8, 5), dpi=110)
    axes = figure.add_subplot()
    calls = [count * steps for count in counts]
    axes.plot(calls, curves["truth"], marker="o", label="chosen by the oracle (the ceiling)", color="#228b4a")
    axes.plot(calls, curves["clip"], marker="o", label="chosen by the tiny CLIP", color="#1f61a9")
    axes.axhline(curves["truth"][0], ls="--", color="#be4a2a", label="your own seed")
    axes.set(xlabel="model calls", ylabel="prompts shown right", ylim=(0, 1.03), xlim=(0, calls[-1] * 1.03))
    axes.set_title("Best of N: what a budget buys")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(path)


def _wrapped(prompt: str) -> str:
    words, lines = prompt.split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > 22:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
