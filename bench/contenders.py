"""The methods that are compared, by name: at their papers' settings, but for what a budget of whole images decides."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple


class Contender(NamedTuple):
    """One line of the comparison.

    Attributes:
        make: gives the method.
        sampler: the sampler it needs; methods are compared with random search on that sampler too.
        nested: random search: its candidates depend neither on the guide nor on the budget, so one run gives all.
    """

    make: Callable[[], Any]
    sampler: str = "euler"
    nested: bool = False


def method(module: str, name: str, **settings: Any) -> Callable[[], Any]:
    """Return a maker of a method of the pack."""

    def make() -> Any:
        return getattr(importlib.import_module(f"noise_search.search.methods.{module}"), name)(**settings)

    return make


def chain(first: Callable[[], Any], then: Callable[[], Any], share: float = 0.5) -> Callable[[], Any]:
    """Return a maker of a chain of two methods."""
    return lambda: method("chain", "Chain", first=first(), then=then(), share=share)()


STOCHASTIC = "euler_ancestral"
RANDOM, HALVING, DRAFT = (
    method("random_search", "RandomSearch"),
    method("halving", "HalvingSearch"),
    method("draft_search", "DraftSearch"),
)
REFINEMENT, BEFORE = method("refinement", "RefinementSearch"), 0.7
CONTENDERS = {
    "default": Contender(lambda: None),
    "random": Contender(RANDOM, nested=True),
    "random (ancestral)": Contender(RANDOM, STOCHASTIC, nested=True),
    "zero-order": Contender(method("zero_order", "ZeroOrderSearch")),
    "halving": Contender(HALVING),
    "halving (ancestral)": Contender(HALVING, STOCHASTIC),
    "draft": Contender(DRAFT),
    "random, drafts": Contender(method("random_search", "RandomSearch", draft_steps=5)),
    "zero-order, drafts": Contender(method("zero_order", "ZeroOrderSearch", draft_steps=5, cosine=0.9)),
    "halving, then zero-order": Contender(chain(HALVING, method("zero_order", "ZeroOrderSearch"))),
    "draft, then refinement": Contender(chain(DRAFT, REFINEMENT, BEFORE)),
    "random, then refinement": Contender(chain(RANDOM, REFINEMENT, BEFORE)),
    "random, then refinement (ancestral)": Contender(chain(RANDOM, REFINEMENT, BEFORE), STOCHASTIC),
    "halving, then refinement (ancestral)": Contender(chain(HALVING, REFINEMENT, BEFORE), STOCHASTIC),
    "paths": Contender(method("path_search", "PathSearch")),
    "backtracking": Contender(method("backtracking", "BacktrackingSearch")),
    "FK steering": Contender(method("fk_steering", "FKSteering"), STOCHASTIC),
    "FK steering, renoised": Contender(method("fk_steering", "FKSteering", renoise=1)),
    "branching (SVDD)": Contender(method("branching", "BranchingSearch", block=1), STOCHASTIC),
    "branching (CoDe)": Contender(method("branching", "BranchingSearch", block=4), STOCHASTIC),
    "rollover (RBF)": Contender(method("rollover", "RolloverSearch"), STOCHASTIC),
    "evolution": Contender(method("evolution", "EvolutionSearch")),
    "spectral": Contender(method("spectral", "SpectralSearch")),
    "spectral, drafts": Contender(method("spectral", "SpectralSearch", draft_steps=5)),
    "trust region": Contender(method("trust_region", "TrustRegionSearch")),
    "trust region, drafts": Contender(method("trust_region", "TrustRegionSearch", draft_steps=5)),
}
