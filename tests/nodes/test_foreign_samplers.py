"""Samplers of other packs: what calls they make is told by candidate 0, whatever module they are from."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.comfy

from inprocess import boot

boot()

import comfy.k_diffusion.sampling as sampling
import comfy.samplers
import comfy_extras.nodes_advanced_samplers as advanced
import torch
from foreign_samplers import FUNCTIONS, foreign
from remembered import keep_journals, remembered
from searching import decoded, parts, search_with, stock_with
from sessions import relative, session_for

from noise_search.nodes.adapter.sampler_traits import calls_every_step, is_core
from noise_search.search.base.budget import StopRules
from noise_search.search.methods.backtracking import BacktrackingSearch
from noise_search.search.methods.branching import BranchingSearch
from noise_search.search.methods.evolution import EvolutionSearch
from noise_search.search.methods.fk_steering import FKSteering
from noise_search.search.methods.halving import HalvingSearch
from noise_search.search.methods.path_search import PathSearch
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.methods.refinement import RefinementSearch
from noise_search.search.methods.rollover import RolloverSearch
from noise_search.search.noise.recipe import Recipe
from toynets import ToyNet
from toys import counted, guider, sampler, stock, toy_model

STEPS = 8
METHODS = {
    "random": RandomSearch(), "drafts": RandomSearch(draft_steps=4), "halving": HalvingSearch(),
    "fk": FKSteering(ess_threshold=1.0, lam=50.0, renoise=1), "refine": RefinementSearch(), "path": PathSearch(),
    "back": BacktrackingSearch(), "branch": BranchingSearch(renoise=1), "rollover": RolloverSearch(renoise=1),
    "evolution": EvolutionSearch(), "default": None,
}  # fmt: skip
OWN = "the sampler gives the model a 'transformer_options.{}' of each run's own"
PARTS = "the sampler calls the model on parts of the latent or at another size"
KINDS = {"blocks": "flow5d"}


def graph_of(name: str, *, masked: bool = False, steps: int = STEPS, **options) -> dict:
    return parts(KINDS.get(name, "eps"), foreign(name, **options), steps=steps, masked=masked)


def started(report: dict) -> list[dict]:
    return [candidate for candidate in report["candidates"] if candidate["model_calls"]]


@pytest.mark.parametrize("masked", [False, True], ids=["", "mask"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_candidates_equal_stock_runs(name, masked):
    """Also those that were suspended in the middle, and after runs turned out to differ."""
    if masked and name == "blocks":
        pytest.skip("ComfyUI's inpainting has the mask of the whole latent for a block of it")
    graph, seeds = graph_of(name, masked=masked), (5, 11, 42, 7)
    inputs = graph["guider"], graph["sampler"], graph["sigmas"], graph["latent_image"]
    want = [stock(inputs[0], seed, *inputs[1:]) for seed in seeds]
    for cut in (0.0, float(graph["sigmas"][3])):
        session = session_for(*inputs)
        runs = [session.start(Recipe(seed, seed)) for seed in seeds]
        session.leader = runs[0]
        if cut:
            session.advance(runs, cut)
            runs[2].close()
        session.advance([run for run in runs if run.alive])
        for run, expected in zip(runs, want, strict=True):
            assert not run.finished or relative(run.latent, expected) < 1e-4
        assert sum(run.finished for run in runs) >= 3


@pytest.mark.parametrize("made", [
    lambda: foreign("euler"),
    lambda: advanced.SamplerLCMUpscale.execute(1.0, -1, "bilinear").args[0],
    lambda: advanced.SamplerEulerCFGpp.execute("alternative").args[0],
], ids=["euler of another module", "LCMUpscale", "alternative EulerCFGpp"])  # fmt: skip
def test_a_sampler_of_any_module_is_advanced_in_waves_and_refined(made):
    graph = parts("eps", made(), steps=STEPS)
    with counted() as calls:
        report = search_with(graph, 3, method=RandomSearch(), budget=16).report
    assert calls.calls == STEPS and calls.rows == report["model_calls"] == 16 * STEPS
    assert report["one_by_one_because"] == report["notes"] == []
    report = search_with(graph, 3, method=RefinementSearch(), budget=4).report
    assert report["notes"] == [] and any("cuts" in c["recipe"] for c in report["candidates"])
    report = search_with(parts("eps", made(), steps=12), 3, budget=4).report
    assert report["method"]["name"] == "random search, then refinement search" and report["notes"] == []


@pytest.mark.parametrize("masked", [False, True], ids=["", "mask"])
@pytest.mark.parametrize("method", METHODS)
def test_a_sampler_that_calls_the_model_at_another_size(method, masked):
    """Such calls are no predictions of the picture, and no places to branch from."""
    graph = graph_of("sizes", masked=masked)
    with counted() as calls:
        got = search_with(graph, 3, method=METHODS[method], budget=6)
    assert calls.rows == got.report["model_calls"] <= 6 * (STEPS + 2) == 6 * got.report["model_calls_per_image"]
    assert len(started(got.report)) > 3 and got.report["one_by_one_because"] == []
    assert relative(got.latents["samples"], stock_with(graph, got.noise, sigmas=got.sigmas)) < 1e-4


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("frames", [1, 2, 3])
def test_a_sampler_that_goes_block_by_block(method, frames):
    """A run on its way has no picture of the whole, unless there is one block only; it says what keeps its calls apart."""
    graph = graph_of("blocks", frames=frames, steps=5)
    with counted() as calls:
        got = search_with(graph, 3, method=METHODS[method], budget=4)
    cost = {1: 3, 2: 2, 3: 1}[frames] * (5 + 1)
    assert calls.rows == got.report["model_calls"] <= 4 * cost == 4 * got.report["model_calls_per_image"]
    together = method in ("random", "halving")  # others may have no two runs that wait at one level
    assert got.report["one_by_one_because"] in ([OWN.format("block_state")], [OWN.format("block_state")] if together else [])
    if frames < 3 and method in ("halving", "fk", "refine", "path", "back", "branch", "rollover"):
        assert any("became random search" in note and PARTS in note for note in got.report["notes"])
        assert got.report["model_calls"] == 4 * cost
    assert relative(got.latents["samples"], stock_with(graph, got.noise, sigmas=got.sigmas)) < 1e-4


class Caching(ToyNet):
    """Has what ComfyUI's autoregressive sampler asks of a model."""

    def init_kv_caches(self, rows, tokens, device, dtype):
        return [{"k": torch.zeros(rows, tokens, device=device, dtype=dtype), "end": 0}]

    def init_crossattn_caches(self, rows, device, dtype):
        return [{}]


