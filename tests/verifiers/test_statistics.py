"""Image statistics against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from noise_search.verifiers.common.preprocess import luma
from noise_search.verifiers.measures.statistics import ImageStatistics, colorfulness, sharpness


def flat(r: float, g: float, b: float) -> Tensor:
    return torch.tensor([r, g, b]).expand(1, 8, 8, 3)


def checkerboard() -> Tensor:
    i = torch.arange(8)
    return ((i[:, None] + i) % 2).float()[None, :, :, None].expand(1, 8, 8, 3)


def terms(images: Tensor) -> list[float]:
    return ImageStatistics().terms(images)[0].tolist()


def test_flat_grey() -> None:
    assert terms(flat(0.5, 0.5, 0.5)) == pytest.approx([0, 1, 0, 0], abs=1e-6)


@pytest.mark.parametrize(("value", "expected"), [(0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (0.9, 0.2), (1.0, 0.0)])
def test_exposure_of_a_constant_image(value: float, expected: float) -> None:
    assert terms(flat(value, value, value))[1] == pytest.approx(expected, abs=1e-6)


def test_checkerboard() -> None:
    # Every Laplacian is 4 or -4, half of each; half of the pixels are white.
    assert terms(checkerboard()) == pytest.approx([4 / 4.05, 1, 0, 1], abs=1e-6)


def test_luma_is_rec_601() -> None:
    assert luma(torch.eye(3).view(3, 3, 1)).flatten().tolist() == pytest.approx([0.299, 0.587, 0.114])


def test_colorfulness_of_one_color_is_its_distance_from_grey() -> None:
    red = torch.tensor([1.0, 0, 0]).view(3, 1, 1).expand(3, 4, 4)
    assert colorfulness(red).item() == pytest.approx(0.3 * math.hypot(255, 127.5), rel=1e-6)
    blue = torch.tensor([0, 0, 1.0]).view(3, 1, 1).expand(3, 4, 4)
    assert colorfulness(blue).item() == pytest.approx(0.3 * 255, rel=1e-6)


def test_colorfulness_of_half_red_half_green() -> None:
    # rg is 255 or -255, yb is 127.5 throughout: sqrt(255^2 + 0) + 0.3 sqrt(0 + 127.5^2).
    picture = torch.zeros(3, 4, 4)
    picture[0, :, :2] = picture[1, :, 2:] = 1
    assert colorfulness(picture).item() == pytest.approx(255 + 0.3 * 127.5, rel=1e-6)
    expected = 293.25 / (293.25 + 45)
    assert terms(picture.movedim(0, -1)[None])[2] == pytest.approx(expected, rel=1e-6)


def test_an_image_too_small_for_a_laplacian_has_no_sharpness() -> None:
    assert sharpness(torch.rand(2, 9)).item() == 0
    assert ImageStatistics().score(torch.rand(1, 1, 1, 3)).isfinite().all()


def test_sharpness_and_contrast_fall_with_blur() -> None:
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    blurred = [picture]
    for _ in range(4):
        padded = torch.nn.functional.pad(blurred[-1], (1, 1, 1, 1), mode="reflect")
        blurred.append(torch.nn.functional.avg_pool2d(padded, 3, 1))
    measured = torch.stack([ImageStatistics().terms(p.movedim(1, -1))[0] for p in blurred])
    assert (measured[:, 0].diff() < 0).all()
    assert (measured[:, 3].diff() < 0).all()


def test_score_is_the_weighted_mean() -> None:
    board = checkerboard()
    assert ImageStatistics().score(board).item() == pytest.approx((4 / 4.05 + 2) / 4)
    assert ImageStatistics(3, 0, 1, 0).score(board).item() == pytest.approx(3 * 4 / 4.05 / 4)
    assert ImageStatistics(0, 0, 0, -2).score(board).item() == pytest.approx(-1)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [((1, 1, 1, 1), (0, 1)), ((1, 0, 0, -3), (-0.75, 0.25)), ((0, 0, 0, -2), (-1, 0))],
)
def test_range(weights: tuple[float, ...], expected: tuple[float, float]) -> None:
    verifier = ImageStatistics(*weights)
    assert verifier.score_range == expected
    pictures = [flat(0, 0, 0), flat(1, 1, 1), flat(1, 0, 0), checkerboard(), torch.rand(1, 8, 8, 3)]
    scores = verifier.score(torch.cat(pictures))
    assert ((scores >= expected[0]) & (scores <= expected[1])).all()


def test_a_row_does_not_depend_on_its_batch() -> None:
    images = torch.rand(5, 24, 17, 3, generator=torch.Generator().manual_seed(1))
    verifier = ImageStatistics()
    alone = torch.cat([verifier.score(image[None]) for image in images])
    assert torch.equal(verifier.score(images), alone)
    assert torch.equal(verifier.score(images.flip(0)), alone.flip(0))


@pytest.mark.parametrize("weights", [(0, 0, 0, 0), (1, math.nan, 1, 1), (math.inf, 1, 1, 1)])
def test_useless_weights_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="inputs 'sharpness'.*must be finite and not all 0"):
        ImageStatistics(*weights)
