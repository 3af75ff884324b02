"""Families of pictures."""

from __future__ import annotations

import dataclasses
from typing import Any

from inprocess import boot

boot()

from comfy.ldm.flux.model import FluxParams

from .build import Draw, Family


def known(params: type, **values: Any) -> dict[str, Any]:
    """Return those of a network's parameters that this core knows."""
    names = {field.name for field in dataclasses.fields(params)} | {"image_model"}
    return {name: value for name, value in values.items() if name in names}


UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 64, "num_res_blocks": [1, 1],
    "channel_mult": [1, 1], "transformer_depth": [0, 1], "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 0, 0], "use_spatial_transformer": True, "context_dim": 16, "legacy": False,
}  # fmt: skip
SDXL = {
    **UNET,
    "model_channels": 64,
    "num_classes": "sequential",
    "adm_in_channels": 1536 + 16,
    "use_linear_in_transformer": True,
}
MMDIT = {
    "in_channels": 16, "patch_size": 2, "depth": 2, "input_size": None, "adm_in_channels": 16, "pos_embed_max_size": 16,
    "pos_embed_scaling_factor": None, "num_patches": 256, "qk_norm": "rms", "x_block_self_attn_layers": [],
    "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": 16, "out_features": 128}},
}  # fmt: skip
FLUX = known(
    FluxParams, image_model="flux", in_channels=16, out_channels=16, vec_in_dim=16, context_in_dim=16, hidden_size=32,
    mlp_ratio=2.0, num_heads=2, depth=1, depth_single_blocks=1, axes_dim=[4, 6, 6], theta=10000, patch_size=2, qkv_bias=True,
    guidance_embed=True, txt_ids_dims=[],
)  # fmt: skip


def pooled(draw: Draw) -> dict:
    return {"pooled_output": draw(1, 16)}


def sdxl(draw: Draw) -> dict:
    return {**pooled(draw), "width": 768, "height": 640, "crop_w": 8, "crop_h": 16, "target_width": 512, "target_height": 576}


def inpainting(draw: Draw) -> dict:
    return {"concat_latent_image": draw(1, 4, 8, 8), "concat_mask": (draw(1, 1, 8, 8) > 0).float()}


def flux(draw: Draw) -> dict:
    return {**pooled(draw), "guidance": 3.0}


def kontext(draw: Draw) -> dict:
    return {**flux(draw), "reference_latents": [draw(1, 16, 8, 8), draw(1, 16, 6, 8)]}


def fill_model(draw: Draw) -> dict:
    return {**flux(draw), "concat_latent_image": draw(1, 16, 8, 8), "concat_mask": (draw(1, 1, 8, 8) > 0).float()}


PICTURES = {
    "sd 1.5": Family("SD15", UNET, (4, 8, 8)),
    "sd 1.5 inpainting": Family("SD15", {**UNET, "in_channels": 9}, (4, 8, 8), extras=inpainting),
    "sdxl": Family("SDXL", SDXL, (4, 8, 8), extras=sdxl),
    "sd3": Family("SD3", MMDIT, (16, 8, 8), extras=pooled),
    "flux": Family("Flux", FLUX, (16, 8, 8), extras=flux),
    "flux kontext": Family("Flux", FLUX, (16, 8, 8), extras=kontext),
    "flux fill": Family("FluxInpaint", {**FLUX, "in_channels": 96}, (16, 8, 8), extras=fill_model),
}
