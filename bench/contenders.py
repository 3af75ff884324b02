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


def chain() -> Any:
    """Halving, then zero-order search around its winner."""
    first, then = method("halving", "HalvingSearch")(), method("zero_order", "ZeroOrderSearch")()
    return method("chain", "Chain", first=first, then=then)()


STOCHASTIC = "euler_ancestral"
CONTENDERS = {
    "default": Contender(lambda: None),
    "random": Contender(method("random_search", "RandomSearch"), nested=True),
    "random (ancestral)": Contender(method("random_search", "RandomSearch"), STOCHASTIC, nested=True),
    "zero-order": Contender(method("zero_order", "ZeroOrderSearch")),
    "halving": Contender(method("halving", "HalvingSearch")),
    "halving (ancestral)": Contender(method("halving", "HalvingSearch"), STOCHASTIC),
    "draft": Contender(method("draft_search", "DraftSearch")),
    "random, drafts": Contender(method("random_search", "RandomSearch", draft_steps=5)),
    "zero-order, drafts": Contender(method("zero_order", "ZeroOrderSearch", draft_steps=5, cosine=0.9)),
    "halving, then zero-order": Contender(chain),
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
