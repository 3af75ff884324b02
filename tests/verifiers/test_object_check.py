"""The detectors of transformers, their folder, and the node, with tiny random models of the real classes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from inprocess import boot, run_node

pytestmark = pytest.mark.comfy

boot()

import comfy.model_management as mm  # noqa: E402
import folder_paths  # noqa: E402
import transformers  # noqa: E402

from noise_search.nodes.definitions.verifiers.checks import NSObjectCheck  # noqa: E402

BY_TOKENS = ["grounding-dino", "mm-grounding-dino"]  # the latter is LLMDet's type too
KINDS = ["owlvit", "owlv2", *BY_TOKENS]
LABELS = ["polar bear", "cat", "red cup"]
IMAGES = torch.nn.functional.interpolate(
    torch.rand(3, 3, 6, 7, generator=torch.Generator().manual_seed(1)), (48, 80), mode="bilinear"
).movedim(1, -1)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    extensions = folder_paths.supported_pt_extensions
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "verifiers", ([str(tmp_path)], extensions))
    return tmp_path


def made(folder: Path, source: Path, checks: str = "a cat\n2 polar bears\na cat left of a red cup", threshold: float = 0.0):
    if not (folder / source.name).exists():
        shutil.copytree(source, folder / source.name)
    (verifier,) = run_node(NSObjectCheck, model_name=source.name, checks=checks, threshold=threshold)
    return verifier


def reference(path: Path, images: torch.Tensor, labels: list[str]) -> list[dict]:
    """What transformers' own pipeline of processor, model and post-processing says, all boxes kept."""
    from PIL import Image

    processor = transformers.AutoProcessor.from_pretrained(path)
    model = transformers.AutoModelForZeroShotObjectDetection.from_pretrained(path).eval()
    pictures = [Image.fromarray((255 * image).round().to(torch.uint8).numpy()) for image in images]
    sizes = [tuple(images.shape[1:3])] * len(images)
    if path.name == "owlv2" and transformers.__version__ < "5":  # pads with grey: huggingface/transformers pull request 41938
        square = max(images.shape[1:3])
        pictures, sizes = [picture.crop((0, 0, square, square)) for picture in pictures], [(square, square)] * len(images)
    if path.name in BY_TOKENS:
        inputs = processor(images=pictures, text=[". ".join(labels) + "."] * len(images), return_tensors="pt")
        post = {"input_ids": inputs["input_ids"], "text_threshold": 0.0}
    else:
        queries = [f"a photo of a {label}" for label in labels]
        inputs = processor(images=pictures, text=[queries] * len(images), return_tensors="pt", padding="max_length")
        post = {}
    outputs = model(**inputs)
    return processor.post_process_grounded_object_detection(outputs, threshold=-1.0, target_sizes=sizes, **post)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("labels", [["cat"], LABELS])
def test_boxes_and_scores_are_those_of_transformers(folder, detectors, kind, labels) -> None:
    detector = made(folder, detectors(kind)).detector
    expected = reference(folder / kind, IMAGES, labels)
    found = list(detector.detect(IMAGES, labels))
    for (boxes, scores), other in zip(found, expected, strict=True):
        torch.testing.assert_close(boxes, other["boxes"], rtol=1e-4, atol=1e-4)
        best = scores.max(-1)
        if kind in BY_TOKENS:  # theirs takes full stops and marks along, ours leaves them out
            assert (best.values <= other["scores"] + 1e-4).all() and (best.values > 0).all()
        else:
            torch.testing.assert_close(best.values, other["scores"], rtol=1e-4, atol=1e-4)
            assert torch.equal(best.indices, other["labels"])
    assert (found[0][1] - found[1][1]).abs().max() > 1e-3  # not the same of every picture


def test_scores_of_names_are_those_of_their_tokens(folder, detectors) -> None:
    """[CLS] polar bear . cat . red cup . [SEP] against the model's own scores of tokens."""
    detector = made(folder, detectors("grounding-dino")).detector
    seen = []
    handle = detector.model.module.register_forward_hook(lambda *call: seen.append(call[-1].logits))
    ((_, scores),) = detector.detect(IMAGES[:1], LABELS)
    handle.remove()
    tokens = seen[0][0].sigmoid()
    expected = torch.stack([tokens[:, 1:3].amax(-1), tokens[:, 4], tokens[:, 6:8].amax(-1)], -1)
    torch.testing.assert_close(scores, expected)
    assert expected[:, 1].unique().numel() > 1


@pytest.mark.parametrize("kind", KINDS)
def test_scores_lie_in_the_range_and_do_not_depend_on_the_batch(folder, detectors, kind) -> None:
    verifier = made(folder, detectors(kind))
    together = verifier.score(IMAGES)
    assert ((together > 0) & (together < 1)).all() and together.unique().numel() == 3
    torch.testing.assert_close(torch.cat([verifier.score(image[None]) for image in IMAGES]), together, rtol=1e-4, atol=1e-4)


