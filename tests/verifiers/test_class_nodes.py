"""Class verifiers through their nodes, against transformers; and what they refuse."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from classifiers import LABELS, MIDDLE, SQUARE, make_classifier, prepared, write_pixels

from inprocess import boot, run_node

pytestmark = pytest.mark.comfy

boot()

import comfy.model_management as mm  # noqa: E402
import folder_paths  # noqa: E402

from noise_search.nodes.definitions.verifiers.classes import NODES, NSClassifierLogit, NSZeroShotClass, logit_scale  # noqa: E402
from noise_search.nodes.definitions.verifiers.clip_choice import CONNECTED  # noqa: E402
from noise_search.nodes.weights.clip import ClipPair  # noqa: E402
from noise_search.verifiers.content.classifier import LOG_PROBABILITY, LOGIT, OUTPUTS, PROBABILITY  # noqa: E402

IMAGES = torch.rand(4, 3, 5, 7, generator=torch.Generator().manual_seed(0))
TWO_LEVELS = 2 / 255 / 0.2  # of 8 bits, in units of the smallest deviation: transformers may round twice on its way
# Away from black and white, where bicubic resizing overshoots.
IMAGES = 0.25 + 0.5 * torch.nn.functional.interpolate(IMAGES, (48, 72), mode="bicubic").clamp(0, 1).movedim(1, -1)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return models/verifiers."""
    entry = ([str(tmp_path)], folder_paths.supported_pt_extensions)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "verifiers", entry)
    return tmp_path


def classifier(class_name: str = "0", output: str = LOGIT, model_name: str = "one") -> Any:
    return run_node(NSClassifierLogit, model_name=model_name, class_name=class_name, output=output)[0]


@pytest.mark.parametrize("node", NODES)
def test_schema(node: Any) -> None:
    found = node.define_schema()
    assert found.display_name.endswith(" (verifier)") and found.category == "noise search/verifiers"
    assert [output.io_type for output in found.outputs] == ["NS_VERIFIER"]


@pytest.mark.parametrize("kind", ["vit", "dinov2"])
def test_logits_are_those_of_transformers(folder: Path, kind: str) -> None:
    model, verifier = make_classifier(folder / "one", kind), classifier()
    want = model(pixel_values=verifier.prepare(IMAGES)).logits
    torch.testing.assert_close(verifier.logits(IMAGES), want, rtol=1e-4, atol=1e-4)
    assert want.std(0).min() > 0.02  # the classifier tells the pictures apart
    for index, label in enumerate(LABELS):
        for output, scores in zip(OUTPUTS, (want.log_softmax(1), want.softmax(1), want), strict=True):
            name = label if index % 2 else str(index)
            torch.testing.assert_close(classifier(name, output).score(IMAGES), scores[:, index], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("settings", [
    SQUARE, MIDDLE, SQUARE | {"resample": 3}, MIDDLE | {"resample": 2},
    SQUARE | {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 32}, "crop_pct": 0.8},
    MIDDLE | {"image_processor_type": "CLIPImageProcessor"},
    SQUARE | {"image_processor_type": "SiglipImageProcessor"}, SQUARE | {"image_processor_type": "DeiTImageProcessor",
     "do_center_crop": True, "size": {"height": 36, "width": 36}, "crop_size": {"height": 32, "width": 32}},
])  # fmt: skip
@pytest.mark.parametrize("size", [(48, 72), (72, 48), (20, 20), (33, 64)])
def test_pictures_are_prepared_as_transformers_does(folder: Path, settings: dict, size: tuple[int, int]) -> None:
    make_classifier(folder / "one")
    write_pixels(folder / "one", settings)
    images = torch.nn.functional.interpolate(IMAGES.movedim(-1, 1), size, mode="bilinear").movedim(1, -1)
    torch.testing.assert_close(classifier().prepare(images), prepared(folder / "one", images), rtol=0, atol=TWO_LEVELS)


