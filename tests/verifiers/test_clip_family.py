"""PickScore, HPSv2.1 and the aesthetic score against the packages they come from, on tiny weights."""

from __future__ import annotations

import copy
import inspect
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from drawn import drawn
from mixed_pictures import mixed_pictures
from safetensors.torch import load_file, save_file
from tiny_clip import Head, make_head
from torch import Tensor, nn

from inprocess import boot, run_node

pytestmark = pytest.mark.comfy

boot()

import comfy.sd1_clip  # noqa: E402

from noise_search.nodes.definitions.verifiers.basic import NSClipScore, NSVerifierEnsemble  # noqa: E402
from noise_search.nodes.definitions.verifiers.clip import (  # noqa: E402
    HPS,
    NODES,
    NSAestheticScore,
    NSHPSv2,
    NSPickScore,
    NSSigLIPScore,
)
from noise_search.nodes.weights import clip  # noqa: E402
from noise_search.search.methods.random_search import RandomSearch  # noqa: E402
from noise_search.verifiers.clip.aesthetic import head_shapes  # noqa: E402
from noise_search.verifiers.clip.hps_v2 import letterbox  # noqa: E402
from noise_search.verifiers.common.features import share  # noqa: E402
from noise_search.verifiers.composite.ensemble import RANK_MEAN  # noqa: E402

FIXTURES = Path(__file__).parent / "fixtures"
PHOTOS = load_file(FIXTURES / "photos.safetensors")
REFERENCE = json.loads((FIXTURES / "hps_v2.json").read_text(encoding="utf-8"))
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])
SMALL = PHOTOS["clip"].float() / 255
TOKENIZER = Path(inspect.getfile(comfy.sd1_clip)).parent / "sd1_tokenizer"


def photo(i: int) -> Tensor:
    return PHOTOS[f"photo_{i}"].float()[None] / 255


def embedding(output: Any) -> Tensor:
    """transformers 5 returns an object from `get_*_features`, transformers 4 a tensor."""
    return nn.functional.normalize(output if isinstance(output, Tensor) else output.pooler_output, dim=-1)


def inputs_of(node: Any) -> list[str]:
    return [i.id for i in node.define_schema().inputs]


@pytest.mark.parametrize("node", NODES)
def test_schema(node: Any) -> None:
    schema = node.define_schema()
    assert schema.category == "noise search/verifiers"
    assert schema.display_name.endswith(" (verifier)")
    assert all(i.tooltip for i in schema.inputs) and all(o.tooltip for o in schema.outputs)
    assert [output.io_type for output in schema.outputs] == ["NS_VERIFIER"]


# PickScore


@pytest.fixture
def pick_file(tiny_clip_h: SimpleNamespace, models: Path) -> SimpleNamespace:
    """A CLIP-H with a logit scale of its own, and the same in transformers."""
    sd = load_file(tiny_clip_h.path) | {"logit_scale": torch.tensor(4.3)}
    save_file(sd, models / "pick.safetensors")
    model = copy.deepcopy(tiny_clip_h.model)
    for module in model.modules():
        if hasattr(module, "activation_fn"):
            module.activation_fn = nn.GELU()
    return SimpleNamespace(name="pick.safetensors", model=model, sd=sd)


def test_pick_score_equals_transformers(pick_file: SimpleNamespace) -> None:
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(str(TOKENIZER))
    for prompt in REFERENCE["prompts"]:
        ids = tokenizer([prompt], truncation=True, max_length=77, padding="max_length", return_tensors="pt").input_ids
        with torch.no_grad():
            text = embedding(pick_file.model.get_text_features(input_ids=ids))
            images = embedding(pick_file.model.get_image_features(pixel_values=((SMALL - MEAN) / STD).movedim(-1, 1)))
            expected = torch.tensor(4.3).exp() * (text @ images.T)[0]  # the model card's formula
        (verifier,) = run_node(NSPickScore, model_name=pick_file.name, prompt=prompt)
        assert type(verifier.clip.cond_stage_model).__name__ == "SD2ClipModel"  # as core reads CLIP-H
        torch.testing.assert_close(verifier.score(SMALL) / verifier.scale, expected / verifier.scale, rtol=0, atol=1e-4)
        assert verifier.score_range == (pytest.approx(-73.7, abs=0.01), pytest.approx(73.7, abs=0.01))
        assert expected.std() > 0.5