@pytest.mark.skipif(not hasattr(sampling, "sample_ar_video"), reason="this ComfyUI has no SamplerARVideo")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("frames", [1, 3])
def test_comfyui_s_own_autoregressive_sampler(method, frames):
    model = toy_model("flow5d")
    model.model.diffusion_model.__class__ = Caching
    graph = parts("flow5d", comfy.samplers.ksampler("ar_video", {"num_frame_per_block": frames}), steps=5, g=guider(model))
    with counted() as calls:
        got = search_with(graph, 3, method=METHODS[method], budget=5)
    assert calls.rows == got.report["model_calls"] <= 5 * {1: 18, 3: 6}[frames] == 5 * got.report["model_calls_per_image"]
    together = method in ("random", "halving")
    assert got.report["one_by_one_because"] in ([OWN.format("ar_state")], [OWN.format("ar_state")] if together else [])
    assert relative(got.latents["samples"], stock_with(graph, got.noise, sigmas=got.sigmas)) < 1e-4


@pytest.mark.parametrize("method", ["halving", "fk", "default"])
def test_a_sampler_that_enlarges_the_latent(method):
    graph = parts("eps", advanced.SamplerLCMUpscale.execute(2.0, -1, "bilinear").args[0], steps=STEPS)
    got = search_with(graph, 3, method=METHODS[method], budget=6)
    assert got.report["model_calls"] == 6 * STEPS and len(got.report["candidates"]) == 6
    assert got.latents["samples"].shape == (1, 4, 16, 16)
    assert relative(got.latents["samples"], stock_with(graph, got.noise)) < 1e-4
    assert method == "default" or any(PARTS in note for note in got.report["notes"])


@pytest.mark.parametrize("options", [{}, {"share": 0.9, "first": 0}, {"share": 0.5}, {"share": 1.3}], ids=str)
@pytest.mark.parametrize("name", ["lying", "churn"])
def test_halving_cuts_by_the_place_in_the_schedule(name, options):
    """A quarter of the steps, then half of them, whatever noise level the model is told; all of the budget is spent."""
    if name == "churn" and options:
        pytest.skip("it has no options")
    report = search_with(graph_of(name, **options), 3, method=HalvingSearch(), budget=8).report
    assert report["model_calls"] == 8 * STEPS and report["notes"] == []
    ends = sorted(candidate["model_calls"] for candidate in report["candidates"])
    assert ends == [2] * 8 + [4] * 4 + [STEPS] * 4


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["chooses", "settles"])
def test_runs_that_make_other_calls_end_the_belief_in_candidate_0_s(name, method):
    """From there one by one, under the budget, and it is said."""
    graph = graph_of(name)
    with counted() as calls:
        got = search_with(graph, 5, method=METHODS[method], budget=8)
    report = got.report
    assert calls.rows == report["model_calls"] <= 8 * report["model_calls_per_image"]
    if method == "random":
        assert any("go one by one from there" in note for note in report["notes"])
        assert len(report["one_by_one_because"]) == 1
        assert [c["status"] for c in report["candidates"]].count("finished") >= 3
    assert [c["status"] for c in report["candidates"]].count("cut off") <= 8
    assert relative(got.latents["samples"], stock_with(graph, got.noise, sigmas=got.sigmas)) < 1e-4


