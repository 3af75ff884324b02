"""Population methods and proposals on toys: stock nodes make the winner again, and the report counts the closed form."""

from __future__ import annotations

import json

import pytest

from inprocess import boot
from node_api import node_class

pytestmark = pytest.mark.comfy

boot()

import torch
from searching import FarFrom, decoded, noise_of, parts, render, search_with, stock_with
from sessions import relative

from noise_search.search.methods.chain import Chain
from noise_search.search.methods.evolution import ONLY_FIRST, EvolutionSearch
from noise_search.search.methods.halving import HalvingSearch
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.methods.spectral import SpectralSearch
from noise_search.search.methods.trust_region import TrustRegionSearch
from noise_search.search.methods.zero_order import ZeroOrderSearch
from noise_search.search.noise.proposals import (
    AntitheticProposal,
    GaussianProposal,
    LowFrequencyProposal,
    NeighborProposal,
    OrthogonalProposal,
)
from toys import ToyVerifier, counted, run_node

METHODS = {
    "evolution": EvolutionSearch((0.0, 0.4, 0.7)),
    "evolution, branches": EvolutionSearch((0.4, 0.6)),
    "spectral": SpectralSearch(population=3, elites=2, levels=1),
    "spectral drafts": SpectralSearch(population=3, elites=2, draft_steps=3),
    "trust region": TrustRegionSearch(regions=2, batch=2),
    "trust region drafts": TrustRegionSearch(regions=2, batch=2, draft_steps=3),
    "antithetic": RandomSearch(AntitheticProposal()),
    "orthogonal": RandomSearch(OrthogonalProposal(3)),
    "low band": ZeroOrderSearch(proposal=LowFrequencyProposal(2, 0.5)),
    "halving low band": HalvingSearch(proposal=LowFrequencyProposal()),
    "chain": Chain(SpectralSearch(population=3, elites=2), EvolutionSearch((0.5,)), 0.5),
}
STEPS = 8
CASES = [("eps", "euler"), ("eps", "dpmpp_2m"), ("flow", "euler_ancestral"), ("flow5d", "dpmpp_2m_sde"), ("nested", "euler")]


def far(graph: dict, seed: int) -> FarFrom:
    """A verifier for which candidate 0 is the worst possible."""
    return FarFrom(decoded(graph, stock_with(graph, seed)))


@pytest.mark.parametrize(("kind", "sampler_name"), CASES)
@pytest.mark.parametrize("method", METHODS)
def test_stock_nodes_make_the_winner_again(method, kind, sampler_name):
    graph = parts(kind, sampler_name, steps=STEPS)
    got = search_with(graph, 3, method=METHODS[method], budget=8, verifier=far(graph, 3))
    assert got.report["best"]["index"] > 0 and got.score > 1e-4
    again = stock_with(graph, got.noise, got.sigmas)
    assert relative(got.latents["samples"], again) < 1e-4
    assert relative(got.images, decoded(graph, again)) < 1e-4
    image, latent = render(graph, 3, got.recipe)
    assert relative(latent["samples"], again) < 1e-4 and relative(image, got.images) < 1e-4
    if not json.loads(got.recipe).get("cuts"):
        assert torch.equal(got.sigmas, graph["sigmas"])
        assert relative(stock_with(graph, noise_of(got.recipe)), again) == 0.0
    assert relative(stock_with(graph, 3), again) > 1e-3  # and the test can tell


@pytest.mark.parametrize("kind", ["eps", "nested"])
@pytest.mark.parametrize("method", ["evolution", "spectral", "trust region", "antithetic", "orthogonal"])
def test_any_candidate_of_a_report_is_rendered_again(method, kind):
    graph = parts(kind, "euler", steps=STEPS)
    got = search_with(graph, 3, method=METHODS[method], budget=8, keep=8)
    frames = got.images.shape[0] // 8
    for place, index in enumerate(got.report["kept"]):
        image, _ = render(graph, 3, got.report["candidates"][index]["recipe"])
        assert relative(image, got.images[place * frames : (place + 1) * frames]) < 1e-4


FORMS = {  # model calls for 12 images of 8 steps, by hand; drafts: 2 T + n d with n = ((N - 2) T) // d
    "evolution": 6 * 8 + 3 * 8 + 3 * 5 + 3 * 3,
    "evolution, branches": 6 * 8 + 5 * 5 + 5 * 4,
    "spectral": 12 * 8,
    "spectral drafts": 2 * 8 + 26 * 3,
    "trust region": 12 * 8,
    "trust region drafts": 2 * 8 + 26 * 3,
    "antithetic": 12 * 8,
    "orthogonal": 12 * 8,
    "low band": 12 * 8,
    "halving low band": 12 * 8,
}


