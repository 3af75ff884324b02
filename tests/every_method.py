"""Every search method, and every way to draw noise, on the analytic session: for tests of what all of them have in common."""

from __future__ import annotations

from typing import Any

from noise_search.search import methods
from noise_search.search.methods.auto_search import AutoSearch
from noise_search.search.methods.backtracking import BacktrackingSearch
from noise_search.search.methods.branching import BranchingSearch
from noise_search.search.methods.chain import Chain
from noise_search.search.methods.draft_search import DraftSearch
from noise_search.search.methods.evolution import EvolutionSearch
from noise_search.search.methods.fk_steering import FKSteering
from noise_search.search.methods.halving import HalvingSearch
from noise_search.search.methods.path_search import PathSearch
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.methods.refinement import RefinementSearch
from noise_search.search.methods.rollover import RolloverSearch
from noise_search.search.methods.spectral import SpectralSearch
from noise_search.search.methods.trust_region import TrustRegionSearch
from noise_search.search.methods.zero_order import ZeroOrderSearch
from noise_search.search.noise import proposals
from noise_search.search.noise.proposals import (
    AntitheticProposal,
    GaussianProposal,
    JitterProposal,
    LowFrequencyProposal,
    NeighborProposal,
    OrthogonalProposal,
)
from noise_search.search.spec import specs_in

STEPS = 6
METHODS: dict[str, Any] = {
    "auto": AutoSearch(),
    "backtracking": BacktrackingSearch(),
    "branching": BranchingSearch(lineages=2, renoise=1),
    "draft": DraftSearch(draft_steps=2),
    "evolution": EvolutionSearch(),
    "FK steering": FKSteering(renoise=1),
    "halving": HalvingSearch(),
    "path": PathSearch(),
    "random": RandomSearch(),
    "refinement": RefinementSearch(),
    "rollover": RolloverSearch(renoise=1),
    "spectral": SpectralSearch(),
    "spectral, most elites": SpectralSearch(elites=32),
    "trust region": TrustRegionSearch(),
    "zero-order": ZeroOrderSearch(),
    "zero-order, then refinement": Chain(ZeroOrderSearch(), RefinementSearch()),
    "antithetic": RandomSearch(AntitheticProposal()),
    "orthogonal": RandomSearch(OrthogonalProposal(16)),
    "low band": ZeroOrderSearch(proposal=LowFrequencyProposal()),
    "jittered": ZeroOrderSearch(proposal=JitterProposal(NeighborProposal())),
    "jittered text alone": ZeroOrderSearch(proposal=JitterProposal(same_noise=True)),
    "orthogonal around the best": ZeroOrderSearch(neighbors=6, proposal=OrthogonalProposal()),
}
# Whatever is not named above, nor drawn by a method of its own accord, joins as its node makes it.
NAMED = {type(spec) for method in METHODS.values() for spec in (method, getattr(method, "proposal", None))}
METHODS |= {spec.node.display_name: spec() for spec in specs_in(methods) if spec not in NAMED}
DRAWN = [spec for spec in specs_in(proposals) if spec not in {*NAMED, GaussianProposal, NeighborProposal}]
METHODS |= {spec.node.display_name: RandomSearch(spec()) for spec in DRAWN}
