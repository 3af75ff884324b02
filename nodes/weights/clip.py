"""One file of a CLIP model, loaded as ComfyUI's own CLIP and CLIP_VISION objects.

Two layouts are read: Hugging Face's `CLIPModel`, and open_clip's (HPSv2, for one), which core's converters turn into it.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import comfy.clip_vision
import comfy.model_management
import comfy.sd
import comfy.sd1_clip
import comfy.utils
from torch import Tensor
from transformers import CLIPTokenizerFast  # pyright: ignore[reportAttributeAccessIssue] - transformers makes its names when asked

from ...verifiers.common.preprocess import CLIP_MEAN, CLIP_STD
from .clip_settings import KNOWN, ClipSettings, Tower, assumed_activation, find_settings, notes_on, settings_stamp
from .files import Wanted, below, held, read_weights

log = logging.getLogger("noise-search")

CLIP_SOURCE = "model.safetensors of https://huggingface.co/openai/clip-vit-large-patch14"
CLIP_FOLDER = "clip_vision"
CLIP_SCORE = Wanted("CLIP Score", "model_name", (CLIP_FOLDER,), CLIP_SOURCE)

# Weights that a tower's settings are read from, or without which it gives no embedding, with the number of their axes; and how
# all of its names begin.
TEXT_KEYS = {
    "text_model.embeddings.token_embedding.weight": 2, "text_projection.weight": 2,
    "text_model.embeddings.position_embedding.weight": 2, "text_model.encoder.layers.0.mlp.fc1.weight": 2,
}  # fmt: skip
VISION_KEYS = {
    "vision_model.embeddings.class_embedding": 1, "visual_projection.weight": 2,
    "vision_model.embeddings.patch_embedding.weight": 4, "vision_model.embeddings.position_embedding.weight": 2,
    "vision_model.encoder.layers.0.mlp.fc1.weight": 2,
}  # fmt: skip
LARGEST_SCALE = 20.0  # of the logit scale's logarithm, where CLIP's training stops at log 100
TEXT, VISION = ("text_model.", "text_projection."), ("vision_model.", "visual_projection.")
OPEN_CLIP = "visual.transformer.resblocks.0.attn.in_proj_weight"
VOCABULARY = 49408
TOKENIZER = os.path.join(os.path.dirname(comfy.sd1_clip.__file__), "sd1_tokenizer")


@dataclass(frozen=True, eq=False)
class ClipPair:
    """The two towers of one CLIP file, as ComfyUI's own objects."""

    clip: Any
    clip_vision: Any

    @property
    def logit_scale(self) -> float | None:
        """Logarithm of what the model was trained to multiply the cosine with; None where the file does not say."""
        return _logit_scales.get(self.clip)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed of its file, in words."""
        return notes_of(self.clip_vision)

    @property
    def version(self) -> tuple[str, ...]:
        """What the settings beside its file say other than its sizes do."""
        return (*version_of(self.clip), *version_of(self.clip_vision))

    @property
    def depths(self) -> tuple[int, int]:
        """Layers of the text and of the vision tower: (12, 24) for CLIP-L, (24, 32) for CLIP-H."""
        text = self.clip.cond_stage_model
        return getattr(text, text.clip).num_layers, len(self.clip_vision.model.vision_model.encoder.layers)

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Embed normalized pixels (B, 3, S, S) as they are, where `encode_image` would clamp and round them: (B, D)."""
        comfy.model_management.load_model_gpu(self.clip_vision.patcher)
        return self.clip_vision.model(pixel_values=pixels.to(self.clip_vision.load_device), intermediate_output=-2)[2]


_logit_scales: WeakKeyDictionary[Any, float] = WeakKeyDictionary()
_notes: WeakKeyDictionary[Any, tuple[str, ...]] = WeakKeyDictionary()
_versions: WeakKeyDictionary[Any, tuple[str, ...]] = WeakKeyDictionary()


def notes_of(encoder: Any) -> tuple[str, ...]:
    """Return what was assumed of a vision encoder's file, in words."""
    return _notes.get(encoder, ())


def version_of(encoder: Any) -> tuple[str, ...]:
    """Return what the settings beside an encoder's file say other than its sizes do."""
    return _versions.get(encoder, ())


def _layers(sd: dict[str, Tensor], tower: str) -> int:
    """Count the layers; a gap in their numbers shows as missing weights later."""
    prefix = f"{tower}.encoder.layers."
    return len({key[len(prefix) :].split(".")[0] for key in sd if key.startswith(prefix)})


