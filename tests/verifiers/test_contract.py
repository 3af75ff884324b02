"""What holds for every verifier, whatever it measures."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from noise_search.verifiers.base import Verifier
from noise_search.verifiers.clip_score import ClipScore
from noise_search.verifiers.detector import Detector
from noise_search.verifiers.ensemble import WEIGHTED_SUM, Ensemble
from noise_search.verifiers.object_check import ObjectCheck
from noise_search.verifiers.statistics import ImageStatistics
from noise_search.verifiers.text_accuracy import Line, TextAccuracy


def make_statistics(request: pytest.FixtureRequest) -> Verifier:
    return ImageStatistics()


def make_clip_score(request: pytest.FixtureRequest) -> Verifier:
    from noise_search.nodes.clip_files import load_clip_pair

    pair = load_clip_pair(request.getfixturevalue("tiny_clip").path)
    return ClipScore(pair.clip, pair.clip_vision, "a red circle left of a blue square")


def make_text_accuracy(request: pytest.FixtureRequest) -> Verifier:
    # reads how bright the picture is, as a row of strokes: random pictures hold no text
    return TextAccuracy(lambda pixels: [Line("|" * int(2 * pixels.mean()), (0, 0, 9, 9))], 510 * "|")


def make_object_check(request: pytest.FixtureRequest) -> Verifier:
    from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

    from noise_search.nodes.weights import HeldModel

    path = request.getfixturevalue("detectors")("owlv2")
    model = HeldModel(AutoModelForZeroShotObjectDetection.from_pretrained(path))
    detector = Detector(model, AutoProcessor.from_pretrained(path), "owlv2")
    return ObjectCheck(detector, "a red cup\n2 cats\na cat left of a dog", 0.1)


def make_ensemble(request: pytest.FixtureRequest) -> Verifier:
    parts = (ImageStatistics(), ImageStatistics(0, 0, 1, 0))
    return Ensemble(parts, (1, -2), WEIGHTED_SUM)  # of all modes the one that is free of the pool


EVERY = [
    make_statistics,
    pytest.param(make_clip_score, marks=pytest.mark.comfy),
    make_text_accuracy,
    pytest.param(make_object_check, marks=pytest.mark.comfy),
    make_ensemble,
]


@pytest.fixture(params=EVERY)
def verifier(request: pytest.FixtureRequest) -> Verifier:
    make: Callable[[pytest.FixtureRequest], Verifier] = request.param
    return make(request)


def pictures(count: int, height: int = 40, width: int = 56) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    coarse = torch.rand(count, 3, 5, 7, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return smooth.movedim(1, -1)


@pytest.mark.parametrize("count", [1, 3])
def test_shape_type_and_range(verifier: Verifier, count: int) -> None:
    scores = verifier.score(pictures(count))
    assert scores.shape == (count,)
    assert scores.dtype == torch.float32
    assert scores.device.type == "cpu"
    low, high = verifier.score_range
    assert ((scores >= low) & (scores <= high)).all()


def test_it_tells_pictures_apart(verifier: Verifier) -> None:
    assert verifier.score(pictures(5)).unique().numel() == 5


def test_score_of_a_concatenation(verifier: Verifier) -> None:
    first, second = pictures(3), pictures(2)
    together = verifier.score(torch.cat([first, second]))
    apart = torch.cat([verifier.score(first), verifier.score(second)])
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-4)


def test_slots_do_not_matter(verifier: Verifier) -> None:
    images = pictures(4)
    turned = verifier.score(images.flip(0)).flip(0)
    torch.testing.assert_close(turned, verifier.score(images), rtol=1e-5, atol=1e-4)


def test_half_precision_images(verifier: Verifier) -> None:
    images = pictures(3).half()
    scores = verifier.score(images)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, verifier.score(images.float()), rtol=1e-5, atol=1e-4)


def test_images_and_spec_stay_as_they_are(verifier: Verifier) -> None:
    images = pictures(2)
    before = images.clone()
    first = verifier.score(images)
    assert torch.equal(images, before)
    assert torch.equal(verifier.score(images, latents=torch.rand(2, 4, 5, 7)), first)
    with pytest.raises(AttributeError):
        verifier.name = "other"


def test_large_batches_of_large_pictures(verifier: Verifier) -> None:
    one = pictures(1, 300, 200)
    many = verifier.score(one.expand(19, -1, -1, -1))
    torch.testing.assert_close(many, verifier.score(one).expand(19), rtol=1e-5, atol=1e-4)


def test_bad_images_are_refused(verifier: Verifier) -> None:
    with pytest.raises(ValueError, match=f"{verifier.name}: input 'images'"):
        verifier.score(torch.rand(4, 4, 3))
    with pytest.raises(ValueError, match="hold NaN"):
        verifier.score(pictures(2) * torch.tensor([1, torch.nan]).view(2, 1, 1, 1))


def test_it_describes_itself(verifier: Verifier) -> None:
    assert verifier.name
    assert bool(verifier.prompt) == verifier.needs_prompt
    assert isinstance(verifier.trusts_previews, bool)
