"""Checks of what is in a picture and where: their language, and their values for given boxes. No model here.

One check a line:

    a red cup                presence: at least one
    2 cats / three apples    count: exactly so many
    no dog                   absence
    a cat left of a dog      relation: left of, right of, above, below; one thing on each side

A color (one of `colors.COLORS`) before a name is measured on the pixels; the name alone is what is looked for.

A box with the detector's confidence s counts as found with

    p = s (1 - t) / (s (1 - t) + t (1 - s)),   t = the threshold: the odds of s, in units of those of t; 1/2 at s = t

and, where a color is asked for, q = p min(1, 2 share), with the share of its ellipse in that color; else q = p. With
q_1 >= q_2 >= ... of the boxes of a thing, the values in [0, 1] are

    presence    q_1
    absence     1 - q_1
    count n     (q_1 + ... + q_n) / (n + sum of max(0, 2 q_i - 1) over i > n)
    relation    max over pairs a, b of q_a q_b r(a, b)

A box too many counts as far as it is beyond the threshold; for two found and three wanted the value is 2/3, for four and
three wanted 3/4. r is GenEval's rule for relations, made soft: with o = center(a) - center(b) and the sizes of the boxes,
d = sign(o) max(|o| - (size(a) + size(b)) / 10, 0) / |o|, on each axis, and

    r = clamp(1/2 + d along the direction asked for, 0, 1)

which is 1 exactly where GenEval says yes (d > 1/2), and 0 where it says yes to the opposite.

References:
    GenEval: An Object-Focused Framework for Evaluating Text-to-Image Alignment (Ghosh et al., 2023), arXiv 2310.11513
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from ..common.base import quoted
from .colors import SPELLINGS

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
MOST = 20
DIGITS = 10  # a number with as many is larger than any that is meant
MAX_BOXES = 32  # of one thing
SAME = 0.5  # boxes that overlap by more (intersection over union) show one thing
MARGIN = 0.1
DIRECTIONS = {"left of": (-1.0, 0.0), "right of": (1.0, 0.0), "above": (0.0, -1.0), "below": (0.0, 1.0)}  # y downwards
RELATION = re.compile(r"\s+(?:is\s+)?(?:(?:to|on|at)\s+(?:the\s+)?)?(left\s+of|right\s+of|above|below)\s+")
SEVERAL = re.compile(rf"[.?!;:,]|\band\s+(?:a|an|the|\d+|{'|'.join(NUMBERS)})\b")
PLURALS = {
    "people": "person", "men": "man", "women": "woman", "children": "child", "mice": "mouse", "geese": "goose", "feet": "foot",
    "teeth": "tooth", "knives": "knife", "leaves": "leaf", "wolves": "wolf", "loaves": "loaf", "shelves": "shelf",
    "buses": "bus", "lenses": "lens", "shoes": "shoe", "canoes": "canoe", "axes": "axe", "cookies": "cookie",
    "movies": "movie", "ties": "tie", "pies": "pie", "glasses": "glasses", "scissors": "scissors",
}  # fmt: skip


@dataclass(frozen=True)
class Thing:
    """What is looked for.

    Attributes:
        label: its name, for the detector.
        color: one of `colors.COLORS`, or None for any.
    """

    label: str
    color: str | None = None


@dataclass(frozen=True)
class Check:
    """One line.

    Attributes:
        things: one, or with a relation the two in their order.
        count: exactly so many; 0 for absence, None for at least one.
        relation: a key of `DIRECTIONS`, or None.
    """

    things: tuple[Thing, ...]
    count: int | None = None
    relation: str | None = None


def parse(text: str) -> tuple[Check, ...]:
    """Read checks, one a line; empty lines are left out.

    Raises:
        ValueError: a line is no such check; names it.
    """
    lines = [" ".join(line.lower().split()).rstrip(".") for line in text.splitlines()]
    return tuple(_parse_line(line) for line in lines if line)


def _parse_line(line: str) -> Check:
    if SEVERAL.search(line):
        raise ValueError(f"the line {quoted(line)} holds several sentences or things; write one check on each line")
    sides = RELATION.split(f" {line} ")
    if len(sides) not in (1, 3):
        raise ValueError(f"the line {quoted(line)} holds more than one relation; write one on each line")
    parts = [_parse_phrase(side.strip(), line) for side in sides[::2]]
    if len(parts) == 1:
        return Check((parts[0][0],), parts[0][1])
    if any(count is not None for _, count in parts):
        raise ValueError(f"the line {quoted(line)} holds a number and a relation; give the number a line of its own")
    return Check((parts[0][0], parts[1][0]), relation=" ".join(sides[1].split()))


def _parse_phrase(phrase: str, line: str) -> tuple[Thing, int | None]:
    """Read "two red cups" as the thing and its number, None without one."""
    words, count = phrase.split(), None
    if words and words[0] in ("a", "an", "the"):
        words = words[1:]
    elif words and (words[0].isdecimal() or words[0] in NUMBERS):
        count = _number(words[0])
        words = words[1:]
    if count is not None and count > MOST:
        raise ValueError(f"the line {quoted(line)} asks for more than {MOST}; no detector counts so far")
    color = SPELLINGS.get(words[0]) if len(words) > 1 else None
    words = words[1:] if color else words
    if not words:
        raise ValueError(
            f"the line {quoted(line)} does not name a thing; write for instance 'a red cup' or 'a cat left of a dog'"
        )
    if count not in (None, 1):
        words[-1] = singular(words[-1])
    return Thing(" ".join(words), color), count


def _number(word: str) -> int:
    """Return the number that a word names; of one in digits that is too large, one that is too large too."""
    if not word.isdecimal():
        return NUMBERS.index(word)
    return int(word) if len(word) < DIGITS else MOST + 1


def singular(word: str) -> str:
    """Return the singular of an English word, by the common rules."""
    if word in PLURALS:
        return PLURALS[word]
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "sses", "xes", "oes", "zzes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """Return intersection over union of boxes (n, 4) and (m, 4) given by their sides: (n, m)."""
    sizes = (torch.minimum(a[:, None, 2:], b[:, 2:]) - torch.maximum(a[:, None, :2], b[:, :2])).clamp_min(0)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clamp_min(0).prod(-1) for boxes in (a, b)]
    return sizes.prod(-1) / (areas[0][:, None] + areas[1] - sizes.prod(-1)).clamp_min(1e-12)


def distinct(boxes: Tensor, scores: Tensor) -> Tensor:
    """Return the places of the best boxes (n, 4) that show different things, best first: at most `MAX_BOXES`."""
    waiting, kept = scores.argsort(descending=True, stable=True), []
    while len(waiting) and len(kept) < MAX_BOXES:
        kept.append(waiting[0])
        waiting = waiting[1:]
        waiting = waiting[overlap(boxes[kept[-1]][None], boxes[waiting])[0] <= SAME]
    return torch.stack(kept) if kept else waiting


def belief(scores: Tensor, threshold: float) -> Tensor:
    """Return p of confidences s in [0, 1], likewise in [0, 1]; the threshold lies in (0, 1)."""
    scores = scores.clamp(0, 1)
    found, not_found = scores * (1 - threshold), threshold * (1 - scores)
    return found / (found + not_found)


def direction(a: Tensor, b: Tensor) -> Tensor:
    """Return d between boxes (n, 4) and (m, 4): (n, m, 2), x to the right and y downwards, each in [-1, 1]."""
    offset = (a[:, None, :2] + a[:, None, 2:]) / 2 - (b[:, :2] + b[:, 2:]) / 2
    sizes = (a[:, None, 2:] - a[:, None, :2]).abs() + (b[:, 2:] - b[:, :2]).abs()
    beyond = (offset.abs() - MARGIN * sizes).clamp_min(0) * offset.sign()
    return beyond / offset.norm(dim=-1, keepdim=True).clamp_min(1e-6)


def presence_value(q: Tensor) -> float:
    """Value of "at least one", of q (n,)."""
    return q.max().item() if len(q) else 0.0


def count_value(q: Tensor, count: int) -> float:
    """Value of "exactly `count`", of q (n,)."""
    if count == 0:
        return 1 - presence_value(q)
    q = q.sort(descending=True).values
    return (q[:count].sum() / (count + (2 * q[count:] - 1).clamp_min(0).sum())).item()


def relation_value(a: Tensor, q_a: Tensor, b: Tensor, q_b: Tensor, relation: str) -> float:
    """Value of a relation between boxes (n, 4) and (m, 4) with q (n,) and (m,); one thing has no relation to itself."""
    if not len(q_a) or not len(q_b):
        return 0.0
    along = (direction(a, b) * torch.tensor(DIRECTIONS[relation])).sum(-1)
    values = q_a[:, None] * q_b * (0.5 + along).clamp(0, 1)
    return values.masked_fill(overlap(a, b) > SAME, 0).max().item()


def check_value(check: Check, found: dict[Thing, tuple[Tensor, Tensor]]) -> float:
    """Return the value of a check in [0, 1], given boxes (n, 4) and q (n,) of each thing, float32 on the CPU."""
    (a, q_a), (b, q_b) = found[check.things[0]], found[check.things[-1]]
    if check.relation is not None:
        return relation_value(a, q_a, b, q_b, check.relation)
    return presence_value(q_a) if check.count is None else count_value(q_a, check.count)
