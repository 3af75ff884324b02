"""The demo's networks, in the shapes that ComfyUI's stock loaders expect.

The autoencoder is trained narrow and then written into the TAESD layout: ComfyUI's TAESD is 64 channels wide
with three blocks at each resolution, and a block whose weights are zero passes its (non-negative) input
through, so the narrow network sits inside the wide one exactly. Latents are (B, 16, H/8, W/8) in the model's
scale; SD3's scale and shift are stored beside the weights, as ComfyUI's `taesd3` has them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

LATENT_CHANNELS = 16
TAESD_WIDTH = 64
SD3_SCALE, SD3_SHIFT = 1.5305, 0.0609


class Block(nn.Module):
    """A TAESD block: three convolutions beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, W, H, W) features to the same shape."""
        return functional.relu(self.conv(x) + x)


class Clamp(nn.Module):
    """The soft clamp in front of a TAESD decoder."""

    def forward(self, x: Tensor) -> Tensor:
        """Squash latents into (-3, 3), same shape."""
        return torch.tanh(x / 3) * 3


# Where the narrow network's layers lie in TAESD's sequences: those left out are zero blocks.
ENCODER_LAYERS = {0: 0, 1: 1, 2: 2, 3: 3, 4: 6, 5: 7, 6: 10, 7: 11, 8: 14}
DECODER_LAYERS = {1: 1, 3: 3, 4: 4, 6: 7, 7: 8, 9: 12, 10: 13, 12: 17, 13: 18, 14: 19}


def _conv(n_in: int, n_out: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, 3, padding=1, stride=stride, bias=bias)


class Autoencoder(nn.Module):
    """A narrow TAESD: pictures (B, 3, H, W) in [0, 1] to latents (B, 16, H/8, W/8) and back."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        c, w = LATENT_CHANNELS, width
        self.encoder = nn.Sequential(
            _conv(3, w), Block(w),
            _conv(w, w, 2, bias=False), Block(w),
            _conv(w, w, 2, bias=False), Block(w),
            _conv(w, w, 2, bias=False), Block(w),
            _conv(w, c),
        )  # fmt: skip
        up = lambda: nn.Upsample(scale_factor=2)  # noqa: E731
        self.decoder = nn.Sequential(
            Clamp(), _conv(c, w), nn.ReLU(),
            Block(w), Block(w), up(), _conv(w, w, bias=False),
            Block(w), up(), _conv(w, w, bias=False),
            Block(w), up(), _conv(w, w, bias=False),
            Block(w), _conv(w, 3),
        )  # fmt: skip
        self.width = width


def taesd_state_dict(model: Autoencoder) -> dict[str, Tensor]:
    """Write the narrow autoencoder into TAESD's layout, in half precision."""
    wide = {
        f"taesd_{part}.{name}": torch.zeros(shape)
        for part, layout in (("encoder", _taesd_encoder()), ("decoder", _taesd_decoder()))
        for name, shape in layout.items()
    }
    for part, places in (("encoder", ENCODER_LAYERS), ("decoder", DECODER_LAYERS)):
        for name, value in getattr(model, part).state_dict().items():
            index, _, rest = name.partition(".")
            target = wide[f"taesd_{part}.{places[int(index)]}.{rest}"]
            target[tuple(slice(0, n) for n in value.shape)] = value.float()
    wide = {name: value.half().contiguous() for name, value in wide.items()}
    return {**wide, "vae_scale": torch.tensor(SD3_SCALE), "vae_shift": torch.tensor(SD3_SHIFT)}


def narrow_state_dict(wide: dict[str, Tensor], width: int = 32) -> dict[str, Tensor]:
    """Read the narrow autoencoder back from TAESD's layout: the inverse of `taesd_state_dict`."""
    target = Autoencoder(width).state_dict()
    places = {"encoder": ENCODER_LAYERS, "decoder": DECODER_LAYERS}
    for name, value in target.items():
        part, index, rest = name.split(".", 2)
        source = wide[f"taesd_{part}.{places[part][int(index)]}.{rest}"]
        target[name] = source[tuple(slice(0, n) for n in value.shape)].to(value.dtype).clone()
    return target


def _conv_shapes(index: str, n_in: int, n_out: int, bias: bool = True) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {f"{index}.weight": (n_out, n_in, 3, 3)}
    return {**shapes, f"{index}.bias": (n_out,)} if bias else shapes


def _layout(convs: dict[int, tuple[int, int, bool]], blocks: list[int]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for index, (n_in, n_out, bias) in convs.items():
        shapes |= _conv_shapes(str(index), n_in, n_out, bias)
    for index in blocks:
        for inner in (0, 2, 4):
            shapes |= _conv_shapes(f"{index}.conv.{inner}", TAESD_WIDTH, TAESD_WIDTH)
    return shapes


def _taesd_encoder() -> dict[str, tuple[int, ...]]:
    w = TAESD_WIDTH
    convs = {
        0: (3, w, True),
        2: (w, w, False),
        6: (w, w, False),
        10: (w, w, False),
        14: (w, LATENT_CHANNELS, True),
    }
    return _layout(convs, [1, 3, 4, 5, 7, 8, 9, 11, 12, 13])


def _taesd_decoder() -> dict[str, tuple[int, ...]]:
    w = TAESD_WIDTH
    convs = {
        1: (LATENT_CHANNELS, w, True),
        7: (w, w, False),
        12: (w, w, False),
        17: (w, w, False),
        19: (w, 3, True),
    }
    return _layout(convs, [3, 4, 5, 8, 9, 10, 13, 14, 15, 18])
