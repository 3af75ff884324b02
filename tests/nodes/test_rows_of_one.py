"""One latent with conditioning and a control hint of several rows: every candidate uses the first row, as core does."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.comfy

import torch
from sessions import relative

from noise_search.nodes.adapter.session import ComfySession
from noise_search.nodes.run.runner import graphs
from noise_search.search.base.budget import Budget
from noise_search.search.noise.recipe import Recipe
from toys import cond, empty_latent, guider, run_node, sampler, sigmas_for, stock, tiny_controlnet, tiny_unet


@pytest.mark.parametrize("hint_rows", [1, 3])
def test_candidates_use_the_first_row(hint_rows):
    model, latent = tiny_unet(), empty_latent("eps")
    sigmas = sigmas_for(model, steps=4)
    positive, negative = cond(model, 1, rows=3), cond(model, 2)
    if hint_rows > 1:
        hint = torch.rand(hint_rows, 64, 64, 3, generator=torch.Generator().manual_seed(0))
        applied = run_node("ControlNetApplyAdvanced", positive=positive, negative=negative, control_net=tiny_controlnet(),
                           image=hint, strength=1.0, start_percent=0.0, end_percent=1.0)  # fmt: skip
        positive, negative = applied[0], applied[1]
    g = guider(model, 3.0, positive, negative)
    (noise,) = run_node("RandomNoise", noise_seed=7)
    (graph,) = graphs(noise, g, sampler("euler"), sigmas, latent, None)
    session = ComfySession(graph, Budget(10))
    assert session.why_alone == []
    runs = [session.start(Recipe(seed, seed)) for seed in (7, 8, 9, 10)]
    session.advance(runs)
    for run, seed in zip(runs, (7, 8, 9, 10), strict=True):
        assert relative(run.latent, stock(g, seed, "euler", sigmas, latent)) < 1e-4
