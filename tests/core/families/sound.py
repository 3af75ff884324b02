"""Families of sound and of shapes: latents of one dimension, or of another that is none of a picture."""

from __future__ import annotations

import inspect

from inprocess import boot

boot()

import torch
from comfy.ldm.audio.embedders import NumberConditioner
from comfy.ldm.hunyuan3dv2_1.hunyuandit import HunYuanDiTPlain

from toynets import fill

from .build import COUPLED, Draw, Family

STABLE_AUDIO = {
    "audio_model": "dit1.0", "global_cond_dim": 1536, "project_cond_tokens": True, "embed_dim": 32, "num_heads": 1, "depth": 2,
    "cond_token_dim": 768, "io_channels": 64,
}  # fmt: skip
ACE = {
    "audio_model": "ace", "attention_head_dim": 16, "in_channels": 8, "inner_dim": 32, "max_height": 16, "max_position": 64,
    "max_width": 64, "mlp_ratio": 2.0, "num_attention_heads": 2, "num_layers": 2, "out_channels": 8, "patch_size": [16, 1],
    "rope_theta": 1000000.0, "speaker_embedding_dim": 512, "text_embedding_dim": 16, "lyric_encoder_vocab_size": 64,
    "lyric_hidden_size": 1024,
}  # fmt: skip
ACE15 = {
    "audio_model": "ace1.5", "in_channels": 192, "hidden_size": 32, "text_hidden_dim": 16, "num_dit_layers": 2,
    "num_lyric_layers": 1, "num_timbre_layers": 1, "num_tokenizer_layers": 1, "num_heads": 2, "num_kv_heads": 1, "head_dim": 16,
    "intermediate_size": 64, "encoder_hidden_size": 32, "encoder_intermediate_size": 64, "encoder_num_heads": 2, "fsq_dim": 32,
}  # fmt: skip
HUNYUAN_3D = {
    "image_model": "hunyuan3d2", "in_channels": 64, "context_in_dim": 16, "hidden_size": 32, "mlp_ratio": 2.0, "num_heads": 2,
    "depth": 1, "depth_single_blocks": 1, "qkv_bias": True, "guidance_embed": True,
}  # fmt: skip
HUNYUAN_3D_21 = {
    "image_model": "hunyuan3d2_1", "in_channels": 64, "context_dim": 16, "hidden_size": 32, "num_heads": 2, "depth": 3,
    "num_moe_layers": 1, "guidance_cond_proj_dim": None, "num_experts": 2, "moe_top_k": 1,
}  # fmt: skip


def seconds(draw: Draw) -> dict:
    return {"seconds_start": 100, "seconds_total": 200}


def embedders(draw: Draw) -> dict[str, torch.Tensor]:
    """Return the weights of Stable Audio's embedders of seconds."""
    found = {}
    for name in ("seconds_start", "seconds_total"):
        state = fill(NumberConditioner(768, min_val=0, max_val=512), seed=len(found)).state_dict()
        found |= {f"conditioner.conditioners.{name}.{key}": value for key, value in state.items()}
    return found


def lyrics(draw: Draw) -> dict:
    return {"conditioning_lyrics": draw(1, 4).abs().mul(9).long(), "lyrics_strength": 0.8}


def lyrics15(draw: Draw) -> dict:
    return {"conditioning_lyrics": draw(1, 4, 16)}


def timbre(draw: Draw) -> dict:
    return {**lyrics15(draw), "reference_audio_timbre_latents": [draw(1, 64, 10)]}


def guided(draw: Draw) -> dict:
    return {"guidance": 4.0}


SOUND = {
    "stable audio": Family("StableAudio", STABLE_AUDIO, (64, 8), text=(5, 768), extras=seconds, weights=embedders, gain=2.0),
    "ace-step": Family("ACEStep", ACE, (8, 16, 12), extras=lyrics),
    "ace-step 1.5": Family("ACEStep15", ACE15, (64, 10), extras=lyrics15, alone=COUPLED),
    "ace-step 1.5 cover": Family("ACEStep15", ACE15, (64, 10), extras=timbre, alone=COUPLED),
    "hunyuan 3d": Family("Hunyuan3Dv2", HUNYUAN_3D, (64, 9), extras=guided),
    "hunyuan 3d 2.1": Family("Hunyuan3Dv2_1", HUNYUAN_3D_21, (64, 9)),
}
if "swap_cfg_halves" in inspect.getsource(HunYuanDiTPlain):  # older cores need both conditionings in a call
    SOUND["hunyuan 3d 2.1 without guidance"] = Family("Hunyuan3Dv2_1", HUNYUAN_3D_21, (64, 9), cfg=1.0, alone=COUPLED)
