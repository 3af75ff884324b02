"""Class verifiers without ComfyUI: outputs, names of classes, and how pictures are prepared."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from noise_search.verifiers.common.image_processor import Processor, read_processor
from noise_search.verifiers.content.classifier import (
    LOG_PROBABILITY,
    LOGIT,
    OUTPUTS,
    PROBABILITY,
    ClassifierLogit,
    class_index,
    of_class,
)

LABELS = ("tabby, tabby cat", "crane", "golden retriever", "crane, lifting machine", "tiger cat", "espresso")
GIVEN = {
    "image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 6}, "resample": 2,
    "image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.2, 0.1],
}  # fmt: skip


class FakeModel:
    """A classifier whose logits are the channels' means, on a device with room for `room` pictures."""

    dtype = torch.float32

    def __init__(self, room: int = 1000) -> None:
        self.room, self.sizes, self.patcher = room, [], object()

    def __call__(self, work, memory):
        assert memory > 0
        return work(self.classify, torch.device("cpu"))

    def classify(self, pixel_values: Tensor) -> SimpleNamespace:
        self.sizes.append(len(pixel_values))
        if len(pixel_values) > self.room:
            raise torch.cuda.OutOfMemoryError("no room")
        return SimpleNamespace(logits=pixel_values.mean((2, 3)))


RAW = Processor(None, None, "bilinear", 1.0, (0.0,) * 3, (1.0,) * 3)
COLORS = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0.5, 0.5, 0.5]]).view(3, 1, 1, 3).expand(3, 4, 4, 3)


def verifier(output: str = LOGIT, **more) -> ClassifierLogit:
    return ClassifierLogit(more.pop("model", None) or FakeModel(), RAW, ("red", "green", "blue"), 0, output, **more)


@pytest.mark.parametrize(("output", "wanted"), [
    (LOGIT, [1, 0, 0.5]),
    (PROBABILITY, [math.e / (math.e + 2), 1 / (math.e + 2), 1 / 3]),
    (LOG_PROBABILITY, [1 - math.log(math.e + 2), -math.log(math.e + 2), -math.log(3)]),
])  # fmt: skip
def test_outputs_by_hand(output, wanted):
    scores = verifier(output).score(COLORS)
    assert scores.tolist() == pytest.approx(wanted, abs=1e-6)
    low, high = verifier(output).score_range
    assert ((scores >= low) & (scores <= high)).all()


def test_of_several_labels_at_once_each_has_a_sigmoid():
    assert verifier(PROBABILITY, exclusive=False).score(COLORS)[0].item() == pytest.approx(1 / (1 + math.exp(-1)))


def test_the_log_probability_tells_apart_what_the_probability_does_not():
    sure = torch.tensor([[60.0, 0.0], [40.0, 0.0], [-300.0, 0.0], [-400.0, 0.0]])
    probability, log = of_class(sure, 0, PROBABILITY), of_class(sure, 1, LOG_PROBABILITY)
    assert probability[0] == probability[1] == 1 and probability[2] == probability[3] == 0
    assert log.tolist() == pytest.approx([-60, -40, 0, 0])


def test_halves_where_memory_runs_out():
    model = FakeModel(room=2)
    assert verifier(model=model).score(COLORS).tolist() == pytest.approx([1, 0, 0.5])
    assert model.sizes == [3, 2, 1]
    with pytest.raises(torch.cuda.OutOfMemoryError):
        verifier(model=FakeModel(room=0)).score(COLORS)


def test_outputs_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="input 'output' is 'odds'; choose one of log probability, probability, logit"):
        verifier("odds")
    for output in OUTPUTS[:2]:
        with pytest.raises(ValueError, match="one class only, whose probability is always 1. Choose 'logit'"):
            ClassifierLogit(FakeModel(), RAW, ("only",), 0, output)


@pytest.mark.parametrize(("said", "index"), [
    ("2", 2), (" 0 ", 0), ("espresso", 5), ("Golden Retriever", 2), ("tabby cat", 0), ("tabby", 0), ("crane", 1),
    ("lifting machine", 3), ("crane, lifting machine", 3), ("tabby, tabby cat", 0),
])  # fmt: skip
def test_classes_by_number_name_and_part_of_a_name(said, index):
    assert class_index(LABELS, said, "Some Node") == index


@pytest.mark.parametrize(("said", "says"), [
    ("golden retreiver", "no class of the model's 6. Near ones: golden retriever"),
    ("cat", "Near ones: .*tiger cat"),
    ("xyzzy", "Some: tabby, tabby cat, crane, golden retriever, lifting machine."),
    ("", "Some: tabby"),
    ("6", "the model has 6 classes. Choose a number from 0 to 5"),
])  # fmt: skip
def test_unknown_classes_are_refused_with_near_ones(said, says):
    with pytest.raises(ValueError, match=f"^Some Node: input 'class_name' is '{said}'.*{says}"):
        class_index(LABELS, said, "Some Node")


def test_a_name_of_several_classes_wants_the_number():
    labels = ("bird, crane", "machine, crane")
    with pytest.raises(ValueError, match=r"a name of several classes: 0 \(bird, crane\), 1 \(machine, crane\). Give the number"):
        class_index(labels, "crane", "Some Node")


