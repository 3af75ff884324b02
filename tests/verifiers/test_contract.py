"""What holds for every verifier, whatever it measures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import cached_property
from typing import Any

import pytest
import tiny_image_reward
import torch
from chatserver import ChatServer

from noise_search.verifiers.api.access import Access, endpoint_of
from noise_search.verifiers.api.client import Client
from noise_search.verifiers.api.judge import ApiJudge
from noise_search.verifiers.clip.clip_score import ClipScore
from noise_search.verifiers.common.base import Verifier
from noise_search.verifiers.composite.cascade import Cascade
from noise_search.verifiers.composite.ensemble import WEIGHTED_SUM, Ensemble, models_of
from noise_search.verifiers.content.classifier import LOGIT, ClassifierLogit
from noise_search.verifiers.content.detector import Detector
from noise_search.verifiers.content.object_check import ObjectCheck
from noise_search.verifiers.content.text_accuracy import Line, TextAccuracy
from noise_search.verifiers.content.zero_shot import ZeroShotClass
from noise_search.verifiers.measures.reference import UNLIKE, ReferenceSimilarity
from noise_search.verifiers.measures.statistics import ImageStatistics


def make_statistics(request: pytest.FixtureRequest) -> Verifier:
    return ImageStatistics()


def make_clip_score(request: pytest.FixtureRequest) -> Verifier:
    from noise_search.nodes.weights.clip import load_clip_pair

    pair = load_clip_pair(request.getfixturevalue("tiny_clip").path)
    return ClipScore(pair.clip, pair.clip_vision, "a red circle left of a blue square")


def make_pick_score(request: pytest.FixtureRequest) -> Verifier:
    from noise_search.nodes.weights.clip import load_clip_pair
    from noise_search.verifiers.clip.pick_score import PickScore

    pair = load_clip_pair(request.getfixturevalue("tiny_clip_h").path)
    return PickScore(pair.clip, pair.clip_vision, "a red circle left of a blue square", scale=90.0)


def make_hps(request: pytest.FixtureRequest) -> Verifier:
    from noise_search.nodes.weights.clip import load_clip_pair
    from noise_search.verifiers.clip.hps_v2 import HPSv2

    pair = load_clip_pair(request.getfixturevalue("tiny_clip_h").path)
    return HPSv2(pair.clip, pair.clip_vision, "a red circle left of a blue square", encode=pair.encode_pixels)


def make_aesthetic(request: pytest.FixtureRequest) -> Verifier:
    from noise_search.nodes.weights.clip import load_clip_pair
    from noise_search.verifiers.clip.aesthetic import Aesthetic

    pair = load_clip_pair(request.getfixturevalue("tiny_clip").path)
    return Aesthetic(pair.clip_vision, torch.rand(64, generator=torch.Generator().manual_seed(0)), 5.0)


def make_siglip(request: pytest.FixtureRequest) -> Verifier:
    from noise_search.nodes.definitions.verifiers.clip import SIGLIP
    from noise_search.nodes.weights.siglip import _build
    from noise_search.verifiers.clip.siglip_score import SigLIPScore

    return SigLIPScore(_build(SIGLIP, "siglip", str(request.getfixturevalue("tiny_siglip").folder)), "a cat on a table")


def make_text_accuracy(request: pytest.FixtureRequest) -> Verifier:
    # reads how bright the picture is, as a row of strokes: random pictures hold no text
    return TextAccuracy(lambda pixels: [Line("|" * int(2 * pixels.mean()), (0, 0, 9, 9))], 510 * "|")


def make_object_check(request: pytest.FixtureRequest) -> Verifier:
    from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

    from noise_search.nodes.weights.files import HeldModel

    path = request.getfixturevalue("detectors")("owlv2")
    model = HeldModel(AutoModelForZeroShotObjectDetection.from_pretrained(path))
    detector = Detector(model, AutoProcessor.from_pretrained(path), "owlv2")
    return ObjectCheck(detector, "a red cup\n2 cats\na cat left of a dog", 0.1)


def make_ensemble(request: pytest.FixtureRequest) -> Verifier:
    parts = (ImageStatistics(), ImageStatistics(0, 0, 1, 0))
    return Ensemble(parts, (1, -2), WEIGHTED_SUM)  # of all modes the one that is free of the pool


def make_vlm_judge(request: pytest.FixtureRequest) -> Verifier:
    from noise_search.nodes.definitions.verifiers import vlm as nodes

    request.getfixturevalue("vlm_folder")
    return nodes.NSVLMJudge.execute("qwen2", "a red circle and a square", "check-list", 200_000).args[0]


def make_hps_v3(request: pytest.FixtureRequest) -> Verifier:
    from noise_search.nodes.definitions.verifiers import vlm as nodes

    request.getfixturevalue("vlm_folder")
    return nodes.NSHPSv3.execute("HPSv3.safetensors", "base", "a red circle", 0.5).args[0]


def make_unified_reward(request: pytest.FixtureRequest) -> Verifier:
    from noise_search.nodes.definitions.verifiers import vlm as nodes

    request.getfixturevalue("vlm_folder")
    return nodes.NSUnifiedReward.execute("qwen2.5", "a red circle", "alignment", 30_000).args[0]


def make_api_judge(request: pytest.FixtureRequest) -> Verifier:
    server = ChatServer()
    request.addfinalizer(lambda: server.__exit__())
    server.__enter__()
    client = Client(endpoint_of(server.url), lambda: Access("no file"))
    return ApiJudge(client, "tiny-vlm", "a red circle left of a blue square", max_pixels=4096)


def make_classifier_logit(request: pytest.FixtureRequest) -> Verifier:
    from classifiers import make_classifier

    from noise_search.nodes.definitions.verifiers.classes import CLASSIFIER
    from noise_search.nodes.weights.classifier import _build

    folder = request.getfixturevalue("tmp_path")
    make_classifier(folder)
    model = _build(CLASSIFIER, "tiny", str(folder))
    return ClassifierLogit(model, model.prepare, model.labels, 2)


def make_zero_shot(request: pytest.FixtureRequest) -> Verifier:
    from noise_search.nodes.weights.clip import load_clip_pair

    pair = load_clip_pair(request.getfixturevalue("tiny_clip").path)
    return ZeroShotClass(pair.clip, pair.clip_vision, ("dog", "cat"), ("a photo of a {}.",), LOGIT)


def make_reference_similarity(request: pytest.FixtureRequest) -> Verifier:
    from noise_search.nodes.weights.clip import load_clip_pair

    return ReferenceSimilarity(load_clip_pair(request.getfixturevalue("tiny_clip").path).clip_vision, pictures(2), UNLIKE)


def make_image_reward(request: pytest.FixtureRequest) -> Verifier:
    from noise_search.nodes.definitions.verifiers.image_reward import load_model
    from noise_search.verifiers.image_reward.image_reward import ImageReward
    from noise_search.verifiers.image_reward.wordpiece import load_tokenizer, read_vocabulary

    path = tiny_image_reward.write_model(request.getfixturevalue("tmp_path"))
    tokenizer = load_tokenizer(read_vocabulary(str(path.with_name("vocab.txt"))))
    return ImageReward(load_model(path.name, str(path)), tokenizer, "a red circle left of a blue square")


def make_cascade(request: pytest.FixtureRequest) -> Verifier:
    return Cascade(ImageStatistics(), ImageStatistics(0, 0, 1, 0), 0, 1.0)  # with fewer finalists it depends on the pool


def make_graph_score(request: pytest.FixtureRequest) -> Verifier:
    from whole_prompts import Runner, foreign, node

    pack = foreign()
    inputs = {"prefer": "high", "batch_size": 1, "trusts_previews": True}
    ended = Runner().run({
        "image": node("NSGraphImage"),
        "small": node("ImageScale", image=["image", 0], upscale_method="area", width=1, height=1, crop="disabled"),
        "end": node("ImageToMask", "Redness", image=["small", 0], channel="red"),
        "verifier": node("NSScoreFromGraph", score=["end", 0], **inputs),
        "keep": node("ForeignKeep", value=["verifier", 0]),
    })  # fmt: skip
    assert not ended.error
    return pack.KEPT.pop()


NEED_COMFYUI = [
    make_clip_score, make_pick_score, make_hps, make_aesthetic, make_siglip, make_vlm_judge, make_hps_v3,
    make_unified_reward, make_classifier_logit, make_zero_shot,
    make_reference_similarity, make_image_reward, make_graph_score, make_object_check,
]  # fmt: skip
EVERY = [
    make_statistics, make_ensemble, make_cascade, make_api_judge, make_text_accuracy,
    *(pytest.param(make, marks=pytest.mark.comfy) for make in NEED_COMFYUI),
]  # fmt: skip


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


def spec(verifier: Verifier) -> dict[str, Any]:
    """What a verifier is made of, its parts too, and what else lies on the object."""
    own = {field.name: id(getattr(verifier, field.name)) for field in fields(verifier)}
    cached = {name for name in vars(verifier) if isinstance(getattr(type(verifier), name, None), cached_property)}
    parts = [spec(part) for part in getattr(verifier, "parts", ())]
    return {"fields": own, "names": set(vars(verifier)) - cached, "parts": parts}


def test_scoring_leaves_the_spec_as_it_was(verifier: Verifier) -> None:
    """It may cross sockets and be cached: all that scoring may add is what was computed once and for all."""
    before = spec(verifier)
    verifier.score(pictures(3))
    assert spec(verifier) == before


@pytest.fixture(params=[entry for entry in EVERY if not callable(entry)])
def in_comfyui(request: pytest.FixtureRequest) -> Verifier:
    make: Callable[[pytest.FixtureRequest], Verifier] = request.param
    return make(request)


def test_every_model_is_comfyui_s_to_load_and_to_evict(in_comfyui: Verifier) -> None:
    """Whatever scoring loads is shown by `get_models`, leaves when ComfyUI says so, and comes back the same."""
    import comfy.model_management as mm
    from comfy.model_patcher import ModelPatcher

    verifier, images = in_comfyui, pictures(3)
    mm.unload_all_models()
    scores = verifier.score(images)
    patchers, loaded = models_of(verifier), mm.loaded_models()
    assert all(isinstance(patcher, ModelPatcher) for patcher in patchers)
    assert all(any(one is patcher or one.is_clone(patcher) for patcher in patchers) for one in loaded)
    assert bool(loaded) == bool(patchers)
    mm.unload_all_models()
    assert mm.loaded_models() == []
    assert all(patcher.loaded_size() == 0 for patcher in patchers)
    assert torch.equal(verifier.score(images), scores)