def test_the_threshold_of_the_model_is_taken_at_zero(folder, detectors) -> None:
    assert [made(folder, detectors(kind)).threshold for kind in KINDS] == [0.1, 0.1, 0.25, 0.25]
    assert made(folder, detectors("owlv2"), threshold=0.3).threshold == 0.3


def test_the_model_is_held_by_comfyui_and_shared(folder, detectors) -> None:
    verifier = made(folder, detectors("owlv2"))
    assert made(folder, detectors("owlv2"), "a dog").detector is verifier.detector
    (patcher,) = verifier.get_models()
    mm.unload_all_models()
    verifier.score(IMAGES[:1])
    assert any(loaded is patcher or loaded.is_clone(patcher) for loaded in mm.loaded_models())


def test_pictures_are_taken_in_halves_where_memory_is_short(folder, detectors, monkeypatch) -> None:
    detector = made(folder, detectors("owlv2")).detector
    whole = list(detector.detect(IMAGES, ["cat"]))
    run, sizes = type(detector)._run, []

    def short(self, module, device, images, labels):
        sizes.append(len(images))
        if len(images) > 1:
            raise torch.cuda.OutOfMemoryError
        return run(self, module, device, images, labels)

    monkeypatch.setattr(type(detector), "_run", short)
    for (boxes, scores), expected in zip(detector.detect(IMAGES, ["cat"]), whole, strict=True):
        torch.testing.assert_close((boxes, scores), expected, rtol=1e-4, atol=1e-4)
    assert sizes == [3, 2, 1, 1, 1]


def test_the_folder_is_offered(folder, detectors) -> None:
    made(folder, detectors("owlv2"))
    combo = NSObjectCheck.define_schema().inputs[0]
    assert combo.id == "model_name" and combo.options == ["owlv2"]


@pytest.mark.parametrize(
    ("checks", "says"),
    [
        (" \n", "no line says what to look for"),
        ("a cat, a dog", "'a cat, a dog' holds several"),
        (" ".join(["cat"] * 20), "takes 26 tokens, and the model reads 16"),
    ],
)
def test_checks_that_cannot_be_read_are_refused(folder, detectors, checks, says) -> None:
    with pytest.raises(ValueError, match=f"^object check: input 'checks' is .*{says}"):
        made(folder, detectors("owlv2"), checks)


def test_all_names_together_have_a_limit_in_grounding_dino(folder, detectors) -> None:
    many = "\n".join(" ".join(["cat"] * 5) + f" {color}" for color in ("red", "dog", "cup", "bear", "polar", "x"))
    with pytest.raises(ValueError, match="takes 44 tokens, and the model reads 32"):
        made(folder, detectors("grounding-dino"), many)


def no_weights(path: Path) -> None:
    (path / "model.safetensors").unlink()
    torch.save({}, path / "pytorch_model.bin")


def cut_weights(path: Path) -> None:
    (path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes()[:-1000])


def lacking_weights(path: Path) -> None:
    sd = load_file(path / "model.safetensors")
    del sd["class_head.logit_shift.weight"]
    save_file(sd, path / "model.safetensors", metadata={"format": "pt"})


def other_weights(path: Path) -> None:
    sd = load_file(path / "model.safetensors")
    sd["class_head.logit_shift.weight"] = torch.zeros(1, 7)
    save_file(sd, path / "model.safetensors", metadata={"format": "pt"})


def no_tokenizer(path: Path) -> None:
    for name in ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json"):
        (path / name).unlink(missing_ok=True)


def other_kind(path: Path) -> None:
    (path / "config.json").write_text(json.dumps({"model_type": "bert"}))


def no_kind(path: Path) -> None:
    (path / "config.json").write_text("[]")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (no_weights, "a folder without model.safetensors .weights in pickles"),
        (cut_weights, "weights that cannot be loaded as a detector"),
        (lacking_weights, "not all of them .missing: class_head.logit_shift.weight"),
        (other_weights, "weights that cannot be loaded as a detector"),
        (no_tokenizer, "a folder without tokenizer.json or vocab.json or vocab.txt"),
        (other_kind, "a model of the type 'bert'; this node knows owlvit, owlv2, grounding-dino"),
        (no_kind, "config.json holds no settings, but a list"),
    ],
)
def test_folders_that_cannot_be_used_are_refused(folder, detectors, damage, says) -> None:
    shutil.copytree(detectors("owlv2"), folder / "owlv2")
    damage(folder / "owlv2")
    with pytest.raises(ValueError, match=f"^Object Check: input 'model_name' is 'owlv2', .*{says}.*google/owlv2"):
        made(folder, detectors("owlv2"))


def test_a_missing_folder_is_named(folder) -> None:
    with pytest.raises(ValueError, match="Object Check: input 'model_name' is 'gone'.*models/verifiers.*google/owlv2"):
        run_node(NSObjectCheck, model_name="gone", checks="a cat", threshold=0.1)
