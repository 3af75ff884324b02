"""Candidates' noise is drawn apart from the global random state, once, and is stock noise bit for bit."""

from __future__ import annotations

from collections import Counter

import pytest

from inprocess import boot

pytestmark = pytest.mark.comfy

boot()

import comfy.sample
import comfy_extras.nodes_custom_sampler as stock_nodes
import torch
from comfy.nested_tensor import NestedTensor
from searching import FarFrom, parts, search_with, simple_search
from sessions import session_for

from noise_search.nodes.adapter import candidate_noise
from noise_search.nodes.adapter import noise as noises
from noise_search.nodes.adapter.candidate_noise import CandidateNoise
from noise_search.nodes.adapter.graph import SamplingInputs
from noise_search.nodes.adapter.noise import can_draw_apart, draw, draw_apart, pack, recipe_noise
from noise_search.search.lockstep.rng import take_rng
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.methods.zero_order import ZeroOrderSearch
from noise_search.search.noise.moves import Move
from noise_search.search.noise.recipe import GIVEN, ZERO, Recipe
from toys import cond, empty_latent, guider, sampler, sigmas_for, toy_model, toy_vae

CPU = torch.device("cpu")


def like(*shape, dtype=torch.float32):
    return torch.zeros(shape, dtype=dtype)


LATENTS = {
    "a picture": {"samples": like(1, 4, 8, 8)},
    "large": {"samples": like(1, 16, 64, 64)},
    "odd": {"samples": like(3, 4, 7, 5)},
    "tiny": {"samples": like(1, 1, 3, 5)},  # below 16 numbers torch draws another way, and keeps one for later
    "one number": {"samples": like(1, 1, 1, 1)},
    "a video": {"samples": like(1, 16, 3, 6, 10)},
    "sound": {"samples": like(2, 64, 33)},
    "half": {"samples": like(1, 4, 8, 8, dtype=torch.float16)},
    "bfloat16": {"samples": like(2, 4, 5, 9, dtype=torch.bfloat16)},
    "double": {"samples": like(1, 4, 8, 8, dtype=torch.float64)},
    "not in order": {"samples": like(1, 8, 8, 4).permute(0, 3, 1, 2)},
    "channels last": {"samples": like(2, 4, 8, 8).to(memory_format=torch.channels_last)},
    "of a batch": {"samples": like(1, 4, 8, 8), "batch_index": [3]},
    "of a batch, twice": {"samples": like(4, 4, 5, 5), "batch_index": [2, 0, 2, 5]},
    "nested": {"samples": NestedTensor([like(1, 8, 4, 6, 6), like(1, 8, 5, 3)])},
    "nested, of a batch": {"samples": NestedTensor([like(2, 4, 3, 3), like(2, 8, 5)]), "batch_index": [1, 4]},
}
SEEDS = (0, 1, 5, 2**50 - 1, 2**63, 2**64 - 1)


class Signs:
    """A NOISE of +1 and -1."""

    def __init__(self, seed):
        self.seed = seed

    def generate_noise(self, input_latent):
        return noises.unpack_like(noises.draw_apart(input_latent, self.seed).noise.sign(), input_latent["samples"])


