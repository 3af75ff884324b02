"""Nodes of verifiers that compare features of pictures."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ....verifiers.measures.reference import LIKE, PREFER, ReferenceSimilarity
from ....verifiers.measures.self_similarity import SelfSimilarity
from ..schema import inp, schema
from ..sockets import Verifier

ENCODER = "Image encoder, from Load CLIP Vision (files in models/clip_vision): DINOv2 ({dino}), CLIP ViT-L or ViT-H, or SigLIP."


class NSSelfSimilarity(io.ComfyNode):
    """Scores how much of the final picture the model promised on the way."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSSelfSimilarity",
            display_name="Self Similarity (verifier)",
            category="noise search/verifiers",
            description="A verifier that needs no prompt: the cosine of image features between what the model predicted half-way"
            " and the picture it ended in. The self-supervised verifier of Ma et al. 2025, arXiv 2501.09732. It costs one decode"
            " more per candidate, and no model call.",
            search_aliases=["self-supervised verifier", "DINO", "no prompt", "x0 prediction"],
            inputs=[
                inp(io.ClipVision, "clip_vision", tooltip=ENCODER.format(dino="or the paper's DINO")),
                inp(
                    io.Float, "sigma", default=0.4, min=0.001, max=1000.0, step=0.01,
                    tooltip="Noise level of the prediction, in the model's own sigma: the last model call at or above it counts."
                    " Paper: 0.4 of flow models (SiT, Flux, SD3), whose sigma runs from 1 to 0. SD 1.5 and SDXL run from 14.6 to"
                    " 0: 0.67 is the same share of noise there. Must lie between the first and the last step.",
                ),
            ],
            outputs=[Verifier.Output("verifier", tooltip="Cosine, from -1 to 1; 0.7 to 1 is usual. For searches only.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, clip_vision: Any, sigma: float) -> io.NodeOutput:
        return io.NodeOutput(SelfSimilarity(clip_vision, sigma))


class NSReferenceSimilarity(io.ComfyNode):
    """Scores how like given pictures an image is."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSReferenceSimilarity",
            display_name="Reference Similarity (verifier)",
            category="noise search/verifiers",
            description="A verifier: the cosine of image features between a picture and reference pictures, mean over these;"
            " or away from them, for variety.",
            search_aliases=["image similarity", "DINO", "CLIP-I", "variety", "diversity", "style reference"],
            inputs=[
                inp(io.ClipVision, "clip_vision", tooltip=ENCODER.format(dino="same things and scenes")),
                inp(
                    io.Image, "reference",
                    tooltip="What to compare with: one picture, or a batch of any size (usual: 1 to 8), whose mean counts.",
                ),
                inp(
                    io.Combo, "prefer", options=list(PREFER), default=LIKE,
                    tooltip="like: towards the reference. unlike: away from it; give it the pictures that you have already.",
                ),
            ],
            outputs=[Verifier.Output("verifier", tooltip="Mean cosine, from -1 to 1, or its negative with 'unlike'.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, clip_vision: Any, reference: Tensor, prefer: str) -> io.NodeOutput:
        verifier = ReferenceSimilarity(clip_vision, reference, prefer)
        _ = verifier.mean_feature  # once, before the search instead of in it
        return io.NodeOutput(verifier)


NODES: list[type[io.ComfyNode]] = [NSSelfSimilarity, NSReferenceSimilarity]
