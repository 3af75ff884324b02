"""Path, backtracking and refinement search on toys, as ComfyUI runs them: exact costs, branched winners made again."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from inprocess import boot
from node_api import node_class

pytestmark = pytest.mark.comfy

boot()

import torch
from searching import FarFrom, decoded, noise_of, parts, render, search_with, stock_with
from sessions import relative

from noise_search.search.lockstep.noise_scaling import coefficients
from noise_search.search.methods.backtracking import BacktrackingSearch
from noise_search.search.methods.chain import Chain
from noise_search.search.methods.halving import HalvingSearch
from noise_search.search.methods.path_search import PathSearch
from noise_search.search.methods.refinement import RefinementSearch
from toys import counted, run_node

STEPS = 12
SAMPLERS = ["euler", "heun", "dpmpp_2m", "euler_ancestral"]
KINDS = ["eps", "flow"]
PATHS = {"paper": PathSearch(), "small loops": PathSearch(start=0.5, forward=0.3, backward=0.4)}
BACK = BacktrackingSearch(threshold=1e9, checkpoints=3, back=2, max_back=4)  # goes back wherever it can
METHODS = {**PATHS, "back": BACK, "refine": RefinementSearch()}
BUDGET = 14


def shares(graph: dict) -> list[float]:
    """Noise share of every level, by the model's own way of adding noise."""
    sampling = graph["guider"].model_patcher.get_model_object("model_sampling")
    pairs = [coefficients(sampling, sigma, torch.zeros(1)) for sigma in graph["sigmas"]]
    return [scale / (alpha + scale) for alpha, scale in pairs]


def calls_at(name: str) -> list[int]:
    """Model calls of a full run at each of its noise levels: Heun's second call of a step is at the next one."""
    return [1, *[2 if name == "heun" else 1] * (STEPS - 1)]


def step_of(graph: dict, sigma: float) -> int:
    return int((graph["sigmas"] - sigma).abs().argmin())


def cuts_of(graph: dict, candidate: dict) -> list[tuple[int, int]]:
    """Steps of the cuts of a recipe: where it left, where it started."""
    cuts = json.loads(candidate["recipe"]).get("cuts", [])
    return [(step_of(graph, cut["sigma"]), step_of(graph, cut["renoise_to"])) for cut in cuts]


def searched(graph: dict, method, seed: int = 3, budget: int = BUDGET, **options):
    """Search away from the picture of the user's own seed, so that the winner is another."""
    verifier = FarFrom(decoded(graph, stock_with(graph, seed)))
    return search_with(graph, seed, method=method, budget=budget, verifier=verifier, **options)


