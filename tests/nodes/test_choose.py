"""The input `choose`: another candidate comes out in the place of the best."""

from __future__ import annotations

import pytest
import torch

pytestmark = pytest.mark.comfy

from searching import decoded, noise_of, parts, search_with, stock_with
from sessions import relative

from noise_search.search.methods.halving import HalvingSearch


def test_a_chosen_candidate_comes_out_as_stock_nodes_render_it():
    graph = parts("flow")
    plain = search_with(graph, 3, budget=6, keep=3)
    third = plain.report["order"][3]
    recipe = plain.report["candidates"][third]["recipe"]
    chosen = search_with(graph, 3, budget=6, keep=3, choose=recipe)
    assert chosen.report["kept"] == [third, *plain.report["kept"][:2]]
    assert (chosen.report["chosen"], plain.report["chosen"]) == (third, None)
    assert chosen.report["best"] == plain.report["best"]
    assert chosen.score == plain.report["candidates"][third]["score"]
    assert chosen.recipe == recipe
    assert torch.equal(chosen.images[1:], plain.images[:2])
    want = stock_with(graph, chosen.noise)
    assert relative(chosen.latents["samples"][:1], want) < 1e-5
    assert torch.equal(noise_of(recipe).generate_noise(graph["latent_image"]), chosen.noise.generate_noise(graph["latent_image"]))
    assert relative(chosen.images[:1], decoded(graph, want)) < 1e-5


def test_a_pruned_candidate_that_is_chosen_is_rendered_in_full():
    graph = parts("eps")
    plain = search_with(graph, 3, budget=8, method=HalvingSearch())
    pruned = next(c for c in plain.report["candidates"] if c["status"] == "pruned")
    chosen = search_with(graph, 3, budget=8, method=HalvingSearch(), choose=pruned["recipe"])
    assert chosen.report["model_calls"] == plain.report["model_calls"] + 6
    assert chosen.report["kept"] == [pruned["index"]]
    assert relative(chosen.latents["samples"], stock_with(graph, noise_of(pruned["recipe"]))) < 1e-5


def test_a_chosen_candidate_whose_latent_was_dropped_is_rendered_again_and_that_is_said():
    graph = parts("eps")
    plain = search_with(graph, 3, budget=16)
    last = plain.report["order"][-1]
    recipe = plain.report["candidates"][last]["recipe"]
    chosen = search_with(graph, 3, budget=16, choose=recipe)
    assert chosen.report["kept"] == [last] and chosen.report["model_calls"] == plain.report["model_calls"] == 16 * 6
    assert any(note.startswith("6 model calls beside the budget rendered candidates again") for note in chosen.report["notes"])
    assert not any("rendered candidates again" in note for note in plain.report["notes"])
    assert relative(chosen.latents["samples"], stock_with(graph, noise_of(recipe))) < 1e-5


def test_a_recipe_of_another_search_leaves_the_best():
    graph = parts("eps")
    plain = search_with(graph, 3, budget=4)
    other = search_with(graph, 4, budget=4, choose=plain.report["candidates"][2]["recipe"])
    assert other.report["chosen"] is None
    assert other.report["kept"] == other.report["order"][:1]
    assert any(note.startswith("choose: that recipe is of no candidate") for note in other.report["notes"])


@pytest.mark.parametrize("text", ["12", "{}", "[]", '{"noise_search": 1, "noise": "x", "seed": "1"}', "x" * 200_000])
def test_what_is_no_recipe_is_refused_before_anything_runs(text, monkeypatch):
    import comfy.samplers

    monkeypatch.setattr(comfy.samplers.CFGGuider, "sample", None)  # nothing may run
    with pytest.raises(ValueError, match="^choose: it must be empty, for the best, or a candidate's recipe; "):
        search_with(parts("eps"), 3, choose=text)
