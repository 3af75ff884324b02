"""Any nodes that turn an image into a number, as a verifier."""

from __future__ import annotations

import logging
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker, GraphBuilder
from torch import Tensor

from ....verifiers.composite.graph_score import HIGH, PREFER, GraphScore
from ...adapter.graph_links import Chain, capture, evaluating
from ...adapter.subgraph import SubGraph
from ..schema import inp, schema
from ..sockets import Verifier

log = logging.getLogger("noise-search")
NAME = "Score from Graph"
GraphChain = io.Custom("NS_GRAPH_CHAIN")


class NSGraphImage(io.ComfyNode):
    """Stands for the candidate's image in front of the nodes that score it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSGraphImage",
            display_name="Candidate Image",
            category="noise search/verifiers",
            description="Stands for the picture of each candidate. Connect it to any nodes that compute a number from an image,"
            " and that number to Score from Graph.",
            search_aliases=["placeholder image", "score from graph", "custom score", "external scorer"],
            inputs=[
                inp(
                    io.Image, "image", optional=True,
                    tooltip="An example, to try the nodes on: they are run on it once before the search, so that a mistake"
                    " shows at once, and other nodes that hang on them (a preview of the score) see it. Unconnected: those"
                    " others do not run.",
                ),
            ],
            outputs=[io.Image.Output("image", tooltip="In a search, the candidate's picture, one image; else the example.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, image: Tensor | None = None) -> io.NodeOutput:
        return io.NodeOutput(ExecutionBlocker(None) if image is None else image)


class NSScoreFromGraph(io.ComfyNode):
    """Makes a verifier of the nodes between Candidate Image and `score`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSScoreFromGraph",
            display_name=f"{NAME} (verifier)",
            category="noise search/verifiers",
            description="A verifier made of any nodes that turn an image into a number: those between Candidate Image and"
            " 'score' are run for each candidate. So the score nodes of other packs (PickScore, ImageReward, aesthetic,"
            " HPS) can guide a search.",
            search_aliases=["custom score", "external scorer", "any node", "ImageReward", "PickScore", "aesthetic", "HPS"],
            inputs=[
                inp(
                    io.AnyType, "score", lazy=True, extra_dict={"rawLink": True},
                    tooltip="The number: FLOAT, INT, a text that is a number, or a list or tensor of as many numbers as"
                    " pictures. It must come, over any nodes, from a Candidate Image.",
                ),
                inp(
                    io.Combo, "prefer", options=list(PREFER), default=HIGH,
                    tooltip="Which scores are good. high: usual. low: for distances and errors (NIQE, LPIPS, loss).",
                ),
                inp(
                    io.Int, "batch_size", default=1, min=1, max=4096,
                    tooltip="How many pictures the nodes get at once. 1: usual, and the only right choice for nodes that"
                    " answer one number for a whole batch. More is faster with nodes that answer a list of numbers.",
                ),
                inp(
                    io.Boolean, "trusts_previews", default=True,
                    tooltip="Whether the nodes may judge half-denoised pictures, which are soft and grey. Right for"
                    " semantic and preference scores; turn it off for sharpness, text or faces.",
                ),
            ],
            outputs=[Verifier.Output("verifier", tooltip="The nodes' number, or its negative where low is good.")],
            hidden=[io.Hidden.dynprompt, io.Hidden.unique_id],
            enable_expand=True,
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, input_types: dict[str, str]) -> bool:
        return True  # any type may be connected to 'score': other packs have numbers of their own types

    @classmethod
    def check_lazy_status(cls, **inputs: Any) -> list[str]:
        return []  # the score is computed for each candidate, not now

    @classmethod
    def execute(cls, score: Any, prefer: str, batch_size: int, trusts_previews: bool) -> io.NodeOutput:
        try:
            chain = capture(cls.hidden.dynprompt, score, cls.hidden.unique_id)
        except ValueError as error:
            raise ValueError(f"{NAME}: {error}") from error
        return handed_over(chain, prefer, batch_size, trusts_previews)


def handed_over(chain: Chain, prefer: str, batch_size: int, trusts_previews: bool) -> io.NodeOutput:
    """Have ComfyUI evaluate what a chain reads from others, and hand it to the inner part."""
    graph = GraphBuilder()
    inner = graph.node(
        "NSGraphVerifier", chain=chain, prefer=prefer, batch_size=batch_size, trusts_previews=trusts_previews,
        **{f"value_{i}": list(link) for i, link in enumerate(chain.outside)},
    )  # fmt: skip
    return io.NodeOutput(inner.out(0), expand=graph.finalize())


class NSGraphVerifier(io.ComfyNode):
    """The second half of Score from Graph: ComfyUI hands it what its nodes read from others, evaluated.

    Where lazy inputs ask for more, whatever the candidate is, another such node takes its place.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSGraphVerifier",
            display_name=f"{NAME}, inner part (verifier)",
            category="noise search/verifiers",
            description="Score from Graph puts this node in its own place while it runs. It is of no use by itself.",
            inputs=[
                inp(GraphChain, "chain", tooltip="The nodes to run, as Score from Graph found them."),
                inp(io.Combo, "prefer", options=list(PREFER), default=HIGH, tooltip="As in Score from Graph."),
                inp(io.Int, "batch_size", default=1, min=1, max=4096, tooltip="As in Score from Graph."),
                inp(io.Boolean, "trusts_previews", default=True, tooltip="As in Score from Graph."),
            ],
            outputs=[Verifier.Output("verifier", tooltip="What Score from Graph gives.")],
            hidden=[io.Hidden.dynprompt, io.Hidden.extra_pnginfo],
            is_input_list=True,  # values arrive as the lists that ComfyUI keeps
            accept_all_inputs=True,  # value_0, value_1, ...; older cores hand over links of any name by themselves
            enable_expand=True,
            is_deprecated=True,  # keeps it out of the page's search
            is_dev_only=True,
        )

    @classmethod
    def execute(
        cls, chain: list[Chain], prefer: list[str], batch_size: list[int], trusts_previews: list[bool], **values: list[Any]
    ) -> io.NodeOutput:
        found = chain[0]
        ordered = [values[f"value_{i}"] for i in range(len(found.outside))]
        run = SubGraph(found, ordered, cls.hidden.dynprompt, cls.hidden.extra_pnginfo)
        if asked := run.foreseen():
            more = evaluating(cls.hidden.dynprompt, found, asked)
            return handed_over(more, prefer[0], batch_size[0], trusts_previews[0])
        models = tuple(model for value in ordered for item in value for model in models_of(item))
        verifier = GraphScore(run, found.name, prefer[0], batch_size[0], trusts_previews[0], models)
        if found.example is not None:  # a mistake is found before the search instead of in it
            for example in ordered[found.outside.index(found.example)]:
                log.info("%s: score of the example: %s", found.name, verifier.score(example).tolist())
        return io.NodeOutput(verifier)


def models_of(value: Any) -> list[ModelPatcher]:
    """Return the model patchers that a value of the graph shows."""
    if isinstance(value, ModelPatcher):
        return [value]
    known = getattr(value, "get_models", None)
    shown = list(known()) if callable(known) else [getattr(value, "patcher", None)]
    return [model for model in shown if isinstance(model, ModelPatcher)]


NODES: list[type[io.ComfyNode]] = [NSGraphImage, NSScoreFromGraph, NSGraphVerifier]
