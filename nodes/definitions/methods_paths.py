"""Search methods that branch on the way: paths, backtracking, and refinement."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...search.methods.backtracking import BacktrackingSearch
from ...search.methods.path_search import PathSearch
from ...search.methods.refinement import RefinementSearch
from .methods import CATEGORY, PAPER, chained, proposal_input, then_inputs
from .schema import inp, schema
from .sockets import Method


class NSPathSearch(io.ComfyNode):
    """Search over paths."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        share = "as a share of noise: 1 is all noise, 0 the picture"
        return schema(
            node_id="NSPathSearch",
            display_name="Path Search",
            category=CATEGORY,
            description="Takes a few nearly finished pictures back up into the noise, branches there, comes down a little "
            f"further than before and keeps the best, until they are finished ({PAPER}). For budgets from about 8.",
            search_aliases=["search over paths", "renoise", "paths"],
            inputs=[
                inp(io.Int, "survivors", default=2, min=1, max=256, tooltip="How many go on after each loop (the paper's N). "
                    "Few for small budgets. Usual: 2 to 4."),
                inp(io.Int, "branches", default=0, min=0, max=256, tooltip="Branches of each survivor in each loop (the "
                    "paper's M). 0: as many as the budget pays for. Usual: 2 to 8."),
                inp(io.Float, "start", default=0.11, min=0.01, max=0.99, step=0.01, tooltip="Noise level to which the "
                    f"first pictures are denoised, {share}. Paper: 0.11; useful: 0.05 to 0.6."),
                inp(io.Float, "forward", default=0.78, min=0.0, max=0.99, step=0.01, tooltip="How far up a loop goes, "
                    f"{share}. Paper: 0.78, which redraws nearly all of the picture; useful: 0.2 to 0.8. 0: no loops, which is "
                    "random search. Start and forward together: at most 1."),
                inp(io.Float, "backward", default=0.81, min=0.01, max=1.0, step=0.01, tooltip="How far down it comes "
                    f"again, {share}. More than forward; the smaller the difference, the more loops. Paper: 0.81."),
                proposal_input("independent Gaussian noise"),
                *then_inputs(),
            ],
            outputs=[Method.Output("method")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, survivors: int, branches: int, start: float, forward: float, backward: float, proposal: Any = None,
        then: Any = None, then_after: float = 0.5,
    ) -> io.NodeOutput:  # fmt: skip
        return chained(PathSearch(survivors, branches, start, forward, backward, proposal), then, then_after)


class NSBacktrackingSearch(io.ComfyNode):
    """Going back where it gets no better."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSBacktrackingSearch",
            display_name="Backtracking Search",
            category=CATEGORY,
            description="Looks at a picture on its way; where it gets no better, adds noise again, tries a few other ways "
            "down, and keeps what is better (Ctrl-Z sampling, arXiv 2506.20294; depth-first search of arXiv 2505.23614).",
            search_aliases=["ctrl-z", "zigzag", "depth first", "renoise"],
            inputs=[
                inp(io.Int, "checkpoints", default=4, min=1, max=100, tooltip="How often a picture is looked at on its way, "
                    "evenly over the steps. Usual: 3 to 8."),
                inp(io.Float, "min_gain", default=0.0, min=-1e6, max=1e6, step=0.01, round=0.0001, tooltip="How much the "
                    "score must rise from one look to the next, in the verifier's own units; else the picture is taken back. "
                    "0: it may not fall. Usual: 0 to a tenth of the spread of your scores."),
                inp(io.Int, "retries", default=2, min=1, max=64, tooltip="Ways down that are tried each time. Usual: 2 to 4."),
                inp(io.Int, "back", default=2, min=1, max=1000, tooltip="Steps that the noise is turned back at first. "
                    "Usual: a tenth of the steps."),
                inp(io.Int, "max_back", default=8, min=1, max=1000, tooltip="If no way is better, twice as many steps are "
                    "turned back, up to this many. Usual: a quarter to a half of the steps."),
                inp(io.Float, "threshold", optional=True, default=0.0, min=-1e6, max=1e6, step=0.01, round=0.0001,
                    advanced=True, tooltip="Take back what scores below this instead, whatever it gained, as long as that "
                    "makes it better; in the verifier's own units. 0: off (for a threshold of zero give 0.0001). Usual: what "
                    "a good picture of yours scores."),
                proposal_input("independent Gaussian noise"),
                *then_inputs(),
            ],
            outputs=[Method.Output("method")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, checkpoints: int, min_gain: float, retries: int, back: int, max_back: int, threshold: float = 0.0,
        proposal: Any = None, then: Any = None, then_after: float = 0.5,
    ) -> io.NodeOutput:  # fmt: skip
        method = BacktrackingSearch(checkpoints, min_gain, retries, back, max_back, threshold or None, proposal)
        return chained(method, then, then_after)


class NSRefinementSearch(io.ComfyNode):
    """Redrawing the end."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSRefinementSearch",
            display_name="Refinement Search",
            category=CATEGORY,
            description="Improves details of a picture: redraws the end of its run several times, goes on from what is "
            "better. Alone it keeps the layout of your seed; as then of another method it polishes that one's winner. "
            "Part of the default.",
            search_aliases=["polish", "details", "hill climbing", "late mutation", "renoise"],
            inputs=[
                inp(io.Float, "start", default=0.75, min=0.01, max=0.99, step=0.01, tooltip="Where the redrawn part begins, "
                    "as a share of the steps. Later is cheaper and changes less. Usual: 0.6 to 0.85."),
                inp(io.Int, "children", default=4, min=1, max=256, tooltip="How many ends are tried before the best of them "
                    "is gone on from. Usual: 2 to 8."),
                *then_inputs(),
            ],
            outputs=[Method.Output("method")],
        )  # fmt: skip

    @classmethod
    def execute(cls, start: float, children: int, then: Any = None, then_after: float = 0.5) -> io.NodeOutput:
        return chained(RefinementSearch(start, children), then, then_after)


NODES = [NSPathSearch, NSBacktrackingSearch, NSRefinementSearch]
