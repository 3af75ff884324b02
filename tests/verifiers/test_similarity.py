"""Verifiers that compare features of pictures, with a stand-in for the encoder and with ComfyUI's own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from noise_search.verifiers.common import features
from noise_search.verifiers.common.base import PredictionVerifier, Verifier
from noise_search.verifiers.common.features import image_features, pixel_features, share
from noise_search.verifiers.composite.ensemble import Ensemble
from noise_search.verifiers.human.human import HumanVerifier
from noise_search.verifiers.measures.reference import LIKE, UNLIKE, ReferenceSimilarity
from noise_search.verifiers.measures.self_similarity import SelfSimilarity


class FakeVision:
    """An image encoder whose embedding is the mean color, or the colors of all pixels as patches; has room for `room`."""

    def __init__(self, patches: bool = False, room: int = 1000) -> None:
        self.patches, self.room, self.sizes, self.patcher = patches, room, [], object()

    def encode_image(self, images: Tensor, crop: bool) -> dict[str, Tensor]:
        assert crop and images.dtype == torch.float32
        self.sizes.append(len(images))
        if len(images) > self.room:
            raise torch.cuda.OutOfMemoryError("no room")
        return {"image_embeds": images.flatten(1, 2) if self.patches else images.mean((1, 2))}


def flat(*colors: tuple[float, float, float]) -> Tensor:
    return torch.tensor(colors).view(-1, 1, 1, 3).expand(-1, 3, 5, 3)


RED, GREEN, BLUE, OLIVE, GREY = (1.0, 0, 0), (0, 1.0, 0), (0, 0, 1.0), (0.6, 0.8, 0), (0.5, 0.5, 0.5)


def test_features_have_length_1_and_patches_are_averaged() -> None:
    images = torch.rand(3, 4, 4, 3, generator=torch.Generator().manual_seed(0))
    found = image_features(FakeVision(), images)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(image_features(FakeVision(patches=True), images), found)


def test_halves_where_memory_runs_out() -> None:
    vision = FakeVision(room=2)
    torch.testing.assert_close(image_features(vision, flat(RED, GREEN, BLUE)), torch.eye(3))
    assert vision.sizes == [3, 2, 1]


def test_self_similarity_is_the_cosine_of_picture_and_prediction() -> None:
    verifier = SelfSimilarity(FakeVision())
    scores = verifier.score_pairs(flat(RED, RED, RED, OLIVE), flat(RED, GREEN, OLIVE, RED))
    assert scores.tolist() == pytest.approx([1, 0, 0.6, 0.6]) and scores.dtype == torch.float32
    half = verifier.score_pairs(flat(RED, OLIVE).half(), flat(OLIVE, OLIVE).half())
    assert half.tolist() == pytest.approx([0.6, 1], abs=1e-3)


def test_self_similarity_describes_itself() -> None:
    verifier = SelfSimilarity(vision := FakeVision(), 0.67)
    assert isinstance(verifier, PredictionVerifier) and isinstance(verifier, Verifier)
    assert verifier.needs_prediction == 0.67 and not verifier.trusts_previews and not verifier.needs_prompt
    assert verifier.get_models() == [vision.patcher] and SelfSimilarity(vision).needs_prediction == 0.4
    with pytest.raises(AttributeError):
        verifier.sigma = 1.0


def test_self_similarity_refuses_pictures_alone_and_bad_settings() -> None:
    with pytest.raises(ValueError, match="^self similarity: .*pictures alone do not tell. Connect it to a search"):
        SelfSimilarity(FakeVision()).score(flat(RED))
    for sigma in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="^self similarity: input 'sigma' is .*must be above 0"):
            SelfSimilarity(FakeVision(), sigma)
    with pytest.raises(ValueError, match="self similarity: input 'images' is .*hold NaN"):
        SelfSimilarity(FakeVision()).score_pairs(flat(RED), flat((0.1, float("nan"), 0.1)))


@pytest.mark.parametrize("prefer", [LIKE, UNLIKE])
def test_reference_similarity_is_the_mean_cosine_or_its_negative(prefer: str) -> None:
    scores = ReferenceSimilarity(FakeVision(), flat(RED, OLIVE), prefer).score(flat(RED, GREEN, BLUE, GREY))
    sign = 1 if prefer == LIKE else -1
    wanted = [(1 + 0.6) / 2, 0.8 / 2, 0, (1 + 1.4) / (2 * 3**0.5)]
    assert scores.tolist() == pytest.approx([sign * value for value in wanted], abs=1e-6)


def test_the_reference_is_encoded_once() -> None:
    verifier = ReferenceSimilarity(vision := FakeVision(), flat(RED, OLIVE, GREY))
    verifier.score(flat(RED))
    verifier.score(flat(GREEN))
    assert vision.sizes == [1, 3, 1] or vision.sizes == [3, 1, 1]
    assert verifier.get_models() == [vision.patcher]


def test_reference_similarity_refuses_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="input 'prefer' is 'near'; choose one of like, unlike"):
        ReferenceSimilarity(FakeVision(), flat(RED), "near")
    with pytest.raises(ValueError, match="^reference similarity, input 'reference': .*NaN"):
        ReferenceSimilarity(FakeVision(), flat((float("nan"), 0, 0)))
    with pytest.raises(ValueError, match="input 'images'"):
        ReferenceSimilarity(FakeVision(), flat(RED)).score(torch.rand(3, 4, 4))


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures each hash was of."""
    hashed, content = [], features._content
    monkeypatch.setattr(features, "_content", lambda images: (hashed.append(len(images)), content(images))[1])
    return hashed


