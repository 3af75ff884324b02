"""Families of video."""

from __future__ import annotations

from inprocess import boot

boot()

import comfy.clip_vision
import torch
from comfy.ldm.hunyuan_video.model import HunyuanVideoParams

from .build import REFUSED, SEEDED, Draw, Family
from .pictures import KANDINSKY, known, padded

HUNYUAN = known(
    HunyuanVideoParams, image_model="hunyuan_video", in_channels=16, out_channels=16, vec_in_dim=16, context_in_dim=16,
    hidden_size=32, mlp_ratio=2.0, num_heads=2, depth=1, depth_single_blocks=1, axes_dim=[4, 6, 6], theta=256,
    patch_size=[1, 2, 2], qkv_bias=True, guidance_embed=True, byt5=False, meanflow=False, use_cond_type_embedding=False,
    vision_in_dim=None, meanflow_sum=False,
)  # fmt: skip
WAN = {
    "image_model": "wan2.1", "model_type": "t2v", "dim": 48, "ffn_dim": 64, "num_heads": 2, "num_layers": 2, "text_dim": 16,
    "freq_dim": 32, "in_dim": 16, "out_dim": 16, "patch_size": (1, 2, 2), "text_len": 8,
}  # fmt: skip
LTXV = {
    "image_model": "ltxv", "in_channels": 128, "cross_attention_dim": 64, "attention_head_dim": 32, "num_attention_heads": 2,
    "caption_channels": 16, "num_layers": 1,
}  # fmt: skip
LTXAV = {
    **LTXV, "image_model": "ltxav", "audio_in_channels": 128, "audio_cross_attention_dim": 64, "audio_attention_head_dim": 32,
    "audio_num_attention_heads": 2, "connector_attention_head_dim": 8, "connector_num_attention_heads": 2,
    "connector_num_layers": 1,
}  # fmt: skip
COSMOS = {
    "image_model": "cosmos", "max_img_h": 16, "max_img_w": 16, "max_frames": 8, "in_channels": 16, "out_channels": 16,
    "patch_spatial": 2, "patch_temporal": 1, "model_channels": 48, "num_blocks": 1, "num_heads": 2, "block_config": "FA-CA-MLP",
    "concat_padding_mask": True, "pos_emb_cls": "rope3d", "block_x_format": "THWBD", "affline_emb_norm": True,
    "use_adaln_lora": True, "adaln_lora_dim": 16, "crossattn_emb_channels": 16, "extra_per_block_abs_pos_emb": True,
    "extra_per_block_abs_pos_emb_type": "learnable", "mlp_ratio": 2.0,
}  # fmt: skip
PREDICT2 = {
    "image_model": "cosmos_predict2", "max_img_h": 16, "max_img_w": 16, "max_frames": 8, "in_channels": 16, "out_channels": 16,
    "patch_spatial": 2, "patch_temporal": 1, "model_channels": 48, "num_blocks": 2, "num_heads": 2, "concat_padding_mask": True,
    "pos_emb_cls": "rope3d", "pos_emb_learnable": True, "use_adaln_lora": True, "adaln_lora_dim": 16,
    "crossattn_emb_channels": 16, "mlp_ratio": 2.0, "min_fps": 1, "max_fps": 30, "pos_emb_interpolation": "crop",
}  # fmt: skip
HUNYUAN_15 = known(
    HunyuanVideoParams, image_model="hunyuan_video", in_channels=65, out_channels=32, vec_in_dim=None, context_in_dim=16,
    hidden_size=32, mlp_ratio=2.0, num_heads=2, depth=1, depth_single_blocks=1, axes_dim=[4, 6, 6], theta=256,
    patch_size=[1, 1, 1], qkv_bias=True, guidance_embed=False, byt5=True, meanflow=False, use_cond_type_embedding=True,
    vision_in_dim=16, meanflow_sum=True,
)  # fmt: skip
REFINER = known(
    HunyuanVideoParams, image_model="hunyuan_video", in_channels=128, out_channels=64, vec_in_dim=None, context_in_dim=16,
    hidden_size=32, mlp_ratio=2.0, num_heads=2, depth=1, depth_single_blocks=1, axes_dim=[4, 6, 6], theta=256,
    patch_size=[1, 1, 1], qkv_bias=True, guidance_embed=True, byt5=False, meanflow=True, use_cond_type_embedding=False,
    vision_in_dim=None, meanflow_sum=False,
)  # fmt: skip
COGVIDEO = {
    "image_model": "cogvideox", "num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 16, "out_channels": 16,
    "time_embed_dim": 32, "text_embed_dim": 16, "num_layers": 2, "patch_size": 2, "sample_width": 8, "sample_height": 8,
    "sample_frames": 9, "use_rotary_positional_embeddings": True, "max_text_seq_length": 5,
}  # fmt: skip


def vision(draw: Draw, width: int) -> comfy.clip_vision.Output:
    out = comfy.clip_vision.Output()
    out["penultimate_hidden_states"] = out["last_hidden_state"] = draw(1, 5, width)
    return out


def hunyuan(draw: Draw) -> dict:
    return {"pooled_output": draw(1, 16), "guidance": 5.0}


def hunyuan_masked(draw: Draw) -> dict:
    return {**hunyuan(draw), "attention_mask": padded(5)}