# Preparing pictures


@pytest.mark.parametrize("key", ["size", "crop_size", "resample", "image_mean", "image_std", "rescale_factor", "crop_pct"])
@pytest.mark.parametrize("value", ["x", [], [1], {}, {"height": "x", "width": 8}, {"shortest_edge": -1}, 10**9, -1, float("nan")])
def test_settings_of_another_kind_are_refused(key, value):
    given = GIVEN | {"image_processor_type": "ConvNextImageProcessor" if key == "crop_pct" else "BitImageProcessor"}
    refused = pytest.raises(ValueError, match=f"^a folder whose preprocessor_config.json cannot be followed .'{key}' is ")
    if (key, value) in [("rescale_factor", 10**9), ("crop_pct", []), ("crop_pct", {})]:
        return  # a number like any other; and what is empty is not there
    with refused:
        read_processor(given | {key: value})


@pytest.mark.parametrize("said", ["7" * 120_000, "cat " * 30_000], ids=range(2))
def test_a_long_name_is_quoted_in_part(said):
    with pytest.raises(ValueError, match=r"more letters\)") as raised:
        class_index(LABELS, said, "Some Node")
    assert len(str(raised.value)) < 700


def test_a_number_that_is_no_decimal_is_no_class():
    with pytest.raises(ValueError, match="input 'class_name' is '²', no class"):
        class_index(("one", "two"), "²", "Some Node")


def test_normalizing_by_hand():
    pixels = read_processor(GIVEN)(torch.full((2, 30, 20, 3), 0.7))
    assert pixels.shape == (2, 3, 8, 6)
    assert pixels[0, :, 0, 0].tolist() == pytest.approx([0.4, 1.5, 4.0], abs=1e-5)


@pytest.mark.parametrize(("settings", "value"), [
    ({"do_normalize": False, "image_mean": None}, 0.7), ({"do_normalize": False, "do_rescale": False}, 178.5),
    ({"do_normalize": False, "rescale_factor": 1 / 127.5}, 1.4),
])  # fmt: skip
def test_what_is_turned_off_is_not_done(settings, value):
    assert read_processor(GIVEN | settings)(torch.full((1, 9, 9, 3), 0.7)).mean().item() == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize(("settings", "shape"), [
    ({"size": 10}, (10, 10)),  # an old ViT's number is a square
    ({"size": {"shortest_edge": 10}}, (20, 10)),
    ({"image_processor_type": "BitImageProcessor", "size": 10}, (20, 10)),
    ({"image_processor_type": None, "feature_extractor_type": "CLIPFeatureExtractor", "size": 10, "crop_size": 9}, (9, 9)),
    ({"size": {"shortest_edge": 10}, "crop_size": {"height": 8, "width": 12}, "do_center_crop": True}, (8, 12)),
    ({"size": {"shortest_edge": 10}, "crop_size": 8, "do_center_crop": False}, (20, 10)),
    ({"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}}, (224, 224)),
    ({"image_processor_type": "ConvNextImageProcessorFast", "size": {"shortest_edge": 384}}, (384, 384)),
    ({"do_resize": False, "size": None}, (60, 30)),
])  # fmt: skip
def test_sizes(settings, shape):
    assert read_processor(GIVEN | settings)(torch.rand(1, 60, 30, 3)).shape == (1, 3, *shape)


def test_convnext_sees_the_middle_below_384_and_the_whole_from_there():
    frame = torch.zeros(1, 100, 100, 3)
    frame[:, 3:-3, 3:-3] = 1  # a black border of 3 of 100
    given = GIVEN | {"image_processor_type": "ConvNextImageProcessor", "do_normalize": False, "resample": 3}
    small, large = (read_processor(given | {"size": {"shortest_edge": edge}})(frame) for edge in (96, 384))
    assert small.min() > 0.9 and large[..., 0, 0].max() == 0


def test_too_small_pictures_are_surrounded_with_black():
    given = GIVEN | {"do_resize": False, "do_normalize": False, "crop_size": {"height": 6, "width": 5}, "do_center_crop": True}
    pixels = read_processor(given)(torch.ones(1, 4, 4, 3))
    assert pixels.shape == (1, 3, 6, 5) and pixels[0, 0].sum() == 16
    assert pixels[0, 0, 1:5, :4].min() == 1


@pytest.mark.parametrize(("settings", "says"), [
    ({"image_processor_type": "MobileViTImageProcessor"}, "prepared by 'MobileViTImageProcessor'; known are those of ViT, DeiT"),
    ({"image_processor_type": None}, "prepared by 'None'"),
    ({"resample": 1}, "'resample' is 1"), ({"size": None}, "'size' is None"), ({"image_mean": None}, "'image_mean' is None"),
    ({"size": {"longest_edge": 9}}, "'size' is {'longest_edge': 9}"), ({"image_std": [1]}, r"'image_std' is \[1\]"),
])  # fmt: skip
def test_processors_that_cannot_be_followed_are_refused(settings, says):
    with pytest.raises(ValueError, match=f"^a folder whose .*{says}"):
        read_processor(GIVEN | settings)