def like(vision: FakeVision, name: str = "one") -> ReferenceSimilarity:
    verifier = ReferenceSimilarity(vision, flat(RED), name=name)
    assert verifier.mean_feature.shape == (3,)
    vision.sizes.clear()
    return verifier


def test_pictures_are_hashed_only_where_two_parts_share_an_embedding(hashed: list[int]) -> None:
    vision, other = FakeVision(), FakeVision()
    pictures = flat(RED, GREEN, BLUE)
    single, alone = like(vision), Ensemble((like(vision), like(other, "other")))
    for _ in range(2):
        single.score(pictures)
        alone.score(pictures)
    assert hashed == [] and vision.sizes == [3] * 4 and other.sizes == [3] * 2
    both = Ensemble((Ensemble((like(vision), like(other, "other")), name="inner"), like(vision, "last")))
    hashed.clear()
    want = both.score(pictures)
    assert vision.sizes == [3] and hashed == [3, 3] and other.sizes == [3]
    assert torch.equal(both.score(pictures.flip(0)), want.flip(0)) and vision.sizes == [3, 3]
    del both
    hashed.clear()
    alone.score(pictures)
    assert hashed == []  # nobody shares any more


def test_a_persons_assistant_shares_the_embedding_of_the_persons_own_model(hashed: list[int]) -> None:
    vision, pictures = FakeVision(), flat(RED, GREEN)
    judge = HumanVerifier(None, assistant=like(vision), clip_vision=vision)
    judge.begin()._meet(0, pictures)
    assert vision.sizes == [2] and hashed == [2, 2]


def test_pictures_and_pixels_of_one_encoder_are_not_the_same_embedding(hashed: list[int]) -> None:
    vision, pixels = FakeVision(), torch.rand(2, 3, 4, 4)
    sharing = share([SimpleNamespace(clip_vision=vision), SimpleNamespace(clip_vision=vision, embeds=features.PIXELS)])
    for _ in range(2):
        image_features(vision, flat(RED, GREEN))
        pixel_features(vision, lambda part: part.mean((2, 3)), pixels)
    assert hashed == [] and isinstance(sharing, features.Sharing)


# ComfyUI's encoders


def comfy_vision(config: dict[str, Any], tmp_path: Any) -> Any:
    """Return a CLIP_VISION of random weights."""
    import json

    import comfy.clip_vision

    path = tmp_path / "vision.json"
    path.write_text(json.dumps(config))
    vision = comfy.clip_vision.ClipVisionModel(str(path))
    vision.model.float()
    vision.dtype = torch.float32
    generator = torch.Generator().manual_seed(5)
    for parameter in vision.model.parameters():
        parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return vision


SMALL = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "layer_norm_eps": 1e-6, "intermediate_size": 48,
    "num_channels": 3, "patch_size": 14, "image_size": 28, "hidden_act": "gelu",
}  # fmt: skip


@pytest.mark.comfy
@pytest.mark.parametrize("kind", ["dinov2", "siglip_vision_model", "clip_vision_model"])
def test_what_comfyui_gives_for_each_kind_of_encoder(kind: str, tmp_path: Any) -> None:
    """DINOv2: the class token; SigLIP: the mean of its patches; CLIP: the projected class token."""
    config = SMALL | {"model_type": kind}
    if kind == "dinov2":  # whose positions ComfyUI fixes at 518 pixels
        config |= {"image_size": 518, "use_swiglu_ffn": False}
    if kind == "clip_vision_model":
        config |= {"projection_dim": 24}
    vision = comfy_vision(config, tmp_path)
    images = torch.rand(2, 28, 28, 3, generator=torch.Generator().manual_seed(1))
    out = vision.encode_image(images)
    hidden = out["last_hidden_state"].float()
    want = {
        "dinov2": lambda: hidden[:, 0],
        "siglip_vision_model": lambda: hidden.mean(1),
        "clip_vision_model": lambda: vision.model.visual_projection(vision.model.vision_model.post_layernorm(hidden[:, 0])),
    }[kind]()
    torch.testing.assert_close(image_features(vision, images), torch.nn.functional.normalize(want, dim=-1), rtol=1e-4, atol=1e-5)
    assert want.shape == (2, 24 if kind == "clip_vision_model" else 32)


@pytest.mark.comfy
def test_nodes(tiny_clip: SimpleNamespace) -> None:
    from inprocess import run_node
    from noise_search.nodes.definitions.verifiers.similarity import NODES, NSReferenceSimilarity, NSSelfSimilarity
    from noise_search.nodes.weights.clip import load_clip_pair

    for node in NODES:
        found = node.define_schema()
        assert found.display_name.endswith(" (verifier)") and found.category == "noise search/verifiers"
        assert [output.io_type for output in found.outputs] == ["NS_VERIFIER"]
    vision = load_clip_pair(tiny_clip.path).clip_vision
    (own,) = run_node(NSSelfSimilarity, clip_vision=vision, sigma=0.5)
    assert own.needs_prediction == 0.5
    reference = torch.rand(2, 40, 40, 3, generator=torch.Generator().manual_seed(2))
    (like,) = run_node(NSReferenceSimilarity, clip_vision=vision, reference=reference, prefer=LIKE)
    assert "mean_feature" in vars(like)
    features = image_features(vision, reference)
    torch.testing.assert_close(like.score(reference), (features @ features.T).mean(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(own.score_pairs(reference, reference.flip(0)), (features @ features.T)[0, 1].expand(2))
