"""What the weights of a CLIP do not tell, from the settings that were published with them and lie beside the file.

Weights have sizes, but neither their activation nor the number of their attention heads nor what was done to the pictures
leaves a trace in them. These are looked for beside `NAME.safetensors`, the first that fits its sizes counts:

    NAME.json, config.json               Hugging Face's settings of a CLIPModel, or of its vision tower alone
    NAME.json, open_clip_config.json     open_clip's

and with Hugging Face's the pictures' mean and deviation, from preprocessor_config.json. Several models may lie in one folder:
settings of another one do not fit, or else NAME.json comes first.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ...verifiers.common.preprocess import CLIP_MEAN, CLIP_STD

GELU, QUICK_GELU = "gelu", "quick_gelu"
KNOWN = (GELU, QUICK_GELU, "gelu_pytorch_tanh")  # activations that ComfyUI's CLIP has
# Embeddings of LAION's models, with GELU, are so wide and up, those of OpenAI's, with quick GELU, narrower; ComfyUI goes by
# the width too. DFN's, MetaCLIP's and LAION's smaller ones are not as their widths say.
GELU_WIDTH = 1024
CONFIG, OPEN_CLIP_CONFIG, PICTURES = "config.json", "open_clip_config.json", "preprocessor_config.json"
LONGEST = 1 << 20  # bytes of a file of settings
# Of Hugging Face's and of open_clip's settings of a tower, which leave out what is as here: the width, the number of layers and
# of heads, the side of a patch.
NAMES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "patch_size")
TEXT, VISION = (512, 12, 8, 0), (768, 12, 12, 32)
OPEN_NAMES = ("width", "layers", "heads", "patch_size")
OPEN_TEXT, OPEN_VISION = (512, 12, 8, 0), (768, 12, 0, 16)
OPEN_HEAD = 64  # width of a head of open_clip's vision towers


@dataclass(frozen=True)
class Tower:
    """Settings of one tower; `patch` is 0 for text."""

    width: int
    layers: int
    heads: int
    patch: int
    activation: str

    def fits(self, config: Mapping[str, Any]) -> bool:
        """Whether weights of these sizes may be this tower's."""
        sizes = config["hidden_size"], config["num_hidden_layers"], config.get("patch_size", 0)
        return (self.width, self.layers, self.patch) == sizes and 0 < self.heads <= self.width and not self.width % self.heads


@dataclass(frozen=True)
class ClipSettings:
    """What was published with the weights of a CLIP.

    Attributes:
        text, vision: the towers; `text` is None where only the other one was published.
        mean, std: of the pictures' channels, in [0, 1].
        resize: how pictures were resized, where it was not as all CLIPs here do it; else "".
        file: where this stands.
    """

    text: Tower | None
    vision: Tower
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: str
    file: str

    @property
    def activations(self) -> tuple[str, ...]:
        """The activations of the towers, text first."""
        return tuple(tower.activation for tower in (self.text, self.vision) if tower is not None)


def assumed_activation(width: int) -> str:
    """Return the activation of a CLIP whose embeddings are so wide, if it is OpenAI's or one of LAION's large ones."""
    return GELU if width >= GELU_WIDTH else QUICK_GELU


def find_settings(path: str, text: Mapping[str, Any] | None, vision: Mapping[str, Any]) -> ClipSettings | None:
    """Return the settings beside a file that fit its sizes, or None.

    Args:
        path: the file of weights.
        text, vision: the sizes of its towers, under Hugging Face's names; `text` None for a vision tower alone.
    """
    folder = os.path.dirname(path)
    for name in _names(path):
        said = _read(os.path.join(folder, name))
        found = _open_clip(said, name) if isinstance(_model(said).get("vision_cfg"), dict) else _hugging_face(said, folder, name)
        if found is None or not found.vision.fits(vision):
            continue
        if text is None or (found.text is not None and found.text.fits(text)):
            return found
    return None


def settings_stamp(path: str) -> str:
    """Return a hash of all files that may hold settings of a file's weights."""
    said = [_read(os.path.join(os.path.dirname(path), name)) for name in (*_names(path), PICTURES)]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def _names(path: str) -> tuple[str, ...]:
    return f"{os.path.splitext(os.path.basename(path))[0]}.json", CONFIG, OPEN_CLIP_CONFIG


