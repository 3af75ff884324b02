"""Search methods that copy what is promising half-way, and a sampler whose noise tells copies apart."""

from __future__ import annotations

from typing import Any

import comfy.samplers
from comfy_api.latest import io

from ...search.lockstep.samplers import sample_ddim_eta, sample_glass
from ...search.methods.branching import BranchingSearch
from ...search.methods.fk_steering import POTENTIALS, FKSteering
from ...search.methods.rollover import RolloverSearch
from .methods import CATEGORY, chained, proposal_input, then_inputs
from .schema import inp, schema
from .sockets import Method

DDIM, GLASS = "ddim", "glass"


def _renoise_input() -> Any:
    return inp(io.Int, "renoise", default=0, min=0, max=10000, tooltip="Steps that a copy is taken back up into fresh noise. "
               "0: the sampler's own noise tells copies apart, which needs an ancestral or SDE sampler. 1 or more: works with "
               "any sampler, for that many extra model calls a copy. Usual: 0 or 1.")  # fmt: skip


class NSFKSteering(io.ComfyNode):
    """Feynman-Kac steering."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSFKSteering",
            display_name="FK Steering",
            category=CATEGORY,
            description="Runs all candidates side by side, weights them half-way by what they promise, and replaces weak "
            "ones by copies of strong ones (Singhal et al. 2025, arXiv 2501.06848). For ancestral and SDE samplers.",
            search_aliases=["feynman-kac", "particle", "resampling", "smc"],
            inputs=[
                inp(io.Combo, "potential", options=list(POTENTIALS), default="max", tooltip="What counts: the highest score so "
                    "far (max; the paper's for text-to-image), the rise since the last look (difference), or all scores (sum)."),
                inp(io.Float, "lam", default=10.0, min=0.0, max=1000.0, step=0.1, round=0.001, tooltip="Lambda: how strongly "
                    "the score counts. Paper: 10. 0: not at all. Usual: 1 to 20."),
                inp(io.Float, "first", default=0.2, min=0.01, max=0.99, step=0.01, tooltip="First resampling, as a share of the "
                    "steps. Paper: 0.2; usual: 0.1 to 0.4."),
                inp(io.Float, "last", default=0.8, min=0.01, max=0.99, step=0.01, tooltip="Last resampling, as a share of the "
                    "steps. Paper: 0.8; usual: 0.5 to 0.9."),
                inp(io.Int, "times", default=4, min=1, max=1000, tooltip="How often in all, evenly spread. Each time all "
                    "candidates are decoded and scored. Paper: 4; usual: 2 to 6."),
                inp(io.Float, "ess_threshold", default=0.5, min=0.0, max=1.0, step=0.05, advanced=True, tooltip="Resample only "
                    "if the effective number of candidates falls below this share. 1: always. Usual: 0.5."),
                inp(io.Boolean, "normalize", default=True, advanced=True, tooltip="Divide scores by their spread at the first "
                    "look, so that lambda means the same for every verifier. Usual: on."),
                _renoise_input(),
                proposal_input("independent Gaussian noise"),
                *then_inputs(),
            ],
            outputs=[Method.Output("method")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, potential: str, lam: float, first: float, last: float, times: int, ess_threshold: float, normalize: bool,
        renoise: int, proposal: Any = None, then: Any = None, then_after: float = 0.5,
    ) -> io.NodeOutput:  # fmt: skip
        method = FKSteering(potential, lam, first, last, times, ess_threshold, normalize, renoise, proposal)
        return chained(method, then, then_after)


class NSBranchingSearch(io.ComfyNode):
    """SVDD and CoDe."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSBranchingSearch",
            display_name="Branching Search",
            category=CATEGORY,
            description="Takes every block of steps several times with different noise and goes on with the best (SVDD, arXiv "
            "2408.08252; CoDe, arXiv 2502.00968). For large budgets, ancestral or SDE samplers and cheap verifiers.",
            search_aliases=["svdd", "code", "per-step", "blockwise best of n"],
            inputs=[
                inp(io.Int, "children", default=0, min=0, max=10000, tooltip="How often each block is taken. 0: as often as "
                    "the budget pays for. Papers: 4 to 25."),
                inp(io.Int, "lineages", default=1, min=1, max=256, tooltip="How many runs go side by side, each with its own "
                    "children. Usual: 1 to 4; papers: 2."),
                inp(io.Int, "block", default=1, min=1, max=10000, tooltip="Steps of a block. 1 is SVDD: a look at every step. "
                    "More is CoDe: fewer looks, better told apart. Usual: 2 to 5."),
                inp(io.Float, "temperature", default=0.0, min=0.0, max=100.0, step=0.05, round=0.001, advanced=True,
                    tooltip="0: the best child goes on (usual). Above: a child is drawn, the better the likelier, in units of "
                    "the scores' spread."),
                _renoise_input(),
                proposal_input("independent Gaussian noise"),
                *then_inputs(),
            ],
            outputs=[Method.Output("method")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, children: int, lineages: int, block: int, temperature: float, renoise: int, proposal: Any = None,
        then: Any = None, then_after: float = 0.5,
    ) -> io.NodeOutput:  # fmt: skip
        return chained(BranchingSearch(children, lineages, block, temperature, renoise, proposal), then, then_after)


