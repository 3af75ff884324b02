"""CLIP score with stand-ins for ComfyUI's objects: what it asks of them, and what it refuses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from noise_search.verifiers.clip.clip_score import ClipScore


class FakeClip:
    """A text encoder that embeds every text alike, and remembers what it was asked."""

    def __init__(self, pooled: Tensor | None, encoders: tuple[str, ...] = ("l",), projected: bool = True) -> None:
        self.pooled, self.encoders = pooled, encoders
        self.cond_stage_model = SimpleNamespace(
            **{f"clip_{name}": SimpleNamespace(return_projected_pooled=projected) for name in encoders}
        )
        self.patcher = object()
        self.asked: list[Any] = []

    def tokenize(self, text: str, **options: Any) -> dict[str, list]:
        self.asked.append((text, options))
        return {name: [["first"], ["second"]] for name in self.encoders}

    def encode_from_tokens(self, tokens: dict[str, list], return_pooled: bool = False) -> tuple:
        assert return_pooled
        self.asked.append(tokens)
        return None, self.pooled


class FakeVision:
    """An image encoder whose embedding is the mean color, on a device with room for `room` images."""

    def __init__(self, room: int = 1000) -> None:
        self.room, self.sizes, self.patcher = room, [], object()

    def encode_image(self, images: Tensor, crop: bool) -> dict[str, Tensor]:
        assert crop
        self.sizes.append(len(images))
        if len(images) > self.room:
            raise torch.cuda.OutOfMemoryError("no room")
        return {"image_embeds": images.mean((1, 2))}


RED = torch.tensor([[2.0, 0, 0]])
COLORS = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0.6, 0.8, 0], [0.5, 0.5, 0]])
COLORS = COLORS.view(4, 1, 1, 3).expand(4, 3, 5, 3)


def test_score_is_a_hundred_times_the_cosine() -> None:
    scores = ClipScore(FakeClip(RED), FakeVision(), "red").score(COLORS)
    assert scores.tolist() == pytest.approx([100, 0, 60, 100 / 2**0.5], abs=1e-4)


def test_it_is_not_cut_off_below_zero() -> None:
    scores = ClipScore(FakeClip(-RED), FakeVision(), "no red").score(COLORS)
    assert scores[0].item() == pytest.approx(-100)


def test_text_is_encoded_once_as_it_stands_and_only_its_first_row() -> None:
    clip = FakeClip(RED)
    verifier = ClipScore(clip, FakeVision(), "(red:1.3) \\(x\\) embedding:secret, an\nembedding:other")
    verifier.score(COLORS)
    verifier.score(COLORS)
    text = "(red:1.3) \\\\(x\\\\) Embedding:secret, an Embedding:other"
    assert clip.asked == [(text, {"disable_weights": True}), {"l": [["first"]]}]


def test_halves_where_memory_runs_out() -> None:
    vision = FakeVision(room=3)
    scores = ClipScore(FakeClip(RED), vision, "red").score(COLORS.repeat(3, 1, 1, 1))
    assert scores.tolist() == pytest.approx([100, 0, 60, 100 / 2**0.5] * 3, abs=1e-4)
    assert vision.sizes == [12, 6, 3, 3, 3, 3]


def test_out_of_memory_with_one_image_surfaces() -> None:
    with pytest.raises(torch.cuda.OutOfMemoryError):
        ClipScore(FakeClip(RED), FakeVision(room=0), "red").score(COLORS)


@pytest.mark.parametrize("prompt", ["", "  \n"])
def test_an_empty_prompt_is_refused(prompt: str) -> None:
    with pytest.raises(ValueError, match="input 'prompt' is .* no text to compare .* Write what"):
        ClipScore(FakeClip(RED), FakeVision(), prompt)


def test_of_sdxl_the_pooled_vector_counts() -> None:
    clip = FakeClip(RED, encoders=("g", "l"))
    assert ClipScore(clip, FakeVision(), "red").score(COLORS)[0].item() == pytest.approx(100)


@pytest.mark.parametrize(
    ("clip", "says"),
    [
        (FakeClip(RED, projected=False), "without CLIP's text projection .* SD 1.5"),
        (FakeClip(RED, encoders=("l", "t5xxl")), "holds the encoders l, t5xxl"),
        (FakeClip(RED, encoders=("g", "l"), projected=False), "without CLIP's text projection"),
        (FakeClip(None, encoders=("t5xxl",)), "gives no pooled vector"),
        (FakeClip(torch.ones(1, 768)), "'clip_vision' gives embeddings of 3 values, 'clip' of 768"),
    ],
)
def test_encoders_that_do_not_fit_are_refused(clip: FakeClip, says: str) -> None:
    with pytest.raises(ValueError, match=f"{says}.*(?s:.)*choose a file that holds both"):
        ClipScore(clip, FakeVision(), "red").score(COLORS)


@pytest.mark.parametrize("inside", [SimpleNamespace(visual_projection=torch.nn.Identity()), SimpleNamespace()])
def test_image_encoders_that_are_no_clip_are_refused(inside: SimpleNamespace) -> None:
    """ComfyUI's SigLIP and DINOv2, whose vectors may be as wide as the text's."""
    vision = FakeVision()
    vision.model = inside
    with pytest.raises(ValueError, match="input 'clip_vision' holds no CLIP"):
        ClipScore(FakeClip(RED), vision, "red").score(COLORS)
    vision.model = SimpleNamespace(visual_projection=torch.nn.Linear(1, 1))
    assert ClipScore(FakeClip(RED), vision, "red").score(COLORS)[0].item() == pytest.approx(100)


def test_models_are_shown() -> None:
    clip, vision = FakeClip(RED), FakeVision()
    assert ClipScore(clip, vision, "red").get_models() == [clip.patcher, vision.patcher]