def text_config(sd: dict[str, Tensor]) -> dict[str, Any]:
    """Read the text tower's settings from the shapes of a `CLIPModel` state dict; heads are 64 wide in all of them."""
    width = sd["text_model.embeddings.token_embedding.weight"].shape[1]
    return {
        "hidden_size": width,
        "intermediate_size": sd["text_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": _layers(sd, "text_model"),
        "num_attention_heads": max(1, width // 64),
        "max_position_embeddings": sd["text_model.embeddings.position_embedding.weight"].shape[0],
        "hidden_act": assumed_activation(width),
    }


def vision_config(sd: dict[str, Tensor]) -> dict[str, Any]:
    """Read the vision tower's settings from the shapes of a `CLIPModel` state dict; H and bigG: 16 heads."""
    width, channels, patch = sd["vision_model.embeddings.patch_embedding.weight"].shape[:3]
    positions = sd["vision_model.embeddings.position_embedding.weight"].shape[0]
    embedding = sd["visual_projection.weight"].shape[0]
    return {
        "model_type": "clip_vision_model",
        "hidden_size": width,
        "intermediate_size": sd["vision_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": _layers(sd, "vision_model"),
        "num_attention_heads": min(16, max(1, width // 64)),
        "num_channels": channels,
        "patch_size": patch,
        "image_size": patch * round((positions - 1) ** 0.5),
        "projection_dim": embedding,
        "hidden_act": assumed_activation(embedding),
    }


def load_clip_pair(path: str, wanted: Wanted = CLIP_SCORE, activation: str | None = None) -> ClipPair:
    """Load both towers of a CLIP model's file; nodes that name the same file share its weights.

    Core's file loaders know the published sizes only and drop the text projection of CLIP-L; here the sizes
    are read from the file, and the encoders are core's.

    Args:
        path: The file.
        wanted: Who asks for it, for messages.
        activation: Of both towers, where it is known; else settings beside the file tell it, or it is assumed.

    Raises:
        ValueError: If the file cannot be read, is not such a model, or a tower is missing.
    """

    @functools.cache
    def read() -> dict[str, Tensor]:
        sd = _read_clip_model(wanted, path)
        _check_text(wanted, path, sd)
        return sd

    build = functools.partial(_build_text, wanted, path, read, activation)
    return ClipPair(held(f"CLIP text {activation or settings_stamp(path)}", path, build), _vision(wanted, path, read, activation))


def load_clip_vision(path: str, wanted: Wanted) -> Any:
    """Load the vision tower of a CLIP model's file alone, likewise; the file needs no text tower."""
    return _vision(wanted, path, functools.cache(lambda: _read_clip_model(wanted, path)), None)


def _read_clip_model(wanted: Wanted, path: str) -> dict[str, Tensor]:
    sd = below(read_weights(wanted, os.path.basename(path), path), OPEN_CLIP, next(iter(VISION_KEYS)))
    if OPEN_CLIP in sd:
        sd = comfy.clip_vision.convert_to_transformers(dict(sd), "visual.")
        sd = comfy.utils.clip_text_transformers_convert(sd, "", "")
    if missing := _lacking(sd, VISION_KEYS):
        raise _unusable(wanted, path, "holds no vision tower of a CLIP model", missing)
    return sd


def _lacking(sd: dict[str, Tensor], ranks: dict[str, int]) -> list[str]:
    return [key for key, rank in ranks.items() if key not in sd or sd[key].ndim != rank or not sd[key].numel()]


def _check_text(wanted: Wanted, path: str, sd: dict[str, Tensor]) -> None:
    if missing := _lacking(sd, TEXT_KEYS):
        raise _unusable(wanted, path, "holds no text tower of a CLIP model", missing)
    words = sd["text_model.embeddings.token_embedding.weight"].shape[0]
    if words != VOCABULARY:
        raise wanted.refused(
            os.path.basename(path),
            f"a file ({path}) of a CLIP with a vocabulary of its own ({words} tokens; CLIP's has {VOCABULARY}), whose"
            " tokenizer it does not hold",
        )
    text, vision = (sd[f"{tower}_projection.weight"].shape[0] for tower in ("text", "visual"))
    if text != vision:
        raise wanted.refused(
            os.path.basename(path), f"a file ({path}) whose towers give embeddings of {text} and of {vision} values"
        )


def _settings(wanted: Wanted, path: str, sd: dict[str, Tensor]) -> ClipSettings | None:
    """Return the settings beside a file that fit it."""
    found = find_settings(path, None if _lacking(sd, TEXT_KEYS) else text_config(sd), vision_config(sd))
    if found is None:
        return None
    for name in found.activations:
        if name not in KNOWN:
            raise wanted.refused(
                os.path.basename(path),
                f"a file ({path}) whose {found.file} names the activation {name!r}; known are {', '.join(KNOWN)}",
            )
    return found


def _told(config: dict[str, Any], tower: Tower | None, activation: str | None) -> dict[str, Any]:
    """Return a tower's settings as its own, or what is known of it, tell them."""
    if activation is not None:
        return config | {"hidden_act": activation}
    return config if tower is None else config | {"hidden_act": tower.activation, "num_attention_heads": tower.heads}


def _differences(tower: str, plain: dict[str, Any], told: dict[str, Any]) -> tuple[str, ...]:
    """Return which settings are other than the sizes say, in words for a journal's key."""
    return tuple(f"{tower} {name} {told[name]}" for name in plain if told[name] != plain[name])


def _build_text(wanted: Wanted, path: str, read: Callable[[], dict[str, Tensor]], activation: str | None) -> Any:
    sd = read()
    text = {key: value for key, value in sd.items() if key.startswith(TEXT)}
    given, plain = set(text), text_config(sd)
    settings = None if activation else _settings(wanted, path, sd)
    config = _told(plain, settings.text if settings else None, activation)
    options = {"clip_l_class": comfy.sd1_clip.SDClipModel, "model_config": config, "clip_h_model_config": config}
    clip = _fitted(wanted, path, lambda: comfy.sd.load_text_encoder_state_dicts([text], model_options=options))
    for part in vars(clip.tokenizer).values():
        if isinstance(part, comfy.sd1_clip.SDTokenizer):
            # The slow class of transformers 4 cuts texts otherwise, and by what other packages are installed.
            part.tokenizer = CLIPTokenizerFast.from_pretrained(TOKENIZER)
    inner = ".transformer."  # clip_l.transformer.text_model...
    needed = {key.split(inner, 1)[1] for key in clip.cond_stage_model.state_dict() if inner in key}
    if missing := sorted(needed - given):
        raise _unusable(wanted, path, "lacks text weights", missing)
    _versions[clip] = () if activation else _differences("text", plain, config)
    if (scale := sd.get("logit_scale")) is not None:
        if scale.numel() != 1 or not abs(scale.float().item()) < LARGEST_SCALE:
            raise wanted.refused(os.path.basename(path), f"a file ({path}) whose 'logit_scale' is no usable number")
        _logit_scales[clip] = scale.float().item()
    return clip


def _vision(wanted: Wanted, path: str, read: Callable[[], dict[str, Tensor]], activation: str | None) -> Any:
    build = functools.partial(_build_vision, wanted, path, read, activation)
    return held(f"CLIP vision {activation or settings_stamp(path)}", path, build)


def _build_vision(wanted: Wanted, path: str, read: Callable[[], dict[str, Tensor]], activation: str | None) -> Any:
    sd = read()
    sizes = vision_config(sd)
    plain, width = sizes | {"image_mean": CLIP_MEAN, "image_std": CLIP_STD}, sizes["projection_dim"]
    settings = None if activation else _settings(wanted, path, sd)
    config = _told(plain, settings.vision if settings else None, activation)
    if settings is not None:
        config |= {"image_mean": settings.mean, "image_std": settings.std}
    with tempfile.TemporaryDirectory() as folder:  # older ComfyUI takes the settings as a file
        file_of_settings = os.path.join(folder, "config.json")
        with open(file_of_settings, "w", encoding="utf-8") as file:
            json.dump(config, file)
        model = comfy.clip_vision.ClipVisionModel(file_of_settings)
    vision = {key: value for key, value in sd.items() if key.startswith(VISION)}
    missing, _ = _fitted(wanted, path, lambda: model.load_sd(vision))
    if missing:
        raise _unusable(wanted, path, "lacks vision weights", missing)
    if activation is None:
        _versions[model] = _differences("vision", plain, config)
        _notes[model] = tuple(notes_on(os.path.basename(path), settings, width))
        for note in _notes[model]:
            log.info("%s", note)
    return model


def _fitted(wanted: Wanted, path: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except RuntimeError as error:  # weights of another shape, all of them in one message
        said = " ".join(str(error).split())[:300]
        raise wanted.refused(os.path.basename(path), f"a file ({path}) whose weights do not fit together: {said}") from error


def _unusable(wanted: Wanted, path: str, why: str, missing: list[str]) -> ValueError:
    shown = ", ".join(missing[:4]) + (", ..." if len(missing) > 4 else "")
    return wanted.refused(os.path.basename(path), f"a file ({path}) that {why} (missing: {shown})")
