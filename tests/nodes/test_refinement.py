"""Refinement search, alone and after others, on toys as ComfyUI runs them: costs, winners, keep, limits, cancel, errors."""

from __future__ import annotations

import json
import math

import pytest

from inprocess import boot
from node_api import node_class

pytestmark = pytest.mark.comfy

boot()

import torch
from searching import Broken, FarFrom, at_call, decoded, interrupt, noise_of, parts, render, search_with, stock_with
from sessions import relative

from noise_search.nodes.definitions.conditioning import NSJitterConditioning
from noise_search.nodes.definitions.results import LEAVE_OUT, NSNoiseFromRecipe
from noise_search.nodes.definitions.verifiers.cascade import NSVerifierCascade
from noise_search.search.base.budget import StopRules
from noise_search.search.methods.chain import Chain
from noise_search.search.methods.draft_search import DraftSearch
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.methods.refinement import RefinementSearch
from noise_search.search.noise.proposals import JitterProposal
from noise_search.verifiers.composite.ensemble import Ensemble
from noise_search.verifiers.measures.guidance_gap import GuidanceGap
from noise_search.verifiers.measures.statistics import ImageStatistics
from toys import ToyVerifier, cond, counted, empty_latent, guider, run_node

REFINE = RefinementSearch()
METHODS = {"alone": REFINE, "draft": Chain(DraftSearch(), REFINE, 0.7), "random": Chain(RandomSearch(), REFINE, 0.7)}
STEPS, BUDGET = 12, 8
CALLS = {"euler": (12, 3), "dpmpp_2m": (12, 3), "uni_pc": (12, 3), "euler_ancestral": (12, 3), "dpmpp_2m_sde": (12, 3),
         "heun": (23, 5), "dpm_2": (23, 5), "seeds_3": (34, 7), "heunpp2": (33, 6), "res_multistep_cfg_pp": (12, 3)}  # fmt: skip


def cuts(candidate: dict) -> list:
    return json.loads(candidate["recipe"]).get("cuts", [])


def searched(graph, method, verifier=None, seed=3, budget=BUDGET, **options):
    """Search away from the picture of the user's own seed; the report's count of model calls is the true one."""
    far = verifier or FarFrom(decoded(graph, stock_with(graph, seed)))
    with counted() as made:
        got = search_with(graph, seed, method=method, budget=budget, verifier=far, **options)
    if isinstance(got.report, dict):
        assert got.report["model_calls"] == made.rows == sum(c["model_calls"] for c in got.report["candidates"])
        assert made.rows <= budget * got.report["model_calls_per_image"]
    return got


def assert_made_again(graph, got, seed=3):
    """By stock nodes from the noise and sigmas outputs, and from the recipe."""
    first = got.latents["samples"][:1]
    assert relative(first, stock_with(graph, got.noise, sigmas=got.sigmas)) < 1e-4
    image, latent = render(graph, seed, got.recipe)
    assert relative(first, latent["samples"]) < 1e-4 and relative(got.images[: len(image)], image) < 1e-4


@pytest.mark.parametrize("sampler_name", CALLS)
@pytest.mark.parametrize("kind", ["eps", "v", "flow"])
@pytest.mark.parametrize("method", METHODS)
def test_cost_and_winner(method, kind, sampler_name):
    graph = parts(kind, sampler_name, steps=STEPS)
    got = searched(graph, METHODS[method])
    report, (whole, child) = got.report, CALLS[sampler_name]
    children = [c for c in report["candidates"] if cuts(c)]
    before = report["model_calls"] - child * len(children)
    assert report["model_calls_per_image"] == whole and {c["model_calls"] for c in children} == {child}
    assert before == whole if method == "alone" else before <= round(0.7 * BUDGET) * whole
    assert len(children) == (BUDGET * whole - before) // child
    assert report["candidates"][0]["status"] == "finished" and report["notes"] == [] and report["stopped"] == ""
    assert (
        report["decodes"]
        == report["verifier_calls"]
        == sum(len(c["looks"]) + (c["status"] == "finished") for c in report["candidates"])
    )
    assert_made_again(graph, got)


