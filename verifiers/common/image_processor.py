"""A Hugging Face image processor on tensors: what preprocessor_config.json says is done to a picture before a classifier.

    resize (antialiased), crop the middle, rescale, normalize:  (255 factor x - mean) / std

The settings are transformers'; the resizing is torch's, on floating-point pictures where transformers may round to 8 bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .preprocess import normalized, to_bchw

# By the name of the processor without its ending: whether a size of one number is a square, or else the shortest edge.
FAMILIES = {"ViT": True, "DeiT": True, "Beit": True, "Siglip": True, "Bit": False, "CLIP": False, "ConvNext": False}
ENDINGS = ("ImageProcessorFast", "ImageProcessorPil", "ImageProcessor", "FeatureExtractor")
MODES = {2: "bilinear", 3: "bicubic"}  # PIL's numbers
WARPED_FROM = 384  # ConvNeXt: from this size on the whole picture is seen, below it the middle
CROP_PCT, LEAST_PCT = 224 / 256, 0.1
LARGEST = 4096  # pixels of a side; a larger one is a mistake, and a picture of it fills the memory


@dataclass(frozen=True)
class Processor:
    """Turns images into pixel values.

    Attributes:
        size: (H, W), or the shortest edge; None leaves the picture as it is.
        crop: (H, W) of the middle; None for all of it.
        mode: "bilinear" or "bicubic".
        scale: what values in [0, 1] are multiplied by.
        mean, std: of each channel.
    """

    size: tuple[int, int] | int | None
    crop: tuple[int, int] | None
    mode: str
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """Return pixel values (B, 3, h, w), float32, of images (B, H, W, 3) in [0, 1]."""
        pixels = to_bchw(images)
        if self.size is not None:
            pixels = torch.nn.functional.interpolate(pixels, _resized(pixels, self.size), mode=self.mode, antialias=True).clamp(
                0, 1
            )
        if self.crop is not None:
            pixels = _middle(pixels, self.crop)
        return normalized(self.scale * pixels, self.mean, self.std)


def _resized(pixels: Tensor, size: tuple[int, int] | int) -> tuple[int, int]:
    """Return the (H, W) that pixels (B, C, H, W) are resized to; a single number is that of the shortest edge."""
    if not isinstance(size, int):
        return size
    height, width = pixels.shape[-2:]
    short = min(height, width)
    return int(size * height / short), int(size * width / short)


def read_processor(settings: Mapping[str, Any]) -> Processor:
    """Read the settings of a preprocessor_config.json.

    Raises:
        ValueError: They are of another kind of processor, or one that matters is missing; says which, as "a folder whose ...".
    """
    kind = str(settings.get("image_processor_type") or settings.get("feature_extractor_type"))
    family = next((kind.removesuffix(ending) for ending in ENDINGS if kind.endswith(ending)), kind)
    if family not in FAMILIES:
        raise ValueError(f"a folder whose images are prepared by {kind!r}; known are those of {', '.join(FAMILIES)}")
    size = _size(settings.get("size"), FAMILIES[family])
    cuts = settings.get("do_center_crop", "crop_size" in settings) and family != "ConvNext"
    crop = _size(settings.get("crop_size"), True) if cuts else None
    share, factor = settings.get("crop_pct") or CROP_PCT, settings.get("rescale_factor", 1 / 255)
    mode, mean, std = _mode(settings.get("resample")), _channels(settings.get("image_mean")), _channels(settings.get("image_std"))
    resize, normalize = settings.get("do_resize", True), settings.get("do_normalize", True)
    lacking = [name for name, value in (("size", size), ("resample", mode)) if resize and not value]
    lacking += ["crop_size"] if cuts and not isinstance(crop, tuple) else []
    lacking += [name for name, usable in (("image_mean", mean), ("image_std", std and min(std) > 0)) if normalize and not usable]
    lacking += ["crop_pct"] if not _is_number(share) or not LEAST_PCT <= share <= 1 else []
    lacking += ["rescale_factor"] if not _is_number(factor) or factor <= 0 else []
    if lacking:
        said = ", ".join(f"{name!r} is {str(settings.get(name))[:60]}" for name in lacking)
        raise ValueError(f"a folder whose preprocessor_config.json cannot be followed ({said})")
    if family == "ConvNext" and isinstance(size, int):
        size, crop = (int(size / share), (size, size)) if size < WARPED_FROM else ((size, size), None)
    return Processor(
        size if resize else None, crop if isinstance(crop, tuple) else None, mode or "bilinear",
        255 * factor if settings.get("do_rescale", True) else 255.0,
        mean if normalize and mean else (0.0,) * 3, std if normalize and std else (1.0,) * 3,
    )  # fmt: skip


def _size(value: Any, square: bool) -> tuple[int, int] | int | None:
    """Read a size: {"height", "width"}, {"shortest_edge"} or one number; None for another."""
    if isinstance(value, Mapping) and "height" in value and "width" in value:
        height, width = _side(value["height"]), _side(value["width"])
        return (height, width) if height and width else None
    if isinstance(value, Mapping):
        return _side(value.get("shortest_edge"))
    side = _side(value)
    return (side, side) if square and side else side


def _side(value: Any) -> int | None:
    return value if isinstance(value, int) and 1 <= value <= LARGEST else None


def _mode(value: Any) -> str | None:
    return MODES.get(value) if isinstance(value, int) else None


def _channels(value: Any) -> tuple[float, ...] | None:
    return tuple(value) if isinstance(value, list) and len(value) == 3 and all(map(_is_number, value)) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _middle(pixels: Tensor, crop: tuple[int, int]) -> Tensor:
    """Cut the middle (h, w) out of pixels (B, C, H, W); black is put around what is too small."""
    lacks = [max(0, wanted - there) for wanted, there in zip(crop, pixels.shape[-2:], strict=True)]
    if any(lacks):
        high, wide = lacks
        pixels = torch.nn.functional.pad(pixels, (wide // 2, wide - wide // 2, high // 2, high - high // 2))
    top, left = ((there - wanted) // 2 for wanted, there in zip(crop, pixels.shape[-2:], strict=True))
    return pixels[..., top : top + crop[0], left : left + crop[1]]