def test_pick_score_needs_its_logit_scale(pick_file: SimpleNamespace, models: Path) -> None:
    save_file({k: v for k, v in pick_file.sd.items() if k != "logit_scale"}, models / "bare.safetensors")
    with pytest.raises(ValueError, match="PickScore: input 'model_name' is 'bare.safetensors', a CLIP without its 'logit_scale'"):
        run_node(NSPickScore, model_name="bare.safetensors", prompt="cat")


# HPSv2.1


@pytest.fixture(scope="module")
def checkpoint() -> dict[str, Tensor]:
    return drawn(REFERENCE["shapes"])


@pytest.fixture
def hps_file(checkpoint: dict[str, Tensor], models: Path) -> str:
    """The tiny model saved as HPS_v2.1_compressed.pt is."""
    torch.save({"state_dict": checkpoint}, models / "HPS_tiny.pt")
    return "HPS_tiny.pt"


def test_hps_equals_the_original_on_the_same_pixels(hps_file: str) -> None:
    for prompt, expected in zip(REFERENCE["prompts"], REFERENCE["scores of 'clip' pixels"], strict=True):
        (verifier,) = run_node(NSHPSv2, model_name=hps_file, prompt=prompt)
        torch.testing.assert_close(verifier.score(SMALL) / 100, torch.tensor(expected), rtol=0, atol=1e-4)


def test_hps_of_photographs_equals_the_original(hps_file: str) -> None:
    for prompt, expected in zip(REFERENCE["prompts"], REFERENCE["scores of photos"], strict=True):
        (verifier,) = run_node(NSHPSv2, model_name=hps_file, prompt=prompt)
        found = torch.cat([verifier.score(photo(i)) for i in range(3)]) / 100
        torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-4)


def test_hps_of_mixed_sizes_and_aspects_equals_the_original(hps_file: str) -> None:
    """Within 0.01 points, where those of the pictures lie some points apart."""
    pictures = [picture[None].float() / 255 for picture in mixed_pictures()]
    for prompt, expected in zip(REFERENCE["prompts"], REFERENCE["scores of mixed pictures"], strict=True):
        (verifier,) = run_node(NSHPSv2, model_name=hps_file, prompt=prompt)
        found = torch.cat([verifier.score(picture) for picture in pictures])
        torch.testing.assert_close(found, 100 * torch.tensor(expected), rtol=0, atol=0.01)
        assert found.std() > 1


