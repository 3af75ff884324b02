"""Every candidate of a lockstep batch is a stock run: for every sampler, masked or not, suspended or not."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.comfy

import torch
from sessions import relative, session_for

from noise_search.search.noise.recipe import Recipe
from toys import counted, empty_latent, guider, mask, sampler, sigmas_for, stock, toy_model

import comfy.samplers  # isort: skip  # ComfyUI is set up by the imports above

SEEDS = (5, 11, 2**64 - 2, 42)  # one more overflows in ComfyUI itself: some samplers add 1
ADAPTIVE = {"dpm_adaptive"}


def latent_for(kind: str, masked: bool, batch: int = 1):
    latent = empty_latent(kind, batch)
    generator = torch.Generator().manual_seed(7)
    if masked:
        channels = 16 if kind == "flow" else latent["samples"].shape[1]
        shape = (batch, channels, *latent["samples"].shape[2:])
        latent["samples"] = torch.randn(shape, generator=generator)
        latent["noise_mask"] = mask(latent)
    return latent


@pytest.mark.parametrize("masked", [False, True], ids=["", "mask"])
@pytest.mark.parametrize("kind", ["eps", "flow"])
@pytest.mark.parametrize("name", comfy.samplers.SAMPLER_NAMES)
def test_candidates_equal_stock_runs(name, kind, masked):
    """Also when suspended after the third of six steps, pruned around, and resumed in a second guider.sample."""
    model = toy_model(kind)
    g, smp, latent = guider(model), sampler(name), latent_for(kind, masked)
    sigmas = sigmas_for(model, steps=6)
    want = [stock(g, seed, smp, sigmas, latent) for seed in SEEDS]
    session = session_for(g, smp, sigmas, latent)
    assert session.why_alone == []

    runs = [session.start(Recipe(seed, seed)) for seed in SEEDS]
    session.advance(runs)
    for run, expected in zip(runs, want, strict=True):
        assert relative(run.latent, expected) < 1e-4

    session = session_for(g, smp, sigmas, latent)
    runs = [session.start(Recipe(seed, seed)) for seed in SEEDS]
    session.advance(runs, float(sigmas[2]))
    for dropped in (runs[0], runs[2]):
        dropped.close()
    session.advance([runs[1], runs[3]])
    assert relative(runs[1].latent, want[1]) < 1e-4
    assert relative(runs[3].latent, want[3]) < 1e-4


@pytest.mark.parametrize("name", sorted(set(comfy.samplers.SAMPLER_NAMES) - ADAPTIVE))
def test_model_calls_are_those_of_stock_runs(name):
    model = toy_model("eps")
    g, latent, sigmas = guider(model), empty_latent("eps"), sigmas_for(model, steps=6)
    with counted() as alone:
        stock(g, 3, name, sigmas, latent)
    session = session_for(g, sampler(name), sigmas, latent)
    runs = [session.start(Recipe(seed, seed)) for seed in SEEDS]
    with counted() as calls:
        session.advance(runs)
    assert calls.rows == 4 * alone.rows == session.budget.nfe
    assert calls.calls == alone.calls  # four candidates in as many calls as one
