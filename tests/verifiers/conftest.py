"""Tiny models with random weights, saved as Hugging Face saves them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_clip import make_clip


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Return `path`, the file, and `model`, the same weights in transformers; both towers 2 layers deep."""
    return make_clip(tmp_path_factory.mktemp("clip"), text_layers=2)


@pytest.fixture(scope="session")
def deep_clip(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Return the like with a text tower of 32 layers, which ComfyUI takes for bigG's."""
    return make_clip(tmp_path_factory.mktemp("deep"), text_layers=32)


@pytest.fixture(scope="session")
def tiny_clip_h(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Return the like, as deep as CLIP-H and 64 wide."""
    return make_clip(tmp_path_factory.mktemp("h"), text_layers=24, vision_layers=32, vision_width=64)


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


@pytest.fixture(scope="session")
def tiny_siglip(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Return `folder`, the repository, and its `model` and `tokenizer` in transformers."""
    return make_siglip(tmp_path_factory.mktemp("repositories") / "siglip")


def make_siglip(folder: Path) -> SimpleNamespace:
    """Save a tiny SigLIP 2 as Hugging Face does: a folder of model, tokenizer and settings."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, SiglipConfig, SiglipModel

    words = ["<pad>", "<eos>", "<unk>", "a", "cup", "of", "coffee", "on", "wooden", "table", "cat", "astronaut"]
    plain = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    plain.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, **special)
    wide = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = wide | {"vocab_size": len(words), "max_position_embeddings": 8, "projection_size": 64}
    with torch.random.fork_rng(), torch.inference_mode(False):
        torch.manual_seed(0)
        model = SiglipModel(SiglipConfig(text_config=text, vision_config=wide | {"image_size": 32, "patch_size": 8}))
        for parameter in model.parameters():
            parameter.requires_grad_(False)
            if parameter.ndim == 2:
                parameter.mul_(3)
        model.logit_scale.fill_(4.7)
        model.logit_bias.fill_(-16.5)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings = {"resample": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": 32, "width": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return SimpleNamespace(folder=folder, model=model, tokenizer=tokenizer)


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder that is models/clip_vision and models/verifiers."""
    import folder_paths

    for name in ("clip_vision", "verifiers"):
        monkeypatch.setitem(folder_paths.folder_names_and_paths, name, ([str(tmp_path)], folder_paths.supported_pt_extensions))
        folder_paths.filename_list_cache.pop(name, None)
    yield tmp_path
    for name in ("clip_vision", "verifiers"):
        folder_paths.filename_list_cache.pop(name, None)


@pytest.fixture
def siglip(tiny_siglip: SimpleNamespace, models: Path) -> SimpleNamespace:
    shutil.copytree(tiny_siglip.folder, models / "siglip")
    return SimpleNamespace(folder=models / "siglip", model=tiny_siglip.model, tokenizer=tiny_siglip.tokenizer)


DETECTOR_SIZE = 64


@pytest.fixture(scope="session")
def detectors(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that gives the folder of a tiny random detector, called as its kind."""
    return cache(lambda kind: make_detector(tmp_path_factory.mktemp("detectors"), kind))


def make_detector(root: Path, kind: str) -> Path:
    model, processor = _grounding_dino(kind) if kind.endswith("grounding-dino") else _owl(kind)
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode(False), torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:  # larger than a fresh model's, so that inputs are told apart
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    model.eval().save_pretrained(root / kind)
    processor.save_pretrained(root / kind)
    return root / kind


def _owl(kind: str) -> tuple:
    import transformers

    from inprocess import find_comfyui

    name = {"owlv2": "Owlv2", "owlvit": "OwlViT"}[kind]
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = getattr(transformers, f"{name}Config")(
        text_config=small, vision_config=small | {"image_size": DETECTOR_SIZE, "patch_size": 8}, projection_dim=32
    )
    size = {"height": DETECTOR_SIZE, "width": DETECTOR_SIZE}
    processor = getattr(transformers, f"{name}Processor")(
        getattr(transformers, f"{name}ImageProcessor")(size=size),
        # ComfyUI brings the tokenizer of CLIP, which is OWL's
        transformers.CLIPTokenizer.from_pretrained(
            find_comfyui() / "comfy" / "sd1_tokenizer", model_max_length=16, pad_token="!"
        ),
    )
    with torch.inference_mode(False):
        return getattr(transformers, f"{name}ForObjectDetection")(config), processor


def _grounding_dino(kind: str) -> tuple:
    from tempfile import TemporaryDirectory

    import transformers
    from transformers import (
        BertConfig,
        BertTokenizerFast,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
        SwinConfig,
    )

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "red", "cup", "cat", "dog", "polar", "bear"]
    backbone = SwinConfig(
        image_size=DETECTOR_SIZE, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=2,
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    text = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=64,
    )  # fmt: skip
    name = "MMGroundingDino" if kind.startswith("mm") else "GroundingDino"
    config = getattr(transformers, f"{name}Config")(
        backbone_config=backbone, text_config=text, d_model=32, num_queries=9, max_text_len=32, encoder_layers=1,
        decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32,
        disable_custom_kernels=True,
    )  # fmt: skip
    with TemporaryDirectory() as folder:
        Path(folder, "vocab.txt").write_text("\n".join(words))
        tokenizer = BertTokenizerFast.from_pretrained(folder)
    size = {"shortest_edge": 2 * DETECTOR_SIZE, "longest_edge": 2 * DETECTOR_SIZE}  # else one pixel is left
    processor = GroundingDinoProcessor(GroundingDinoImageProcessor(size=size), tokenizer)
    with torch.inference_mode(False):
        return getattr(transformers, f"{name}ForObjectDetection")(config), processor