def test_overshoots_are_cut_off_as_those_of_8_bit_pictures(folder: Path) -> None:
    make_classifier(folder / "one", "dinov2")
    stripes = (torch.arange(60) // 6 % 2).view(1, 1, 60, 1).expand(1, 60, 60, 3).float()
    got = classifier().prepare(stripes)
    torch.testing.assert_close(got, prepared(folder / "one", stripes), rtol=0, atol=TWO_LEVELS)
    assert got.amax((0, 2, 3)).tolist() == pytest.approx([0.5 / 0.3, 0.6 / 0.25, 0.55 / 0.2])


def test_folders_are_offered_and_shared_and_loaded_only_to_score(folder: Path) -> None:
    make_classifier(folder / "org" / "one")
    combo = NSClassifierLogit.define_schema().inputs[0]
    assert combo.id == "model_name" and combo.options == ["org/one"]
    first, second = classifier(model_name="org/one"), classifier("espresso", model_name="org/one")
    assert first.model is second.model and first.get_models() == [first.model.patcher]
    mm.unload_all_models()
    second.score(IMAGES)
    assert any(loaded.model is first.model.patcher for loaded in mm.current_loaded_models)


def test_several_labels_at_once(folder: Path) -> None:
    model = make_classifier(folder / "one", problem_type="multi_label_classification")
    verifier = classifier("2", PROBABILITY)
    want = model(pixel_values=verifier.prepare(IMAGES)).logits[:, 2].sigmoid()
    torch.testing.assert_close(verifier.score(IMAGES), want, rtol=1e-4, atol=1e-4)


def spoil(path: Path, how: str) -> None:
    """Make a folder unusable."""
    config = json.loads((path / "config.json").read_text())
    if how == "no weights":
        (path / "model.safetensors").rename(path / "pytorch_model.bin")
    elif how == "cut":
        whole = (path / "model.safetensors").read_bytes()
        (path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    elif how == "no preprocessor":
        (path / "preprocessor_config.json").unlink()
    elif how == "preprocessor is no JSON":
        (path / "preprocessor_config.json").write_text("{")
    elif how == "other preprocessor":
        write_pixels(path, SQUARE | {"image_processor_type": "PerceiverImageProcessor"})
    elif how == "other model":
        (path / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    elif how == "code":
        code = {"auto_map": {"AutoConfig": "own.Config", "AutoModelForImageClassification": "own.Model"}, "model_type": "own"}
        (path / "own.py").write_text("from pathlib import Path\nPath('code-was-run').touch()\n")
        (path / "config.json").write_text(json.dumps(config | code))
    elif how == "no head":
        from safetensors.torch import load_file, save_file

        sd = {key: value for key, value in load_file(path / "model.safetensors").items() if "classifier" not in key}
        save_file(sd, path / "model.safetensors", metadata={"format": "pt"})
    elif how == "other size":
        (path / "config.json").write_text(json.dumps(config | {"hidden_size": 96}))


@pytest.mark.parametrize(("how", "says"), [
    ("no weights", "without model.safetensors"), ("cut", "cannot be loaded as an image classifier"),
    ("no preprocessor", "without preprocessor_config.json"), ("preprocessor is no JSON", "_config.json cannot be read"),
    ("other preprocessor", "prepared by 'PerceiverImageProcessor'"), ("other model", "cannot be loaded as an image classifier"),
    ("code", "code of their own are not run"), ("no head", "not all of them .missing: classifier.bias"),
    ("other size", "cannot be loaded as an image classifier|not all of them"),
])  # fmt: skip
def test_unusable_folders_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch, how: str, says: str) -> None:
    monkeypatch.chdir(folder)
    make_classifier(folder / "one")
    spoil(folder / "one", how)
    with pytest.raises(ValueError, match=rf"^Classifier Logit: input 'model_name' is 'one', .*({says})(?s:.)*huggingface.co"):
        classifier()
    assert not (folder / "code-was-run").exists()


def test_missing_folders_and_classes_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="^Classifier Logit: input 'model_name' is 'gone'.*models/verifiers"):
        classifier(model_name="gone")
    make_classifier(folder / "one")
    with pytest.raises(ValueError, match="^Classifier Logit: input 'class_name' is 'golden retreiver'.*golden retriever"):
        classifier("golden retreiver")


# CLIP


@pytest.fixture
def clip_file(tiny_clip: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> str:
    entry = ([str(Path(tiny_clip.path).parent)], folder_paths.supported_pt_extensions)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "clip_vision", entry)
    return "model.safetensors"


def zero_shot(model_name: str, class_name: str = "dog", others: str = "cat, wolf\nred fox", **more: Any) -> Any:
    given = {"templates": "a photo of a {}.", "output": LOGIT, **more}
    return run_node(NSZeroShotClass, model_name=model_name, class_name=class_name, other_classes=others, **given)[0]


def clip_logits(model: Any, texts: list[str], images: torch.Tensor) -> torch.Tensor:
    """Return CLIPModel's own `logits_per_image` (B, K)."""
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(Path(inspect.getfile(mm)).parent / "sd1_tokenizer")
    tokens = tokenizer(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    pixels = ((images - mean) / std).movedim(-1, 1)
    with torch.inference_mode():
        return model(**tokens, pixel_values=pixels).logits_per_image


def test_zero_shot_logits_are_those_of_transformers(tiny_clip: SimpleNamespace, clip_file: str) -> None:
    images = (255 * torch.rand(3, 32, 32, 3, generator=torch.Generator().manual_seed(1))).round() / 255
    words = ["dog", "cat", "wolf", "red fox"]
    want = clip_logits(tiny_clip.model, [f"a photo of a {word}." for word in words], images)
    verifier = zero_shot(clip_file)
    assert verifier.classes == words
    torch.testing.assert_close(verifier.logits(images), want, rtol=1e-4, atol=1e-4)
    assert want.std(1).min() > 0.01
    for output, scores in zip(OUTPUTS, (want.log_softmax(1), want.softmax(1), want), strict=True):
        torch.testing.assert_close(zero_shot(clip_file, output=output).score(images), scores[:, 0], rtol=1e-4, atol=1e-4)


def test_a_class_is_the_mean_of_its_templates(clip_file: str) -> None:
    both = zero_shot(clip_file, templates="a photo of a {}.\n\nart of {}, {}")
    one, two = zero_shot(clip_file), zero_shot(clip_file, templates="art of {}, {}")
    mean = torch.nn.functional.normalize(one.class_features + two.class_features, dim=-1)
    torch.testing.assert_close(both.class_features, mean)
    assert not torch.allclose(one.class_features, two.class_features)


def test_connected_models_are_the_same(clip_file: str) -> None:
    by_file = zero_shot(clip_file)
    by_link = zero_shot(CONNECTED, clip=by_file.clip, clip_vision=by_file.clip_vision)
    torch.testing.assert_close(by_file.score(IMAGES), by_link.score(IMAGES))
    assert by_file.scale == by_link.scale == pytest.approx(1 / 0.07, rel=1e-3)


def test_the_scale_is_the_connected_towers(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clip:
        def __init__(self, model: object) -> None:
            self.cond_stage_model = model

    def connected(model: object) -> ClipPair:
        return ClipPair(Clip(model), None)

    towers = {"clip_l": SimpleNamespace(logit_scale=torch.tensor(1.0)), "clip_g": SimpleNamespace(logit_scale=torch.tensor(2.0))}
    assert logit_scale(connected(SimpleNamespace(**towers))) == pytest.approx(torch.e**2)
    del towers["clip_g"]
    assert logit_scale(connected(SimpleNamespace(**towers))) == pytest.approx(torch.e)
    assert logit_scale(connected(object())) == 100


@pytest.mark.parametrize(("given", "says"), [
    ({"class_name": " "}, "input 'class_name' is empty"), ({"others": " \n,"}, "input 'other_classes' is empty"),
    ({"others": "cat, dog"}, "'other_classes' holds 'dog' twice"), ({"templates": "a photo"}, r"'templates' has 'a photo'"),
    ({"templates": "\n"}, "'templates' has no line"), ({"output": "odds"}, "input 'output' is 'odds'"),
    ({"clip": object()}, "'model_name' is 'model.safetensors' and 'clip' is connected too"),
    ({"model_name": CONNECTED}, "nothing is connected to 'clip' and 'clip_vision'"),
    ({"model_name": "gone.safetensors"}, "a file that is not in models/clip_vision"),
])  # fmt: skip
def test_zero_shot_says_what_to_do(clip_file: str, given: dict, says: str) -> None:
    with pytest.raises(ValueError, match=rf"^[Zz]ero-[Ss]hot [Cc]lass: .*{says}"):
        zero_shot(**{"model_name": clip_file, **given})


def test_log_probability_is_the_default() -> None:
    for node in NODES:
        combo = next(i for i in node.define_schema().inputs if i.id == "output")
        assert combo.default == LOG_PROBABILITY
