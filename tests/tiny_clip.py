"""Tiny CLIPs with random weights, saved as Hugging Face saves them, and LAION's aesthetic head."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

IMAGE_SIZE = 32
EMBEDDING = 64  # values of an image's and of a prompt's embedding


def make_clip(folder: Path, text_layers: int, vision_layers: int = 2, vision_width: int = 128) -> SimpleNamespace:
    """Save a CLIP, and return `path`, the file, and `model`, the same weights in transformers."""
    from transformers import CLIPConfig, CLIPModel

    deep = {"hidden_act": "quick_gelu", "projection_dim": EMBEDDING}
    text = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 1, "eos_token_id": 49407}
    vision = {"hidden_size": vision_width, "intermediate_size": 160, "num_attention_heads": vision_width // 64}
    vision |= {"patch_size": 8, "image_size": IMAGE_SIZE, "num_hidden_layers": vision_layers}
    words = text | deep | {"num_hidden_layers": text_layers}
    with torch.random.fork_rng(), torch.inference_mode(False):
        torch.manual_seed(0)
        model = CLIPModel(CLIPConfig(text_config=words, vision_config=vision | deep, projection_dim=EMBEDDING))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:  # larger than a fresh model's, so that inputs are told apart
                parameter.mul_(5)
            parameter.copy_(parameter.half())  # ComfyUI holds the weights in half precision
    model.eval().save_pretrained(folder)
    return SimpleNamespace(path=str(folder / "model.safetensors"), model=model)


class Head(nn.Module):
    """The published aesthetic predictor, layer by layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, 1024), nn.Dropout(0.2), nn.Linear(1024, 128), nn.Dropout(0.2),
            nn.Linear(128, 64), nn.Dropout(0.1), nn.Linear(64, 16), nn.Linear(16, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def make_head(width: int = EMBEDDING) -> Head:
    """Make a head with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        head = Head(width).eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.mul_(2)
    return head
