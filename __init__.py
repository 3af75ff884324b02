"""Noise Search for ComfyUI: spend a compute budget on better noise, judged by a verifier."""

from __future__ import annotations

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """Hand ComfyUI the extension (imported here, so that tools may import this package without ComfyUI)."""
    from .nodes import NoiseSearchExtension

    return NoiseSearchExtension()
