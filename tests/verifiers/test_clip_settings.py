"""Activation, heads and colors of a CLIP come from the settings beside its file; else what is assumed is said."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from searching import parts, search_with
from tiny_clip import make_head
from torch import Tensor, nn

from inprocess import boot, run_node

pytestmark = pytest.mark.comfy

boot()

from noise_search.nodes.definitions.verifiers.basic import NSClipScore  # noqa: E402
from noise_search.nodes.definitions.verifiers.classes import NSZeroShotClass  # noqa: E402
from noise_search.nodes.definitions.verifiers.clip import NSAestheticScore  # noqa: E402
from noise_search.nodes.store.setup_key import _digest  # noqa: E402
from noise_search.search.methods.random_search import RandomSearch  # noqa: E402

PICTURES = (torch.rand(4, 32, 32, 3, generator=torch.Generator().manual_seed(2)) * 255).round() / 255
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
PROMPT = "a red circle"
VISION = {"width": 128, "layers": 2, "head_width": 64, "patch_size": 8, "image_size": 32}
TEXT = {"width": 64, "layers": 2, "heads": 1, "context_length": 77, "vocab_size": 49408}


def open_clip(quick: bool = False, vision: dict | None = None, text: dict | None = None, **pictures: Any) -> dict[str, Any]:
    """open_clip's settings of the tiny model."""
    model = {"embed_dim": 64, "vision_cfg": VISION | (vision or {}), "text_cfg": TEXT | (text or {})}
    return {"model_cfg": model | ({"quick_gelu": True} if quick else {}), "preprocess_cfg": pictures}


@pytest.fixture
def clip(tiny_clip: SimpleNamespace, models: Path) -> SimpleNamespace:
    """The file alone, and its model in transformers, changed so that the activations are told apart."""
    factors = {"fc1": 0.5, "fc2": 4.0}
    sd = {key: factors.get(key.split(".")[-2], 1.0) * value for key, value in load_file(tiny_clip.path).items() if "." in key}
    save_file(sd, models / "clip.safetensors")
    model = copy.deepcopy(tiny_clip.model)
    model.load_state_dict(sd, strict=False)
    config = json.loads((Path(tiny_clip.path).parent / "config.json").read_text())
    return SimpleNamespace(folder=models, model=model, config=config)


def write(clip: SimpleNamespace, name: str, settings: Any) -> None:
    (clip.folder / name).write_text(settings if isinstance(settings, str) else json.dumps(settings))


def verifier(**more: Any) -> Any:
    return run_node(NSClipScore, model_name="clip.safetensors", prompt=PROMPT, **more)[0]


def expected(clip: SimpleNamespace, gelu: bool = False, mean: Any = MEAN, std: Any = STD) -> Tensor:
    """The score of transformers alone, with another activation."""
    from transformers import CLIPTokenizer

    from noise_search.nodes.weights.clip import TOKENIZER

    model = copy.deepcopy(clip.model)
    for module in model.modules():
        if hasattr(module, "activation_fn") and gelu:
            module.activation_fn = nn.GELU()
    ids = CLIPTokenizer.from_pretrained(TOKENIZER)([PROMPT], padding="max_length", max_length=77, return_tensors="pt").input_ids
    pixels = ((PICTURES - torch.tensor(mean)) / torch.tensor(std)).movedim(-1, 1)
    text, images = model.get_text_features(input_ids=ids), model.get_image_features(pixel_values=pixels)
    text, images = (out if isinstance(out, Tensor) else out.pooler_output for out in (text, images))
    return 100 * torch.nn.functional.cosine_similarity(images, text)


def with_act(config: dict[str, Any], act: str) -> dict[str, Any]:
    changed = copy.deepcopy(config)
    for tower in ("text_config", "vision_config"):
        changed[tower]["hidden_act"] = act
    return changed


SETTINGS: dict[str, tuple[str, Callable[[SimpleNamespace], Any], bool]] = {
    "none": ("other.json", lambda clip: with_act(clip.config, "gelu"), False),
    "Hugging Face": ("config.json", lambda clip: with_act(clip.config, "gelu"), True),
    "by the file's name": ("clip.json", lambda clip: with_act(clip.config, "gelu"), True),
    "quick": ("config.json", lambda clip: clip.config, False),
    "open_clip": ("open_clip_config.json", lambda clip: open_clip(), True),
    "bare": ("clip.json", lambda clip: open_clip()["model_cfg"], True),
    "quick in open_clip": ("open_clip_config.json", lambda clip: open_clip(quick=True), False),
    "of another model": ("config.json", lambda clip: open_clip(vision={"layers": 24}), False),
    "of another text tower": ("config.json", lambda clip: open_clip(text={"width": 128}), False),
    "damaged": ("config.json", lambda clip: "{", False),
    "a list": ("config.json", lambda clip: [1], False),
    "odd": ("config.json", lambda clip: {"vision_cfg": {"width": "x"}, "text_cfg": 3}, False),
}
SETTLES = {"Hugging Face", "by the file's name", "quick", "open_clip", "bare", "quick in open_clip"}


