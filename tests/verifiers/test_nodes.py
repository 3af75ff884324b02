"""The verifier nodes, run as ComfyUI runs them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from inprocess import boot, run_node

pytestmark = pytest.mark.comfy

boot()

import comfy.model_management as mm  # noqa: E402
import folder_paths  # noqa: E402

from noise_search.nodes.definitions.scoring import NSScoreImages  # noqa: E402
from noise_search.nodes.definitions.verifiers.basic import (  # noqa: E402
    NODES,
    NSClipScore,
    NSImageStatistics,
    NSVerifierEnsemble,
)
from noise_search.nodes.definitions.verifiers.cascade import NODES as CASCADE  # noqa: E402
from noise_search.nodes.definitions.verifiers.cascade import NSVerifierCascade  # noqa: E402
from noise_search.nodes.definitions.verifiers.clip_choice import CONNECTED  # noqa: E402
from noise_search.verifiers.composite.cascade import Cascade  # noqa: E402
from noise_search.verifiers.composite.ensemble import CALIBRATED, GATE, RANK_MEAN, WEIGHTED_SUM  # noqa: E402
from noise_search.verifiers.measures.statistics import ImageStatistics  # noqa: E402

IMAGES = torch.rand(3, 40, 40, 3, generator=torch.Generator().manual_seed(0))
SHARP, GREY = ImageStatistics(1, 0, 0, 0), ImageStatistics(0, 0, -1, 0)


@pytest.fixture
def clip_file(tiny_clip: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name the tiny CLIP's file as models/clip_vision would."""
    folder = tiny_clip.path.rsplit("/", 1)[0]
    entry = ([folder], folder_paths.supported_pt_extensions)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "clip_vision", entry)
    return "model.safetensors"


def inputs_of(node: Any) -> list[str]:
    return [i.id for i in node.define_schema().inputs]


def test_inputs_in_order() -> None:
    numbers = range(1, 9)
    assert inputs_of(NSImageStatistics) == ["sharpness", "exposure", "colorfulness", "contrast"]
    assert inputs_of(NSClipScore) == ["clip", "clip_vision", "model_name", "prompt"]
    assert inputs_of(NSVerifierEnsemble) == [
        *(f"verifier_{i}" for i in numbers), *(f"weight_{i}" for i in numbers), "mode", "gate_threshold",
        "calibrate_on",
    ]  # fmt: skip


@pytest.mark.parametrize("node", [*NODES, *CASCADE])
def test_schema(node: Any) -> None:
    schema = node.define_schema()
    assert schema.category == "noise search/verifiers"
    assert all(i.tooltip for i in schema.inputs)
    assert [output.io_type for output in schema.outputs] == ["NS_VERIFIER"]


def test_image_statistics() -> None:
    (verifier,) = run_node(NSImageStatistics, sharpness=1.0, exposure=0.0, colorfulness=2.0, contrast=-1.0)
    assert verifier == ImageStatistics(1, 0, 2, -1)


def test_clip_score_from_a_file_equals_that_from_its_connected_models(clip_file: str) -> None:
    (by_file,) = run_node(NSClipScore, model_name=clip_file, prompt="a red circle")
    models = {"clip": by_file.clip, "clip_vision": by_file.clip_vision}
    (by_link,) = run_node(NSClipScore, **models, model_name=CONNECTED, prompt="a red circle")
    assert torch.equal(by_file.score(IMAGES), by_link.score(IMAGES))
    assert by_file.prompt == "a red circle"


def test_the_file_is_offered(clip_file: str) -> None:
    combo = next(i for i in NSClipScore.define_schema().inputs if i.id == "model_name")
    assert combo.options == [CONNECTED, clip_file]


def test_clip_score_encodes_the_text_at_once(clip_file: str) -> None:
    (verifier,) = run_node(NSClipScore, model_name=clip_file, prompt="a red circle")
    assert "text_features" in vars(verifier)


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({}, "nothing is connected to 'clip' and 'clip_vision'"),
        ({"clip": object()}, "nothing is connected to 'clip_vision'. Connect both"),
        ({"clip_vision": object()}, "nothing is connected to 'clip'"),
        ({"model_name": "model.safetensors", "clip": object()}, "'clip' is connected too"),
        ({"model_name": "gone.safetensors"}, "'gone.safetensors', a file that is not in models/clip_vision"),
        ({"model_name": "model.safetensors", "prompt": " "}, "input 'prompt' is ' '"),
    ],
)
def test_clip_score_says_what_to_do(clip_file: str, inputs: dict, says: str) -> None:
    with pytest.raises(ValueError, match=f"^CLIP [Ss]core: .*{says}"):
        run_node(NSClipScore, **{"model_name": CONNECTED, "prompt": "cat", **inputs})


