"""The order of the nodes in the menu."""

from __future__ import annotations

# Nodes that are not named here come last, by name.
MENU = (
    "NSSearchSampler", "NSSearchSamplerAdvanced", "NSAutoSearch", "NSRandomSearch",
    "NSZeroOrderSearch", "NSHalvingSearch", "NSDraftSearch", "NSBudget", "NSEvolutionSearch",
    "NSSpectralSearch", "NSTrustRegionSearch", "NSPathSearch", "NSBacktrackingSearch",
    "NSRefinementSearch", "NSFKSteering", "NSBranchingSearch", "NSRolloverSearch",
    "NSStochasticSampler", "NSGaussianProposal", "NSNeighborProposal", "NSAntitheticProposal",
    "NSOrthogonalProposal", "NSLowFrequencyProposal", "NSConditioningJitterProposal",
    "NSImageStatistics", "NSClipScore", "NSGuidanceGap", "NSVerifierEnsemble", "NSPickScore",
    "NSHPSv2", "NSSigLIPScore", "NSAestheticScore", "NSImageReward", "NSClassifierLogit",
    "NSZeroShotClass", "NSSelfSimilarity", "NSReferenceSimilarity", "NSTextAccuracy",
    "NSObjectCheck", "NSVLMJudge", "NSHPSv3", "NSUnifiedReward", "NSAPIJudge", "NSGraphImage",
    "NSScoreFromGraph", "NSGraphVerifier", "NSHumanVerifier", "NSVerifierCascade", "NSScoreImages",
    "NSNoiseFromRecipe", "NSRenderCandidate", "NSSaveSearch", "NSJitterConditioning",
)  # fmt: skip