def hunyuan_i2v(draw: Draw) -> dict:
    return {**hunyuan(draw), "concat_latent_image": draw(1, 16, 2, 8, 8), "concat_mask": frames_mask(draw)}


def frames_mask(draw: Draw) -> torch.Tensor:
    """Return a mask (1, 1, 2, 8, 8)."""
    return (draw(1, 1, 2, 8, 8) > 0).float()


def wan_i2v(draw: Draw) -> dict:
    return {
        "concat_latent_image": draw(1, 16, 2, 8, 8), "concat_mask": frames_mask(draw), "clip_vision_output": vision(draw, 1280),
    }  # fmt: skip


def wan_vace(draw: Draw) -> dict:
    return {
        "vace_frames": [draw(1, 32, 2, 8, 8), draw(1, 32, 2, 8, 8)], "vace_mask": [draw(1, 64, 2, 8, 8), draw(1, 64, 2, 8, 8)],
        "vace_strength": [1.0, 0.7],
    }  # fmt: skip


def wan_control(draw: Draw) -> dict:
    return {"concat_latent_image": draw(1, 32, 2, 8, 8), "reference_latents": [draw(1, 16, 1, 8, 8)]}


def wan_camera(draw: Draw) -> dict:
    return {**wan_i2v(draw), "camera_conditions": draw(1, 24, 2, 64, 64)}


def ltxv(draw: Draw) -> dict:
    return {"frame_rate": 25, "attention_mask": padded(5)}


def ltxav(draw: Draw) -> dict:
    return {"frame_rate": 25}


def hunyuan15(draw: Draw) -> dict:
    return {
        "pooled_output": None, "concat_latent_image": draw(1, 32, 2, 4, 4), "clip_vision_output": vision(draw, 16),
        "conditioning_byt5small": draw(1, 4, 1472), "concat_mask": frames_mask(draw)[..., :4, :4],
    }  # fmt: skip


def refiner(draw: Draw) -> dict:
    return {"guidance": 4.0, "concat_latent_image": draw(1, 32, 3, 4, 4), "noise_augmentation": 0.3}


def wan_humo(draw: Draw) -> dict:
    return {"audio_embed": draw(1, 5, 8, 5, 1280), "reference_latents": [draw(1, 16, 1, 8, 8)]}


def kandinsky(draw: Draw) -> dict:
    return {"pooled_output": draw(1, 16), "time_dim_replace": draw(1, 16, 1, 8, 8), "concat_mask": frames_mask(draw)}


VIDEO = {
    "hunyuan video": Family("HunyuanVideo", HUNYUAN, (16, 2, 8, 8), extras=hunyuan),
    "hunyuan video with a mask": Family("HunyuanVideo", HUNYUAN, (16, 2, 8, 8), extras=hunyuan_masked, cfg=1.0, alone=REFUSED),
    "hunyuan video i2v": Family("HunyuanVideoI2V", {**HUNYUAN, "in_channels": 33}, (16, 2, 8, 8), extras=hunyuan_i2v),
    "hunyuan video 1.5": Family("HunyuanVideo15", HUNYUAN_15, (32, 2, 4, 4), extras=hunyuan15),
    "hunyuan image refiner": Family("HunyuanImage21Refiner", REFINER, (64, 2, 4, 4), extras=refiner, alone=SEEDED),
    "wan 2.1": Family("WAN21_T2V", WAN, (16, 2, 8, 8)),
    "wan 2.1 i2v": Family("WAN21_I2V", {**WAN, "model_type": "i2v", "in_dim": 36}, (16, 2, 8, 8), extras=wan_i2v),
    "wan 2.1 vace": Family(
        "WAN21_Vace", {**WAN, "model_type": "vace", "vace_layers": 2, "vace_in_dim": 96}, (16, 2, 8, 8), extras=wan_vace
    ),
    "wan 2.1 control": Family(
        "WAN21_FunControl2V", {**WAN, "model_type": "i2v", "in_dim": 48, "in_dim_ref_conv": 16}, (16, 2, 8, 8), extras=wan_control
    ),
    "wan 2.1 camera": Family("WAN21_Camera", {**WAN, "model_type": "camera", "in_dim": 36}, (16, 2, 8, 8), extras=wan_camera),
    "wan 2.1 humo": Family("WAN21_HuMo", {**WAN, "model_type": "humo"}, (16, 2, 8, 8), extras=wan_humo),
    "wan 2.2 5b": Family("WAN22_T2V", {**WAN, "in_dim": 48, "out_dim": 48}, (48, 2, 8, 8)),
    "ltxv": Family("LTXV", LTXV, (128, 2, 4, 4), extras=ltxv),
    "ltx-av": Family("LTXAV", LTXAV, ((128, 2, 4, 4), (8, 6, 16)), extras=ltxav, text=(128, 32)),
    "cosmos": Family("CosmosT2V", COSMOS, (16, 2, 8, 8)),
    "cosmos-predict2": Family("CosmosT2IPredict2", PREDICT2, (16, 1, 8, 8)),
    "cogvideox": Family("CogVideoX_T2V", COGVIDEO, (16, 2, 8, 8)),
    "kandinsky 5": Family("Kandinsky5", {**KANDINSKY, "visual_embed_dim": 132}, (16, 2, 8, 8), extras=kandinsky),
}
