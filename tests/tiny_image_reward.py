"""A tiny ImageReward: its vocabulary, weights and pictures, made by integer arithmetic, so equal on every machine.

Used by the tests, and by `verifiers/make_image_reward_fixtures.py`, which hands the same weights to the original package.
"""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import torch
from torch import Tensor

FIXTURES = Path(__file__).resolve().parent / "verifiers" / "fixtures" / "image_reward.json"
VISION = {"embed_dim": 128, "depth": 2, "num_heads": 2, "img_size": 224, "patch_size": 16}
TEXT = {
    "architectures": ["BertModel"], "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
    "hidden_size": 64, "initializer_range": 0.02, "intermediate_size": 96, "layer_norm_eps": 1e-12,
    "max_position_embeddings": 40, "model_type": "bert", "num_attention_heads": 1, "num_hidden_layers": 2,
    "pad_token_id": 0, "add_type_embeddings": False, "encoder_width": 768, "add_cross_attention": True,
}  # fmt: skip

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
WORDS = [
    "a", "the", "red", "blue", "green", "circle", "square", "left", "right", "of", "and", "photo", "cat", "dog", "two",
    "##ing", "##s", "##ed", ",", ".", "(", ")", "[", "]", ":", "-", "'", "!", "?", ";", "@",
]  # fmt: skip
VOCABULARY = [
    "[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys([*WORDS, *LETTERS, *(f"##{c}" for c in LETTERS)]),
]  # fmt: skip


def write_vocabulary(path: Path) -> None:
    path.write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")


def published_names() -> dict[str, list[int]]:
    """Return names and shapes of the original's weights at these sizes, those included that scoring does not use."""
    return json.loads(FIXTURES.read_text(encoding="utf-8"))["shapes"]


def write_model(folder: Path, name: str = "ImageReward.pt") -> Path:
    """Write weights and vocabulary as they are published, and return the path of the weights."""
    write_vocabulary(folder / "vocab.txt")
    sd = weights(published_names())
    if name.endswith(".pt"):
        torch.save(sd, folder / name)
    else:
        from safetensors.torch import save_file

        save_file(sd, folder / name)
    return folder / name


def hashed(name: str, count: int) -> Tensor:
    """Return numbers (count,), int64 in [0, 2^24), that look random and depend on the name."""
    mask = 2**31 - 1
    x = torch.arange(1, count + 1) * 6364136223846793005 + zlib.crc32(name.encode()) * 1000003
    for factor in (-49064778989728563, -4265267296055464877):
        x = (x ^ ((x >> 33) & mask)) * factor
    return (x >> 35) & (2**24 - 1)


def weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """Make a weight of about the size that a trained network's has."""
    spread = hashed(name, math.prod(shape)).view(shape).float() / 2**23 - 1  # [-1, 1)
    if len(shape) == 1:
        is_gain = "norm" in name.lower() and name.endswith("weight")
        return (1 if is_gain else 0) + 0.2 * spread
    return spread * 1.5 * math.sqrt(3 / math.prod(shape[1:]))


def weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Make a state dict; whole-numbered tables (`position_ids`) are left out."""
    return {name: weight(name, tuple(shape)) for name, shape in shapes.items() if not name.endswith("position_ids")}


def pictures(count: int, size: int = 224) -> Tensor:
    """Draw patchworks of colors: (count, size, size, 3), uint8."""
    rows = [hashed(f"picture {i}", 7 * 7 * 3).view(7, 7, 3) % 256 for i in range(count)]
    each = math.ceil(size / 7)
    large = torch.stack(rows).repeat_interleave(each, 1).repeat_interleave(each, 2)
    return large[:, :size, :size].to(torch.uint8)
