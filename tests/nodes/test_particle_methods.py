"""FK steering, branching and rollover on toys, as ComfyUI runs them: exact costs, and copies that are made again."""

from __future__ import annotations

import json

import pytest

from inprocess import boot

pytestmark = pytest.mark.comfy

boot()

import comfy.samplers
import torch
from comfy.k_diffusion.sampling import sample_euler_ancestral
from searching import FarFrom, decoded, parts, render, search, search_with, stock_with
from sessions import relative

from noise_search.nodes.definitions.stochastic_sampler import NSStochasticSampler
from noise_search.search.lockstep.samplers import step_noise
from noise_search.search.methods.branching import BranchingSearch
from noise_search.search.methods.fk_steering import FKSteering
from noise_search.search.methods.rollover import RolloverSearch
from toys import counted, run_node

STEPS, BUDGET = 8, 6
STOCHASTIC = ["euler_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde"]
KINDS = ["eps", "flow"]
FK = FKSteering(ess_threshold=1.0)


def searched(graph: dict, method, seed: int = 3, budget: int = BUDGET, **options):
    """Search away from the picture of the user's own seed, so that the winner is another."""
    verifier = FarFrom(decoded(graph, stock_with(graph, seed)))
    with counted() as made:
        got = search_with(graph, seed, method=method, budget=budget, verifier=verifier, **options)
    assert got.report["model_calls"] == made.rows
    return got


def copies(report: dict) -> list[dict]:
    return [c for c in report["candidates"] if json.loads(c["recipe"]).get("cuts")]


@pytest.mark.parametrize("sampler_name", STOCHASTIC)
@pytest.mark.parametrize("kind", KINDS)
def test_fk_steering_costs_k_runs(kind, sampler_name):
    """Copies answer their first call from the record of their parent's."""
    got = searched(parts(kind, sampler_name, steps=STEPS), FK)
    assert copies(got.report)
    assert got.report["model_calls"] == BUDGET * got.report["model_calls_per_image"]
    assert [c["status"] for c in got.report["candidates"]].count("finished") == BUDGET


@pytest.mark.parametrize("kind", KINDS)
def test_branching_costs_its_closed_form(kind):
    """T + L M b + (L - 1) a; euler_ancestral on a flow model calls a little below 1 at first: b is a call less there."""
    got = searched(parts(kind, "euler_ancestral", steps=STEPS), BranchingSearch(lineages=2, block=3))
    roots = [c for c in got.report["candidates"] if not json.loads(c["recipe"]).get("cuts")]
    lineage = json.loads(got.report["candidates"][-1]["recipe"])["cuts"][0]["sigma"]
    first = 0 if lineage == float(parts(kind, steps=STEPS)["sigmas"][0]) else 1
    children = sum(c["status"] == "finished" for c in copies(got.report)) // 2
    assert len(roots) == 2 and children >= 2
    assert got.report["model_calls"] == STEPS + 2 * children * (STEPS - 1 - first) + (1 + first) <= BUDGET * STEPS


@pytest.mark.parametrize("sampler_name", STOCHASTIC)
@pytest.mark.parametrize("masked", [False, True], ids=["", "mask"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", [FK, BranchingSearch(block=3), RolloverSearch(block=3)], ids=lambda m: m.name)
def test_a_copy_that_won_is_made_again(method, kind, masked, sampler_name):
    graph = parts(kind, sampler_name, steps=STEPS, masked=masked)
    for seed in range(3, 9):
        got = searched(graph, method, seed)
        if "cuts" in json.loads(got.recipe):
            break
    assert json.loads(got.recipe)["cuts"]
    again = stock_with(graph, got.noise, sigmas=got.sigmas)
    assert relative(got.latents["samples"], again) < 1e-4
    _, latent = render(graph, seed, got.recipe)
    assert relative(got.latents["samples"], latent["samples"]) < 1e-4
    assert relative(stock_with(graph, seed), got.latents["samples"]) > 1e-3  # and the test can tell


@pytest.mark.parametrize("method", [FK, BranchingSearch(), RolloverSearch()], ids=lambda m: m.name)
def test_samplers_without_noise_are_refused(method):
    with pytest.raises(ValueError, match=r"draws no noise .* 'renoise' to 1"):
        search("eps", "dpmpp_2m", method=method, budget=BUDGET)


@pytest.mark.parametrize("sampler_name", ["euler", "heun", "dpmpp_2m"])
@pytest.mark.parametrize("kind", KINDS)
def test_renoised_copies_work_with_any_sampler(kind, sampler_name):
    graph = parts(kind, sampler_name, steps=STEPS)
    got = searched(graph, FKSteering(ess_threshold=1.0, renoise=1, lam=50.0), budget=10)
    assert got.report["model_calls"] <= 10 * got.report["model_calls_per_image"]
    for copy in [c for c in copies(got.report) if c["status"] == "finished"][:2]:
        image, _ = render(graph, 3, copy["recipe"])
        assert torch.isfinite(image).all()
        cut = json.loads(copy["recipe"])["cuts"][-1]
        assert cut["renoise_to"] > cut["sigma"]


@pytest.mark.parametrize("settings", [("ddim", 0.5, 0.4, 2), ("ddim", 1.0, 0.4, 2), ("glass", 0.5, 0.4, 2)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_stochastic_sampler_in_a_search(kind, settings):
    transition, eta, rho, inner = settings
    (sampler,) = run_node(NSStochasticSampler, transition=transition, eta=eta, rho=rho, inner_steps=inner)
    graph = parts(kind, sampler, steps=STEPS)
    got = searched(graph, FK)
    calls = STEPS if transition == "ddim" else inner * (STEPS - 1) + 1
    assert got.report["model_calls_per_image"] == calls
    assert got.report["model_calls"] == BUDGET * calls
    assert relative(got.latents["samples"], stock_with(graph, got.noise, sigmas=got.sigmas)) < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_ddim_without_noise_is_euler(kind):
    (sampler,) = run_node(NSStochasticSampler, transition="ddim", eta=0.0, rho=0.4, inner_steps=2)
    assert relative(stock_with(parts(kind, sampler), 3), stock_with(parts(kind, "euler"), 3)) < 1e-5


def test_ddim_with_all_noise_is_ancestral_for_eps():
    """Given the same step noise: older cores draw it from the very seed of the first noise."""

    def ancestral(model, x, sigmas, extra_args=None, callback=None, disable=None):
        draw = step_noise(x, extra_args["seed"])
        return sample_euler_ancestral(model, x, sigmas, extra_args, callback, disable, noise_sampler=lambda s, t: draw())

    (sampler,) = run_node(NSStochasticSampler, transition="ddim", eta=1.0, rho=0.4, inner_steps=2)
    stock = comfy.samplers.KSAMPLER(ancestral)
    assert relative(stock_with(parts("eps", sampler), 3), stock_with(parts("eps", stock), 3)) < 1e-4
