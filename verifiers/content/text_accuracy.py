"""Text accuracy: how much of a wanted text can be read in a picture.

With w the wanted text of m characters and r the text that was read, of n characters,

    score = 1 - D / min(m + e n, max(m, n)),   D = min over stretches s of r: d(w, s) + e (n - |s|)

d is the Levenshtein distance: the fewest characters to insert, delete or replace. A stretch is a run of whole words, or
nothing; e in [0, 1] is the price of a character outside of it. At e = 0 other words in the picture are free, and letters
too many within a word are not ("OPENN" for "OPEN" costs one); at e = 1, D is the distance to all text, by the longer of
both. The score lies in [0, 1] and is 0 where no text was found.

Both texts are brought into Unicode's form NFKC first, since readers trained on Chinese return full-width punctuation.

References:
    Binary codes capable of correcting deletions, insertions and reversals (Levenshtein, 1966)
    The theory and computation of evolutionary distances (Sellers, 1980): the best stretch, by the same recursion
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..common.base import check_images, quoted


@dataclass(frozen=True)
class Line:
    """A stretch of text that a reader found.

    Attributes:
        text: what it says.
        box: left, top, right, bottom in pixels.
    """

    text: str
    box: tuple[float, float, float, float]


Reader = Callable[[Any], Sequence[Line]]


def reading_order(lines: Sequence[Line]) -> list[Line]:
    """Sort stretches of text: rows from top to bottom, each from left to right.

    A stretch stands in the row of the highest one left if its middle lies within that one's height.
    """
    waiting = sorted(lines, key=lambda line: line.box[1] + line.box[3])
    ordered: list[Line] = []
    while waiting:
        _, top, _, bottom = waiting[0].box
        row = [line for line in waiting if 2 * top <= line.box[1] + line.box[3] <= 2 * bottom]
        waiting = [line for line in waiting if line not in row]
        ordered += sorted(row, key=lambda line: line.box[0])
    return ordered


def edit_cost(wanted: str, read: str, ends: Container[int], outside: float) -> float:
    """Return D, the least price of making a text of a stretch of another.

    Args:
        wanted: what it should be.
        read: what it is.
        ends: places in `read` between which a stretch may lie; 0 and its length are among them.
        outside: price of a character of `read` before or after the stretch, in [0, 1]; one inserted, deleted or
            replaced costs 1. At 1 this is the Levenshtein distance.
    """
    above = [0.0]
    for j in range(1, len(read) + 1):
        above.append(outside * j if j in ends else above[-1] + 1)
    for i, want in enumerate(wanted, 1):
        row = [float(i)]
        for j, have in enumerate(read, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (want != have)))
        above = row
    return min(cost + outside * (len(read) - j) for j, cost in enumerate(above) if j in ends)


@dataclass(frozen=True, eq=False)
class TextAccuracy:
    """One minus the normalized edit distance between what a picture says and what it should say.

    Attributes:
        read: reads one picture, (H, W, 3) 8-bit BGR as a numpy array; runs on the CPU.
        text: the wanted text.
        other_text: e above.
        ignore_case: whether "Open" is as good as "OPEN".
        ignore_spaces: whether spaces and line breaks are left out of both texts; else each run of them is one space.

    Raises:
        ValueError: If nothing of the text is left to look for, or `other_text` is not in [0, 1].
    """

    read: Reader
    text: str
    other_text: float = 0.0
    ignore_case: bool = True
    ignore_spaces: bool = True
    name: str = "text accuracy"
    score_range: tuple[float, float] = (0.0, 1.0)
    needs_prompt: bool = True
    trusts_previews: bool = False  # letters come out last

    def __post_init__(self) -> None:
        if not self.words(self.text):
            raise ValueError(
                f"{self.name}: input 'text' is {quoted(self.text)}; there is no character to look for. Write the words that the"
                " picture should show, without quotes."
            )
        if not 0 <= self.other_text <= 1:
            raise ValueError(
                f"{self.name}: input 'other_text' is {self.other_text}; it must be from 0 to 1. Set it to 0 if other text"
                " in the picture does no harm."
            )

    @property
    def prompt(self) -> str:
        return self.text

    def words(self, text: str) -> list[str]:
        """Return the words of a text as they are compared."""
        text = unicodedata.normalize("NFKC", text)
        return (text.casefold() if self.ignore_case else text).split()

    def accuracy(self, read: str) -> float:
        """Score a text that was read, in [0, 1]."""
        space = "" if self.ignore_spaces else " "
        wanted, found, ends = space.join(self.words(self.text)), "", {0}
        for word in self.words(read):
            found += space if found else ""
            ends.add(len(found))
            found += word
            ends.add(len(found))
        worst = min(len(wanted) + self.other_text * len(found), max(len(wanted), len(found)))
        return 1 - edit_cost(wanted, found, ends, self.other_text) / worst

    def score(self, images: Tensor, latents: Tensor | None = None) -> Tensor:
        """Score images (B, H, W, 3) in [0, 1]: (B,) float32 in [0, 1]."""
        scores = []
        for image in check_images(images, self.name):
            pixels = (255 * image.float()).round().to(torch.uint8).flip(-1).cpu().numpy()
            scores.append(self.accuracy(" ".join(line.text for line in reading_order(self.read(pixels)))))
        return torch.tensor(scores)