def _read(path: str) -> dict[str, Any]:
    """Read a JSON file; empty where there is none, or something else."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.loads(file.read(LONGEST))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _hugging_face(said: Mapping[str, Any], folder: str, name: str) -> ClipSettings | None:
    alone = said.get("model_type") == "clip_vision_model"
    vision, text = (said if alone else said.get("vision_config")), said.get("text_config")
    if not isinstance(vision, Mapping):
        return None
    pictures = _read(os.path.join(folder, PICTURES))
    cropped = pictures.get("do_center_crop", True) and pictures.get("resample", 3) == 3
    return ClipSettings(
        None if alone or not isinstance(text, Mapping) else _tower(text, NAMES, TEXT, text.get("hidden_act", QUICK_GELU)),
        _tower(vision, NAMES, VISION, vision.get("hidden_act", QUICK_GELU)),
        _channels(pictures.get("image_mean"), CLIP_MEAN), _channels(pictures.get("image_std"), CLIP_STD),
        "" if cropped else PICTURES, name,
    )  # fmt: skip


def _open_clip(said: Mapping[str, Any], name: str) -> ClipSettings:
    model, pictures = _model(said), said.get("preprocess_cfg")
    pictures = pictures if isinstance(pictures, Mapping) else {}
    text, vision = (said if isinstance(said := model.get(key), Mapping) else {} for key in ("text_cfg", "vision_cfg"))
    plain = QUICK_GELU if model.get("quick_gelu") else GELU
    wide = vision.get("width", OPEN_VISION[0])
    head = vision.get("head_width", OPEN_HEAD)
    heads = wide // head if _is_count(wide) and _is_count(head) else 0
    how = pictures.get("resize_mode") or "shortest", pictures.get("interpolation") or "bicubic"
    return ClipSettings(
        _tower(text, OPEN_NAMES, OPEN_TEXT, _open_activation(text, plain)),
        _tower({**vision, "heads": heads}, OPEN_NAMES, OPEN_VISION, _open_activation(vision, plain)),
        _channels(pictures.get("mean"), CLIP_MEAN), _channels(pictures.get("std"), CLIP_STD),
        "" if how in (("shortest", "bicubic"), ("shortest", "random")) else f"resize_mode {how[0]!r}, interpolation {how[1]!r}",
        name,
    )  # fmt: skip


def _model(said: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return open_clip's settings of the model, which its own files hold bare and those on the hub below "model_cfg"."""
    inner = said.get("model_cfg")
    return inner if isinstance(inner, Mapping) else said


def _open_activation(tower: Mapping[str, Any], plain: str) -> str:
    how = tower.get("act_kwargs")
    return "gelu_pytorch_tanh" if isinstance(how, Mapping) and how.get("approximate") == "tanh" else plain


def _tower(said: Mapping[str, Any], names: tuple[str, ...], usual: tuple[int, ...], activation: Any) -> Tower:
    """Read a tower; what is no number becomes -1, which fits no weights."""
    values = [said.get(name, default) for name, default in zip(names, usual, strict=True)]
    width, layers, heads, patch = (value if _is_count(value) or value == 0 else -1 for value in values)
    return Tower(width, layers, heads, patch if usual[3] else 0, str(activation))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _channels(value: Any, usual: tuple[float, ...]) -> tuple[float, ...]:
    """Return three usable numbers, or those of OpenAI's CLIP."""
    good = isinstance(value, (list, tuple)) and len(value) == 3
    good = good and all(isinstance(part, (int, float)) and math.isfinite(part) and part > 0 for part in value)
    return tuple(map(float, value)) if good else usual


def notes_on(name: str, settings: ClipSettings | None, width: int) -> Iterator[str]:
    """Yield what was assumed of a file, in words.

    Args:
        name: the file.
        settings: what was found beside it.
        width: of its embeddings.
    """
    if settings is None:
        words = {GELU: "GELU, as in LAION's models", QUICK_GELU: "quick GELU, as in OpenAI's models"}[assumed_activation(width)]
        yield (
            f"{name}: no {CONFIG} or {OPEN_CLIP_CONFIG} that fits lies beside it, so its activation is taken to be {words} of"
            f" this width ({width}), and pictures are prepared as theirs are"
        )
    elif settings.resize:
        yield (
            f"{name}: its settings ({settings.file}) resize pictures in another way ({settings.resize}); here the middle square"
            " is seen, resized bicubically"
        )
