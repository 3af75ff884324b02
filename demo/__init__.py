"""A tiny text-to-image model for Noise Search, and its loader nodes: a ComfyUI node pack of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfy_api.latest import ComfyExtension


async def comfy_entrypoint() -> ComfyExtension:
    """Return the extension that ComfyUI registers."""
    from .nodes import DemoExtension

    return DemoExtension()