def test_ensemble_skips_empty_slots() -> None:
    (verifier,) = run_node(
        NSVerifierEnsemble, mode=WEIGHTED_SUM, gate_threshold=0.0, verifier_2=SHARP, verifier_7=GREY,
        weight_1=9.0, weight_2=2.0, weight_7=0.5,
    )  # fmt: skip
    assert verifier.weights == (2, 0.5)
    expected = 2 * SHARP.score(IMAGES) + 0.5 * GREY.score(IMAGES)
    torch.testing.assert_close(verifier.score(IMAGES), expected)


def test_ensemble_defaults_to_equal_weights() -> None:
    (verifier,) = run_node(NSVerifierEnsemble, mode=RANK_MEAN, gate_threshold=0.0, verifier_1=SHARP)
    assert verifier.weights == (1,)
    assert sorted(verifier.score(IMAGES).tolist()) == [1, 2, 3]


def test_ensemble_gates_by_its_first_verifier() -> None:
    scores = SHARP.score(IMAGES)
    threshold = scores.median().item()
    (verifier,) = run_node(NSVerifierEnsemble, mode=GATE, gate_threshold=threshold, verifier_1=SHARP, verifier_3=GREY)
    assert verifier.gates == (threshold, None)
    assert ((verifier.score(IMAGES) >= 1) == (scores >= threshold)).all()


def test_ensemble_calibrates_on_so_many() -> None:
    inputs = {"mode": CALIBRATED, "gate_threshold": 0.0, "verifier_1": SHARP, "verifier_2": GREY}
    (verifier,) = run_node(NSVerifierEnsemble, **inputs)
    assert (verifier.mode, verifier.calibrate_on) == (CALIBRATED, 8)
    (verifier,) = run_node(NSVerifierEnsemble, **inputs, calibrate_on=2)
    first = SHARP.score(IMAGES[:2]).diff().item(), GREY.score(IMAGES[:2]).diff().item()
    signs = [1 if d > 0 else -1 for d in first]  # of two, one is at -1 and one at +1 under each
    assert verifier.score(IMAGES)[1].item() == pytest.approx(sum(signs))


def test_cascade() -> None:
    (verifier,) = run_node(NSVerifierCascade, cheap=SHARP, expensive=GREY, finalists=2, share=0.5)
    assert verifier == Cascade(SHARP, GREY, 2, 0.5)
    worst = SHARP.score(IMAGES).argmin().item()
    scores, dear = verifier.score(IMAGES).tolist(), GREY.score(IMAGES).tolist()
    assert scores.index(min(scores)) == worst
    assert [score for k, score in enumerate(scores) if k != worst] == [score for k, score in enumerate(dear) if k != worst]


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({}, "no verifier is connected. Connect one to 'verifier_1'"),
        ({"mode": GATE, "verifier_2": SHARP}, "'verifier_1', the gate, is not connected"),
        ({"mode": GATE, "verifier_1": SHARP}, "1 gates among 1 verifiers"),
        ({"verifier_1": SHARP, "weight_1": 0.0}, "not all 0"),
    ],
)
def test_ensemble_says_what_to_do(inputs: dict, says: str) -> None:
    with pytest.raises(ValueError, match=f"^Verifier Ensemble: .*{says}"):
        run_node(NSVerifierEnsemble, **{"mode": RANK_MEAN, "gate_threshold": 0.0, **inputs})


def test_cancel_is_heard_between_the_parts_of_an_ensemble() -> None:
    asked = []

    class Asked(ImageStatistics):
        def score(self, images: Any, latents: Any = None) -> Any:
            asked.append(self.name)
            mm.interrupt_current_processing()
            return super().score(images, latents)

    parts = {f"verifier_{i}": Asked(name=f"part {i}") for i in (1, 2)}
    (verifier,) = run_node(NSVerifierEnsemble, mode=RANK_MEAN, gate_threshold=0.0, **parts)
    with pytest.raises(mm.InterruptProcessingException):
        run_node(NSScoreImages, images=IMAGES, verifier=verifier)
    assert asked == ["part 1"]
