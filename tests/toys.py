"""Toy diffusion models in ComfyUI's own classes: a whole stock run takes milliseconds on a CPU.

    model = toy_model("flow")               # a ModelPatcher; KINDS lists the kinds
    model = tiny_unet()                     # a real, small UNet (4 channels), and tiny_controlnet()
    model = tiny_mmdit()                    # a real, small SD3 model (16 channels): empty_latent("mmdit")
    g = guider(model, cfg=3.0)              # CFGGuider between cond(model, 1) and cond(model, 2) unless given
    sigmas = sigmas_for(model, "normal", 6, denoise=1.0)
    latent = empty_latent("flow")           # a LATENT dict: {"samples": zeros}
    latent["noise_mask"] = mask(latent)     # the left half is redrawn
    samples = stock(g, 42, "euler", sigmas, latent)   # what stock SamplerCustomAdvanced gives for this seed
    with counted() as calls: ...            # calls.calls, calls.rows, calls.sigmas of every guided call
    images = toy_vae("flow").decode(samples)   # a real comfy.sd.VAE around a tiny decoder
    scores = ToyVerifier().score(images)

Kinds: "eps", "v" (4 channels); "flow" (16, SD3's format: a 4-channel empty latent must be repaired);
"flow5d" (16 channels, 5-D); "nested" (video and sound, packed by the guider); "frames" (SVD: the rows of a
latent are the frames of one video, FRAMES of them, and see each other); "seed_eater" (unCLIP) and
"x4_upscaler" (conditioning that draws from the sampling seed).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch

from inprocess import boot, run_node

boot()

import comfy.cldm.cldm
import comfy.controlnet
import comfy.latent_formats
import comfy.model_base
import comfy.model_patcher
import comfy.nested_tensor
import comfy.ops
import comfy.samplers
import comfy.sd
import comfy.supported_models_base
from comfy.ldm.modules.diffusionmodules.mmdit import OpenAISignatureMMDITWrapper
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_base import ModelType

from noise_search.search.lockstep.shared_check import is_check_call
from toynets import CONTEXT, AVFormat, AVModel, ToyAVNet, ToyDecoder, ToyNet, fill

CPU = torch.device("cpu")
KINDS = ("eps", "v", "flow", "flow5d", "nested", "frames", "seed_eater", "x4_upscaler")
FRAMES = 4
UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": [1, 1],
    "channel_mult": [1, 2], "transformer_depth": [1, 1], "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 1, 1], "use_spatial_transformer": True, "context_dim": CONTEXT,
    "num_heads": 2, "legacy": False,
}  # fmt: skip
MMDIT = {
    "in_channels": 16, "patch_size": 2, "depth": 3, "input_size": None, "adm_in_channels": CONTEXT,
    "pos_embed_max_size": 16, "pos_embed_scaling_factor": None,
    "context_embedder_config": {
        "target": "torch.nn.Linear", "params": {"in_features": CONTEXT, "out_features": 192},
    },
}  # fmt: skip


def _config(latent_format: type, unet: dict[str, Any], **sampling: Any) -> Any:
    class Config(comfy.supported_models_base.BASE):
        unet_extra_config: dict[str, Any] = {}
        sampling_settings = sampling

    Config.latent_format = latent_format
    config = Config(unet)
    config.set_inference_dtype(torch.float32, None)
    return config


def _patcher(model: comfy.model_base.BaseModel) -> comfy.model_patcher.ModelPatcher:
    return comfy.model_patcher.ModelPatcher(model.eval(), load_device=CPU, offload_device=CPU)


def _special(cls: type, latent_format: type, net: dict[str, Any], *args: Any) -> comfy.model_patcher.ModelPatcher:
    """A core model class that would build a UNet of published size, given a `ToyNet` instead."""
    unet = {"disable_unet_model_creation": True, "adm_in_channels": net.get("y", 0)}
    model = cls(_config(latent_format, unet), *args, device=CPU)
    model.diffusion_model = ToyNet(**net, operations=comfy.ops.pick_operations(torch.float32, None)).eval()
    return _patcher(model)


def toy_model(kind: str) -> comfy.model_patcher.ModelPatcher:
    """Make the toy model of a kind (see KINDS)."""
    base, formats = comfy.model_base, comfy.latent_formats
    if kind == "frames":
        net = {"in_channels": 4, "concat": 4, "y": 768}
        return _special(base.SVD_img2vid, formats.SD15, net)
    if kind == "seed_eater":
        augment = {
            "noise_schedule_config": {"timesteps": 1000, "beta_schedule": "squaredcos_cap_v2"},
            "timestep_dim": CONTEXT,
        }
        return _special(base.SD21UNCLIP, formats.SD15, {"in_channels": 4, "y": 2 * CONTEXT}, augment)
    if kind == "x4_upscaler":
        return _special(base.SD_X4Upscaler, formats.SD_X4, {"in_channels": 4, "concat": 3})
    cls, net, latent_format, model_type, unet = {
        "eps": (base.BaseModel, ToyNet, formats.SD15, ModelType.EPS, {"in_channels": 4, "skip": 1.0}),
        "v": (base.BaseModel, ToyNet, formats.SD15, ModelType.V_PREDICTION, {"in_channels": 4}),
        "flow": (base.BaseModel, ToyNet, formats.SD3, ModelType.FLOW, {"in_channels": 16}),
        "flow5d": (base.BaseModel, ToyNet, formats.Wan21, ModelType.FLOW, {"in_channels": 16, "ndim": 5}),
        "nested": (AVModel, ToyAVNet, AVFormat, ModelType.FLOW, {}),
    }[kind]
    sampling = {"shift": 3.0} if model_type is ModelType.FLOW else {}
    return _patcher(cls(_config(latent_format, unet, **sampling), model_type, device=CPU, unet_model=net))


def tiny_unet(model_type: ModelType = ModelType.V_PREDICTION) -> comfy.model_patcher.ModelPatcher:
    """A real UNet of Stable Diffusion's kind, 32 channels wide; for attention patches (PAG, HyperTile)."""
    config = _config(comfy.latent_formats.SD15, UNET)
    model = comfy.model_base.BaseModel(config, model_type, device=CPU, unet_model=UNetModel)
    fill(model.diffusion_model, seed=1, gain=0.7)
    return _patcher(model)