@pytest.mark.parametrize("kind", SETTINGS)
def test_the_settings_beside_a_file_tell_its_activation(clip: SimpleNamespace, kind: str) -> None:
    name, make, gelu = SETTINGS[kind]
    write(clip, name, make(clip))
    made = verifier()
    torch.testing.assert_close(made.score(PICTURES), expected(clip, gelu), rtol=0, atol=0.01)
    assert (expected(clip, True) - expected(clip, False)).abs().max() > 0.1
    assert made.score_version == (("text hidden_act gelu", "vision hidden_act gelu") if gelu else ())
    if kind in SETTLES:
        assert made.notes == ()
    else:
        (note,) = made.notes
        assert note.startswith("clip.safetensors: no config.json or open_clip_config.json that fits lies beside it, so its")
        assert "quick GELU, as in OpenAI's models of this width (64)" in note


@pytest.mark.parametrize("source", ["open_clip", "Hugging Face"])
def test_pictures_are_prepared_as_the_settings_say(clip: SimpleNamespace, source: str) -> None:
    mean, std = [0.5, 0.4, 0.3], [0.5, 0.6, 0.7]
    if source == "open_clip":
        write(clip, "open_clip_config.json", open_clip(quick=True, mean=mean, std=std))
    else:
        write(clip, "config.json", clip.config)
        write(clip, "preprocessor_config.json", {"image_mean": mean, "image_std": std, "do_center_crop": True, "resample": 3})
    made = verifier()
    wanted = expected(clip, mean=mean, std=std)
    torch.testing.assert_close(made.score(PICTURES), wanted, rtol=0, atol=0.01)
    assert (wanted - expected(clip)).abs().max() > 0.5
    assert made.notes == () and made.score_version == (f"vision image_mean {tuple(mean)}", f"vision image_std {tuple(std)}")


def test_another_way_to_resize_is_said(clip: SimpleNamespace) -> None:
    write(clip, "open_clip_config.json", open_clip(quick=True, resize_mode="squash", interpolation="bicubic"))
    (note,) = verifier().notes
    assert "(open_clip_config.json) resize pictures in another way (resize_mode 'squash', interpolation 'bicubic')" in note


def test_heads_are_those_of_the_settings(clip: SimpleNamespace) -> None:
    write(clip, "open_clip_config.json", open_clip(quick=True, vision={"head_width": 32}))
    made = verifier()
    assert made.score_version == ("vision num_attention_heads 4",)
    assert (made.score(PICTURES) - expected(clip)).abs().max() > 0.1


def test_an_activation_that_comfyui_has_not_is_refused(clip: SimpleNamespace) -> None:
    write(clip, "config.json", with_act(clip.config, "relu"))
    with pytest.raises(
        ValueError, match=r"^CLIP Score: .*'clip.safetensors', a file .* whose config.json names the activation 'relu'"
    ):
        verifier()


def test_settings_that_come_later_are_heard_while_the_model_is_held(clip: SimpleNamespace) -> None:
    before = verifier()
    write(clip, "config.json", with_act(clip.config, "gelu"))
    after = verifier()
    assert after.clip is not before.clip and after.clip_vision is not before.clip_vision
    assert after.notes == () and len(before.notes) == 1
    assert verifier().clip_vision is after.clip_vision


def test_settings_of_a_vision_tower_alone(clip: SimpleNamespace) -> None:
    sd = load_file(clip.folder / "clip.safetensors")
    save_file({key: value for key, value in sd.items() if key.startswith("vis")}, clip.folder / "vision.safetensors")
    torch.save(make_head().state_dict(), clip.folder / "head.pth")
    alone = {**with_act(clip.config, "gelu")["vision_config"], "model_type": "clip_vision_model"}
    scores, found = [], []
    for settings in (clip.config["vision_config"] | {"model_type": "clip_vision_model"}, alone):
        write(clip, "vision.json", settings)
        (made,) = run_node(NSAestheticScore, model_name="head.pth", clip_name="vision.safetensors")
        scores.append(made.score(PICTURES))
        found.append((made.notes, made.score_version))
    assert (scores[0] - scores[1]).abs().max() > 1e-4
    assert found == [((), ()), ((), ("vision hidden_act gelu",))]


def test_the_report_says_what_was_assumed_once(clip: SimpleNamespace) -> None:
    (zero_shot,) = run_node(
        NSZeroShotClass, model_name="clip.safetensors", class_name="cat", other_classes="dog", templates="a {}",
        output="log probability",
    )  # fmt: skip
    report = search_with(parts("eps"), 3, budget=2, method=RandomSearch(), verifier=verifier(), held_out=zero_shot).report
    assert [note for note in report["notes"] if "is taken to be quick GELU" in note] == list(verifier().notes)
    write(clip, "config.json", clip.config)
    report = search_with(parts("eps"), 3, budget=2, method=RandomSearch(), verifier=verifier()).report
    assert not [note for note in report["notes"] if "GELU" in note]


def test_scores_by_other_settings_have_another_signature(clip: SimpleNamespace) -> None:
    assumed = _digest(verifier())
    write(clip, "config.json", clip.config)
    assert _digest(verifier()) == assumed
    write(clip, "config.json", with_act(clip.config, "gelu"))
    assert _digest(verifier()) != assumed