@pytest.mark.parametrize("kind", ["eps", "flow5d"])
@pytest.mark.parametrize("method", FORMS)
def test_model_calls_are_the_closed_form(method, kind):
    graph, verifier = parts(kind, "euler", steps=STEPS), ToyVerifier()
    with counted() as calls:
        got = search_with(graph, 3, method=METHODS[method], budget=12, verifier=verifier)
    saved = 8 if "drafts" in method and got.report["best"]["index"] == 0 else 0
    assert got.report["model_calls"] == calls.rows == FORMS[method] - saved <= 12 * 8
    frames = 3 if kind == "flow5d" else 1
    assert got.report["decodes"] * frames == got.report["verifier_calls"] == sum(verifier.batches)


@pytest.mark.parametrize("sampler_name", ["heun", "dpm_2", "dpm_adaptive"])
@pytest.mark.parametrize("method", ["evolution", "spectral drafts", "trust region"])
def test_other_samplers_stay_within_the_budget(method, sampler_name):
    graph = parts("eps", sampler_name, steps=STEPS)
    verifier = far(graph, 3)
    with counted() as calls:
        got = search_with(graph, 3, method=METHODS[method], budget=8, verifier=verifier)
    assert got.report["model_calls"] == calls.rows <= 8 * got.report["model_calls_per_image"]
    again = stock_with(graph, got.noise, got.sigmas)
    assert relative(got.latents["samples"], again) < 1e-4
    if method == "evolution":
        branched = any("cuts" in c["recipe"] for c in got.report["candidates"])
        notes = " ".join(got.report["notes"])
        assert branched == (sampler_name != "dpm_adaptive") and (ONLY_FIRST in notes) != branched


def test_rows_that_are_frames_are_searched_without_branches():
    graph = parts("frames", "euler", steps=STEPS)
    got = search_with(graph, 3, method=EvolutionSearch(), budget=6)
    assert any(ONLY_FIRST in note for note in got.report["notes"]) and not any(
        "cuts" in c["recipe"] for c in got.report["candidates"]
    )
    assert relative(got.latents["samples"], stock_with(graph, got.noise)) < 1e-4


@pytest.mark.parametrize("method", ["spectral", "trust region", "antithetic", "orthogonal"])
def test_a_batch_of_two_rows(method):
    from toys import empty_latent

    graph = parts("eps", "euler", steps=STEPS, latent=empty_latent("eps", batch=2))
    got = search_with(graph, 3, method=METHODS[method], budget=6)
    assert len(json.loads(got.recipe)) == 2
    assert relative(got.latents["samples"], stock_with(graph, got.noise)) < 1e-4


NODES = [
    ("NSEvolutionSearch", {}, EvolutionSearch()),
    ("NSEvolutionSearch", {"evolve_at": " .5;0.75, ", "elites": 5}, EvolutionSearch((0.5, 0.75), elites=5)),
    ("NSSpectralSearch", {}, SpectralSearch()),
    ("NSSpectralSearch", {"draft_steps": 4, "levels": 3, "variance_floor": 0.05}, SpectralSearch(10, 5, 3, 0.05, 4)),
    ("NSTrustRegionSearch", {}, TrustRegionSearch()),
    ("NSTrustRegionSearch", {"regions": 2, "batch": 5, "draft_steps": 3}, TrustRegionSearch(2, 5, draft_steps=3)),
    ("NSGaussianProposal", {}, GaussianProposal()),
    ("NSNeighborProposal", {}, NeighborProposal()),
    ("NSAntitheticProposal", {}, AntitheticProposal()),
    ("NSOrthogonalProposal", {}, OrthogonalProposal()),
    ("NSLowFrequencyProposal", {"cosine": 0.7}, LowFrequencyProposal(4, 0.7)),
]


@pytest.mark.parametrize(("node", "inputs", "wanted"), NODES)
def test_nodes_make_their_specs(node, inputs, wanted):
    node = node_class(node)
    schema = node.GET_SCHEMA()
    defaults = {item.id: item.default for item in schema.inputs or [] if not item.optional}
    assert run_node(node, **{**defaults, **inputs})[0] == wanted
    if "then" in [item.id for item in schema.inputs or []]:
        then = run_node(node, **{**defaults, **inputs}, then=RandomSearch(), then_after=0.3)[0]
        assert then == Chain(wanted, RandomSearch(), 0.3)


@pytest.mark.parametrize("text", ["0.5 0.6", "a", "0.2, x"])
def test_what_are_no_shares_says_so(text):
    with pytest.raises(ValueError, match="^evolve_at: must be numbers between commas"):
        run_node(node_class("NSEvolutionSearch"), evolve_at=text, first_share=0.5, elites=3, mutation=0.2, tournament=0.9)