@pytest.mark.parametrize("sampler_name", ["euler", "heun", "lcm", "dpmpp_2m_sde", "uni_pc"])
@pytest.mark.parametrize("part", ["leftover", "later", "img2img", "mask"])
@pytest.mark.parametrize("kind", ["eps", "flow", "flow5d"])
def test_parts_of_a_schedule_and_of_a_picture(kind, part, sampler_name):
    graph = parts(kind, sampler_name, steps=16, masked=part != "leftover")
    graph["sigmas"] = graph["sigmas"][{"leftover": slice(11), "mask": slice(None)}.get(part, slice(4, None))]
    if part == "img2img":
        del graph["latent_image"]["noise_mask"]
    noise = run_node("DisableNoise")[0] if part == "later" else 3
    got = searched(graph, REFINE, seed=noise)
    assert cuts({"recipe": got.recipe}) and got.report["notes"] == []
    assert got.sigmas.tolist() == graph["sigmas"][-len(got.sigmas) :].tolist()
    assert_made_again(graph, got, noise)


@pytest.mark.parametrize("steps", [3, 4, 5, 9])
@pytest.mark.parametrize("sampler_name", ["euler", "uni_pc", "dpmpp_3m_sde", "res_multistep", "heunpp2"])
def test_short_runs(sampler_name, steps):
    graph = parts("flow", sampler_name, steps=steps)
    got = searched(graph, REFINE)
    assert got.report["notes"] == [] and {len(cuts(c)) > 0 for c in got.report["candidates"][1:]} == {True}
    assert_made_again(graph, got)


def test_keep_returns_other_layouts_first():
    """The best of each run first in line; only then more branches of one; all in the order of the scores."""
    graph = parts("eps", steps=STEPS)
    for keep in (2, 4, 9):
        report = searched(graph, METHODS["random"], keep=keep).report
        by_index = {c["index"]: c for c in report["candidates"]}
        noises = {index: json.loads(by_index[index]["recipe"])["noise"] for index in report["order"]}
        best = list({noise: index for index, noise in reversed(noises.items())}.values())[::-1]
        best.sort(key=report["order"].index)
        wanted = best[:keep] + [index for index in report["order"] if index not in best][: max(0, keep - len(best))]
        assert report["kept"] == sorted(wanted, key=report["order"].index) and len(best) == 6


def test_a_batch_of_two():
    graph = parts("eps", steps=STEPS, latent=empty_latent("eps", batch=2))
    far = FarFrom(decoded(graph, stock_with(graph, 3)).mean(0, keepdim=True))
    got = searched(graph, REFINE, far, keep=2)
    assert all(cuts({"recipe": json.dumps(recipe)}) for recipe in json.loads(got.recipe))
    first = got.latents["samples"][[0, 2]]
    assert relative(first, stock_with(graph, got.noise, sigmas=got.sigmas)) < 1e-4
    assert relative(first, render(graph, 3, got.recipe)[1]["samples"]) < 1e-4


@pytest.mark.parametrize("same_noise", [False, True])
def test_a_jittered_winner_keeps_its_jitter(same_noise):
    graph, proposal = parts("eps", steps=STEPS), JitterProposal(cosine=0.6, same_noise=same_noise)
    got = searched(graph, Chain(RandomSearch(proposal), REFINE, 0.5))
    recipe = json.loads(got.recipe)
    assert recipe["cuts"] and recipe["jitter"]
    assert relative(got.images, render(graph, 3, got.recipe)[0]) < 1e-4
    model = graph["guider"].model_patcher
    (positive,) = run_node(NSJitterConditioning, conditioning=cond(model, 1), recipe=got.recipe)
    again = stock_with({**graph, "guider": guider(model, positive=positive)}, got.noise, sigmas=got.sigmas)
    assert relative(got.latents["samples"], again) < 1e-4


def test_the_noise_a_refined_winner_began_with():
    graph = parts("eps", steps=STEPS)
    got = searched(graph, METHODS["random"])
    with pytest.raises(ValueError, match="use 'Render Candidate'"):
        noise_of(got.recipe)
    (noise,) = run_node(NSNoiseFromRecipe, recipe=got.recipe, cuts=LEAVE_OUT)
    began = next(c for c in got.report["candidates"] if json.loads(c["recipe"]) == {**json.loads(got.recipe), "cuts": []} or
                 json.loads(c["recipe"]) == {k: v for k, v in json.loads(got.recipe).items() if k != "cuts"})  # fmt: skip
    again = render(graph, 3, began["recipe"])[1]["samples"]
    assert relative(again, stock_with(graph, noise)) < 1e-4 < relative(again, got.latents["samples"])


