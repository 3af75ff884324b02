"""Models whose rows see each other, or that know how many there are: where a shared call gives other answers."""

from __future__ import annotations

import random
from typing import Any

from inprocess import boot

boot()

import comfy.model_management
import comfy.ops
import comfy.supported_models
import torch

from toynets import ToyNet, fill
from toys import CPU, _patcher, toy_model


class CoupledNet(ToyNet):
    """A `ToyNet` that adds a share of the batch's mean below a noise level.

    Attributes:
        share: of the mean.
        below: timesteps; 1000 is pure noise.
    """

    share, below = 0.1, float("inf")

    def _forward(self, x: torch.Tensor, timesteps: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        out = super()._forward(x, timesteps, *args, **kwargs)
        return out + self.share * out.mean(0, keepdim=True) if float(timesteps[0]) < self.below else out


class UnsteadyNet(ToyNet):
    """A `ToyNet` whose answers differ from call to call by a relative `share`, as kernels that add in any order do."""

    share = 3e-5

    def _forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        out = super()._forward(*args, **kwargs)
        generator = torch.Generator().manual_seed(random.getrandbits(48))
        return out * (1 + self.share * torch.randn(out.shape, generator=generator))


class PickyNet(ToyNet):
    """A `ToyNet` that fails on more than `most` rows, and on `never` fewer."""

    most, never = 2, False

    def _forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if x.shape[0] > self.most or self.never:
            raise RuntimeError(f"the mask has {self.most} rows\nand the batch {x.shape[0]}")
        return super()._forward(x, *args, **kwargs)


def toy_with(cls: type[ToyNet], *, kind: str = "flow", dtype: torch.dtype = torch.float32, **settings: Any) -> Any:
    """Make a toy model whose network is one of the above; `settings` are set on the network."""
    patcher = toy_model(kind)
    net = patcher.model.diffusion_model
    arguments = {"in_channels": net.out_channels, "skip": net.skip, "ndim": net.ndim, "dtype": dtype}
    made = cls(**arguments, operations=comfy.ops.pick_operations(dtype, None)).eval()
    for name, value in settings.items():
        setattr(made, name, value)
    patcher.model.diffusion_model = made
    return patcher


def hunyuan3d() -> Any:
    """Make a tiny Hunyuan3D 2.1, which exchanges the halves of a batch of two rows or more."""
    net = {
        "image_model": "hunyuan3d2_1", "in_channels": 64, "hidden_size": 32, "context_dim": 16, "depth": 3, "num_heads": 2,
        "num_moe_layers": 1, "guidance_cond_proj_dim": None, "num_experts": 2, "moe_top_k": 1,
    }  # fmt: skip
    return _built(comfy.supported_models.Hunyuan3Dv2_1(net))


def ace_step() -> Any:
    """Make a tiny ACE-Step 1.5, whose row 0 gets other timbre tokens than the rest."""
    net = {
        "audio_model": "ace1.5", "in_channels": 192, "hidden_size": 32, "text_hidden_dim": 16, "timbre_hidden_dim": 64,
        "num_dit_layers": 2, "num_lyric_layers": 1, "num_timbre_layers": 1, "num_tokenizer_layers": 1, "num_heads": 4,
        "num_kv_heads": 2, "head_dim": 8, "intermediate_size": 64, "fsq_dim": 32, "encoder_hidden_size": 32,
        "encoder_intermediate_size": 64, "encoder_num_heads": 4,
    }  # fmt: skip
    return _built(comfy.supported_models.ACEStep15(net))


def _built(config: Any) -> Any:
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, "", CPU).eval()
    fill(model.diffusion_model, seed=1)
    return _patcher(model)


def without_memory(monkeypatch: Any, after: int = 0) -> None:
    """Let ComfyUI find no room to run cond and uncond together, from its `after`-th look at the free memory on."""
    looks, free = [], comfy.model_management.get_free_memory

    def get_free_memory(device: Any = None, torch_free_too: bool = False) -> Any:
        if torch_free_too:
            return free(device, True)
        looks.append(device)
        return free(device) if len(looks) <= after else 0

    monkeypatch.setattr(comfy.model_management, "get_free_memory", get_free_memory)
