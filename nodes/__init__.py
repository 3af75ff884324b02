"""The nodes: the only part of the pack that imports ComfyUI.

A module in `definitions/` that defines nodes ends in a list `NODES`; that is all a new one needs.
"""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from ..search.spec import modules_in
from . import definitions
from .definitions.menu import MENU
from .server import routes as routes  # the server gets them when the pack is loaded


def node_list() -> list[type[io.ComfyNode]]:
    """Return every node of the pack, in menu order."""
    place = {node_id: number for number, node_id in enumerate(MENU)}
    nodes = [node for module in modules_in(definitions) for node in getattr(module, "NODES", ())]
    return sorted(nodes, key=lambda node: (place.get(node.__name__, len(MENU)), node.__name__))


class NoiseSearchExtension(ComfyExtension):
    """What ComfyUI asks for when it loads the pack."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return node_list()
