"""Families of pictures."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from inprocess import boot

boot()

import torch
from comfy.ldm.chroma.model import ChromaParams
from comfy.ldm.chroma_radiance.model import ChromaRadianceParams
from comfy.ldm.flux.model import FluxParams
from comfy.ldm.hunyuan_video.model import HunyuanVideoParams
from comfy.ldm.lumina.model import NextDiT

from .build import REFUSED, Draw, Family


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


FLUX2 = {
    **FLUX, **known(
        FluxParams, image_model="flux2", in_channels=128, out_channels=128, vec_in_dim=None, context_in_dim=16, patch_size=1,
        axes_dim=[4, 4, 4, 4], qkv_bias=False, global_modulation=True, mlp_silu_act=True, ops_bias=False,
        default_ref_method="index", ref_index_scale=10.0, txt_ids_dims=[3],
    ),
}  # fmt: skip
CHROMA = known(
    ChromaParams, image_model="chroma", in_channels=64, out_channels=64, context_in_dim=16, hidden_size=32, mlp_ratio=2.0,
    num_heads=2, depth=1, depth_single_blocks=1, axes_dim=[4, 6, 6], theta=10000, patch_size=2, qkv_bias=True, in_dim=64,
    out_dim=32, hidden_dim=32, n_layers=1, txt_ids_dims=[], vec_in_dim=None,
)  # fmt: skip
RADIANCE = known(
    ChromaRadianceParams, **{**CHROMA, "image_model": "chroma_radiance", "in_channels": 3, "out_channels": 3, "patch_size": 16},
    nerf_hidden_size=8, nerf_mlp_ratio=2, nerf_depth=1, nerf_max_freqs=4, nerf_tile_size=0, nerf_final_head_type="conv",
    nerf_embedder_dtype=torch.float32, use_x0=False, use_sequential_txt_ids=False,
)  # fmt: skip
AURA = {
    "dim": 32, "n_layers": 3, "n_double_layers": 2, "n_heads": 2, "global_conddim": 32, "cond_seq_dim": 16, "max_seq": 64,
}  # fmt: skip
PIXART = {
    "image_model": "pixart_sigma", "hidden_size": 36, "depth": 2, "num_heads": 2, "caption_channels": 16,
    "micro_condition": False, "model_max_length": 8, "pe_interpolation": 1,
}  # fmt: skip
PIXART_ALPHA = {**PIXART, "image_model": "pixart_alpha", "micro_condition": True}
HUNYUAN_DIT = {
    "image_model": "hydit", "depth": 4, "hidden_size": 64, "num_heads": 2, "text_states_dim": 16, "text_states_dim_t5": 16,
    "text_len": 5, "text_len_t5": 6, "size_cond": False, "use_style_cond": False,
}  # fmt: skip
HUNYUAN_IMAGE = known(
    HunyuanVideoParams, image_model="hunyuan_video", in_channels=64, out_channels=64, vec_in_dim=None, context_in_dim=16,
    hidden_size=32, mlp_ratio=2.0, num_heads=2, depth=1, depth_single_blocks=1, axes_dim=[8, 8], theta=256, patch_size=[1, 1],
    qkv_bias=True, guidance_embed=True, byt5=True, meanflow=True, use_cond_type_embedding=False, vision_in_dim=None,
    meanflow_sum=False,
)  # fmt: skip
LUMINA = {
    "image_model": "lumina2", "patch_size": 2, "in_channels": 16, "dim": 48, "cap_feat_dim": 16, "n_layers": 2,
    "n_refiner_layers": 1, "qk_norm": True, "n_heads": 2, "n_kv_heads": 1, "axes_dims": [8, 8, 8], "axes_lens": [32, 32, 32],
    "rope_theta": 10000.0,
    "ffn_dim_multiplier": 1.0, "multiple_of": 16,
}  # fmt: skip
# Newer cores pass the mask on and do not look at it; older ones take it for that of a single row.
NO_MASK = "cap_mask = None" in inspect.getsource(NextDiT.patchify_and_embed)
LUMINA_MASK = {"ignores": ("attention_mask",)} if NO_MASK else {"alone": REFUSED}
Z_IMAGE = {
    **LUMINA, "dim": 256, "n_heads": 8, "n_kv_heads": 8, "axes_dims": [8, 12, 12], "rope_theta": 256.0,
    "z_image_modulation": True, "time_scale": 1000.0, "pad_tokens_multiple": 8,
}  # fmt: skip
QWEN = {
    "image_model": "qwen_image", "in_channels": 64, "out_channels": 16, "num_layers": 2, "attention_head_dim": 16,
    "num_attention_heads": 2, "joint_attention_dim": 16, "axes_dims_rope": (4, 6, 6),
}  # fmt: skip
HIDREAM = {
    "image_model": "hidream", "patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 1, "num_single_layers": 1,
    "attention_head_dim": 16, "num_attention_heads": 2, "caption_channels": [16, 16], "text_emb_dim": 16, "num_routed_experts": 4,
    "num_activated_experts": 2, "axes_dims_rope": (8, 4, 4), "max_resolution": (16, 16), "llama_layers": [0, 1],
}  # fmt: skip
OMNIGEN = {
    "image_model": "omnigen2", "patch_size": 2, "in_channels": 16, "hidden_size": 48, "num_layers": 1, "num_refiner_layers": 1,
    "num_attention_heads": 2, "num_kv_heads": 1, "multiple_of": 16, "axes_dim_rope": (8, 8, 8), "axes_lens": (64, 64, 64),
    "text_feat_dim": 16, "timestep_scale": 1000.0,
}  # fmt: skip
CASCADE_C = {
    "stable_cascade_stage": "c", "c_cond": 32, "c_hidden": [32, 32], "nhead": [2, 2], "blocks": [[1, 1], [1, 1]],
    "c_clip_text": 16, "c_clip_text_pooled": 16,
}  # fmt: skip
CASCADE_B = {
    "stable_cascade_stage": "b", "c_cond": 32, "c_hidden": [16, 16, 32, 32], "nhead": [-1, -1, 2, 2],
    "blocks": [[1, 1, 1, 1], [1, 1, 1, 1]], "block_repeat": [[1, 1, 1, 1], [1, 1, 1, 1]], "c_clip": 16,
}  # fmt: skip
KANDINSKY = {
    "image_model": "kandinsky5", "model_dim": 32, "ff_dim": 64, "visual_embed_dim": 64, "patch_size": (1, 2, 2),
    "in_text_dim": 16, "in_text_dim2": 16, "time_dim": 32, "num_text_blocks": 1, "num_visual_blocks": 2, "axes_dims": (4, 6, 6),
}  # fmt: skip


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


def flux_fill(draw: Draw) -> dict:
    return {**flux(draw), "concat_latent_image": draw(1, 16, 8, 8), "concat_mask": (draw(1, 1, 8, 8) > 0).float()}


def flux_control(draw: Draw) -> dict:
    return {**flux(draw), "concat_latent_image": draw(1, 16, 8, 8)}


def flux2(draw: Draw) -> dict:
    return {"pooled_output": None, "guidance": 3.0, "reference_latents": [draw(1, 128, 4, 4)]}


def chroma(draw: Draw) -> dict:
    return {"pooled_output": None, "guidance": 2.0}


def sizes(draw: Draw) -> dict:
    return {"width": 768, "height": 640, "aspect_ratio": 0.8}


def hunyuan_dit(draw: Draw) -> dict:
    return {
        "conditioning_mt5xl": draw(1, 6, 16), "attention_mask": padded(5), "attention_mask_mt5xl": padded(6, 3),
    }  # fmt: skip


def padded(tokens: int, real: int = 3) -> torch.Tensor:
    """Return an attention mask (1, tokens) of a padded prompt."""
    return (torch.arange(tokens) < real).long()[None]


def hunyuan_image(draw: Draw) -> dict:
    return {"guidance": 5.0, "conditioning_byt5small": draw(1, 4, 1472)}


def masked(draw: Draw) -> dict:
    return {"attention_mask": padded(5)}


def omnigen(draw: Draw) -> dict:
    return {"attention_mask": padded(5, 5), "reference_latents": [draw(1, 16, 8, 8), draw(1, 16, 6, 8)]}


def qwen_edit(draw: Draw) -> dict:
    return {"reference_latents": [draw(1, 16, 1, 8, 8), draw(1, 16, 1, 6, 8)]}


def hidream(draw: Draw) -> dict:
    return {**pooled(draw), "conditioning_llama3": draw(1, 2, 5, 16)}


def hidream_edit(draw: Draw) -> dict:
    return {**hidream(draw), "concat_latent_image": draw(1, 16, 8, 8)}


def cascade_b(draw: Draw) -> dict:
    return {**pooled(draw), "stable_cascade_prior": draw(1, 16, 4, 4)}


PICTURES = {
    "sd 1.5": Family("SD15", UNET, (4, 8, 8)),
    "sd 1.5 inpainting": Family("SD15", {**UNET, "in_channels": 9}, (4, 8, 8), extras=inpainting),
    "sdxl": Family("SDXL", SDXL, (4, 8, 8), extras=sdxl),
    "sd3": Family("SD3", MMDIT, (16, 8, 8), extras=pooled),
    "flux": Family("Flux", FLUX, (16, 8, 8), extras=flux),
    "flux kontext": Family("Flux", FLUX, (16, 8, 8), extras=kontext),
    "flux fill": Family("FluxInpaint", {**FLUX, "in_channels": 96}, (16, 8, 8), extras=flux_fill),
    "flux control": Family("Flux", {**FLUX, "in_channels": 32}, (16, 8, 8), extras=flux_control),
    "flux 2": Family("Flux2", FLUX2, (128, 4, 4), extras=flux2),
    "chroma": Family("Chroma", CHROMA, (16, 8, 8), extras=chroma),
    "chroma radiance": Family("ChromaRadiance", RADIANCE, (3, 32, 32), extras=chroma),
    "auraflow": Family("AuraFlow", AURA, (4, 8, 8)),
    "pixart alpha": Family("PixArtAlpha", PIXART_ALPHA, (4, 2, 66), extras=sizes),
    "pixart sigma": Family("PixArtSigma", PIXART, (4, 2, 66)),
    "hunyuan dit": Family("HunyuanDiT", HUNYUAN_DIT, (4, 8, 8), extras=hunyuan_dit),
    "hunyuan image": Family("HunyuanImage21", HUNYUAN_IMAGE, (64, 4, 4), extras=hunyuan_image),
    "lumina 2": Family("Lumina2", LUMINA, (16, 8, 8)),
    "lumina 2 with a mask": Family("Lumina2", LUMINA, (16, 8, 8), extras=masked, cfg=1.0, **LUMINA_MASK),
    "z-image": Family("ZImage", Z_IMAGE, (16, 8, 8)),
    "qwen-image": Family("QwenImage", QWEN, (16, 1, 8, 8)),
    "qwen-image edit": Family("QwenImage", QWEN, (16, 1, 8, 8), extras=qwen_edit),
    "hidream": Family("HiDream", HIDREAM, (16, 8, 8), extras=hidream),
    "hidream e1": Family("HiDream", HIDREAM, (16, 8, 8), extras=hidream_edit),
    "omnigen 2": Family("Omnigen2", OMNIGEN, (16, 8, 8), extras=omnigen, ignores=("attention_mask",)),
    "stable cascade c": Family("Stable_Cascade_C", CASCADE_C, (16, 6, 6), extras=pooled),
    "stable cascade b": Family("Stable_Cascade_B", CASCADE_B, (4, 16, 16), extras=cascade_b, ignores=("cross_attn",)),
    "kandinsky 5 image": Family("Kandinsky5Image", KANDINSKY, (16, 8, 8), extras=pooled),
}
