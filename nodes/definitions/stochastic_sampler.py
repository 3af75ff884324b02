"""A sampler whose noise tells copies apart, as a node."""

from __future__ import annotations

import comfy.samplers
from comfy_api.latest import io

from ...search.lockstep.samplers import sample_ddim_eta, sample_glass
from .schema import inp, schema

DDIM, GLASS = "ddim", "glass"


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


NODES = [NSStochasticSampler]
