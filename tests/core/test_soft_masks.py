"""Soft masks on models that keep the latent around them in a way of their own: branches start where their parents were."""

from __future__ import annotations

import inspect

import pytest

pytestmark = pytest.mark.comfy

from inprocess import boot

boot()

import comfy.latent_formats
import comfy.model_base
import torch
from comfy_extras.nodes_differential_diffusion import DifferentialDiffusion
from searching import render, search_with, stock_with
from sessions import relative, session_for

from noise_search.search.methods.fk_steering import FKSteering
from noise_search.search.methods.refinement import RefinementSearch
from noise_search.search.noise.recipe import BranchPoint, Recipe
from toynets import ToyNet
from toys import _config, _patcher, counted, guider, sampler, sigmas_for, stock, toy_vae

STEPS = 8
# Classes of ComfyUI with a `scale_latent_inpaint` of their own, and BaseModel's: its noised latent.
KEEPERS = ("BaseModel", "LTXV", "WAN22", "HunyuanVideo", "HunyuanVideoI2V", "CosmosVideo", "CosmosPredict2")
EDGES = ("soft", "faint", "hard")


class Given:
    """A NOISE."""

    def __init__(self, noise: torch.Tensor, seed: int) -> None:
        self.noise, self.seed = noise, seed

    def generate_noise(self, latent):
        return self.noise


def model_of(name: str):
    """A toy video model that keeps the latent as a class of ComfyUI does, with that class's kind of sampling."""
    cls = getattr(comfy.model_base, name)
    kind = inspect.signature(cls.__init__).parameters["model_type"].default
    kept = {n: vars(c)[n] for c in reversed(cls.__mro__) for n in ("scale_latent_inpaint",) if n in vars(c)}
    if name == "HunyuanVideoI2V":  # it asks its parent class
        kept = {"scale_latent_inpaint": comfy.model_base.HunyuanVideo.scale_latent_inpaint}
    toy = type(name, (comfy.model_base.BaseModel,), {**kept, "__module__": "comfy.model_base"})
    sampling = {"shift": 3.0} if kind.name.startswith("FLOW") and kind.name != "FLOW_COSMOS" else {}
    config = _config(comfy.latent_formats.Wan21, {"in_channels": 16, "ndim": 5}, **sampling)
    return _patcher(toy(config, kind, device=torch.device("cpu"), unet_model=ToyNet))


def latent_of(edge: str) -> dict:
    generator = torch.Generator().manual_seed(7)
    mask = torch.ones(1, 1, 3, 8, 8)
    mask[:, :, 0] = {"soft": 0.3, "faint": 1e-3, "hard": 0.0}[edge]
    mask[:, :, 1, :, :4] = {"soft": 0.7, "faint": 0.5, "hard": 0.0}[edge]
    return {"samples": torch.randn(1, 16, 3, 8, 8, generator=generator), "noise_mask": mask}


def graph_of(name: str, sampler_name: str, edge: str = "soft") -> dict:
    model = model_of(name)
    return {
        "guider": guider(model), "sampler": sampler(sampler_name), "sigmas": sigmas_for(model, steps=STEPS),
        "latent_image": latent_of(edge), "vae": toy_vae("flow5d"),
    }  # fmt: skip


def left(graph: dict, step: int):
    """A session, and a run in it that was left at a step."""
    session = session_for(graph["guider"], graph["sampler"], graph["sigmas"], graph["latent_image"], batching="on")
    run = session.start(Recipe(5, 5), keep_records=True)
    session.advance([run], float(graph["sigmas"][step]))
    return session, run


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("name", KEEPERS)
def test_a_branch_starts_where_its_parent_was_left(name, edge):
    """The twin's first call is known from its parent's record, and it goes on as the uncut run."""
    graph = graph_of(name, "euler", edge)
    want = stock(graph["guider"], 5, graph["sampler"], graph["sigmas"], graph["latent_image"])
    for step in (0, 2, 5):
        session, run = left(graph, step)
        record = run.records[-1]
        twin = session.branch(record, BranchPoint(record.sigma, record.sigma, 1, 5), keep_records=True)
        with counted() as calls:
            session.advance([twin])
        assert relative(twin.records[0].x, record.x) < 1e-5
        assert calls.rows == STEPS - step - 1
        if name != "BaseModel" or edge == "hard":  # a noised soft edge is made of the noise that the run began with
            assert relative(twin.latent, want) < 1e-4
        alone = stock(graph["guider"], Given(twin.noise.cpu(), 5), graph["sampler"], twin.sigmas, graph["latent_image"])
        assert relative(twin.latent, alone) < 1e-4
        run.close()


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("name", KEEPERS)
def test_renoising_gives_a_run_unit_noise(name, edge):
    """What a branch's noise is made of is a Gaussian of variance one, however little of it a model call sees."""
    graph = graph_of(name, "euler", edge)
    session, run = left(graph, 4)
    record = run.records[-1]
    branch = session.branch(record, BranchPoint(record.sigma, float(graph["sigmas"][2]), 1, 5))
    session.advance([branch])
    assert 0.5 < float(branch.noise[:, :, 0].std()) < 2.0
    run.close()


@pytest.mark.parametrize("name", KEEPERS)
def test_fk_steering_spends_its_budget_and_no_more(name):
    """Copies cost nothing for the call that they share with their parent."""
    graph = graph_of(name, "euler_ancestral")
    with counted() as calls:
        got = search_with(graph, 3, method=FKSteering(ess_threshold=1.0, lam=50.0), budget=6, batching="on")
    assert calls.rows == got.report["model_calls"] == 6 * STEPS
    assert any("cuts" in c["recipe"] for c in got.report["candidates"])
    assert [c["status"] for c in got.report["candidates"]].count("finished") == 6


@pytest.mark.parametrize("name", KEEPERS)
def test_refined_pictures_are_stock_runs(name):
    graph = graph_of(name, "euler")
    got = search_with(graph, 3, method=RefinementSearch(), budget=4, batching="on")
    assert got.report["model_calls"] <= 4 * STEPS and len(got.report["candidates"]) > 4
    assert relative(got.latents["samples"], stock_with(graph, got.noise, sigmas=got.sigmas)) < 1e-4
    assert relative(render(graph, 3, got.recipe)[1]["samples"], got.latents["samples"]) < 1e-4


def test_a_mask_that_moves_with_the_noise_level():
    """Differential diffusion opens the mask by the run's own sigmas: a branch begins with its narrowest."""
    model = DifferentialDiffusion.execute(model_of("LTXV"), strength=1.0).args[0]
    graph = {**graph_of("LTXV", "euler_ancestral"), "guider": guider(model)}
    with counted() as calls:
        got = search_with(graph, 3, method=FKSteering(ess_threshold=1.0, lam=50.0), budget=6, batching="on")
    assert calls.rows == got.report["model_calls"] <= 6 * STEPS
    assert relative(got.latents["samples"], stock_with(graph, got.noise, sigmas=got.sigmas)) < 1e-4
