"""HPSv3 against its own code, whose numbers make_hps_v3_fixtures.py wrote."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_vlm import picture, save_config, save_processor

from inprocess import boot

pytestmark = pytest.mark.comfy

boot()

import comfy.model_management as mm  # noqa: E402
import folder_paths  # noqa: E402

from noise_search.nodes.definitions.verifiers.vlm import NSHPSv3  # noqa: E402
from noise_search.verifiers.vlm.hps_v3 import INSTRUCTION, HPSv3, size_of  # noqa: E402

FOUND = json.loads((Path(__file__).parent / "fixtures" / "hps_v3.json").read_text())


def hps(prompt: str, caution: float = 0.0) -> HPSv3:
    return NSHPSv3.execute("HPSv3.safetensors", "base", prompt, caution).args[0]


@pytest.mark.parametrize("case", range(len(FOUND["cases"])))
def test_rewards_are_those_of_the_published_code(vlm_folder: Path, case: int) -> None:
    asked, expected = FOUND["cases"][case], torch.tensor(FOUND["rewards"][case])
    image = picture(asked["height"], asked["width"], asked["phase"])
    torch.testing.assert_close(hps(asked["prompt"]).rewards(image), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(hps(asked["prompt"]).score(image[None]), expected[:1], rtol=0, atol=1e-4)
    cautious = expected[:1] - 2 * expected[1:].exp()
    torch.testing.assert_close(hps(asked["prompt"], 2.0).score(image[None]), cautious, rtol=0, atol=3e-4)


def test_the_question_is_the_published_one() -> None:
    assert hashlib.sha256(INSTRUCTION.encode()).hexdigest() == FOUND["instruction_sha256"]


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1024, 1024), (448, 448)), ((448, 448), (448, 448)), ((512, 768), (364, 532)), ((100, 60), (588, 364))],
)
def test_sizes_by_hand(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert size_of(*size) == expected


def test_in_half_precision_the_head_stays_exact(vlm_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mm, "should_use_bf16", lambda device: True)
    (vlm_folder / "HPSv3.safetensors").touch()
    verifier = hps(FOUND["cases"][0]["prompt"])
    module = verifier.model.held.module
    assert {parameter.dtype for parameter in module.vlm.parameters()} == {torch.bfloat16}
    weights = load_file(vlm_folder / "HPSv3.safetensors")
    assert torch.equal(module.rm_head[3].weight, weights["rm_head.3.weight"])
    found = verifier.rewards(picture(90, 140, 0))
    torch.testing.assert_close(found, torch.tensor(FOUND["rewards"][0]), rtol=0, atol=0.05)
    monkeypatch.undo()
    (vlm_folder / "HPSv3.safetensors").touch()


def test_wrong_files_and_folders_are_refused(vlm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = ([str(tmp_path), str(vlm_folder)], folder_paths.supported_pt_extensions)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "verifiers", entry)
    whole = load_file(vlm_folder / "HPSv3.safetensors")
    folder_paths.filename_list_cache.pop("verifiers", None)
    for name, spoilt in {
        "headless": {key: value for key, value in whole.items() if key != "rm_head.5.weight"},
        "hollow": {key: value for key, value in whole.items() if "layers.1" not in key},
        "plain": {**whole, "model.embed_tokens.weight": whole["model.embed_tokens.weight"][:-1].clone()},
    }.items():
        save_file(spoilt, tmp_path / f"{name}.safetensors")
        with pytest.raises(ValueError, match=f"HPSv3: input 'model_name' is '{name}.*weights of another model"):
            NSHPSv3.execute(f"{name}.safetensors", "base", "a fox", 0.0)
    save_processor(tmp_path / "newer", "qwen2_5_vl")
    save_config(tmp_path / "newer", "qwen2_5_vl")
    with pytest.raises(ValueError, match="HPSv3: input 'base_model' is 'newer', a 'qwen2_5_vl'; HPSv3 is a 'qwen2_vl'"):
        NSHPSv3.execute("HPSv3.safetensors", "newer", "a fox", 0.0)


def test_texts_and_pictures_that_cannot_be_judged_are_refused(vlm_folder: Path) -> None:
    with pytest.raises(ValueError, match="HPSv3: input 'prompt' holds '<|Reward|>'".replace("|", r"\|")):
        hps("a <|Reward|>")
    with pytest.raises(ValueError, match="HPSv3: input 'caution' is nan"):
        hps("a fox", float("nan"))
    with pytest.raises(ValueError, match="HPSv3: input 'images' holds a picture of 402x2 pixels"):
        hps("a fox").score(picture(2, 402)[None])


def test_a_prompt_that_is_too_long_names_inputs_that_the_node_has(vlm_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verifier = hps("a fox " * 50)
    monkeypatch.setattr(verifier.model.held.module.config.get_text_config(), "max_position_embeddings", 100)
    said = r"^HPSv3: input 'prompt' makes \d+ tokens with the picture; the model reads 100. Shorten the prompt.$"
    with pytest.raises(ValueError, match=said):
        verifier.score(picture(90, 140, 0)[None])
