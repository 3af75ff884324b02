"""The cascade node: an expensive verifier for the best of a cheap one."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ....verifiers.composite.cascade import Cascade
from ..schema import inp, schema
from ..sockets import Verifier


class NSVerifierCascade(io.ComfyNode):
    """Searches by a cheap verifier and lets an expensive one choose among the best."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSVerifierCascade",
            display_name="Verifier Cascade (verifier)",
            category="noise search/verifiers",
            description="The search goes by a cheap verifier; when it has ended, an expensive one (slow, or paid for) scores the"
            " best candidates and your own seed, once each, and chooses the winner.",
            search_aliases=["two-stage verifier", "rerank", "finalists", "save API calls", "judge cascade"],
            inputs=[
                inp(
                    Verifier, "cheap",
                    tooltip="Scores every candidate, look and draft: CLIP Score, a reward model, an ensemble. The method, target"
                    " score and patience go by it.",
                ),
                inp(
                    Verifier, "expensive",
                    tooltip="Scores the finalists when the search has ended, and has the last word: a vision-language model,"
                    " an API, an ensemble.",
                ),
                inp(
                    io.Int, "finalists", default=8, min=0, max=4096,
                    tooltip="How many of the best candidates the expensive verifier scores, beside your own seed. Usual: 4 to 16."
                    " 0: a share of them.",
                ),
                inp(
                    io.Float, "share", default=0.25, min=0.01, max=1.0, step=0.01,
                    tooltip="With 'finalists' at 0: which share of the finished candidates are finalists, rounded up. Usual:"
                    " 0.1 to 0.5.",
                ),
            ],
            outputs=[Verifier.Output("verifier", tooltip="For a search's 'verifier', or for Score Images.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, cheap: Any, expensive: Any, finalists: int, share: float) -> io.NodeOutput:
        return io.NodeOutput(Cascade(cheap, expensive, finalists, share))


NODES: list[type[io.ComfyNode]] = [NSVerifierCascade]
