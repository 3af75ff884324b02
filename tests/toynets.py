"""Networks of the toy models: small, smooth, deterministic. Imported through `toys`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from inprocess import boot

boot()

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.patcher_extension
from comfy.patcher_extension import WrapperExecutor, WrappersMP

CONTEXT = 16  # width of the conditioning tokens
HIDDEN = 24
CONV = {3: "Conv1d", 4: "Conv2d", 5: "Conv3d"}


def fill(module: torch.nn.Module, seed: int = 0, gain: float = 1.0) -> torch.nn.Module:
    """Give every parameter and position of a module fixed random values that keep activations O(1)."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in sorted(module.named_parameters()):
            if tensor.ndim < 2:
                values = 0.1 * torch.randn(tensor.shape, generator=generator)
                values += float(name.endswith("weight"))  # a norm's
            else:
                fan_in = tensor[0].numel()
                values = torch.randn(tensor.shape, generator=generator) * gain / math.sqrt(fan_in)
            tensor.copy_(values)
        for name, tensor in sorted(module.named_buffers()):
            if name.endswith("pos_embed"):
                tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
    return module


class ToyNet(torch.nn.Module):
    """A convolution, tanh, and a convolution; noise level and context shift the hidden channels.

    Rows do not see each other, unless the model says how many of them are the frames of one video. A control
    tensor of shape (B or 1, HIDDEN, ...) under `control["output"]` is added to the hidden channels.

    Args:
        in_channels, out_channels: Of the latent.
        ndim: Dimensions of the latent: 3 (sound), 4 (pictures) or 5 (video).
        skip: How much of the input is in the output. 1 for a model that predicts noise.
        y: Width of the vector conditioning `y`, 0 for none.
        concat: Channels concatenated to the latent.
    """

    def __init__(
        self,
        in_channels: int = 4,
        out_channels: int | None = None,
        ndim: int = 4,
        skip: float = 0.0,
        y: int = 0,
        concat: int = 0,
        dtype: torch.dtype = torch.float32,
        device: Any = None,
        operations: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.dtype, self.ndim, self.skip = dtype, ndim, skip
        self.out_channels = out_channels or in_channels
        conv = getattr(operations, CONV[ndim])
        linear = operations.Linear
        self.first = conv(in_channels + concat, HIDDEN, 3, padding=1, dtype=dtype, device=device)
        self.last = conv(HIDDEN, self.out_channels, 3, padding=1, dtype=dtype, device=device)
        self.level = linear(8, HIDDEN, dtype=dtype, device=device)
        self.words = linear(CONTEXT, HIDDEN, dtype=dtype, device=device)
        self.vector = linear(y, HIDDEN, dtype=dtype, device=device) if y else None
        fill(self)

    def forward(self, x, timesteps, context=None, control=None, transformer_options=None, **kwargs):
        options = transformer_options or {}
        wrappers = comfy.patcher_extension.get_all_wrappers(WrappersMP.DIFFUSION_MODEL, options)
        run = WrapperExecutor.new_class_executor(self._forward, self, wrappers)
        return run.execute(x, timesteps, context, control, options, **kwargs)

    def _forward(
        self, x, timesteps, context=None, control=None, transformer_options=None, y=None,
        num_video_frames=None, **kwargs,
    ):  # fmt: skip
        bands = 2.0 ** torch.arange(4, device=x.device)
        phase = timesteps.float().reshape(-1, 1) / 1000 * bands
        shift = self.level(torch.cat([phase.sin(), phase.cos()], dim=1).to(x.dtype))
        if context is not None:
            shift = shift + torch.tanh(self.words(context.to(x.dtype))).mean(dim=1) * 1.5
        if y is not None and self.vector is not None:
            shift = shift + self.vector(y.to(x.dtype))
        hidden = self.first(x)
        if num_video_frames is not None:  # frames of one video look at each other's mean
            video = hidden.reshape(-1, num_video_frames, *hidden.shape[1:])
            hidden = (video + video.mean(dim=1, keepdim=True)).reshape(hidden.shape)
        for added in (control or {}).get("output", []):
            hidden = hidden + added if added is not None else hidden
        hidden = torch.tanh(hidden + shift.reshape(*shift.shape, *[1] * (x.ndim - 2)))
        weight = torch.exp(-self.skip * timesteps.float() / 200).to(x.dtype)
        out = self.last(hidden) * weight.reshape(-1, *[1] * (x.ndim - 1))
        return out + self.skip * x[:, : self.out_channels]


def listening(hear: Callable[[dict[str, Any]], float]) -> Callable[..., torch.Tensor]:
    """Return a `ToyNet._forward` that multiplies what it predicts by what `hear` makes of the transformer options.

    It is written here, with its class: of any other the pack would say that it was replaced.
    """
    inner = ToyNet._forward

    def _forward(self, x, timesteps, context=None, control=None, options=None, **kwargs):
        return inner(self, x, timesteps, context, control, options, **kwargs) * hear(options)

    return _forward


class ToyAVNet(torch.nn.Module):
    """Two `ToyNet`s, for video and sound: takes and returns the list of both."""

    def __init__(self, dtype=torch.float32, device=None, operations=None, **kwargs: Any) -> None:
        super().__init__()
        self.dtype = dtype
        self.video = ToyNet(8, ndim=5, dtype=dtype, device=device, operations=operations)
        self.sound = ToyNet(4, ndim=3, dtype=dtype, device=device, operations=operations)

    def forward(self, x, timesteps, context=None, control=None, transformer_options=None, **kwargs):
        video, sound = x
        loud = sound.mean(dim=(1, 2))[:, None, None]  # the streams of one row see each other
        seen = video.mean(dim=(1, 2, 3, 4))[:, None, None, None, None]
        video = self.video(video + 0.1 * loud[..., None, None], timesteps, context)
        return [video, self.sound(sound + 0.1 * seen[..., 0, 0], timesteps, context)]


class AVFormat(comfy.latent_formats.LatentFormat):
    """Of a packed video and sound latent, scaled so that in and out differ."""

    scale_factor = 0.8
    latent_channels = 8
    latent_dimensions = 3


class AVModel(comfy.model_base.BaseModel):
    """A model of nested latents: it is told the shapes to unpack, as core's video-with-sound models are."""

    def extra_conds(self, **kwargs: Any) -> dict:
        out = super().extra_conds(**kwargs)
        if (shapes := kwargs.get("latent_shapes")) is not None:
            out["latent_shapes"] = comfy.conds.CONDConstant(shapes)
        return out


class ToyDecoder(torch.nn.Module):
    """Latent (B, C, ...) to pictures or frames (B, 3, ...) in [-1, 1], twice as high and wide."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.color = torch.nn.Parameter(torch.empty(3, channels))
        fill(self, seed=3)

    def decode(self, samples: torch.Tensor, **options: Any) -> torch.Tensor:
        pixels = torch.tanh(torch.einsum("rc,bc...->br...", self.color, samples))
        return pixels.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        small = pixels[..., ::2, ::2].clamp(-0.99, 0.99).atanh()
        return torch.einsum("cr,br...->bc...", torch.linalg.pinv(self.color), small)
