"""The public API of the pack's nodes: ids, inputs and outputs in order. Once released, they only grow.

NODES                       every node of the pack, as node_list.json has them, and its released inputs
node_class("NSBudget")      a node's class
"""

from __future__ import annotations

import functools
import importlib
import json
from pathlib import Path

NODE_LIST = Path(__file__).resolve().parent.parent / "node_list.json"

SAMPLER_OPTIONS = [
    "method", "limits", "held_out", "preview_vae", "on_cancel", "on_verifier_error", "batching",
    "choose", "resume", "rounds",
]  # fmt: skip
SAMPLER_OUTPUTS = ["images", "latents", "noise", "sigmas", "seed", "score", "recipe", "report", "plot"]

# Node id: input ids in order, or None where the design leaves them open. A new node needs no entry.
RELEASED: dict[str, list[str] | None] = {
    "NSSearchSampler": [
        "model", "seed", "steps", "cfg", "sampler_name", "scheduler", "positive", "negative", "latent_image",
        "denoise", "vae", "verifier", "budget", "keep", *SAMPLER_OPTIONS,
    ],
    "NSSearchSamplerAdvanced": [
        "noise", "guider", "sampler", "sigmas", "latent_image", "vae", "verifier", "budget", "keep",
        *SAMPLER_OPTIONS,
    ],
    "NSAutoSearch": None,
    "NSRandomSearch": None,
    "NSZeroOrderSearch": None,
    "NSHalvingSearch": None,
    "NSDraftSearch": None,
    "NSEvolutionSearch": None,
    "NSSpectralSearch": None,
    "NSTrustRegionSearch": None,
    "NSPathSearch": None,
    "NSFKSteering": None,
    "NSBranchingSearch": None,
    "NSRolloverSearch": None,
    "NSStochasticSampler": None,
    "NSBacktrackingSearch": None,
    "NSRefinementSearch": ["start", "children", "then", "then_after"],
    "NSGaussianProposal": None,
    "NSNeighborProposal": None,
    "NSAntitheticProposal": None,
    "NSOrthogonalProposal": None,
    "NSLowFrequencyProposal": None,
    "NSConditioningJitterProposal": ["cosine", "same_noise", "proposal"],
    "NSClipScore": None,
    "NSPickScore": ["model_name", "prompt"],
    "NSHPSv2": ["model_name", "prompt"],
    "NSSigLIPScore": ["model_name", "prompt"],
    "NSAestheticScore": ["model_name", "clip_name"],
    "NSImageStatistics": None,
    "NSGuidanceGap": ["first_steps", "prefer"],
    "NSVLMJudge": ["model_name", "prompt", "ask", "elements", "combine", "max_pixels"],
    "NSHPSv3": ["model_name", "base_model", "prompt", "caution"],
    "NSUnifiedReward": ["model_name", "prompt", "axis", "max_pixels"],
    "NSAPIJudge": ["base_url", "model", "prompt", "ask", "max_pixels", "timeout", "max_requests", "max_tokens"],
    "NSClassifierLogit": ["model_name", "class_name", "output"],
    "NSZeroShotClass": ["clip", "clip_vision", "model_name", "class_name", "other_classes", "templates", "output"],
    "NSSelfSimilarity": ["clip_vision", "sigma"],
    "NSReferenceSimilarity": ["clip_vision", "reference", "prefer"],
    "NSImageReward": ["model_name", "prompt"],
    "NSTextAccuracy": ["text", "other_text", "ignore_case", "ignore_spaces"],
    "NSObjectCheck": ["model_name", "checks", "threshold"],
    "NSHumanVerifier": ["set_size", "timeout", "when_absent", "assistant", "clip_vision"],
    "NSVerifierEnsemble": None,
    "NSVerifierCascade": ["cheap", "expensive", "finalists", "share"],
    "NSGraphImage": ["image"],
    "NSScoreFromGraph": ["score", "prefer", "batch_size", "trusts_previews"],
    "NSGraphVerifier": ["chain", "prefer", "batch_size", "trusts_previews"],
    "NSScoreImages": None,
    "NSSaveSearch": ["images", "report", "filename_prefix", "save_json", "save_csv", "save_html"],
    "NSNoiseFromRecipe": ["recipe", "cuts", "noise"],
    "NSJitterConditioning": ["conditioning", "recipe"],
    "NSRenderCandidate": None,
    "NSBudget": None,
}  # fmt: skip

# Node id: output names in order, where the design fixes them.
OUTPUTS: dict[str, list[str]] = {
    "NSSearchSampler": SAMPLER_OUTPUTS,
    "NSSearchSamplerAdvanced": SAMPLER_OUTPUTS,
    "NSGraphImage": ["image"],
    "NSScoreFromGraph": ["verifier"],
    "NSScoreImages": ["images", "latents", "masks", "scores", "order"],
    "NSSaveSearch": [],
    "NSNoiseFromRecipe": ["noise"],
    "NSJitterConditioning": ["conditioning"],
    "NSRenderCandidate": ["image", "latent"],
    "NSBudget": ["limits"],
}


NODES = {node_id: RELEASED.get(node_id) for node_id in json.loads(NODE_LIST.read_text(encoding="utf-8"))}


@functools.cache
def node_class(node_id: str) -> type:
    """Return the class of a node of the pack; ComfyUI is booted."""
    nodes = importlib.import_module("noise_search.nodes").node_list()
    return {node.__name__: node for node in nodes}[node_id]
