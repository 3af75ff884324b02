"""Vision-language models of Hugging Face's stock classes, read from folders in ComfyUI's model folders."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import comfy.model_management as mm
import torch

from ...verifiers.vlm.hps_v3 import REWARD, RewardModel
from ...verifiers.vlm.vlm import VisionLanguageModel, chat_template
from .files import (
    FOLDER,
    HeldModel,
    Wanted,
    below,
    check_keys,
    file_path,
    held,
    read_weights,
    register_folder,
    repository_path,
    said,
)
from .transformers import import_transformers, load_processor, read_config, read_model

LLM = "LLM"  # where other packs keep such folders
FOLDERS = (FOLDER, LLM)
EMBEDDINGS = "model.embed_tokens.weight"
HEAD = "rm_head."


register_folder(LLM, ours=False)


def load_vision_language(wanted: Wanted, name: str) -> VisionLanguageModel:
    """Load a folder with a vision-language model that follows instructions.

    Raises:
        ValueError: it is not there, not whole, not such a model, or needs code of its own or a newer transformers.
    """
    path = repository_path(wanted, name)
    return held("vision-language", path, lambda: _load_folder(wanted, name, path))


def load_hps_v3(wanted: Wanted, name: str, base: Wanted, base_name: str) -> VisionLanguageModel:
    """Load HPSv3's weights into the class that the folder of Qwen2-VL-7B-Instruct describes.

    Args:
        wanted: the weights.
        name: their file: `HPSv3.safetensors`, under the names that transformers 4.45 gave them.
        base: the folder.
        base_name: its name; its own weights are not read, and need not be there.

    Raises:
        ValueError: either is not there, not whole or of another model.
    """
    path, base_path = file_path(wanted, name), repository_path(base, base_name)
    return held(f"HPSv3 on {base_path}", path, lambda: _load_hps_v3(wanted, name, path, base, base_name, base_path))


def _load_folder(wanted: Wanted, name: str, path: str) -> VisionLanguageModel:
    transformers, config = import_transformers(wanted), read_config(wanted, name, path)
    if type(config) not in transformers.AutoModelForImageTextToText._model_mapping:
        raise wanted.refused(name, f"a {config.model_type!r}, which is no model of pictures and text")
    processor = _processor(wanted, name, path)
    load = transformers.AutoModelForImageTextToText.from_pretrained
    model = read_model(wanted, name, load, path, "a vision-language model", config=config, **_typed(transformers))
    exact = {key: buffer.clone() for key, buffer in model.named_buffers() if buffer.is_floating_point()}
    model = HeldModel(model, _dtype())
    for key, buffer in exact.items():  # frequencies of positions, which stay float32 when Hugging Face loads them
        model.module.get_buffer(key).data = buffer
    return VisionLanguageModel(model, processor)


def _load_hps_v3(wanted: Wanted, name: str, path: str, base: Wanted, base_name: str, base_path: str) -> VisionLanguageModel:
    transformers, config = import_transformers(base), read_config(base, base_name, base_path)
    if config.model_type != "qwen2_vl":
        raise base.refused(base_name, f"a {config.model_type!r}; HPSv3 is a 'qwen2_vl'")
    processor = _processor(base, base_name, base_path)
    processor.tokenizer.add_tokens([REWARD], special_tokens=True)
    text, token = config.get_text_config(), processor.tokenizer.convert_tokens_to_ids(REWARD)
    sd = below(read_weights(wanted, name, path), EMBEDDINGS)
    first, second = (sd[f"{HEAD}{i}.bias"].numel() if f"{HEAD}{i}.bias" in sd else 0 for i in (0, 3))
    widths = first, second
    check_keys(wanted, name, sd, _expected(token + 1, text.hidden_size, widths))
    head = {key.removeprefix(HEAD): sd.pop(key) for key in list(sd) if key.startswith(HEAD)}
    text.vocab_size = token + 1  # the published code cuts the table off after its own token
    load = transformers.Qwen2VLForConditionalGeneration.from_pretrained
    network = read_model(wanted, name, load, None, "Qwen2-VL", config=config, state_dict=sd, **_typed(transformers))
    module = RewardModel(network, widths)
    # All in one precision, frequencies of positions too: so the published code casts it, and so it was trained ...
    model = HeldModel(module, _dtype())
    module.rm_head.float().load_state_dict(head)  # ... but for the head.
    return VisionLanguageModel(model, processor)


def _expected(tokens: int, hidden: int, widths: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the tables of tokens and of the head, as HPSv3's file has them."""
    sizes = {0: (widths[0], hidden), 3: (widths[1], widths[0]), 5: (2, widths[1])}
    head = {f"{HEAD}{i}.weight": size for i, size in sizes.items()} | {f"{HEAD}{i}.bias": size[:1] for i, size in sizes.items()}
    return {EMBEDDINGS: (tokens, hidden), "lm_head.weight": (tokens, hidden), **head}


def _dtype() -> torch.dtype:
    """Return bfloat16 where the device is good at it, else float32: Qwen's models overflow in float16."""
    return torch.bfloat16 if mm.should_use_bf16(mm.get_torch_device()) else torch.float32


def _processor(wanted: Wanted, name: str, path: str) -> Any:
    processor = load_processor(wanted, name, path)
    if getattr(processor, "tokenizer", None) is None or getattr(processor, "image_processor", None) is None:
        raise wanted.refused(name, f"a folder with a {type(processor).__name__}, not one of pictures and text")
    if chat_template(processor) is None:
        raise wanted.refused(name, "a model without a chat template, so no instruct model")
    try:
        asked = VisionLanguageModel(None, processor).conversation("?")
    except Exception as error:
        raise wanted.refused(name, f"a model whose chat template cannot be used ({said(error)})") from error
    if asked.rstrip().endswith("<think>"):
        raise wanted.refused(name, "a model that thinks before it answers; its next word is no answer. Take the Instruct one")
    return processor


def _typed(transformers: ModuleType) -> dict[str, torch.dtype]:
    """Return the argument that says which precision weights are loaded in; its name depends on the version."""
    return {"dtype" if int(transformers.__version__.split(".")[0]) >= 5 else "torch_dtype": _dtype()}