class NSRolloverSearch(io.ComfyNode):
    """Rollover budget forcing."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSRolloverSearch",
            display_name="Rollover Search",
            category=CATEGORY,
            description="Tries each block of steps until it comes out better than before, and saves what it did not need for "
            "later blocks (rollover budget forcing, arXiv 2503.19385). One candidate at a time; for large budgets.",
            search_aliases=["rbf", "rollover budget forcing"],
            inputs=[
                inp(io.Int, "block", default=1, min=1, max=10000, tooltip="Steps of a block. Paper: 1, of 10 steps in all. "
                    "Usual: 1 to 5."),
                _renoise_input(),
                proposal_input("independent Gaussian noise"),
                *then_inputs(),
            ],
            outputs=[Method.Output("method")],
        )  # fmt: skip

    @classmethod
    def execute(cls, block: int, renoise: int, proposal: Any = None, then: Any = None, then_after: float = 0.5) -> io.NodeOutput:
        return chained(RolloverSearch(block, renoise, proposal), then, then_after)


class NSStochasticSampler(io.ComfyNode):
    """A SAMPLER with noise of its own that keeps the marginals."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSStochasticSampler",
            display_name="Stochastic Sampler",
            category="noise search",
            description="A sampler that draws fresh noise at every step and keeps the distribution of pictures, for flow "
            "models (Flux, SD3, Qwen-Image) as well as others: what FK steering and branching search need.",
            search_aliases=["ddim eta", "glass", "sde sampler", "flow sde"],
            inputs=[
                inp(io.Combo, "transition", options=[DDIM, GLASS], default=DDIM, tooltip="ddim: one model call a step. glass "
                    "(arXiv 2509.25170): exact for any amount of noise, for several calls a step."),
                inp(io.Float, "eta", default=0.5, min=0.0, max=1.0, step=0.05, tooltip="For ddim: share of the most noise that "
                    "keeps the distribution. 0 is euler, 1 fully ancestral. Usual: 0.5 for flow models, 1 for others."),
                inp(io.Float, "rho", default=0.4, min=0.0, max=1.0, step=0.05, tooltip="For glass: how alike the noises before "
                    "and after a step are. 1 draws none. Paper: 0.4."),
                inp(io.Int, "inner_steps", default=2, min=1, max=100, tooltip="For glass: model calls of each step. Usual: 2 to "
                    "6, with as many fewer steps."),
            ],
            outputs=[io.Sampler.Output("sampler")],
        )  # fmt: skip

    @classmethod
    def execute(cls, transition: str, eta: float, rho: float, inner_steps: int) -> io.NodeOutput:
        if transition == DDIM:
            return io.NodeOutput(comfy.samplers.KSAMPLER(sample_ddim_eta, {"eta": eta}))
        return io.NodeOutput(comfy.samplers.KSAMPLER(sample_glass, {"rho": rho, "inner_steps": inner_steps}))


NODES = [NSFKSteering, NSBranchingSearch, NSRolloverSearch, NSStochasticSampler]
