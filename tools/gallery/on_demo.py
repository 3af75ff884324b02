"""The examples as graphs of the demo model, for their pictures."""

from __future__ import annotations

from dataclasses import replace

from examples import CLIP, CLIP_VISION, DEMO_LOADERS, REPLACED, STAND_INS, demo_values

from .parts import PLOT_OUTPUT, Graph, Group, Node

SHOWS = ("SaveImage", "PreviewImage", "CreateVideo")


def on_demo(graph: Graph) -> Graph:
    """Return a graph with the demo's loaders and values; its 64-pixel pictures are enlarged to be seen."""
    loaders = tuple(Node(kind, kind, values, size=(310, 0)) for kind, values in DEMO_LOADERS.items())
    stand_ins = {node.key: STAND_INS[node.type] for node in graph.nodes() if node.type in STAND_INS}

    def changed(node: Node) -> Node:
        links = {name: stand_ins[key][slot] if key in stand_ins else (key, slot) for name, (key, slot) in node.links.items()}
        if node.type == "NSClipScore":
            links |= {"clip": CLIP, "clip_vision": CLIP_VISION}
        values = demo_values(node.type, node.title, node.values)
        return replace(node, type=REPLACED.get(node.type, node.type), values=values, links=links, models=())

    def made(node: Node) -> tuple[Node, ...]:
        if node.key in stand_ins:
            return loaders if node.key == next(iter(stand_ins)) else ()
        images = node.links.get("images")
        if node.type not in SHOWS or images[1] == PLOT_OUTPUT:
            return (changed(node),)
        key = f"{node.key} larger"
        larger = Node(key, "ImageScale", {"upscale_method": "nearest-exact", "width": 256, "height": 256},
                      {"image": images}, (300, 0), "Enlarge", collapsed=True)  # fmt: skip
        return larger, replace(changed(node), links={"images": (key, 0)})

    def group(box: Group) -> Group:
        columns = (tuple(m for n in inner for m in made(n)) for inner in box.columns)
        return replace(box, columns=tuple(column for column in columns if column))

    return replace(graph, columns=tuple(tuple(map(group, column)) for column in graph.columns))