def test_a_verifier_of_first_model_calls_is_not_refined():
    report = search_with(parts("eps", steps=STEPS), 3, budget=BUDGET, verifier=GuidanceGap()).report
    assert report["method"]["name"] == "draft search" and not any(map(cuts, report["candidates"]))


@pytest.mark.parametrize("method", METHODS)
def test_ensembles_whose_order_changes(method):
    graph = parts("eps", steps=STEPS)
    verifier = Ensemble((ToyVerifier(), ImageStatistics(1, 0, 0, 0), ImageStatistics(0, 0, 1, 0)))
    got = searched(graph, METHODS[method], verifier, budget=14, keep=3)
    assert any(map(cuts, got.report["candidates"])) and not any("became" in note for note in got.report["notes"])
    assert got.report["order"][0] == got.report["best"]["index"] == got.report["kept"][0]
    assert_made_again(graph, got)


@pytest.mark.parametrize("method", METHODS)
def test_a_cascade_chooses_among_refined_ones(method):
    graph, sharp = parts("eps", steps=STEPS), ImageStatistics(1, 0, 0, 0)
    (verifier,) = run_node(NSVerifierCascade, cheap=ToyVerifier(), expensive=sharp, finalists=4, share=0.25)
    got = searched(graph, METHODS[method], verifier, keep=2, held_out=ToyVerifier())
    scores = got.report["cascade"]["scores"]
    assert "0" in scores and got.report["best"]["index"] == int(max(scores, key=scores.get)) == got.report["kept"][0]
    assert got.score == pytest.approx(sharp.score(got.images[:1]).item(), abs=1e-5)
    assert_made_again(graph, got)


@pytest.mark.parametrize("limit", [5, 13, 50, 90])
@pytest.mark.parametrize("method", METHODS)
def test_a_limit_of_model_calls(method, limit):
    graph = parts("eps", steps=STEPS)
    got = searched(graph, METHODS[method], budget=100, limits=StopRules(max_model_calls=limit))
    assert got.report["model_calls"] <= max(limit, STEPS) and got.report["stopped"]
    assert any(map(cuts, got.report["candidates"])) is (limit >= 15)
    assert got.report["budget"]["max_model_calls"] == limit
    assert_made_again(graph, got)


@pytest.mark.parametrize("method", METHODS)
def test_cancel_while_it_refines_keeps_the_best(method):
    graph = parts("eps", steps=STEPS)
    far = FarFrom(decoded(graph, stock_with(graph, 3)))
    with counted() as made:
        want = searched(graph, METHODS[method], far)
    with at_call(made.calls - 1, interrupt):
        got = search_with(graph, 3, method=METHODS[method], budget=BUDGET, verifier=far, on_cancel="keep best")
    assert got.report["stopped"].startswith("cancelled") and got.report["model_calls"] < want.report["model_calls"]
    assert any(cuts(c) for c in got.report["candidates"] if c["status"] == "finished")
    assert got.report["budget"]["images"] == BUDGET
    assert_made_again(graph, got)


@pytest.mark.parametrize("method", METHODS)
def test_children_that_the_verifier_fails_on_have_none(method):
    graph = parts("eps", steps=STEPS)
    own = decoded(graph, stock_with(graph, 3))
    verifier = Broken(lambda images: torch.full((len(images),), math.nan), lambda images: (images - own).abs().max() > 1e-4)
    got = searched(graph, METHODS[method], verifier, on_verifier_error="skip")
    assert got.report["best"]["index"] == 0 and {c["parent"] for c in got.report["candidates"] if cuts(c)} == {0}


def test_runs_that_go_alone_are_not_refined():
    graph = parts("eps", steps=STEPS)
    report = searched(graph, REFINE, batching="off").report
    assert report["notes"] == ["refinement search became random search at the same cost: batching is off"]
    assert search_with(graph, 3, budget=BUDGET, batching="off").report["method"]["name"] == "draft search"


def test_spectral_search_goes_on_from_any_method():
    """Its spec has 'levels' of its own."""
    inputs = {
        i.id: i.default for i in node_class("NSSpectralSearch").define_schema().inputs if i.id not in ("then", "then_after")
    }
    (spectral,) = run_node(node_class("NSSpectralSearch"), **inputs)
    report = searched(parts("eps", steps=STEPS), Chain(REFINE, spectral, 0.5)).report
    assert report["model_calls"] <= BUDGET * STEPS and any("moves" in json.loads(c["recipe"]) for c in report["candidates"])
