"""The checks at a verifier's two borders."""

from __future__ import annotations

import pytest
import torch

from noise_search.verifiers.common.base import Verifier, VerifierEnsemble, check_images, check_scores
from noise_search.verifiers.composite.ensemble import Ensemble
from noise_search.verifiers.measures.statistics import ImageStatistics


def test_alpha_is_dropped_and_grey_is_repeated() -> None:
    rgba = torch.tensor([0.1, 0.2, 0.3, 0.9]).expand(1, 2, 2, 4)
    assert torch.equal(check_images(rgba, "v"), rgba[..., :3])
    grey = torch.rand(2, 3, 5, 1)
    assert torch.equal(check_images(grey, "v"), torch.cat([grey] * 3, -1))


def test_small_overshoot_is_clamped() -> None:
    images = torch.tensor([-0.02, 0.5, 1.03]).expand(1, 1, 1, 3)
    assert check_images(images, "v").flatten().tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (torch.zeros(4, 4, 3), r"shape \(4, 4, 3\); expected a batch"),
        (torch.zeros(1, 2, 4, 4, 3), r"shape \(1, 2, 4, 4, 3\); expected a batch"),
        ("picture", "is str; expected a batch"),
        (torch.zeros(1, 3, 8, 8), r"expected 3 channels, last \(1 and 4"),
        (torch.zeros(1, 4, 4, 2), "expected 3 channels"),
        (torch.zeros(1, 4, 4, 3, dtype=torch.uint8), "a uint8 tensor.*Divide 8-bit pictures by 255"),
        (torch.zeros(0, 4, 4, 3), "no pixel to score"),
        (torch.full((1, 4, 4, 3), 255.0), r"values from 255 to 255; expected \[0, 1\]"),
        (torch.full((1, 4, 4, 3), -1.0), r"values from -1 to -1"),
        (torch.tensor([0.5, torch.nan, torch.inf]).view(3, 1, 1, 1).expand(3, 2, 2, 3), r"\[1, 2\] hold"),
    ],
)
def test_bad_images_are_refused_by_name(images: torch.Tensor, says: str) -> None:
    with pytest.raises(ValueError, match=f"^redness: input 'images' .*{says}"):
        check_images(images, "redness")


def test_scores_pass_as_float32_with_nan() -> None:
    scores = check_scores("v", torch.tensor([1.0, torch.nan], dtype=torch.float64), 2)
    assert scores.dtype == torch.float32
    assert scores[0] == 1
    assert scores[1].isnan()


@pytest.mark.parametrize(
    ("scores", "says"),
    [
        (torch.zeros(3), r"float32 tensor of shape \(3,\)"),
        (torch.zeros(2, 1), r"shape \(2, 1\)"),
        (torch.tensor(1.0), r"shape \(\)"),
        (torch.zeros(2, dtype=torch.int64), "int64"),
        ([0.0, 1.0], "list;"),
    ],
)
def test_bad_scores_name_the_verifier(scores: object, says: str) -> None:
    with pytest.raises(ValueError, match=f"verifier 'redness' returned .*{says}"):
        check_scores("redness", scores, 2)


def test_protocols() -> None:
    single, ensemble = ImageStatistics(), Ensemble((ImageStatistics(),))
    assert isinstance(single, Verifier)
    assert not isinstance(single, VerifierEnsemble)
    assert isinstance(ensemble, VerifierEnsemble)