class Stirring(Signs):
    """One that leaves the global random state its own way."""

    def generate_noise(self, input_latent):
        out = super().generate_noise(input_latent)
        torch.manual_seed(self.seed // 2 + 1)
        return out


def state():
    return torch.get_rng_state()


@pytest.mark.parametrize("name", LATENTS)
def test_drawn_apart_it_is_stock_noise_bit_for_bit(name):
    latent = LATENTS[name]
    for seed in SEEDS:
        wanted = comfy.sample.prepare_noise(latent["samples"], seed, latent.get("batch_index"))
        left = state()
        torch.manual_seed(99)
        before = state()
        drawn = draw_apart(latent, seed)
        assert torch.equal(state(), before)
        assert torch.equal(drawn.noise, pack(wanted)) and drawn.noise.dtype == pack(wanted).dtype
        assert drawn.noise.stride() == pack(wanted).stride()
        assert torch.equal(drawn.state, left)


@pytest.mark.parametrize("name", ["prepare_noise", "prepare_noise_inner"])
def test_where_another_pack_draws_the_noise_its_function_is_asked(monkeypatch, name):
    latent, original = LATENTS["a picture"], getattr(comfy.sample, name)
    asked = []

    def other(*args):
        asked.append(args)
        return -original(*args)

    monkeypatch.setattr(comfy.sample, name, other)
    drawn = draw_apart(latent, 5)
    assert len(asked) == 1 and drawn.state is None
    assert torch.equal(drawn.noise, draw(latent, 5)) and not torch.equal(drawn.noise, torch.zeros_like(drawn.noise))


def test_a_core_that_draws_otherwise_is_found_out(monkeypatch):
    """A later ComfyUI may draw in another way in its own file."""
    monkeypatch.setattr(noises, "code_name", lambda one: ("comfy/sample.py", one.stands_for))

    def prepare(samples, seed, batch_index=None):
        return stock(samples, seed + 1, batch_index)

    def inner(*args):
        return stock_inner(*args)

    stock, stock_inner = comfy.sample.prepare_noise, comfy.sample.prepare_noise_inner
    prepare.stands_for, inner.stands_for = noises.STOCK
    before = state()
    monkeypatch.setattr(comfy.sample, "prepare_noise", prepare)
    monkeypatch.setattr(comfy.sample, "prepare_noise_inner", inner)
    assert not can_draw_apart()
    assert torch.equal(state(), before)


# Recipes

MOVES = (Move("neighbor", 7, 0.9), Move("box", 8, 0.5), Move("neighbor", 9, 0.8))
RECIPES = {
    "the user's": Recipe(3, 3), "fresh": Recipe(11, 11), "another step seed": Recipe(11, 12), "zero": Recipe(ZERO, 12),
    "given": Recipe(GIVEN, 3), "given, moved": Recipe(GIVEN, 3, MOVES), "moved": Recipe(3, 3, MOVES[:1]),
    "moved twice": Recipe(3, 3, MOVES[:2]), "moved often": Recipe(3, 3, MOVES),
    "its neighbor": Recipe(3, 3, (*MOVES[:2], MOVES[0])),
    "fresh, moved": Recipe(11, 11, MOVES), "connected": Recipe(11, 11, connected=True),
    "connected, other step seed": Recipe(11, 12, connected=True), "connected, moved": Recipe(11, 11, MOVES, connected=True),
}  # fmt: skip


@pytest.mark.parametrize("source", [stock_nodes.Noise_RandomNoise, Signs, Stirring])
@pytest.mark.parametrize("name", ["a picture", "of a batch, twice", "nested", "tiny"])
def test_noise_and_random_state_of_every_recipe_are_what_they_were(name, source):
    """As by the function that makes a NOISE of a recipe for stock nodes; asked in any order, and again."""
    latent, noise = LATENTS[name], source(3)
    given = noise.generate_noise(latent)
    left = take_rng(CPU)
    by_stock = noises.is_stock(noise, latent, pack(given))
    assert by_stock == (source is stock_nodes.Noise_RandomNoise)
    kept = CandidateNoise(SamplingInputs(None, None, None, latent, noise, given, left, None, by_stock=by_stock), CPU)
    for recipe in [*RECIPES.values(), *reversed(RECIPES.values())]:
        unmoved = recipe.start == GIVEN and not recipe.moves
        wanted = pack(given) if unmoved else recipe_noise(recipe, latent, pack(given), noise)
        after = left.cpu if unmoved else state()
        torch.manual_seed(99)
        assert torch.equal(kept.of(recipe), wanted), recipe
        assert torch.equal(state(), after), recipe


def test_a_run_starts_with_the_state_that_stock_leaves():
    g = guider(toy_model("eps"))
    session = session_for(g, sampler("euler"), sigmas_for(g.model_patcher), empty_latent("eps"), seed=3)
    for recipe in (Recipe(3, 3), Recipe(11, 11), Recipe(3, 3, MOVES)):
        run = session.start(recipe)
        comfy.sample.prepare_noise(session.graph.latent["samples"], recipe.seed)
        assert torch.equal(run._rng.cpu, state())


# How often


@pytest.fixture
def draws(monkeypatch):
    """Counts noises by how they are drawn: "global" through `torch.manual_seed`, or "apart"."""
    counts: Counter[str] = Counter()
    inner = comfy.sample.prepare_noise_inner

    def count_apart(samples, generator, batch_index=None):
        counts["global" if generator is torch.default_generator else "apart"] += 1
        return inner(samples, generator, batch_index)

    monkeypatch.setattr(comfy.sample, "prepare_noise_inner", count_apart)
    monkeypatch.setattr(noises, "can_draw_apart", lambda: True)
    monkeypatch.setattr(candidate_noise, "can_draw_apart", lambda: True)
    return counts


def test_the_user_s_noise_is_drawn_once(draws):
    graph = parts("eps")
    reference = torch.zeros(1, 16, 16, 3)
    search_with(graph, 5, budget=1, verifier=FarFrom(reference), method=RandomSearch())
    assert draws == {"global": 1}
    draws.clear()
    model, latent = toy_model("eps"), empty_latent("eps")
    simple_search(
        model,
        latent,
        toy_vae(),
        cond(model, 1),
        cond(model, 2),
        seed=5,
        budget=1,
        verifier=FarFrom(reference),
        method=RandomSearch(),
    )
    assert draws == {"global": 1}


def test_other_candidates_are_drawn_once_each_and_apart(draws):
    graph, reference = parts("eps"), torch.zeros(1, 16, 16, 3)
    search_with(graph, 5, budget=9, verifier=FarFrom(reference), method=RandomSearch())
    assert draws == {"global": 1, "apart": 8}


def test_a_local_search_draws_one_noise_for_a_candidate(draws):
    """Beside it each pivot but the user's own once more; all share their step seed, whose state is at hand."""
    graph, reference = parts("eps"), torch.zeros(1, 16, 16, 3)
    got = search_with(graph, 5, budget=25, verifier=FarFrom(reference), method=ZeroOrderSearch(3, 0.9))
    recipes = [Recipe.from_json(c["recipe"]) for c in got.report["candidates"]]
    depths = [len(recipe.moves) for recipe in recipes]
    pivots = {recipe.moves.before for recipe in recipes[1:]} - {Recipe(5, 5).moves}
    assert max(depths) >= 3 and len(pivots) >= 3
    assert draws == {"global": 1, "apart": 24 + len(pivots)}