@pytest.mark.parametrize("sampler_name", SAMPLERS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", PATHS)
def test_path_search_costs_the_closed_form(method, kind, sampler_name):
    graph, calls = parts(kind, sampler_name, steps=STEPS), calls_at(sampler_name)
    with counted() as made:
        report = search_with(graph, 3, method=PATHS[method], budget=BUDGET).report
    loops = PATHS[method].loops(shares(graph))
    made_by = Counter(len(cuts_of(graph, c)) for c in report["candidates"])
    wanted = sum(calls) + (made_by[0] - 1) * sum(calls[: loops[0].cut + 1])
    for number, (_, up, down) in enumerate(loops, start=1):
        wanted += made_by[number] * (1 + sum(calls[up + 1 : down + 1]))
    assert sorted(made_by) == list(range(len(loops) + 1))
    assert {made_by[number] for number in made_by if number} == {made_by[1]} and made_by[1] in range(4, 40, 2)
    assert report["model_calls"] == made.rows == wanted <= BUDGET * sum(calls)
    assert report["model_calls_per_image"] == sum(calls) and report["notes"] == [] and report["stopped"] == ""
    for candidate in report["candidates"]:
        assert cuts_of(graph, candidate) == [loop[:2] for loop in loops][: len(cuts_of(graph, candidate))]


@pytest.mark.parametrize("sampler_name", SAMPLERS)
@pytest.mark.parametrize("kind", KINDS)
def test_backtracking_costs_the_closed_form(kind, sampler_name):
    graph, calls = parts(kind, sampler_name, steps=STEPS), calls_at(sampler_name)
    with counted() as made:
        report = search_with(graph, 3, method=BACK, budget=BUDGET).report
    cuts = [cuts_of(graph, c) for c in report["candidates"]]
    ends = [c for c in report["candidates"] if c["status"] == "finished"]
    left = [cuts_of(graph, c)[0][0] for c in ends[1:] if json.loads(c["recipe"])["noise"] == "3"]
    retries = [own[-1] for own in cuts if own]
    wanted = cuts.count([]) * sum(calls) + sum(1 + sum(calls[up + 1 : mark + 1]) for mark, up in retries)
    wanted += sum(sum(calls[mark + 1 :]) for mark in left)
    assert len(left) <= 1 and len(retries) > 4 and {mark for mark, _ in retries} <= {3, 6, 9}
    assert report["model_calls"] == made.rows == wanted <= BUDGET * sum(calls)
    assert {c["status"] for c in report["candidates"]} == {"finished", "pruned"}


@pytest.mark.parametrize("sampler_name", [*SAMPLERS, "heunpp2"])  # heunpp2 comes back up to levels it was below
@pytest.mark.parametrize("masked", [False, True], ids=["", "mask"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_a_winner_that_branched_is_made_again(method, kind, masked, sampler_name):
    graph = parts(kind, sampler_name, steps=STEPS, masked=masked)
    got = searched(graph, METHODS[method], budget=9)
    assert json.loads(got.recipe)["cuts"] and got.report["best"]["index"] > 0 and got.score > 1e-3
    assert got.sigmas.tolist() == graph["sigmas"][step_of(graph, float(got.sigmas[0])) :].tolist()
    assert 2 <= len(got.sigmas) < len(graph["sigmas"]) + (got.sigmas[0] == graph["sigmas"][0])
    assert relative(got.latents["samples"], stock_with(graph, got.noise, sigmas=got.sigmas)) < 1e-4
    image, latent = render(graph, 3, got.recipe)
    assert relative(got.latents["samples"], latent["samples"]) < 1e-4
    assert relative(got.images, image) < 1e-4
    assert relative(stock_with(graph, 3), got.latents["samples"]) > 1e-3  # and the test can tell
    with pytest.raises(ValueError, match="use 'Render Candidate'"):
        noise_of(got.recipe)


@pytest.mark.parametrize("method", METHODS)
def test_any_candidate_of_the_report_can_be_rendered(method):
    graph = parts("eps", "euler", steps=STEPS)
    got = searched(graph, METHODS[method], keep=3)
    ends = {c["index"]: c for c in got.report["candidates"] if c["status"] == "finished"}
    for row, index in enumerate(got.report["kept"]):
        _, latent = render(graph, 3, ends[index]["recipe"])
        assert relative(got.latents["samples"][row : row + 1], latent["samples"]) < 1e-4


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sampler_name", ["dpm_adaptive", "dpm_fast"])
def test_a_sampler_that_chooses_its_steps_is_searched_at_random(sampler_name, method):
    graph = parts("eps", sampler_name, steps=STEPS)
    report = search_with(graph, 3, method=METHODS[method], budget=3).report
    assert len(report["candidates"]) == 3 and "became random search at the same cost" in report["notes"][0]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sampler_name", ["dpm_2", "dpmpp_sde", "uni_pc", "lcm", "heunpp2", "dpmpp_3m_sde", "ddim"])
def test_other_samplers_stay_within_the_budget(sampler_name, method):
    graph = parts("eps", sampler_name, steps=STEPS)
    with counted() as made:
        report = search_with(graph, 3, method=METHODS[method], budget=BUDGET).report
    assert report["model_calls"] == made.rows <= BUDGET * report["model_calls_per_image"]
    assert "cut off" not in {c["status"] for c in report["candidates"]}
    assert report["notes"] == [] and any(cuts_of(graph, c) for c in report["candidates"])


@pytest.mark.parametrize("method", METHODS)
def test_a_chain_in_either_order(method):
    graph = parts("flow", "euler", steps=STEPS)
    for chain in (Chain(HalvingSearch(), METHODS[method]), Chain(METHODS[method], HalvingSearch())):
        report = searched(graph, chain).report
        assert report["model_calls"] <= BUDGET * STEPS and "cut off" not in {c["status"] for c in report["candidates"]}
        assert any(cuts_of(graph, c) for c in report["candidates"])


@pytest.mark.parametrize("method", METHODS)
def test_a_first_stage_is_searched_at_random_and_a_second_one_is_not(method):
    """Paths need low noise levels: the first half of the sigmas has none."""
    whole = parts("flow", "euler", steps=2 * STEPS)["sigmas"]
    first = search_with(parts("flow", "euler", sigmas=whole[: STEPS + 1]), 3, method=METHODS[method], budget=4).report
    second = searched(parts("flow", "euler", sigmas=whole[STEPS:], masked=True), METHODS[method]).report
    assert (first["notes"] == []) is (method in ("back", "refine"))
    assert second["notes"] == [] and any("cuts" in json.loads(c["recipe"]) for c in second["candidates"])


# The nodes


def test_nodes_make_the_methods_of_the_paper():
    path, backtracking = node_class("NSPathSearch"), node_class("NSBacktrackingSearch")
    assert run_node(path, survivors=2, branches=0, start=0.11, forward=0.78, backward=0.81)[0] == PathSearch()
    given = {"checkpoints": 4, "min_gain": 0.0, "retries": 2, "back": 2, "max_back": 8}
    assert run_node(backtracking, **given)[0] == BacktrackingSearch()
    assert run_node(backtracking, **given, threshold=0.0)[0].threshold is None
    assert run_node(backtracking, **given, threshold=0.4)[0].threshold == 0.4


@pytest.mark.parametrize(("node", "spec"), [("NSPathSearch", PathSearch()), ("NSBacktrackingSearch", BacktrackingSearch())])
def test_node_defaults_are_the_spec_s_and_every_input_has_a_tooltip(node, spec):
    node = node_class(node)
    for item in node.define_schema().inputs:
        assert item.tooltip
        if item.id not in ("proposal", "then", "then_after", "threshold"):
            assert item.default == getattr(spec, item.id)
    then = HalvingSearch()
    inputs = {i.id: i.default for i in node.define_schema().inputs if i.id not in ("proposal", "then", "then_after")}
    assert run_node(node, **inputs, then=then, then_after=0.3)[0] == Chain(spec, then, 0.3)
