"""Noise proposals as nodes: how a search draws new noise."""

from __future__ import annotations

from comfy_api.latest import io

from ...search.noise.proposals import (  # fmt: skip
    AntitheticProposal,
    GaussianProposal,
    JitterProposal,
    LowFrequencyProposal,
    NeighborProposal,
    NoiseProposal,
    OrthogonalProposal,
)
from .schema import inp, schema
from .sockets import Proposal

CATEGORY = "noise search/proposals"


def levels_input() -> io.Int.Input:
    return inp(io.Int, "levels", default=4, min=0, max=16, tooltip="How coarse the low frequencies are: blocks of 2^levels "
               "latent cells (4: 16 cells, 128 pixels with most models). Paper: 4; useful: 3 to 5. 0 is the whole noise. Of "
               "small latents at least 4 blocks are kept along the shorter side.")  # fmt: skip


class NSGaussianProposal(io.ComfyNode):
    """Independent noise."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSGaussianProposal",
            display_name="Gaussian Proposal",
            category=CATEGORY,
            description="Independent noise, as a fresh seed gives it. The widest search, and the quickest to fool a verifier.",
            search_aliases=["random noise", "independent noise", "fresh seeds"],
            inputs=[],
            outputs=[Proposal.Output("proposal")],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(GaussianProposal())


class NSNeighborProposal(io.ComfyNode):
    """Noise near another."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSNeighborProposal",
            display_name="Neighbor Proposal",
            category=CATEGORY,
            description="Noise at a fixed distance from your own seed's (in a zero-order search: from the best so far's): "
            "variations of one layout instead of new ones (Ma et al. 2025, arXiv 2501.09732).",
            search_aliases=["variations", "variation noise"],
            inputs=[
                inp(io.Float, "cosine", default=0.95, min=-1.0, max=0.9999, step=0.01, round=0.0001,
                    tooltip="How alike the noises are: larger is closer. Paper: 0.95; useful: 0.8 to 0.99."),
            ],
            outputs=[Proposal.Output("proposal")],
        )  # fmt: skip

    @classmethod
    def execute(cls, cosine: float) -> io.NodeOutput:
        return io.NodeOutput(NeighborProposal(cosine))


class NSAntitheticProposal(io.ComfyNode):
    """Pairs of opposites."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSAntitheticProposal",
            display_name="Antithetic Proposal",
            category=CATEGORY,
            description="Pairs of a noise and its negative, the first of them your own seed's: pictures that differ as much "
            "as they can, for the same cost as independent seeds.",
            search_aliases=["negative noise", "opposite noise", "antithetic"],
            inputs=[],
            outputs=[Proposal.Output("proposal")],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(AntitheticProposal())


class NSOrthogonalProposal(io.ComfyNode):
    """Groups at right angles."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSOrthogonalProposal",
            display_name="Orthogonal Proposal",
            category=CATEGORY,
            description="Groups of noises at right angles to each other, the first of them your own seed's: spread more "
            "evenly than independent seeds.",
            search_aliases=["diverse noise", "orthogonal noise"],
            inputs=[
                inp(io.Int, "group", default=4, min=2, max=64, tooltip="Noises per group. There is no paper's value; useful: "
                    "4 to 16. It makes a difference for small latents only: independent noises of large ones are nearly at "
                    "right angles by themselves."),
            ],
            outputs=[Proposal.Output("proposal")],
        )  # fmt: skip

    @classmethod
    def execute(cls, group: int) -> io.NodeOutput:
        return io.NodeOutput(OrthogonalProposal(group))


class NSLowFrequencyProposal(io.ComfyNode):
    """Another composition with the same grain."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSLowFrequencyProposal",
            display_name="Low-Frequency Proposal",
            category=CATEGORY,
            description="Redraws only the low frequencies of your own seed's noise (in a zero-order search: of the best so "
            "far's), which decide the composition (after SES, arXiv 2602.03208). The fine noise stays.",
            search_aliases=["wavelet noise", "composition", "low band"],
            inputs=[
                levels_input(),
                inp(io.Float, "cosine", default=0.0, min=0.0, max=0.9999, step=0.01, round=0.0001,
                    tooltip="How alike the low frequencies are: 0 draws them anew (paper), larger is closer. Useful in "
                    "zero-order search: 0.7 to 0.95."),
            ],
            outputs=[Proposal.Output("proposal")],
        )  # fmt: skip

    @classmethod
    def execute(cls, levels: int, cosine: float) -> io.NodeOutput:
        return io.NodeOutput(LowFrequencyProposal(levels, cosine))


class NSConditioningJitterProposal(io.ComfyNode):
    """Another text embedding for every candidate."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSConditioningJitterProposal",
            display_name="Conditioning Jitter Proposal",
            category=CATEGORY,
            description="Gives every candidate a slightly different text embedding, beside its noise. For models that hardly "
            "react to the seed (distilled and few-step ones), where new noise alone gives the same picture again.",
            search_aliases=["prompt variation", "conditioning noise", "seed variance", "diversity"],
            inputs=[
                inp(io.Float, "cosine", default=0.9, min=0.0, max=0.9999, step=0.01, round=0.0001,
                    tooltip="How alike the embedding and its variation are: larger is closer. There is no paper's value; useful: "
                    "0.7 to 0.98. If the pictures leave the prompt, raise it; if they all look alike, lower it."),
                inp(io.Boolean, "same_noise", default=False, tooltip="Keep your own seed's noise (in a zero-order search: "
                    "that of the best so far), so that only the text varies. Off: noise and text both do."),
                inp(Proposal, "proposal", optional=True, tooltip="How the noise is drawn, with same_noise off. Without one: "
                    "independent Gaussian noise."),
            ],
            outputs=[Proposal.Output("proposal")],
        )  # fmt: skip

    @classmethod
    def execute(cls, cosine: float, same_noise: bool, proposal: NoiseProposal | None = None) -> io.NodeOutput:
        return io.NodeOutput(JitterProposal(proposal, cosine, same_noise))


NODES = [
    NSGaussianProposal, NSNeighborProposal, NSAntitheticProposal, NSOrthogonalProposal, NSLowFrequencyProposal,
    NSConditioningJitterProposal,
]  # fmt: skip
