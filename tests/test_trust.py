"""A verifier that cannot be trusted on half-denoised pictures never sees one; drafts, whole runs of fewer steps, it does."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from analytic import AnalyticSession, Quadratic, run

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
from noise_search.verifiers.composite.cascade import Cascade
from noise_search.verifiers.composite.ensemble import Ensemble

LOOKING = [
    HalvingSearch(), PathSearch(), BacktrackingSearch(), BranchingSearch(), RolloverSearch(), FKSteering(),
    Chain(RandomSearch(), HalvingSearch()),
]  # fmt: skip
NOT_LOOKING = [
    RandomSearch(), ZeroOrderSearch(), EvolutionSearch(), SpectralSearch(), TrustRegionSearch(), DraftSearch(),
    RandomSearch(draft_steps=5), ZeroOrderSearch(draft_steps=5), AutoSearch(), RefinementSearch(),
]  # fmt: skip
WHY = "the verifier cannot be trusted on half-denoised pictures"


@dataclass
class Plain(Quadratic):
    """As an ensemble asks for it."""

    needs_prompt: bool = False
    prompt: str = ""
    score_range: tuple[float, float] = (-1e9, 0.0)


def trusting(trusts=True):
    return Plain("a", trusts_previews=trusts)


@pytest.fixture
def previews(monkeypatch):
    """How many half-denoised pictures were decoded."""
    seen = []
    decode = AnalyticSession.decode

    def decoded(session, latent, preview=False):
        seen.append(preview)
        return decode(session, latent, preview)

    monkeypatch.setattr(AnalyticSession, "decode", decoded)
    return seen


@pytest.mark.parametrize("method", [*LOOKING, *NOT_LOOKING], ids=lambda method: method.name)
def test_who_looks_half_way(method, previews):
    search = run(method, 16, trusting(), stochastic=True)
    assert any(previews) is (method in LOOKING)
    looks = [look for c in search.candidates for look in c.looks if "sigma" in look]
    assert len(looks) == sum(previews)


@pytest.mark.parametrize(
    "verifier",
    [
        trusting(False),
        Ensemble((trusting(), trusting(False))),
        Ensemble((trusting(), Ensemble((trusting(False),)))),
        Cascade(trusting(False), trusting()),
    ],
    ids=["one", "part", "inner part", "cheap"],
)
@pytest.mark.parametrize("method", [*LOOKING, *NOT_LOOKING], ids=lambda method: method.name)
def test_no_half_denoised_picture_for_who_cannot_judge_it(method, verifier, previews):
    search = run(method, 16, verifier, stochastic=True)
    assert previews and not any(previews)
    assert search.budget.nfe == 16 * 20 or method in NOT_LOOKING
    assert any(WHY in note for note in search.notes) is (method in LOOKING)


@pytest.mark.parametrize("method", [HalvingSearch(), FKSteering()], ids=lambda method: method.name)
def test_the_dear_one_of_a_cascade_is_not_asked_half_way(method, previews):
    run(method, 16, Cascade(trusting(), trusting(False)), stochastic=True)
    assert any(previews)


@pytest.mark.parametrize("method", [m for m in NOT_LOOKING if m == DraftSearch() or getattr(m, "draft_steps", 0)])
def test_drafts_are_whole_runs(method, previews):
    search = run(method, 16, trusting(False))
    drafts = [look for c in search.candidates for look in c.looks if "draft_steps" in look]
    assert len(drafts) > 16 and not any(previews) and search.notes == []
