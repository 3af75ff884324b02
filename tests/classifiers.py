"""Tiny image classifiers of random weights, saved as Hugging Face saves them, in a folder that ComfyUI knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

IMAGE_SIZE = 32
LABELS = ("tabby, tabby cat", "crane", "golden retriever", "crane, lifting machine", "tiger cat", "espresso")
VIT = {
    "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "patch_size": 8,
    "image_size": IMAGE_SIZE,
}  # fmt: skip
DINO = {key: value for key, value in VIT.items() if key != "intermediate_size"} | {"mlp_ratio": 2}
PIXELS = {
    "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.5, 0.4, 0.45],
    "image_std": [0.3, 0.25, 0.2], "rescale_factor": 1 / 255,
}  # fmt: skip
SQUARE = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}, "resample": 2}
MIDDLE = {
    "image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 36}, "resample": 3, "do_center_crop": True,
    "crop_size": {"height": 32, "width": 32},
}  # fmt: skip


def make_classifier(folder: Path, kind: str = "vit", seed: int = 3, **settings: Any) -> Any:
    """Save a classifier of a kind, "vit" or "dinov2", and return the transformers model; settings are its config's."""
    from transformers import Dinov2Config, Dinov2ForImageClassification, ViTConfig, ViTForImageClassification

    names = {"id2label": dict(enumerate(LABELS)), "label2id": {name: i for i, name in enumerate(LABELS)}}
    with torch.inference_mode(False), torch.random.fork_rng():
        torch.manual_seed(seed)
        if kind == "vit":
            model = ViTForImageClassification(ViTConfig(**{**VIT, **names, **settings}))
        else:
            model = Dinov2ForImageClassification(Dinov2Config(**{**DINO, **names, **settings}))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 2:  # larger than a fresh model's, so that inputs are told apart
                    parameter.mul_(5)
        model.eval().save_pretrained(folder)
    write_pixels(folder, SQUARE if kind == "vit" else MIDDLE)
    return model


def write_pixels(folder: Path, settings: dict[str, Any]) -> None:
    """Write a preprocessor_config.json."""
    (folder / "preprocessor_config.json").write_text(json.dumps(PIXELS | settings))


def prepared(folder: Path, images: torch.Tensor) -> torch.Tensor:
    """Return pixel values (B, 3, h, w) of images (B, H, W, 3) in [0, 1] by transformers' own processor, which gets 8 bits."""
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, use_fast=True)
    rows = list((255 * images).round().to(torch.uint8).movedim(-1, 1))
    return processor(images=rows, return_tensors="pt")["pixel_values"]
