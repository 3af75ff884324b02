"""The ImageReward node: its files, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_image_reward as tiny
import torch

from inprocess import boot, run_node

pytestmark = pytest.mark.comfy

boot()

import comfy.model_management as mm  # noqa: E402
import comfy.ops  # noqa: E402
import folder_paths  # noqa: E402

from noise_search.nodes.definitions.verifiers.image_reward import NSImageReward  # noqa: E402
from noise_search.nodes.weights.files import HeldModel  # noqa: E402
from noise_search.verifiers.image_reward.blip import Sizes, load_network  # noqa: E402
from noise_search.verifiers.image_reward.image_reward import ImageReward  # noqa: E402

FOUND = json.loads(tiny.FIXTURES.read_text(encoding="utf-8"))
PROMPT, EXPECTED = FOUND["prompts"][0], torch.tensor(FOUND["scores"][0])
IMAGES = tiny.pictures(4).float() / 255


class Evil:
    def __reduce__(self):
        return (Path("evil-was-here").touch, ())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    extensions = folder_paths.folder_names_and_paths["verifiers"][1]
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "verifiers", ([str(tmp_path)], extensions))
    folder_paths.filename_list_cache.pop("verifiers", None)
    yield tmp_path
    folder_paths.filename_list_cache.pop("verifiers", None)


def made(name: str, prompt: str = PROMPT) -> Any:
    return run_node(NSImageReward, model_name=name, prompt=prompt)[0]


def refusal(name: str) -> str:
    folder_paths.filename_list_cache.pop("verifiers", None)
    with pytest.raises(ValueError) as error:
        made(name)
    said = str(error.value)
    assert said.startswith(f"ImageReward: input 'model_name' is {name!r}, ")
    return said


@pytest.mark.parametrize("name", ["ImageReward.pt", "ImageReward.safetensors"])
def test_both_formats_score_as_the_original(folder: Path, name: str) -> None:
    tiny.write_model(folder, name)
    verifier = made(name)
    torch.testing.assert_close(verifier.score(IMAGES), EXPECTED, rtol=0, atol=1e-4)


def test_comfyui_holds_the_model(folder: Path) -> None:
    tiny.write_model(folder)
    first, second = made("ImageReward.pt"), made("ImageReward.pt", "a cat")
    (patcher,) = first.get_models()
    assert second.get_models() == [patcher]  # one file, one model
    assert not any(loaded is patcher for loaded in mm.loaded_models())
    first.score(IMAGES)
    assert any(loaded is patcher for loaded in mm.loaded_models())
    mm.unload_all_models()
    torch.testing.assert_close(first.score(IMAGES), EXPECTED, rtol=0, atol=1e-4)


def test_half_precision(folder: Path) -> None:
    tiny.write_model(folder)
    sd = tiny.weights(tiny.published_names())
    model = HeldModel(load_network(Sizes.of(sd), sd, comfy.ops.manual_cast), torch.float16)
    assert {weight.dtype for weight in model.module.parameters()} == {torch.float16}
    scores = ImageReward(model, made("ImageReward.pt").tokenizer, PROMPT).score(IMAGES)
    torch.testing.assert_close(scores, EXPECTED, rtol=0, atol=0.05)
    assert not torch.equal(scores, scores.half().float())  # the head counts finer than half precision can


def test_missing_weights(folder: Path) -> None:
    assert "not in models/verifiers" in refusal("ImageReward.pt")
    assert "huggingface.co/THUDM/ImageReward" in refusal("none")


def test_a_missing_vocabulary_is_named_with_its_source(folder: Path) -> None:
    path = tiny.write_model(folder)
    (folder / "vocab.txt").unlink()
    said = refusal(path.name)
    assert str(folder / "vocab.txt") in said
    assert "vocab.txt (232 kB) of https://huggingface.co/google-bert/bert-base-uncased" in said


def test_a_vocabulary_in_a_subfolder_belongs_to_the_weights_there(folder: Path) -> None:
    (folder / "vocab.txt").write_text("another verifier's")
    (folder / "ImageReward").mkdir()
    tiny.write_model(folder / "ImageReward")
    folder_paths.filename_list_cache.pop("verifiers", None)
    name = str(Path("ImageReward", "ImageReward.pt"))
    torch.testing.assert_close(made(name).score(IMAGES), EXPECTED, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("vocabulary", "why"),
    [
        ([*tiny.VOCABULARY, "more"], f"has {len(tiny.VOCABULARY) + 1} tokens, where the weights want {len(tiny.VOCABULARY)}"),
        (["some", "text"], "is no vocabulary of BERT's"),
    ],
)
def test_another_vocabulary_is_refused(folder: Path, vocabulary: list[str], why: str) -> None:
    path = tiny.write_model(folder)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    said = refusal(path.name)
    assert why in said
    assert "bert-base-uncased" in said


def test_damaged_files_and_pickles_with_code_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for name in ("whole.pt", "whole.safetensors"):
        path = tiny.write_model(folder, name)
        path.with_stem("cut").write_bytes(path.read_bytes()[:-1000])
    (folder / "text.pt").write_text("not weights")
    torch.save({**tiny.weights(tiny.published_names()), "evil": Evil()}, folder / "evil.pt")
    for name in ("cut.pt", "cut.safetensors", "text.pt", "evil.pt"):
        assert "cannot be read as weights" in refusal(name)
    assert not (folder / "evil-was-here").exists()


def test_other_weights_are_refused(folder: Path) -> None:
    path = tiny.write_model(folder)
    whole = tiny.weights(tiny.published_names())
    last = "mlp.layers.7.weight"
    clip = {"text_model.embeddings.token_embedding.weight": torch.zeros(8, 8)}
    for sd, why in [
        (clip, "blip.visual_encoder.patch_embed.proj.weight is missing"),
        ({key: value for key, value in whole.items() if key != last}, f"{last} is missing"),
        ({**whole, last: torch.zeros(2, 16)}, f"{last} (2, 16) in place of (1, 16)"),
        ({key: value for key, value in whole.items() if ".blocks.0." not in key}, "blocks.0.mlp.fc1.weight is missing"),
        ({**whole, "blip.visual_encoder.pos_embed": torch.zeros(1, 190, 128)}, "pos_embed (1, 190, 128) in place of"),
    ]:
        torch.save(sd, path)
        said = refusal(path.name)
        assert "weights of another model" in said
        assert why in said


def test_an_empty_prompt_is_refused(folder: Path) -> None:
    tiny.write_model(folder)
    with pytest.raises(ValueError, match="ImageReward: input 'prompt' is ''"):
        made("ImageReward.pt", "")


def test_schema() -> None:
    schema = NSImageReward.define_schema()
    assert schema.display_name == "ImageReward (verifier)"
    assert [i.id for i in schema.inputs] == ["model_name", "prompt"]
    assert all(i.tooltip for i in schema.inputs)
    assert [output.io_type for output in schema.outputs] == ["NS_VERIFIER"]
