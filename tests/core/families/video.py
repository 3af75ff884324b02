"""Families of video."""

from __future__ import annotations

from .build import Family

WAN = {
    "image_model": "wan2.1", "model_type": "t2v", "dim": 48, "ffn_dim": 64, "num_heads": 2, "num_layers": 2, "text_dim": 16,
    "freq_dim": 32, "in_dim": 16, "out_dim": 16, "patch_size": (1, 2, 2), "text_len": 8,
}  # fmt: skip

VIDEO = {
    "wan 2.1": Family("WAN21_T2V", WAN, (16, 2, 8, 8)),
}
