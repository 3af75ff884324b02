"""Class verifiers: the numbers of transformers' own models, and the pack's verifier contract."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from noise_search.bench.class_run import class_names, class_of
from noise_search.bench.class_scores import ClassScore, ImageClassifier, ZeroShotClip, class_index
from noise_search.bench.prompt_files import Prompt, PromptFileError
from noise_search.demo import shapes
from noise_search.verifiers.common.base import Verifier

CLIP = Path(__file__).resolve().parent.parent.parent / "demo" / "weights" / "noise-search-demo-clip"
SCENES = random.Random(1).sample(shapes.all_scenes(), 6)
NAMES = [scene.prompt for scene in SCENES]
transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def pictures():  # noqa: ANN201
    return shapes.draw(SCENES, torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def clip():  # noqa: ANN201
    return ZeroShotClip(CLIP, NAMES, ["{}"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):  # noqa: ANN201
    """A small image classifier of random weights, as a user's folder."""
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8,
        id2label={0: "cat", 1: "dog", 2: "a red car"}, label2id={"cat": 0, "dog": 1, "a red car": 2},
    )  # fmt: skip
    path = tmp_path_factory.mktemp("vit")
    transformers.ViTForImageClassification(config).save_pretrained(path)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(path)
    return path


def test_zero_shot_clip_is_transformers_own(clip, pictures):
    model = transformers.CLIPModel.from_pretrained(CLIP).eval()
    tokens = transformers.AutoTokenizer.from_pretrained(CLIP)(NAMES, padding=True, return_tensors="pt")
    pixels = transformers.AutoImageProcessor.from_pretrained(CLIP)(
        images=list(pictures.permute(0, 3, 1, 2)), do_rescale=False, return_tensors="pt"
    )
    with torch.inference_mode():
        expected = model(**tokens, **pixels).logits_per_image
    assert torch.allclose(clip.logits(pictures), expected, atol=1e-4)
    assert (clip.logits(pictures).argmax(1) == torch.arange(6)).all()  # drawn pictures are of their class


def test_several_templates_are_averaged(pictures):
    one, other = (ZeroShotClip(CLIP, NAMES, [template]) for template in ("{}", "{} above"))
    both = ZeroShotClip(CLIP, NAMES, ["{}", "{} above"])
    mean = torch.nn.functional.normalize(one._classes + other._classes, dim=-1)
    assert torch.allclose(both._classes, mean, atol=1e-6)
    with pytest.raises(ValueError, match="where the class belongs"):
        ZeroShotClip(CLIP, NAMES, ["a photo"])


def test_scores_are_the_softmax_and_the_logit(clip, pictures):
    logits = clip.logits(pictures)
    probability, logit = ClassScore(clip, 2), ClassScore(clip, 2, "logit")
    assert torch.allclose(probability.score(pictures), logits.softmax(1)[:, 2])
    assert torch.equal(logit.score(pictures), logits[:, 2])
    assert probability.score(pictures).argmax() == 2
    assert (probability.name, logit.name) == ("class probability", "class logit")
    for verifier in (probability, logit):
        assert isinstance(verifier, Verifier)
        assert verifier.score(pictures[:1]).shape == (1,) and verifier.score(pictures).dtype == torch.float32
    with pytest.raises(ValueError, match="expected probability or logit"):
        ClassScore(clip, 2, "odds")


def test_a_users_image_classifier(folder, pictures):
    classifier = ImageClassifier(folder)
    assert classifier.names == ["cat", "dog", "a red car"]
    model = transformers.ViTForImageClassification.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    pixels = processor(images=list(pictures.permute(0, 3, 1, 2)), do_rescale=False, return_tensors="pt")
    with torch.inference_mode():
        expected = model(**pixels).logits
    assert torch.allclose(classifier.logits(pictures), expected, atol=1e-5)
    assert (class_index(classifier, "a red car"), class_index(classifier, 1), class_index(classifier, "0")) == (2, 1, 0)
    for wrong in ("bird", 3, "-1"):
        with pytest.raises(ValueError, match="the classifier has 3 classes, such as cat"):
            class_index(classifier, wrong)


def test_the_class_of_a_prompt():
    prompts = [Prompt("a", "a photo of a cat", metadata={"class": 7}), Prompt("b", "a dog"), Prompt("c", "a dog")]
    assert [class_of(p) for p in prompts] == ["7", "a dog", "a dog"]
    assert class_names(prompts) == ["7", "a dog"]
    with pytest.raises(PromptFileError, match="two or more"):
        class_names(prompts[1:])
