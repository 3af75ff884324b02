"""The nodes: the only part of the pack that imports ComfyUI.

Each module of a family of nodes ends in an explicit list `NODES`; `MODULES` names the modules, in menu order.
"""

from __future__ import annotations

from types import ModuleType

from comfy_api.latest import ComfyExtension, io

from . import (
    conditioning,
    methods,
    methods_noise,
    methods_particles,
    methods_paths,
    proposals,
    results,
    saving,
    scoring,
    search,
    verifiers,
    verifiers_api,
    verifiers_cascade,
    verifiers_checks,
    verifiers_classes,
    verifiers_clip,
    verifiers_graph,
    verifiers_human,
    verifiers_image_reward,
    verifiers_similarity,
    verifiers_vlm,
)
from . import routes as routes  # the server gets them when the pack is loaded

MODULES: list[ModuleType] = [
    search, methods, methods_noise, methods_paths, methods_particles, proposals, verifiers, verifiers_clip,
    verifiers_image_reward, verifiers_classes, verifiers_similarity, verifiers_checks, verifiers_vlm, verifiers_api,
    verifiers_graph, verifiers_human, verifiers_cascade, scoring, results, saving, conditioning,
]  # fmt: skip


def node_list() -> list[type[io.ComfyNode]]:
    """Return every node of the pack."""
    return [node for module in MODULES for node in module.NODES]


class NoiseSearchExtension(ComfyExtension):
    """What ComfyUI asks for when it loads the pack."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return node_list()
