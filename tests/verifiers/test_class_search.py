"""A search for a class: a classifier of the demo's pictures, whose head is fitted here, chooses among real candidates.

The demo's pictures have a light or, one in four, a dark background, which no prompt names: a class that seeds decide.
"""

from __future__ import annotations

import importlib
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from classifiers import SQUARE, make_classifier, write_pixels
from torch import Tensor

from inprocess import boot

pytestmark = pytest.mark.comfy

boot()

import folder_paths  # noqa: E402

from noise_search.demo import shapes  # noqa: E402
from noise_search.verifiers.content.classifier import LOG_PROBABILITY, PROBABILITY  # noqa: E402

NAMES = ("dark background", "light background")
DARK = 0.5  # mean brightness of the border, which lies between those of both kinds
STEPS, BUDGET = 8, 6


def is_dark(images: Tensor) -> Tensor:
    """Tell (B,) of pictures (B, 64, 64, 3) whether their border is dark."""
    return torch.cat([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], 1).mean((1, 2)) < DARK


def drawn(count: int, seed: int) -> Tensor:
    rng = random.Random(seed)
    return shapes.draw([shapes.random_scene(rng) for _ in range(count)], torch.Generator().manual_seed(seed))


def fit(folder: Path, seed: int) -> None:
    """Save a random ViT whose head is fitted by ridge regression to tell dark from light backgrounds."""
    names = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}
    model = make_classifier(folder, seed=seed, image_size=64, patch_size=16, **names)
    write_pixels(folder, SQUARE | {"size": {"height": 64, "width": 64}})
    from noise_search.verifiers.common.image_processor import read_processor

    prepare = read_processor(SQUARE | {"size": 64, "image_mean": [0.5, 0.4, 0.45], "image_std": [0.3, 0.25, 0.2]})
    images = drawn(300, seed)
    features = model.vit(prepare(images)).last_hidden_state[:, 0].double()
    wanted = torch.where(is_dark(images), 3.0, -3.0).double()
    rows = torch.cat([features, torch.ones(len(images), 1)], 1)
    weights = torch.linalg.solve(rows.T @ rows + 1e-2 * torch.eye(rows.shape[1]), rows.T @ wanted).float()
    model.classifier.weight.copy_(torch.stack([weights[:-1], -weights[:-1]]) / 2)
    model.classifier.bias.copy_(torch.stack([weights[-1], -weights[-1]]) / 2)
    model.save_pretrained(folder)


@pytest.fixture(scope="module")
def studio() -> Any:
    module = importlib.import_module("noise_search.demo.studio")
    with torch.inference_mode():
        return module.Studio(module.MODELS["small"])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    entry = ([str(tmp_path)], folder_paths.supported_pt_extensions)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "verifiers", entry)
    for name, seed in (("chooses", 1), ("looks on", 2)):
        fit(tmp_path / name, seed)
    return tmp_path


def test_a_search_raises_the_share_of_the_class(studio: Any, folder: Path) -> None:
    """Against candidate 0, by the classifier itself, by one that did not choose, and by the pixels."""

    def verifier(name: str, output: str) -> Any:
        return studio.node("NSClassifierLogit", model_name=name, class_name="Dark background", output=output)[0]

    chooses, looks_on = verifier("chooses", LOG_PROBABILITY), verifier("looks on", PROBABILITY)
    test = drawn(200, 99)
    assert ((chooses.score(test) > -0.693) == is_dark(test)).float().mean() > 0.95
    (method,) = studio.node("NSRandomSearch", proposal=None, then=None, draft_steps=0)
    before, after, held_before, held_after, dark = [], [], [], [], []
    for seed in range(5):
        images, report = studio.search(
            shapes.random_prompt(seed), 10 + seed, BUDGET, 1, chooses, method, held_out=looks_on, steps=STEPS
        )
        assert report["model_calls"] == BUDGET * STEPS
        scores = [candidate["score"] for candidate in report["candidates"]]
        assert report["best"]["score"] == max(scores) == pytest.approx(chooses.score(images).item(), abs=1e-4)
        before.append(report["baseline"]["score"])
        after.append(report["best"]["score"])
        held_before.append(report["held_out"]["scores"]["0"])
        held_after.append(report["held_out"]["scores"][str(report["best"]["index"])])
        dark.append(is_dark(images).item())
    share_before, share_after = (torch.tensor(values).exp().mean().item() for values in (before, after))
    said = (share_before, share_after, held_before, held_after, dark)
    assert share_after > share_before + 0.3, said
    assert sum(held_after) > sum(held_before) + 1.5, said
    assert sum(dark) >= 4, said