def tiny_mmdit() -> comfy.model_patcher.ModelPatcher:
    """A real SD3 model, three blocks deep; for skip-layer guidance and the like."""
    config = _config(comfy.latent_formats.SD3, MMDIT, shift=3.0)
    model = comfy.model_base.SD3(config, device=CPU)
    assert isinstance(model.diffusion_model, OpenAISignatureMMDITWrapper)
    fill(model.diffusion_model, seed=2, gain=0.7)
    return _patcher(model)


def tiny_controlnet(hint_channels: int = 3) -> comfy.controlnet.ControlNet:
    """A real ControlNet for `tiny_unet`; apply it with the stock ControlNetApplyAdvanced node."""
    config = {key: value for key, value in UNET.items() if key != "out_channels"}
    config["transformer_depth"], config["hint_channels"] = [1, 1], hint_channels
    net = comfy.cldm.cldm.ControlNet(**config, operations=comfy.ops.disable_weight_init, dtype=torch.float32)
    return comfy.controlnet.ControlNet(fill(net.eval(), seed=4, gain=0.7), load_device=CPU)


def cond(patcher: comfy.model_patcher.ModelPatcher, seed: int, tokens: int = 4, rows: int = 1) -> list:
    """Make a CONDITIONING of random tokens (rows, tokens, CONTEXT), and what the model's class asks for."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.randn(rows, tokens, CONTEXT, generator=generator)
    extra: dict[str, Any] = {"pooled_output": torch.randn(rows, CONTEXT, generator=generator)}
    if isinstance(patcher.model, comfy.model_base.SD21UNCLIP):
        vision = SimpleNamespace(image_embeds=torch.randn(1, CONTEXT, generator=generator))
        extra["unclip_conditioning"] = [{"clip_vision_output": vision, "strength": 1.0, "noise_augmentation": 0.5}]
    if isinstance(patcher.model, comfy.model_base.SD_X4Upscaler):
        extra["concat_image"] = torch.rand(1, 3, 8, 8, generator=generator)
        extra["noise_augmentation"] = 0.5
    return [[words, extra]]


def empty_latent(kind: str, batch: int = 1, size: int = 8) -> dict[str, Any]:
    """Make the LATENT dict that the user of such a model would start from ("flow": 4 channels)."""
    if kind == "nested":
        streams = torch.zeros(batch, 8, 2, size, size), torch.zeros(batch, 4, 6)
        return {"samples": comfy.nested_tensor.NestedTensor(streams)}
    shape = {
        "flow5d": (batch, 16, 3, size, size),
        "mmdit": (batch, 16, size, size),
        "frames": (batch * FRAMES, 4, size, size),
    }.get(kind, (batch, 4, size, size))
    return {"samples": torch.zeros(shape)}


def mask(latent: dict[str, Any]) -> torch.Tensor:
    """Make a mask (1, 1, H, W) whose left half is redrawn."""
    samples = latent["samples"]
    first = samples.unbind()[0] if samples.is_nested else samples
    out = torch.zeros(1, 1, *first.shape[-2:])
    out[..., : out.shape[-1] // 2] = 1.0
    return out


def guider(patcher, cfg: float = 3.0, positive: list | None = None, negative: list | None = None):
    """Make a stock CFGGuider."""
    out = comfy.samplers.CFGGuider(patcher)
    out.set_conds(positive or cond(patcher, 1), negative or cond(patcher, 2))
    out.set_cfg(cfg)
    return out


def sampler(name: str) -> Any:
    """Return the stock SAMPLER of a name."""
    return comfy.samplers.sampler_object(name)


def sigmas_for(patcher, scheduler: str = "normal", steps: int = 6, denoise: float = 1.0) -> torch.Tensor:
    """Return what the stock BasicScheduler node gives."""
    return run_node("BasicScheduler", model=patcher, scheduler=scheduler, steps=steps, denoise=denoise)[0]


def stock(guider: Any, noise: Any, sampler: Any, sigmas: torch.Tensor, latent: dict[str, Any]) -> Any:
    """Run the stock SamplerCustomAdvanced node and return its samples.

    Args:
        guider: A GUIDER.
        noise: A seed (through the stock RandomNoise node), or a NOISE object.
        sampler: A name, or a SAMPLER object.
        sigmas: The sigmas.
        latent: A LATENT dict.
    """
    if isinstance(noise, int):
        (noise,) = run_node("RandomNoise", noise_seed=noise)
    if isinstance(sampler, str):
        sampler = comfy.samplers.sampler_object(sampler)
    inputs = {"noise": noise, "guider": guider, "sampler": sampler, "sigmas": sigmas, "latent_image": latent}
    return run_node("SamplerCustomAdvanced", **inputs)[0]["samples"]


def toy_vae(kind: str = "eps") -> comfy.sd.VAE:
    """Make a real VAE object that decodes latents of a kind to pictures of twice their size.

    5-D latents (and the video of nested ones) decode to (B, frames, H, W, 3), as with core's video VAEs.
    """
    channels = {"flow": 16, "mmdit": 16, "flow5d": 16, "nested": 8}.get(kind, 4)
    shell = {"embed_dim": 1, "ddconfig": {
        "double_z": True, "z_channels": 1, "resolution": 32, "in_channels": 3, "out_ch": 3, "ch": 32,
        "ch_mult": [1], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0,
    }}  # fmt: skip
    vae = comfy.sd.VAE(sd={}, config={"params": shell}, device=CPU, dtype=torch.float32)
    vae.first_stage_model = ToyDecoder(channels).eval()
    vae.patcher = comfy.model_patcher.ModelPatcher(vae.first_stage_model, load_device=CPU, offload_device=CPU)
    vae.latent_channels, vae.downscale_ratio, vae.upscale_ratio = channels, 2, 2
    vae.latent_dim = 3 if kind in ("flow5d", "nested") else 2
    return vae


@dataclass
class Calls:
    """Guided calls, in order: the latent rows and the sigma (row 0's) of each; and the rows of those that checked others."""

    rows_of: list[int] = field(default_factory=list)
    sigmas: list[float] = field(default_factory=list)
    checks: list[int] = field(default_factory=list)

    @property
    def calls(self) -> int:
        return len(self.rows_of)

    @property
    def rows(self) -> int:
        return sum(self.rows_of)


@contextlib.contextmanager
def counted() -> Iterator[Calls]:
    """Count every guided call of every CFGGuider where it happens, those that check shared calls by themselves.

    No model is wrapped or patched.
    """
    calls, cls = Calls(), comfy.samplers.CFGGuider
    original = cls.outer_predict_noise

    def outer_predict_noise(self: Any, x: torch.Tensor, timestep: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if is_check_call():
            calls.checks.append(x.shape[0])
        else:
            calls.rows_of.append(x.shape[0])
            calls.sigmas.append(float(timestep.reshape(-1)[0]))
        return original(self, x, timestep, *args, **kwargs)

    cls.outer_predict_noise = outer_predict_noise
    try:
        yield calls
    finally:
        cls.outer_predict_noise = original


@dataclass
class ToyVerifier:
    """Scores how much redder than blue a picture is, in [-1, 1]; remembers the batch sizes it was given."""

    name: str = "toy-redness"
    score_range: tuple[float, float] = (-1.0, 1.0)
    needs_prompt: bool = False
    prompt: str = ""
    trusts_previews: bool = True
    batches: list[int] = field(default_factory=list)

    def score(self, images: torch.Tensor, latents: torch.Tensor | None = None) -> torch.Tensor:
        self.batches.append(images.shape[0])
        return (images[..., 0] - images[..., 2]).mean(dim=(1, 2)).float()