def test_candidate_0_may_be_the_cheapest():
    """All others take more calls than it: the budget is eight times its own."""
    graph = graph_of("settles")
    firsts = {seed: float(stock_with(graph, seed).flatten()[0]) for seed in range(12)}
    seed = next(seed for seed, first in firsts.items() if first > 0)
    with counted() as calls:
        report = search_with(graph, seed, method=RandomSearch(), budget=8).report
    assert report["model_calls_per_image"] == STEPS - 2
    assert calls.rows == report["model_calls"] <= 8 * (STEPS - 2)


def test_limits_and_batching_off_with_a_foreign_sampler():
    graph = graph_of("euler")
    report = search_with(graph, 3, method=HalvingSearch(), budget=8, limits=StopRules(max_model_calls=40)).report
    assert report["model_calls"] <= 40
    report = search_with(graph, 3, method=RandomSearch(), budget=6, batching="off").report
    assert report["one_by_one_because"] == ["batching is off"] and report["model_calls"] == 6 * STEPS


def test_the_report_says_why_an_adaptive_sampler_goes_one_by_one():
    report = search_with(parts("eps", "dpm_adaptive", steps=STEPS), 3, method=RandomSearch(), budget=3).report
    assert len(report["one_by_one_because"]) == 1 and "step sizes" in report["one_by_one_because"][0]


def test_the_default_drops_no_reason():
    report = search_with(parts("eps", "dpm_adaptive", steps=12), 3, budget=8).report
    assert report["method"]["name"] == "draft search"
    assert any("draft search was chosen" in n and "details cannot be refined (the sampler chooses" in n for n in report["notes"])
    report = search_with(graph_of("churn", steps=12), 3, budget=4).report
    assert any("refinement search became random search" in note for note in report["notes"])


def test_pictures_of_a_look_are_of_the_whole_latent():
    """After a call at another size, a look shows what the last call on the whole latent promised."""
    graph = graph_of("sizes", masked=True)
    inputs = graph["guider"], graph["sampler"], graph["sigmas"], graph["latent_image"]
    session = session_for(*inputs)
    run = session.start(Recipe(5, 5))
    session.advance([run], float(graph["sigmas"][2]))
    assert run.odd == [2, 4] and run.latent.shape == graph["latent_image"]["samples"].shape
    half = run.latent.shape[-1] // 2
    assert relative(run.latent[..., half:], graph["latent_image"]["samples"][..., half:]) < 1e-6
    assert decoded(graph, run.latent).shape == decoded(graph, graph["latent_image"]["samples"]).shape
    run.close()


@pytest.mark.parametrize("method", ["random", "halving", "default"])
@pytest.mark.parametrize("name", ["lying", "sizes", "blocks", "chooses", "settles"])
def test_a_second_search_recalls_what_a_foreign_sampler_made(name, method, tmp_path, monkeypatch):
    """The same candidates, scores, notes and counts; no model call but those of a run that was cut off."""
    keep_journals(tmp_path, monkeypatch)
    graph = graph_of(name)
    first = remembered(graph, 3, method=METHODS[method], budget=6).report
    with counted() as calls:
        again = remembered(graph, 3, method=METHODS[method], budget=6).report
    unfinished = sum(c["model_calls"] for c in first["candidates"] if c["status"] == "cut off")
    assert calls.rows <= unfinished and again["model_calls"] == first["model_calls"]
    assert again["candidates"] == first["candidates"] and again["notes"] == first["notes"]


@pytest.mark.parametrize("name", comfy.samplers.SAMPLER_NAMES)
def test_the_calls_of_comfyui_s_own_samplers_are_known_beforehand(name):
    """So that candidate 0 need not go first in a search that looks half-way."""
    other = name in ("dpm_fast", "dpm_adaptive")
    assert calls_every_step(sampler(name)) is not other and is_core(sampler(name))
    assert not is_core(foreign("euler")) and not calls_every_step(foreign("euler"))


def test_halving_with_a_known_sampler_advances_all_together():
    graph = parts("eps", "euler", steps=STEPS)
    with counted() as calls:
        search_with(graph, 3, method=HalvingSearch(), budget=8)
    assert calls.rows_of == [16, 16, 8, 8, 4, 4, 4, 4]


@pytest.mark.parametrize("name", ["euler", "heun", "dpmpp_sde", "heunpp2", "seeds_3"])
def test_halving_with_a_known_sampler_is_within_what_candidate_0_takes_at_least(name):
    """Samplers of one to three calls a step: none is held back before candidate 0 ended."""
    with counted() as calls:
        report = search_with(parts("eps", name, steps=STEPS), 3, method=HalvingSearch(), budget=8).report
    assert report["notes"] == [] and {c["status"] for c in report["candidates"]} == {"finished", "pruned"}
    assert calls.rows_of[0] == 16 and report["model_calls"] <= 8 * report["model_calls_per_image"]
