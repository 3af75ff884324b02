"""A model of somebody's choices: what they will pick next, from what they picked so far.

Bradley and Terry's model with features (preferential logistic regression): the strength of a picture is w f(picture), so
that pictures nobody compared have one too. f are blocks of features, standardized over the pictures seen; a block of k
counts 1 / sqrt(k), so that many features do not drown few. w has a Gaussian prior such that each block alone moves
strengths by about `SPREAD`, and is fitted as strengths are. "All bad" teaches a level too: that of the reference.

By default f is 28 numbers of the pixels, for which no model is loaded: brightness on a 4 x 4 grid and two color
differences on 2 x 2 (the layout and its colors), and sharpness, exposure, colorfulness and contrast.

How far to trust it is measured, not guessed: each choice is predicted by a model that did not see it.

References:
    Bradley and Terry (1952), Hunter (2004): see choices.py
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..common.preprocess import luma, to_bchw
from ..measures.statistics import ImageStatistics
from .choices import REFERENCE, TOLERANCE, YOU, Choice, fit_preferences

SPREAD = 2.0  # log odds: the better of two pictures one deviation apart is picked 7 times in 8
LEAST_CHOICES = 5  # before which there is nothing to speak of
ROUGHLY = 1e-3  # tolerance of fits that only have to tell which picture is strongest
CHECKED = 20  # choices, the newest, by which the model is checked


def picture_features(images: Tensor) -> Tensor:
    """Describe a candidate's pictures (F, H, W, 3) in [0, 1] by 28 numbers (28,) float64; of several frames the mean."""
    pixels = to_bchw(images.float()).cpu()
    red, green, blue = pixels.unbind(1)
    shades = torch.stack([red - green, (red + green) / 2 - blue], 1)
    pool = torch.nn.functional.adaptive_avg_pool2d
    layout = torch.cat([pool(luma(pixels)[:, None], 4).flatten(1), pool(shades, 2).flatten(1)], 1)
    terms = ImageStatistics().terms(images.float())
    return torch.cat([layout, terms], 1).double().mean(0)


@dataclass(frozen=True, eq=False)
class PreferenceModel:
    """A fitted model of choices.

    Attributes:
        mean, scale, weights: (D,) float64; the strength of features x is ((x - mean) scale) weights.
        hits: how many of the `checked` choices a model without that one foretold.
        checked: choices that were foretold.
        chance: how many of them a guess would have hit, on average.
    """

    mean: Tensor
    scale: Tensor
    weights: Tensor
    hits: int
    checked: int
    chance: float

    def strength(self, blocks: Sequence[Tensor]) -> float:
        """Return the strength of a picture with these features."""
        return float(((torch.cat(tuple(blocks)) - self.mean) * self.scale) @ self.weights)

    @property
    def words(self) -> str:
        """How sure the model is."""
        return f"it foretold {self.hits} of your last {self.checked} picks; guessing would have {self.chance:.1f}"


def fit_taste(choices: Sequence[Choice], features: Mapping[int, Sequence[Tensor]]) -> PreferenceModel | None:
    """Return the model of a person's own choices; None while they are too few.

    Args:
        choices: all so far; others' do not count, nor those with a candidate without features.
        features: blocks (k,) float64 of each candidate, the same blocks for all.
    """
    usable = [c for c in choices if c.by == YOU and all(index in features for index in c.shown)]
    picks = [choice for choice in usable if choice.ranking]
    if len(picks) < LEAST_CHOICES:
        return None
    table = torch.stack([torch.cat(tuple(blocks)) for blocks in features.values()])
    sizes = torch.cat([torch.full((len(block),), len(block)) for block in next(iter(features.values()))])
    mean, spread = table.mean(0), table.std(0, correction=0)
    flat = spread <= 1e-9 * table.abs().amax(0).clamp_min(1)
    scale = (1 / (spread * sizes.sqrt())).masked_fill(flat, 0)
    rows = _rows(dict(zip(features, (table - mean) * scale, strict=True)))
    weights = _fitted(usable, rows)
    checked = picks[-CHECKED:]
    hits = sum(_foretold(one, [c for c in usable if c is not one], rows, weights) for one in checked)
    return PreferenceModel(mean, scale, weights[:-1], hits, len(checked), sum(1 / len(one.shown) for one in checked))


def _rows(features: Mapping[int, Tensor]) -> dict[int, Tensor]:
    """Add a column that only the reference has."""
    rows = {index: torch.cat([row, row.new_zeros(1)]) for index, row in features.items()}
    rows[REFERENCE] = torch.zeros_like(next(iter(rows.values())))
    rows[REFERENCE][-1] = 1.0
    return rows


def _fitted(
    choices: Sequence[Choice], rows: Mapping[int, Tensor], start: Tensor | None = None, tolerance: float = TOLERANCE
) -> Tensor:  # fmt: skip
    pairs = [pair for choice in choices for pair in choice.comparisons]
    differences = torch.stack([rows[winner] - rows[loser] for winner, loser in pairs])
    start = differences.new_zeros(differences.shape[1]) if start is None else start
    return fit_preferences(lambda v: differences @ v, lambda u: u @ differences, start, SPREAD**-2, tolerance)


def _foretold(one: Choice, others: Sequence[Choice], rows: Mapping[int, Tensor], start: Tensor) -> bool:
    """Whether a model of the other choices picks what this one did."""
    weights = _fitted(others, rows, start, ROUGHLY)
    return max(one.shown, key=lambda index: float(rows[index] @ weights)) == one.ranking[0]
