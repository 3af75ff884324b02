"""The public API of the pack's nodes: ids, inputs and outputs in order. Once released, they only grow."""

from __future__ import annotations

SAMPLER_OPTIONS = [
    "method", "limits", "held_out", "preview_vae", "on_cancel", "on_verifier_error", "batching",
]  # fmt: skip
SAMPLER_OUTPUTS = ["images", "latents", "noise", "sigmas", "seed", "score", "recipe", "report", "plot"]

# Node id: input ids in order, or None where the design leaves them open.
NODES: dict[str, list[str] | None] = {
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
    "NSGaussianProposal": None,
    "NSNeighborProposal": None,
    "NSAntitheticProposal": None,
    "NSOrthogonalProposal": None,
    "NSLowFrequencyProposal": None,
    "NSConditioningJitterProposal": ["cosine", "same_noise", "proposal"],
    "NSClipScore": None,
    "NSImageStatistics": None,
    "NSGuidanceGap": ["first_steps", "prefer"],
    "NSTextAccuracy": ["text", "other_text", "ignore_case", "ignore_spaces"],
    "NSObjectCheck": ["model_name", "checks", "threshold"],
    "NSVerifierEnsemble": None,
    "NSScoreImages": None,
    "NSNoiseFromRecipe": ["recipe"],
    "NSJitterConditioning": ["conditioning", "recipe"],
    "NSRenderCandidate": None,
    "NSBudget": None,
}  # fmt: skip

# Node id: output names in order, where the design fixes them.
OUTPUTS: dict[str, list[str]] = {
    "NSSearchSampler": SAMPLER_OUTPUTS,
    "NSSearchSamplerAdvanced": SAMPLER_OUTPUTS,
    "NSScoreImages": ["images", "latents", "masks", "scores", "order"],
    "NSNoiseFromRecipe": ["noise"],
    "NSJitterConditioning": ["conditioning"],
    "NSRenderCandidate": ["image", "latent"],
    "NSBudget": ["limits"],
}
