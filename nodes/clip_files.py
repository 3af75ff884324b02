"""One Hugging Face `CLIPModel` file, loaded as ComfyUI's own CLIP and CLIP_VISION objects."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import comfy.clip_vision
import comfy.sd
import comfy.sd1_clip
import comfy.utils
from torch import Tensor

CLIP_SOURCE = "model.safetensors of https://huggingface.co/openai/clip-vit-large-patch14"

# Keys of a `CLIPModel` that say what it is; each tower must bring its projection.
TEXT_KEYS = ("text_model.embeddings.token_embedding.weight", "text_projection.weight")
VISION_KEYS = ("vision_model.embeddings.class_embedding", "visual_projection.weight")
VOCABULARY = 49408


@dataclass(frozen=True, eq=False)
class ClipPair:
    """The two towers of one CLIP file, as ComfyUI's own objects."""

    clip: Any
    clip_vision: Any


# Nodes that name the same file share its weights, for as long as one verifier holds them.
_texts: WeakValueDictionary[tuple[str, int, int], Any] = WeakValueDictionary()
_visions: WeakValueDictionary[tuple[str, int, int], Any] = WeakValueDictionary()


def _layers(sd: dict[str, Tensor], prefix: str) -> int:
    prefix += "encoder.layers."
    return 1 + max(int(key[len(prefix) :].split(".")[0]) for key in sd if key.startswith(prefix))


def text_config(sd: dict[str, Tensor]) -> dict[str, Any]:
    """Read the text tower's settings from the shapes of a `CLIPModel` state dict.

    Heads are 64 wide in every published model. The activation leaves no trace in the weights: models 1024
    wide and up (the LAION ones) have GELU, smaller ones OpenAI's quick GELU, as ComfyUI assumes too.
    """
    width = sd["text_model.embeddings.token_embedding.weight"].shape[1]
    return {
        "hidden_size": width,
        "intermediate_size": sd["text_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": _layers(sd, "text_model."),
        "num_attention_heads": max(1, width // 64),
        "max_position_embeddings": sd["text_model.embeddings.position_embedding.weight"].shape[0],
        "hidden_act": "gelu" if width >= 1024 else "quick_gelu",
    }


def vision_config(sd: dict[str, Tensor]) -> dict[str, Any]:
    """Read the vision tower's settings from the shapes of a `CLIPModel` state dict; H and bigG: 16 heads."""
    patches = sd["vision_model.embeddings.patch_embedding.weight"]
    width, channels, patch = patches.shape[:3]
    positions = sd["vision_model.embeddings.position_embedding.weight"].shape[0]
    return {
        "model_type": "clip_vision_model",
        "hidden_size": width,
        "intermediate_size": sd["vision_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": _layers(sd, "vision_model."),
        "num_attention_heads": min(16, max(1, width // 64)),
        "num_channels": channels,
        "patch_size": patch,
        "image_size": patch * round((positions - 1) ** 0.5),
        "projection_dim": sd["visual_projection.weight"].shape[0],
        "hidden_act": text_config(sd)["hidden_act"],
    }


def load_clip_pair(path: str) -> ClipPair:
    """Load both towers of a Hugging Face `CLIPModel` file.

    Core's file loaders know the published sizes only and drop the text projection of CLIP-L; here the sizes
    are read from the file, and the encoders are core's.

    Raises:
        ValueError: If the file is not such a model, or a tower is missing.
    """
    stat = os.stat(path)
    key = (path, stat.st_mtime_ns, stat.st_size)
    clip, clip_vision = _texts.get(key), _visions.get(key)
    if clip is None or clip_vision is None:
        sd = comfy.utils.load_torch_file(path, safe_load=True)
        _check_clip_file(sd, path)
        vision = {k: v for k, v in sd.items() if k.startswith(("vision_model.", "visual_projection."))}
        text = {k: v for k, v in sd.items() if k.startswith(("text_model.", "text_projection."))}
        _visions[key] = clip_vision = _build_vision(vision, vision_config(sd), path)
        _texts[key] = clip = _build_text(text, path)
    return ClipPair(clip, clip_vision)


def _check_clip_file(sd: dict[str, Tensor], path: str) -> None:
    for tower, keys in (("text", TEXT_KEYS), ("vision", VISION_KEYS)):
        missing = [key for key in keys if key not in sd]
        if missing:
            raise _unusable(path, f"holds no {tower} tower of a Hugging Face CLIPModel", missing)
    words = sd[TEXT_KEYS[0]].shape[0]
    if words != VOCABULARY:
        raise ValueError(
            f"CLIP Score: input 'model_name' is {os.path.basename(path)!r} ({path}), a CLIP with a vocabulary of"
            f" its own ({words} tokens; CLIP's has {VOCABULARY}), whose tokenizer the file does not hold. Choose"
            f" another, such as {CLIP_SOURCE}, or connect 'clip' and 'clip_vision' from a loader that knows it."
        )


def _build_text(sd: dict[str, Tensor], path: str) -> Any:
    given = set(sd)
    options = {"clip_l_class": comfy.sd1_clip.SDClipModel, "model_config": text_config(sd)}
    clip = comfy.sd.load_text_encoder_state_dicts([sd], model_options=options)
    inner = ".transformer."  # clip_l.transformer.text_model...
    wanted = {key.split(inner, 1)[1] for key in clip.cond_stage_model.state_dict() if inner in key}
    if missing := sorted(wanted - given):
        raise _unusable(path, "lacks text weights", missing)
    return clip


def _build_vision(sd: dict[str, Tensor], config: dict[str, Any], path: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:  # ComfyUI takes the settings as a file
        settings = os.path.join(folder, "config.json")
        with open(settings, "w", encoding="utf-8") as file:
            json.dump(config, file)
        model = comfy.clip_vision.ClipVisionModel(settings)
    missing, _ = model.load_sd(sd)
    if missing:
        raise _unusable(path, "lacks vision weights", missing)
    return model


def _unusable(path: str, why: str, missing: list[str]) -> ValueError:
    shown = ", ".join(missing[:4]) + (", ..." if len(missing) > 4 else "")
    return ValueError(
        f"CLIP Score: input 'model_name' is {os.path.basename(path)!r} ({path}), a file that {why} (missing:"
        f" {shown}). Choose a file with both towers, such as {CLIP_SOURCE}, or connect 'clip' and"
        " 'clip_vision'."
    )
