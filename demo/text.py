"""The demo's CLIP: a tokenizer that has our words, and a small stock `CLIPModel`.

The folder that `save_clip` writes is an ordinary Hugging Face one. `vision_config.json` beside it holds the
vision tower's settings in the flat form that ComfyUI's `ClipVisionModel` reads.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import save_file

from .shapes import COLORS, RELATIONS, SHAPES

if TYPE_CHECKING:
    from transformers import CLIPModel, CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
MAX_TOKENS = 12
TEXT_WIDTH = 192
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def _byte_characters() -> list[str]:
    """List the printable stand-ins of the 256 bytes, in CLIP's order."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(b) for b in plain] + [chr(256 + n) for n in range(256 - len(plain))]


def learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Merge the most frequent pair of neighbours until every word is one token (byte-pair encoding)."""
    pieces = [[*word[:-1], word[-1] + "</w>"] for word in words]
    merges: list[tuple[str, str]] = []
    while any(len(p) > 1 for p in pieces):
        pairs = Counter(pair for p in pieces for pair in zip(p, p[1:], strict=False))
        best = max(sorted(pairs), key=pairs.__getitem__)
        merges.append(best)
        for p in pieces:
            i = 0
            while i < len(p) - 1:
                if (p[i], p[i + 1]) == best:
                    p[i : i + 2] = [p[i] + p[i + 1]]
                i += 1
    return merges


def save_tokenizer(folder: Path) -> int:
    """Write CLIP tokenizer files and return the size of the vocabulary."""
    words = sorted({w for group in (COLORS, SHAPES, RELATIONS, ("a", "an", "and")) for item in group for w in item.split()})
    merges = learn_merges(words)
    characters = _byte_characters()
    tokens = [*characters, *(c + "</w>" for c in characters), *(a + b for a, b in merges), START, END]
    vocabulary = {token: n for n, token in enumerate(dict.fromkeys(tokens))}
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": MAX_TOKENS,
        "do_lower_case": True,
        **special,
    }
    pixels = {
        "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 64}, "do_center_crop": True,
        "crop_size": {"height": 64, "width": 64}, "do_normalize": True, "image_mean": MEAN, "image_std": STD,
    }  # fmt: skip
    for name, content in (
        ("vocab.json", vocabulary),
        ("special_tokens_map.json", special),
        ("tokenizer_config.json", settings),
        ("preprocessor_config.json", pixels),
    ):
        (folder / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return len(vocabulary)


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    """Load the tokenizer of a folder."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(str(folder))


def build_clip(vocabulary_size: int) -> CLIPModel:
    """Make an untrained CLIP of about 1.6M weights: 12 tokens, pictures of 64 pixels in patches of 8."""
    from transformers import CLIPConfig, CLIPModel

    shared = {"projection_dim": TEXT_WIDTH, "hidden_act": "gelu"}
    words = {
        "vocab_size": vocabulary_size, "hidden_size": TEXT_WIDTH, "intermediate_size": 2 * TEXT_WIDTH,
        "num_hidden_layers": 2, "num_attention_heads": 3, "max_position_embeddings": MAX_TOKENS,
        "bos_token_id": vocabulary_size - 2, "eos_token_id": vocabulary_size - 1,
        "pad_token_id": vocabulary_size - 1,
    }  # fmt: skip
    pixels = {
        "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4,
        "image_size": 64, "patch_size": 8, "num_channels": 3,
    }  # fmt: skip
    config = CLIPConfig(text_config=words | shared, vision_config=pixels | shared, projection_dim=TEXT_WIDTH)
    return CLIPModel(config)


def save_clip(model: CLIPModel, folder: Path) -> None:
    """Write a model as `CLIPModel` saves it, and ComfyUI's view of its vision tower."""
    config = model.config
    written = config.to_diff_dict() if hasattr(config, "to_diff_dict") else config.to_dict()
    written = {**written, "architectures": ["CLIPModel"], "model_type": "clip"}
    (folder / "config.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    state = {name: value.contiguous() for name, value in model.state_dict().items() if "position_ids" not in name}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    names = (
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "hidden_act",
        "image_size",
    )
    vision = {name: getattr(config.vision_config, name) for name in (*names, "patch_size", "num_channels")}
    vision |= {"projection_dim": config.projection_dim, "model_type": "clip_vision_model"}
    (folder / "vision_config.json").write_text(json.dumps(vision, indent=1) + "\n", encoding="utf-8")
