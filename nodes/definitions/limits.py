"""Limits of a search as a node."""

from __future__ import annotations

from comfy_api.latest import io

from ...search.base.budget import StopRules
from .schema import inp, schema
from .sockets import Budget


class NSBudget(io.ComfyNode):
    """Further limits."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSBudget",
            display_name="Search Limits",
            category="noise search/methods",
            description="Limits of a search beside its number of images. Whichever comes first ends it; your own seed is "
            "always rendered.",
            search_aliases=["early stop", "time limit", "patience", "target score"],
            inputs=[
                inp(io.Int, "max_model_calls", default=0, min=0, max=10**9, tooltip="Model calls in all. With most "
                    "samplers one step of one picture is one call. 0: no limit. The paper's searches: 500 to 3000."),
                inp(io.Float, "max_seconds", default=0.0, min=0.0, max=10.0**7, step=1.0, tooltip="Wall-clock seconds. "
                    "Nothing is started that would not fit, by what a candidate took so far. 0: no limit."),
                inp(io.Float, "target_score", default=0.0, min=-1e9, max=1e9, step=0.01, tooltip="Stop once the best "
                    "score reaches this, in the verifier's own units. 0: off (for a target of zero give 0.000001)."),
                inp(io.Int, "patience", default=0, min=0, max=100000, tooltip="Stop after so many candidates in a row "
                    "without a better one. 0: off. Usual: 8 to 32."),
            ],
            outputs=[Budget.Output("limits")],
        )  # fmt: skip

    @classmethod
    def execute(cls, max_model_calls: int, max_seconds: float, target_score: float, patience: int) -> io.NodeOutput:
        return io.NodeOutput(StopRules(max_model_calls, max_seconds, target_score or None, patience))


NODES = [NSBudget]
