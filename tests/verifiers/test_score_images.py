"""Scoring and sorting a batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from inprocess import boot, run_node

pytestmark = pytest.mark.comfy

boot()

import comfy.nested_tensor  # noqa: E402
from comfy_execution.graph_utils import ExecutionBlocker  # noqa: E402

from noise_search.nodes.definitions.scoring import NSScoreImages, best_first  # noqa: E402


@dataclass
class Given:
    """Answers with given scores, and remembers the latents."""

    scores: list[float]
    name: str = "given"
    seen: list[Any] = field(default_factory=list)

    def score(self, images: Tensor, latents: Tensor | None = None) -> Tensor:
        self.seen.append(latents)
        return torch.tensor(self.scores)


IMAGES = torch.linspace(0, 1, 4).view(4, 1, 1, 1).expand(4, 3, 5, 3)
GIVEN = Given([0.2, 0.9, float("nan"), 0.5])


def test_inputs_and_outputs_in_order() -> None:
    schema = NSScoreImages.define_schema()
    assert [i.id for i in schema.inputs] == ["images", "verifier", "latents", "masks", "keep"]
    names = [o.display_name or o.id for o in schema.outputs]
    assert names == ["images", "latents", "masks", "scores", "order"]
    assert [o.io_type for o in schema.outputs] == ["IMAGE", "LATENT", "MASK", "FLOAT", "STRING"]
    assert [o.is_output_list for o in schema.outputs] == [False, False, False, True, False]
    assert all(i.tooltip for i in schema.inputs)


def test_best_first_with_stable_ties_and_nan_last() -> None:
    nan, inf = float("nan"), float("inf")
    assert best_first(torch.tensor([1.0, nan, 3.0, 1.0, -inf, 3.0, nan])) == [2, 5, 0, 3, 4, 1, 6]


def test_everything_is_sorted_along() -> None:
    numbers = torch.arange(4.0).view(4, 1, 1, 1)
    latents = {"samples": numbers, "noise_mask": numbers, "batch_index": [7, 8, 9, 10], "type": "audio"}
    masks = torch.arange(4.0).view(4, 1, 1)
    images, picked, sorted_masks, scores, order = run_node(
        NSScoreImages, images=IMAGES, verifier=GIVEN, latents=latents, masks=masks, keep=3
    )
    assert order == "1,3,0"
    assert scores == pytest.approx([0.9, 0.5, 0.2])
    assert torch.equal(images, IMAGES[[1, 3, 0]])
    assert picked["samples"].flatten().tolist() == [1, 3, 0]
    assert picked["noise_mask"].flatten().tolist() == [1, 3, 0]
    assert picked["batch_index"] == [8, 10, 7]
    assert picked["type"] == "audio"
    assert sorted_masks.flatten().tolist() == [1, 3, 0]
    assert latents["samples"].flatten().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("keep", "order"), [(0, "1,3,0,2"), (1, "1"), (99, "1,3,0,2")])
def test_keep(keep: int, order: str) -> None:
    outputs = run_node(NSScoreImages, images=IMAGES, verifier=GIVEN, keep=keep)
    assert outputs[4] == order
    assert len(outputs[0]) == len(outputs[3]) == order.count(",") + 1


def test_the_verifier_gets_the_latents() -> None:
    verifier = Given([1.0, 2, 3, 4])
    samples = torch.rand(4, 16, 1, 2, 2)  # 5-D, as of a video model
    _, picked, *_ = run_node(NSScoreImages, images=IMAGES, verifier=verifier, latents={"samples": samples})
    assert verifier.seen[0] is samples
    assert torch.equal(picked["samples"], samples.flip(0))


def test_nested_latents() -> None:
    parts = [torch.rand(4, 4, 2, 2), torch.rand(4, 8, 3)]
    latents = {"samples": comfy.nested_tensor.NestedTensor(parts)}
    _, picked, *_ = run_node(NSScoreImages, images=IMAGES, verifier=GIVEN, latents=latents, keep=2)
    assert picked["samples"].is_nested
    for part, original in zip(picked["samples"].unbind(), parts, strict=True):
        assert torch.equal(part, original[[1, 3]])


@pytest.mark.parametrize("mask", [torch.rand(3, 5), torch.rand(1, 3, 5)])
def test_one_mask_belongs_to_every_image(mask: Tensor) -> None:
    masks = run_node(NSScoreImages, images=IMAGES, verifier=GIVEN, masks=mask, keep=2)[2]
    assert torch.equal(masks, mask.view(1, 3, 5).expand(2, 3, 5))


def test_images_keep_their_alpha() -> None:
    rgba = torch.rand(4, 3, 5, 4)
    assert torch.equal(run_node(NSScoreImages, images=rgba, verifier=GIVEN)[0], rgba[[1, 3, 0, 2]])


def test_what_was_not_connected_blocks_who_uses_it() -> None:
    _, latents, masks, _, _ = run_node(NSScoreImages, images=IMAGES, verifier=GIVEN)
    for output, what in ((latents, "latents"), (masks, "masks")):
        assert isinstance(output, ExecutionBlocker)
        assert f"connect input '{what}'" in output.message


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"latents": {"samples": torch.rand(2, 4, 2, 2)}}, "'latents' has 2 rows and 'images' has 4"),
        ({"masks": torch.rand(3, 3, 5)}, "'masks' has 3 rows and 'images' has 4"),
        ({"images": torch.rand(3, 5, 3)}, "input 'images' is a float32 tensor"),
    ],
)
def test_rows_must_match(inputs: dict, says: str) -> None:
    with pytest.raises(ValueError, match=f"^Score Images: .*{says}"):
        run_node(NSScoreImages, **{"images": IMAGES, "verifier": GIVEN, **inputs})


def test_a_verifier_that_answers_nonsense_is_named() -> None:
    with pytest.raises(ValueError, match=r"verifier 'given' returned .*expected .*\(4,\)"):
        run_node(NSScoreImages, images=IMAGES, verifier=Given([1.0, 2.0]))
