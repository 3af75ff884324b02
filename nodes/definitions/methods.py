"""Search methods and limits as nodes: frozen specs on a wire."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...search.base.budget import StopRules
from ...search.methods.auto_search import AutoSearch
from ...search.methods.chain import Chain
from ...search.methods.draft_search import DraftSearch
from ...search.methods.halving import HalvingSearch
from ...search.methods.random_search import RandomSearch
from ...search.methods.zero_order import STALLS, ZeroOrderSearch
from .schema import inp, schema
from .sockets import Budget, Method, Proposal

CATEGORY = "noise search/methods"
PAPER = "Ma et al. 2025, arXiv 2501.09732"


def proposal_input(default: str) -> Any:
    return inp(Proposal, "proposal", optional=True, tooltip=f"How new noise is drawn. Without one: {default}.")


def draft_input() -> Any:
    return inp(io.Int, "draft_steps", default=0, min=0, max=10000, advanced=True, tooltip="0: every candidate gets all "
               "steps. Above 0: candidates are drafted with so many steps, and only the best draft is rendered in full "
               "beside your own seed. Usual: a quarter to a half of the steps, with a deterministic sampler.")  # fmt: skip


def levels_input() -> Any:
    return inp(io.Int, "levels", default=4, min=0, max=16, tooltip="How coarse the low frequencies are: blocks of 2^levels "
               "latent cells (4: 16 cells, 128 pixels with most models). Paper: 4; useful: 3 to 5. 0 is the whole noise. Of "
               "small latents at least 4 blocks are kept along the shorter side.")  # fmt: skip


def then_inputs() -> list[Any]:
    """Return the last inputs of every method node: what goes on from its winner."""
    return [
        inp(Method, "then", optional=True, tooltip="A method that goes on from this one's winner, under the same budget: "
            "for instance halving search, then zero-order search around what it found."),
        inp(io.Float, "then_after", optional=True, default=0.5, min=0.01, max=0.99, step=0.01, advanced=True,
            tooltip="With then: the share of the budget that this method spends before. Usual: 0.3 to 0.7."),
    ]  # fmt: skip


def chained(method: Any, then: Any | None, share: float) -> io.NodeOutput:
    """Return a method node's output: the method, or the chain of it and `then`."""
    return io.NodeOutput(method if then is None else Chain(method, then, share))


class NSRandomSearch(io.ComfyNode):
    """Best of N."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSRandomSearch",
            display_name="Random Search",
            category=CATEGORY,
            description=f"Renders as many independent seeds as the budget pays for and keeps the best ({PAPER}).",
            search_aliases=["best of n", "random search", "reroll", "many seeds"],
            inputs=[draft_input(), proposal_input("independent Gaussian noise"), *then_inputs()],
            outputs=[Method.Output("method")],
        )

    @classmethod
    def execute(cls, draft_steps: int, proposal: Any = None, then: Any = None, then_after: float = 0.5) -> io.NodeOutput:
        return chained(RandomSearch(proposal, draft_steps), then, then_after)


class NSZeroOrderSearch(io.ComfyNode):
    """Local search on the sphere of noises."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSZeroOrderSearch",
            display_name="Zero-Order Search",
            category=CATEGORY,
            description=f"Looks around the best noise so far and steps to what is better ({PAPER}). Keeps the layout of "
            "your seed and improves on it. For budgets from about 16, and deterministic samplers.",
            search_aliases=["local search", "hill climbing", "zero order", "seed variations"],
            inputs=[
                inp(io.Int, "neighbors", default=4, min=1, max=256, tooltip="Candidates per round. Paper: 2 or 4."),
                inp(io.Float, "cosine", default=0.95, min=-1.0, max=0.9999, step=0.01, round=0.0001,
                    tooltip="How alike a neighbor's noise is to the best so far: larger is closer. Paper: 0.95; useful: 0.8 "
                    "to 0.99. 0 is as far as fresh noise."),
                inp(io.Combo, "on_stall", options=list(STALLS), default="keep", tooltip="When all neighbors are worse: keep "
                    "the best noise and try others (the paper), restart from fresh noise, or shrink the distance by half."),
                draft_input(),
                proposal_input("neighbors at this cosine"),
                *then_inputs(),
            ],
            outputs=[Method.Output("method")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, neighbors: int, cosine: float, on_stall: str, draft_steps: int, proposal: Any = None, then: Any = None,
        then_after: float = 0.5,
    ) -> io.NodeOutput:  # fmt: skip
        return chained(ZeroOrderSearch(neighbors, cosine, on_stall, proposal, draft_steps), then, then_after)


