"""The model of choices: it finds the taste behind them, says how sure it is, and what pictures are to it."""

from __future__ import annotations

import math

import pytest
import torch

from noise_search.verifiers.human.choices import MODEL, Choice
from noise_search.verifiers.human.preference_model import LEAST_CHOICES, fit_taste, picture_features
from noise_search.verifiers.measures.statistics import ImageStatistics


def pictures(count: int, seed: int = 0) -> torch.Tensor:
    """Pictures (count, 1, 8, 8, 3) of random flat color in each quarter."""
    colors = torch.rand(count, 1, 2, 2, 3, generator=torch.Generator().manual_seed(seed))
    return colors.repeat_interleave(4, 2).repeat_interleave(4, 3)


def redness(picture: torch.Tensor) -> float:
    return float(picture[..., 0].mean() - picture[..., 1].mean())


def choices_by(taste, shown: torch.Tensor, size: int = 4) -> list[Choice]:
    sets = [tuple(range(first, first + size)) for first in range(0, len(shown), size)]
    return [Choice(some, (max(some, key=lambda i: taste(shown[i])),)) for some in sets]


def known(shown: torch.Tensor) -> dict[int, tuple[torch.Tensor, ...]]:
    return {index: (picture_features(picture),) for index, picture in enumerate(shown)}


def test_features_of_a_picture():
    half = torch.zeros(1, 8, 8, 3)
    half[:, :, 4:, 0] = 1.0  # the right half is red
    found = picture_features(half)
    assert found.shape == (28,) and found.dtype == torch.float64
    grid = found[:16].reshape(4, 4)
    assert grid[:, :2].abs().max() == 0
    assert grid[:, 2:].flatten().tolist() == pytest.approx([0.299] * 8, abs=1e-6)
    assert found[16:20].tolist() == pytest.approx([0, 1, 0, 1])  # R - G on 2 x 2
    assert found[20:24].tolist() == pytest.approx([0, 0.5, 0, 0.5])  # (R + G) / 2 - B
    assert found[24:].tolist() == pytest.approx(ImageStatistics().terms(half)[0].tolist())


def test_features_of_a_video_are_the_mean_of_its_frames():
    two = pictures(2)[:, 0]
    want = (picture_features(two[:1]) + picture_features(two[1:])) / 2
    assert torch.allclose(picture_features(two), want)


def test_it_finds_a_taste_and_says_so():
    shown = pictures(60)
    taste = fit_taste(choices_by(redness, shown), known(shown))
    assert taste.checked == 15 and taste.chance == pytest.approx(3.75)
    assert taste.hits > 2 * taste.chance
    assert taste.words == f"it foretold {taste.hits} of your last 15 picks; guessing would have 3.8"
    fresh = pictures(40, seed=1)
    said = [taste.strength([picture_features(picture)]) for picture in fresh]
    pairs = [(a, b) for a in range(40) for b in range(a)]
    agree = sum((said[a] > said[b]) == (redness(fresh[a]) > redness(fresh[b])) for a, b in pairs)
    assert agree / len(pairs) > 0.75


def test_it_does_not_pretend_to_find_one_in_chance():
    shown = pictures(80)
    lots = torch.rand(80, generator=torch.Generator().manual_seed(4)).tolist()
    sets = [tuple(range(first, first + 4)) for first in range(0, 80, 4)]
    taste = fit_taste([Choice(some, (max(some, key=lots.__getitem__),)) for some in sets], known(shown))
    assert taste.hits <= 10  # of 20, where a guess has 5


def test_too_few_and_other_peoples_choices_do_not_count():
    shown = pictures(60)
    all_ = choices_by(redness, shown)
    assert fit_taste(all_[: LEAST_CHOICES - 1], known(shown)) is None
    assert fit_taste([Choice(c.shown, c.ranking, MODEL) for c in all_], known(shown)) is None
    assert fit_taste(all_[: LEAST_CHOICES - 1] + [Choice((50, 51), ())], known(shown)) is None
    some = {index: features for index, features in known(shown).items() if index >= 4}  # the first choice lacks its
    assert fit_taste(all_[:LEAST_CHOICES], some) is None
    assert fit_taste(all_[: LEAST_CHOICES + 1], some).checked == LEAST_CHOICES


def test_all_bad_teaches_what_is_disliked():
    """Dark pictures were called bad; of two that are alike but for that, the bright one is stronger."""
    bright, dark = 0.5 + 0.5 * pictures(24), 0.1 * pictures(24, seed=3)
    shown = torch.cat([bright, dark])
    blind = [Choice(c.shown, (c.shown[0],)) for c in choices_by(redness, bright)]
    bad = [Choice(tuple(range(first, first + 4)), ()) for first in range(24, 48, 4)]
    taste = fit_taste(blind + bad, known(shown))
    assert taste.strength([picture_features(bright[3])]) > taste.strength([picture_features(dark[3])])


def test_many_features_do_not_drown_few():
    """768 numbers of noise beside the one that decides."""
    generator = torch.Generator().manual_seed(0)
    deciding = torch.rand(80, 1, generator=generator, dtype=torch.float64)
    noise = torch.randn(80, 768, generator=generator, dtype=torch.float64)
    features = {index: (noise[index], deciding[index]) for index in range(80)}
    sets = [tuple(range(first, first + 4)) for first in range(0, 80, 4)]
    taste = fit_taste([Choice(some, (max(some, key=lambda i: float(deciding[i])),)) for some in sets], features)
    assert taste.hits >= 16


def test_features_that_never_differ_are_no_matter():
    features = {index: (torch.tensor([0.3, float(index)], dtype=torch.float64),) for index in range(10)}
    taste = fit_taste([Choice((i, i + 1), (i + 1,)) for i in range(6)], features)
    assert taste.scale[0] == 0 and math.isfinite(taste.strength(features[3]))
    assert taste.hits == 6
