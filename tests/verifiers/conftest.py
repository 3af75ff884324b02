"""Tiny models with random weights, saved as Hugging Face saves them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

IMAGE_SIZE = 32


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Return `path`, the file, and `model`, the same weights in transformers; both towers 2 layers deep."""
    return make_clip(tmp_path_factory.mktemp("clip"), text_layers=2)


@pytest.fixture(scope="session")
def deep_clip(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Return the like with a text tower of 32 layers, which ComfyUI takes for bigG's."""
    return make_clip(tmp_path_factory.mktemp("deep"), text_layers=32)


def make_clip(folder: Path, text_layers: int) -> SimpleNamespace:
    from transformers import CLIPConfig, CLIPModel

    deep = {"num_hidden_layers": 2, "hidden_act": "quick_gelu", "projection_dim": 64}
    text = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 1, "eos_token_id": 49407}
    vision = {"hidden_size": 128, "intermediate_size": 160, "num_attention_heads": 2}
    vision |= {"patch_size": 8, "image_size": IMAGE_SIZE}
    words = text | deep | {"num_hidden_layers": text_layers}
    with torch.random.fork_rng(), torch.inference_mode(False):
        torch.manual_seed(0)
        model = CLIPModel(CLIPConfig(text_config=words, vision_config=vision | deep, projection_dim=64))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:  # larger than a fresh model's, so that inputs are told apart
                parameter.mul_(5)
            parameter.copy_(parameter.half())  # ComfyUI holds the weights in half precision
    model.eval().save_pretrained(folder)
    return SimpleNamespace(path=str(folder / "model.safetensors"), model=model)


@pytest.fixture(scope="session")
def vlm_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with `qwen2`, `qwen2.5`, `qwen3` (vision-language models), HPSv3.safetensors and its `base`."""
    import transformers
    from tiny_vlm import save_hps_v3, save_model

    folder = tmp_path_factory.mktemp("vlm")
    save_model(folder / "qwen2", "qwen2_vl")
    save_model(folder / "qwen2.5", "qwen2_5_vl", gain=1)
    if hasattr(transformers, "Qwen3VLConfig"):
        save_model(folder / "qwen3", "qwen3_vl")
    fixture = Path(__file__).parent / "fixtures" / "hps_v3.json"
    save_hps_v3(folder, json.loads(fixture.read_text())["shapes"])
    return folder


@pytest.fixture
def vlm_folder(vlm_models: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make `vlm_models` ComfyUI's models/verifiers."""
    import folder_paths

    extensions = folder_paths.folder_names_and_paths["verifiers"][1]
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "verifiers", ([str(vlm_models)], extensions))
    folder_paths.filename_list_cache.pop("verifiers", None)
    yield vlm_models
    folder_paths.filename_list_cache.pop("verifiers", None)
