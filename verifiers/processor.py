"""A Hugging Face image processor on tensors: what preprocessor_config.json says is done to a picture before a classifier.

    resize (antialiased), crop the middle, rescale, normalize:  (255 factor x - mean) / std

The settings are transformers'; the resizing is torch's, on floating-point pictures where transformers may round to 8 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .preprocess import to_bchw

# By the name of the processor without its ending: whether a size of one number is a square, or else the shortest edge.
FAMILIES = {"ViT": True, "DeiT": True, "Beit": True, "Siglip": True, "Bit": False, "CLIP": False, "ConvNext": False}
ENDINGS = ("ImageProcessorFast", "ImageProcessorPil", "ImageProcessor", "FeatureExtractor")
MODES = {2: "bilinear", 3: "bicubic"}  # PIL's numbers
WARPED_FROM = 384  # ConvNeXt: from this size on the whole picture is seen, below it the middle
CROP_PCT = 224 / 256


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
            pixels = torch.nn.functional.interpolate(pixels, self._resized(pixels), mode=self.mode, antialias=True).clamp(0, 1)
        if self.crop is not None:
            pixels = _middle(pixels, self.crop)
        mean, std = (pixels.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (self.scale * pixels - mean) / std

    def _resized(self, pixels: Tensor) -> tuple[int, int]:
        if not isinstance(self.size, int):
            return self.size
        height, width = pixels.shape[-2:]
        short = min(height, width)
        return int(self.size * height / short), int(self.size * width / short)


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
    crop = _size(settings.get("crop_size"), True) if settings.get("do_center_crop", "crop_size" in settings) else None
    if family == "ConvNext" and isinstance(size, int):
        edge, share = size, settings.get("crop_pct") or CROP_PCT
        size, crop = (int(edge / share), (edge, edge)) if edge < WARPED_FROM else ((edge, edge), None)
    resample = settings.get("resample")
    resize, normalize = settings.get("do_resize", True), settings.get("do_normalize", True)
    lacking = [name for name, value in (("size", size), ("resample", MODES.get(resample))) if resize and not value]
    lacking += [name for name in ("image_mean", "image_std") if normalize and len(settings.get(name) or ()) != 3]
    if lacking:
        said = ", ".join(f"{name!r} is {settings.get(name)!r}" for name in lacking)
        raise ValueError(f"a folder whose preprocessor_config.json cannot be followed ({said})")
    return Processor(
        size if resize else None, crop, MODES.get(resample, "bilinear"),
        255 * settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 255.0,
        tuple(settings["image_mean"]) if normalize else (0.0,) * 3, tuple(settings["image_std"]) if normalize else (1.0,) * 3,
    )  # fmt: skip


def _size(value: Any, square: bool) -> tuple[int, int] | int | None:
    """Read a size: {"height", "width"}, {"shortest_edge"} or one number; None for another."""
    if isinstance(value, int):
        return (value, value) if square else value
    if not isinstance(value, Mapping):
        return None
    if "height" in value and "width" in value:
        return int(value["height"]), int(value["width"])
    return value.get("shortest_edge")


def _middle(pixels: Tensor, crop: tuple[int, int]) -> Tensor:
    """Cut the middle (h, w) out of pixels (B, C, H, W); black is put around what is too small."""
    lacks = [max(0, wanted - there) for wanted, there in zip(crop, pixels.shape[-2:], strict=True)]
    if any(lacks):
        high, wide = lacks
        pixels = torch.nn.functional.pad(pixels, (wide // 2, wide - wide // 2, high // 2, high - high // 2))
    top, left = ((there - wanted) // 2 for wanted, there in zip(crop, pixels.shape[-2:], strict=True))
    return pixels[..., top : top + crop[0], left : left + crop[1]]
