"""Tiny vision-language models of the real classes, with random weights, saved as published folders are.

The tokenizer is a byte-level BPE that knows single letters and the few words that judges ask about, each with and
without a space before it, as the published ones do.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

WORDS = ("Yes", "yes", "No", "no")
SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
# What Qwen's templates amount to for one question about one picture.
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 4096, "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
    "tie_word_embeddings": False,
}  # fmt: skip
VISION = {
    "qwen2_vl": {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2},
    "qwen2_5_vl": {
        "depth": 2, "hidden_size": 32, "out_hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "window_size": 56,
        "fullatt_block_indexes": [1],
    },
    "qwen3_vl": {
        "depth": 2, "hidden_size": 32, "out_hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": 16,
        "num_position_embeddings": 64, "deepstack_visual_indexes": [0],
    },
}  # fmt: skip
PARTS = {  # processor, architecture
    "qwen2_vl": ("Qwen2VLProcessor", "Qwen2VLForConditionalGeneration"),
    "qwen2_5_vl": ("Qwen2_5_VLProcessor", "Qwen2_5_VLForConditionalGeneration"),
    "qwen3_vl": ("Qwen3VLProcessor", "Qwen3VLForConditionalGeneration"),  # transformers 4.57 and later
}


def save_processor(folder: Path, kind: str, template: str | None = TEMPLATE) -> None:
    """Write tokenizer and image processor as a published folder has them."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        merges += [*((word[:i], word[i]) for i in range(1, len(word))), ("Ġ", word)]
    vocabulary = {token: i for i, token in enumerate([*alphabet, *dict.fromkeys(a + b for a, b in merges)])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(" ".join(pair) for pair in merges), encoding="utf-8")
    settings = {
        "tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
        "bos_token": None, "unk_token": None, "model_max_length": 4096,
        "additional_special_tokens": list(SPECIAL[1:]),
    }  # fmt: skip
    if template is not None:
        (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    pixels = {
        "image_processor_type": "Qwen2VLImageProcessor", "processor_class": PARTS[kind][0], "min_pixels": 56 * 56,
        "max_pixels": 12845056, "patch_size": VISION[kind].get("patch_size", 14), "temporal_patch_size": 2, "merge_size": 2,
        "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(pixels))


def token_ids(folder: Path) -> dict[str, int]:
    """The special tokens' ids."""
    found = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    return {token["content"]: token["id"] for token in found}


def save_config(folder: Path, kind: str) -> int:
    """Write config.json, flat as the published ones are up to Qwen2.5; return the number of tokens."""
    ids = token_ids(folder)
    vocabulary = max(ids.values()) + 1
    text = {**TEXT, "vocab_size": vocabulary}
    if kind == "qwen3_vl":
        rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "mrope_interleaved": True}
        text = {"text_config": {**text, "head_dim": 8, "rope_scaling": rope}, "tie_word_embeddings": False}
    config = {
        **text, "model_type": kind, "architectures": [PARTS[kind][1]],
        "vision_config": VISION[kind], "image_token_id": ids["<|image_pad|>"], "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"], "vision_end_token_id": ids["<|vision_end|>"],
        "eos_token_id": ids["<|im_end|>"], "bos_token_id": ids["<|endoftext|>"], "torch_dtype": "float32",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return vocabulary


def build(folder: Path, seed: int, gain: float) -> torch.nn.Module:
    """Make the model that the folder's config.json describes, with random weights; `gain`: of the word head."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    model = AutoModelForImageTextToText.from_config(config).float().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if parameter.ndim > 1:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(noise / parameter[0].numel() ** 0.5 * (gain if "lm_head" in name else 1))
    return model


def save_model(folder: Path, kind: str = "qwen2_vl", seed: int = 0, gain: float = 4) -> torch.nn.Module:
    """Write a whole folder and return its model."""
    save_processor(folder, kind)
    save_config(folder, kind)
    with torch.inference_mode(False):
        model = build(folder, seed, gain)
    save_weights(folder, model)
    return model


def save_weights(folder: Path, model: torch.nn.Module) -> None:
    """Write a model's weights into its folder, whose config.json stays as published ones are."""
    flat = (folder / "config.json").read_text()
    model.save_pretrained(folder)
    (folder / "config.json").write_text(flat)


def save_hps_v3(folder: Path, shapes: dict[str, list[int]]) -> None:
    """Write HPSv3.safetensors with random weights, and the folder `base` of the model that it belongs to."""
    from safetensors.torch import save_file

    save_processor(folder / "base", "qwen2_vl")
    save_config(folder / "base", "qwen2_vl")
    save_file(random_weights(shapes), folder / "HPSv3.safetensors")


def random_weights(shapes: dict[str, list[int]], seed: int = 0) -> dict[str, torch.Tensor]:
    """Make weights for names and shapes, of variance 1 over the inputs; vectors are small, norms near 1."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name in sorted(shapes):
        noise = torch.randn(shapes[name], generator=generator)
        norm = ("norm" in name or "ln_q" in name) and name.endswith("weight")
        found[name] = noise / noise[0].numel() ** 0.5 if noise.ndim > 1 else noise * 0.1 + norm
    return found


def picture(height: int, width: int, phase: int = 0) -> torch.Tensor:
    """Make a picture (H, W, 3) of exact 8-bit values in [0, 1]: waves and a corner that differs."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    channels = [(3 * x + 5 * y + 40 * phase) % 256, (x * y // 7 + 90 * phase) % 256, (2 * x + 255 - y) % 256]
    return torch.stack(channels, -1).float() / 255