def test_hps_as_a_clip_model(hps_file: str, models: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    sd = clip._read_clip_model(HPS, str(models / hps_file))
    deep = {"hidden_act": "gelu", "projection_dim": 64, "hidden_size": 64, "intermediate_size": 256}
    deep |= {"num_attention_heads": 1}
    config = CLIPConfig(
        text_config=deep | {"num_hidden_layers": 24, "eos_token_id": 49407},
        vision_config=deep | {"num_hidden_layers": 32, "patch_size": 8, "image_size": 32},
        projection_dim=64,
    )
    model = CLIPModel(config)
    model.load_state_dict({key: value for key, value in sd.items() if "position_ids" not in key})  # all of them, no other
    model.save_pretrained(models)
    (converted,) = run_node(NSHPSv2, model_name="model.safetensors", prompt=REFERENCE["prompts"][0])
    (original,) = run_node(NSHPSv2, model_name=hps_file, prompt=REFERENCE["prompts"][0])
    torch.testing.assert_close(converted.score(SMALL), original.score(SMALL), rtol=0, atol=1e-5)


def test_letterbox_by_hand() -> None:
    wide = torch.ones(1, 2, 4, 3)
    assert letterbox(wide, 4)[0, 0].tolist() == [[0] * 4, [1] * 4, [1] * 4, [0] * 4]
    boxed = letterbox(torch.ones(1, 5, 3, 3), 5)[0, 0]
    assert boxed.tolist() == [[0, 1, 1, 1, 0]] * 5
    assert letterbox(torch.ones(1, 1000, 1, 3), 32).shape == (1, 3, 32, 32)


# The aesthetic score


@pytest.fixture
def aesthetic(tiny_clip: SimpleNamespace, models: Path) -> SimpleNamespace:
    """The head's file in both forms, the CLIP's whole and its vision tower alone; the head in plain torch."""
    head = make_head()
    torch.save(head.state_dict(), models / "head.pth")
    save_file(head.state_dict(), models / "head.safetensors")
    sd = load_file(tiny_clip.path)
    save_file(sd, models / "clip.safetensors")
    save_file({k: v for k, v in sd.items() if k.startswith("vis")}, models / "vision.safetensors")
    return SimpleNamespace(head=head, model=tiny_clip.model)


@pytest.mark.parametrize("model_name", ["head.pth", "head.safetensors"])
@pytest.mark.parametrize("clip_name", ["clip.safetensors", "vision.safetensors"])
def test_aesthetic_equals_the_published_predictor(aesthetic: SimpleNamespace, model_name: str, clip_name: str) -> None:
    with torch.no_grad():
        features = aesthetic.model.get_image_features(pixel_values=((SMALL - MEAN) / STD).movedim(-1, 1))
        expected = aesthetic.head(embedding(features))[:, 0]
    (verifier,) = run_node(NSAestheticScore, model_name=model_name, clip_name=clip_name)
    torch.testing.assert_close(verifier.score(SMALL), expected, rtol=0, atol=1e-4)
    assert expected.std() > 0.005


def test_head_shapes_are_the_published_ones() -> None:
    published = {name: tuple(value.shape) for name, value in Head(768).state_dict().items()}
    assert head_shapes({}) == published


def counting(clip_vision: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the rows of each call of an encoder."""
    rows, plain = [], clip_vision.encode_image

    def encode_image(images: Tensor, crop: bool = True) -> Any:
        rows.append(len(images))
        return plain(images, crop=crop)

    monkeypatch.setattr(clip_vision, "encode_image", encode_image)
    return rows


def both(prompt: str = "a red circle", clip_name: str = "clip.safetensors") -> tuple[Any, Any]:
    (aesthetic_score,) = run_node(NSAestheticScore, model_name="head.pth", clip_name=clip_name)
    (clip_score,) = run_node(NSClipScore, model_name="clip.safetensors", prompt=prompt)
    return aesthetic_score, clip_score


def test_a_search_by_clip_score_and_aesthetic_encodes_each_picture_once(
    aesthetic: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from searching import parts, search_with

    parts_of_it = both()
    assert parts_of_it[0].clip_vision is parts_of_it[1].clip_vision
    rows = counting(parts_of_it[0].clip_vision, monkeypatch)
    (ensemble,) = run_node(
        NSVerifierEnsemble, mode=RANK_MEAN, gate_threshold=0.0, verifier_1=parts_of_it[0], verifier_2=parts_of_it[1]
    )
    got = search_with(parts("eps"), 3, budget=5, method=RandomSearch(), verifier=ensemble)
    assert got.report["verifier_calls"] == 10
    assert sum(rows) == 5
    for candidate in got.report["candidates"]:
        assert set(candidate["scores"]) == {"aesthetic score", "CLIP score"}


def test_kept_features_are_those_of_the_same_pictures_and_encoder_only(
    aesthetic: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = both()
    sharing = share([first, second])
    rows = counting(first.clip_vision, monkeypatch)
    images = SMALL.clone()
    before = first.score(images)
    second.score(images.clone())
    assert rows == [3]
    images[0] = images[0].flip(0)  # written into: another picture in the same tensor
    assert first.score(images)[0] != before[0]
    first.score(images[:2])
    first.score(images[:2].reshape(1, 64, 32, 3))  # the same numbers in another shape
    assert rows == [3, 3, 2, 1]
    (other,) = run_node(NSAestheticScore, model_name="head.pth", clip_name="vision.safetensors")
    assert other.clip_vision is not first.clip_vision
    more = counting(other.clip_vision, monkeypatch)
    other.score(images[:2].reshape(1, 64, 32, 3))
    assert more == [1]
    del sharing  # nothing wants features twice any more
    first.score(images[:2])
    second.score(images[:2])
    assert rows == [3, 3, 2, 1, 2, 2]


# Preprocessing of photographs


@pytest.mark.parametrize(
    ("pipeline", "mean_levels", "most_levels"),
    [("clip", 0.25, 4), ("hps", 0.05, 0.2), ("siglip_bicubic", 0.25, 4), ("siglip_bilinear", 0.25, 2)],
)
def test_preprocessing_of_photographs(siglip: SimpleNamespace, pipeline: str, mean_levels: float, most_levels: float) -> None:
    """In levels of 8 bits. Tensors are resized here, PIL pictures there, but for HPSv2's (kept in half precision)."""
    from comfy.clip_vision import clip_preprocess

    (verifier,) = run_node(NSSigLIPScore, model_name="siglip", prompt="cat")
    for i in range(3):
        if pipeline == "clip":
            seen = clip_preprocess(photo(i), size=32).movedim(1, -1) * STD + MEAN
        elif pipeline == "hps":
            seen = letterbox(photo(i), 32).movedim(1, -1)
        else:
            seen = replace(verifier.siglip, resample=pipeline.split("_")[1]).pixels(photo(i)).movedim(1, -1) * 0.5 + 0.5
        reference = PHOTOS[pipeline][i].float() * (255 if pipeline == "hps" else 1)
        off = (255 * seen[0] - reference).abs()
        assert off.mean() < mean_levels
        assert off.max() <= most_levels


# Refusals


class Evil:
    def __reduce__(self):
        return (Path("evil-was-here").touch, ())


def whole(node: Any, request: pytest.FixtureRequest) -> str:
    """Return the name of a good file for a node."""
    name = {NSPickScore: "pick_file", NSHPSv2: "hps_file", NSAestheticScore: "aesthetic"}[node]
    made = request.getfixturevalue(name)
    return {"pick_file": "pick.safetensors", "hps_file": made, "aesthetic": "head.safetensors"}[name]


def run_with(node: Any, name: str) -> Any:
    other = {"clip_name": "clip.safetensors"} if node is NSAestheticScore else {"prompt": "cat"}
    return run_node(node, model_name=name, **other)


@pytest.mark.parametrize(
    ("node", "title"), [(NSPickScore, "PickScore"), (NSHPSv2, "HPS v2.1"), (NSAestheticScore, "Aesthetic Score")]
)
def test_files_that_are_no_such_model_are_refused(
    request: pytest.FixtureRequest, models: Path, monkeypatch: pytest.MonkeyPatch, node: Any, title: str
) -> None:
    monkeypatch.chdir(models)
    good = whole(node, request)
    data = (models / good).read_bytes()
    ending = Path(good).suffix
    (models / f"cut{ending}").write_bytes(data[: len(data) // 2])
    (models / "text.pt").write_text("not weights")
    torch.save({"state_dict": Evil()}, models / "evil.pt")
    save_file({"something": torch.zeros(3)}, models / "other.safetensors")
    reasons = {
        f"cut{ending}": "cannot be read as weights", "text.pt": "cannot be read as weights",
        "evil.pt": "cannot be read as weights", "other.safetensors": "(weights of another model|holds no .* tower)",
        "gone.pt": "not in models/verifiers|not in models/clip_vision",
    }  # fmt: skip
    for name, why in reasons.items():
        with pytest.raises(ValueError, match=f"^{title}: input 'model_name' is '{name}', .*({why}).*The usual one: .*https://"):
            run_with(node, name)
    assert not (models / "evil-was-here").exists()


@pytest.mark.parametrize(("node", "title"), [(NSPickScore, "PickScore"), (NSHPSv2, "HPS v2.1")])
def test_another_clip_is_refused(tiny_clip: SimpleNamespace, models: Path, node: Any, title: str) -> None:
    save_file(load_file(tiny_clip.path), models / "clip.safetensors")
    with pytest.raises(
        ValueError, match=f"^{title}: .*'clip.safetensors', a CLIP of 2 text and 2 vision layers; .* of 24 and 32"
    ):
        run_node(node, model_name="clip.safetensors", prompt="cat")


def test_hps_with_weights_of_another_shape_or_missing(checkpoint: dict[str, Tensor], models: Path) -> None:
    key = "transformer.resblocks.3.mlp.c_fc.weight"
    torch.save({"state_dict": checkpoint | {key: torch.zeros(8, 64)}}, models / "bent.pt")
    with pytest.raises(ValueError, match="HPS v2.1: .*'bent.pt'.*do not fit together: .*layers.3.mlp.fc1.weight"):
        run_node(NSHPSv2, model_name="bent.pt", prompt="cat")
    torch.save({"state_dict": {k: v for k, v in checkpoint.items() if "resblocks.5." not in k}}, models / "gap.pt")
    with pytest.raises(ValueError, match="HPS v2.1: .*'gap.pt'.*lacks text weights .missing: .*layers.5."):
        run_node(NSHPSv2, model_name="gap.pt", prompt="cat")
    torch.save({"state_dict": checkpoint | {"visual.proj": torch.zeros(64, 48)}}, models / "odd.pt")
    with pytest.raises(ValueError, match="HPS v2.1: .*'odd.pt'.*embeddings of 64 and of 48 values"):
        run_node(NSHPSv2, model_name="odd.pt", prompt="cat")


@pytest.mark.parametrize("node", [NSPickScore, NSHPSv2, NSSigLIPScore])
@pytest.mark.parametrize("prompt", ["", " \n"])
def test_an_empty_prompt_is_refused(request: pytest.FixtureRequest, node: Any, prompt: str) -> None:
    name = "siglip" if node is NSSigLIPScore else whole(node, request)
    if node is NSSigLIPScore:
        request.getfixturevalue("siglip")
    with pytest.raises(ValueError, match="input 'prompt' is .* no text to compare"):
        run_node(node, model_name=name, prompt=prompt)


def test_the_aesthetic_score_says_which_of_its_files_is_wrong(aesthetic: SimpleNamespace, models: Path) -> None:
    sd = aesthetic.head.state_dict()
    relu = {key.replace("layers.2.", "layers.3."): value for key, value in sd.items()}
    save_file(relu, models / "relu.safetensors")
    with pytest.raises(
        ValueError, match="input 'model_name' is 'relu.safetensors', weights of another model .layers.2.weight is m"
    ):
        run_node(NSAestheticScore, model_name="relu.safetensors", clip_name="clip.safetensors")
    save_file(sd | {"layers.0.weight": torch.zeros(())}, models / "scalar.safetensors")
    with pytest.raises(ValueError, match=r"'scalar.safetensors', weights of another model .layers.0.weight \(\) in place of"):
        run_node(NSAestheticScore, model_name="scalar.safetensors", clip_name="clip.safetensors")
    torch.save(Head(768).state_dict(), models / "768.pth")
    with pytest.raises(ValueError, match="input 'clip_name' is 'clip.safetensors', a CLIP whose embeddings have 64 .* takes 768"):
        run_node(NSAestheticScore, model_name="768.pth", clip_name="clip.safetensors")
    with pytest.raises(
        ValueError, match="input 'clip_name' is 'head.safetensors', .*holds no vision tower .*clip-vit-large-patch14"
    ):
        run_node(NSAestheticScore, model_name="head.pth", clip_name="head.safetensors")
    with pytest.raises(ValueError, match="input 'clip_name' is 'gone.safetensors', a file that is not in models/clip_vision"):
        run_node(NSAestheticScore, model_name="head.pth", clip_name="gone.safetensors")