class NSHalvingSearch(io.ComfyNode):
    """Early pruning."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSHalvingSearch",
            display_name="Halving Search",
            category=CATEGORY,
            description="Starts twice as many seeds as the budget pays for, looks at them half-finished, and drops the "
            "worse ones at two cuts (Guimaraes and Perona 2026, arXiv 2607.21591). The same cost as random search.",
            search_aliases=["early pruning", "successive halving", "seed pruning"],
            inputs=[
                inp(io.Float, "first_cut", default=0.25, min=0.0, max=100000.0, step=0.01, round=0.0001,
                    tooltip="Where the first half is dropped: a share of the steps (paper: 0.25), or a noise level (sigma)."),
                inp(io.Float, "second_cut", default=0.5, min=0.0, max=100000.0, step=0.01, round=0.0001,
                    tooltip="Where half of the rest is dropped: a share of the steps (paper: 0.5), or a noise level (sigma)."),
                inp(io.Combo, "cut_by", options=["steps", "sigma"], default="steps", tooltip="What the cuts are given in. "
                    "By sigma for strongly shifted schedules, where a quarter of the steps is still all noise."),
                proposal_input("independent Gaussian noise"),
                *then_inputs(),
            ],
            outputs=[Method.Output("method")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, first_cut: float, second_cut: float, cut_by: str, proposal: Any = None, then: Any = None,
        then_after: float = 0.5,
    ) -> io.NodeOutput:  # fmt: skip
        return chained(HalvingSearch(first_cut, second_cut, cut_by, proposal), then, then_after)


class NSDraftSearch(io.ComfyNode):
    """Evolution on drafts."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSDraftSearch",
            display_name="Draft Search",
            category=CATEGORY,
            description="Spends most of the budget on drafts with a quarter of the steps: first independent ones, then "
            "neighbors of the best. The best drafts are rendered in full. For deterministic samplers of 8 steps or more.",
            search_aliases=["draft and commit", "preview search", "evolution", "few-step search"],
            inputs=[
                inp(io.Int, "draft_steps", default=0, min=0, max=10000, tooltip="Steps of a draft. 0: a quarter of the "
                    "steps, at least 4. Fewer steps pay for more drafts that tell less. Usual: a fifth to a half."),
                inp(io.Float, "warm_up", default=0.3, min=0.01, max=1.0, step=0.01, tooltip="Share of the drafts that are "
                    "independent, before the best get children. 1: all of them. Usual: 0.2 to 0.5."),
                inp(io.Int, "parents", default=4, min=1, max=256, tooltip="How many of the best drafts get children in each "
                    "round. More is broader. Usual: 2 to 8."),
                inp(io.Int, "children", default=2, min=1, max=256, tooltip="Children of each of them. Usual: 1 to 4."),
                inp(io.Float, "cosine", default=0.9, min=-1.0, max=0.9999, step=0.01, round=0.0001,
                    tooltip="How alike a child's noise is to its parent's: larger is closer. Useful: 0.8 to 0.97."),
                inp(io.Int, "finals", default=0, min=0, max=100000, tooltip="How many of the best drafts are rendered in "
                    "full, beside your own seed. 0: one in five images of the budget."),
                proposal_input("independent Gaussian noise"),
                *then_inputs(),
            ],
            outputs=[Method.Output("method")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, draft_steps: int, warm_up: float, parents: int, children: int, cosine: float, finals: int,
        proposal: Any = None, then: Any = None, then_after: float = 0.5,
    ) -> io.NodeOutput:  # fmt: skip
        return chained(DraftSearch(draft_steps, warm_up, parents, children, cosine, finals, proposal), then, then_after)


class NSAutoSearch(io.ComfyNode):
    """Chooses the method."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSAutoSearch",
            display_name="Auto Search",
            category=CATEGORY,
            description="Renders your own seed, then chooses method and settings from the budget, the steps, the sampler "
            "and what the verifier costs; the report says what it chose and why. Ends early if the seed hardly matters.",
            search_aliases=["automatic", "auto", "choose method", "default search"],
            inputs=[
                inp(io.Boolean, "stop_early", default=True, tooltip="End the search if the first candidates' scores differ "
                    "less than the verifier's own noise (its score of your picture moved by one pixel): with distilled "
                    "models the seed may hardly matter. Usual: on."),
                *then_inputs(),
            ],
            outputs=[Method.Output("method")],
        )  # fmt: skip

    @classmethod
    def execute(cls, stop_early: bool, then: Any = None, then_after: float = 0.5) -> io.NodeOutput:
        return chained(AutoSearch(stop_early), then, then_after)


class NSBudget(io.ComfyNode):
    """Further limits."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSBudget",
            display_name="Search Limits",
            category=CATEGORY,
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


NODES = [NSAutoSearch, NSRandomSearch, NSZeroOrderSearch, NSHalvingSearch, NSDraftSearch, NSBudget]
