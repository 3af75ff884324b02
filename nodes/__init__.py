"""The nodes: the only part of the pack that imports ComfyUI.

Each module of a family of nodes ends in an explicit list `NODES`; `MODULES` names the modules, in menu order.
"""

from __future__ import annotations

from types import ModuleType

from comfy_api.latest import ComfyExtension, io

from .definitions import (
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
)
from .definitions.verifiers import api, basic, cascade, checks, classes, clip, graph, human, image_reward, similarity, vlm
from .server import routes as routes  # the server gets them when the pack is loaded

MODULES: list[ModuleType] = [
    search, methods, methods_noise, methods_paths, methods_particles, proposals, basic, clip,
    image_reward, classes, similarity, checks, vlm, api,
    graph, human, cascade, scoring, results, saving, conditioning,
]  # fmt: skip


def node_list() -> list[type[io.ComfyNode]]:
    """Return every node of the pack."""
    return [node for module in MODULES for node in module.NODES]


class NoiseSearchExtension(ComfyExtension):
    """What ComfyUI asks for when it loads the pack."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return node_list()
