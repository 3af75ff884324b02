"""Conditioning jitter without ComfyUI: the maths, recipes with it, and the proposal."""

from __future__ import annotations

import json
import math

import pytest
import torch
from analytic import SEED, run

from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.methods.zero_order import ZeroOrderSearch
from noise_search.search.noise.jitter import Jitter, jitter_embedding
from noise_search.search.noise.proposals import AntitheticProposal, GaussianProposal, JitterProposal, NeighborProposal
from noise_search.search.noise.recipe import GIVEN, ZERO, BranchPoint, Move, Recipe, derived_seed

FULL = Recipe(5, 6, (Move("neighbor", 7, 0.95),), (BranchPoint(1.5, 2.5, 8, 9),), Jitter(2**64 - 1, 0.9))


def embedding(*shape, seed=1, dtype=torch.float32):
    return (3.0 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).to(dtype)


# The maths


@pytest.mark.parametrize("shape", [(1, 77, 64), (2, 5, 16), (1, 32), (40,), (1, 3, 4, 8)])
@pytest.mark.parametrize("cosine", [0.9, 0.0, -0.5, 0.9999, 1.0, -1.0])
def test_every_vector_keeps_its_norm_and_is_at_the_angle(shape, cosine):
    e = embedding(*shape, dtype=torch.float64)
    before = e.clone()
    out = jitter_embedding(e, 11, cosine)
    assert out.shape == e.shape and torch.equal(e, before)
    torch.testing.assert_close(out.norm(dim=-1), e.norm(dim=-1), rtol=1e-12, atol=0)
    wanted = torch.full(shape[:-1], cosine, dtype=torch.float64)
    torch.testing.assert_close((out * e).sum(-1) / e.norm(dim=-1) ** 2, wanted, rtol=0, atol=1e-12)


def test_the_direction_is_that_of_the_seeds_gaussian_across_the_vector():
    e = embedding(1, 6, 32, dtype=torch.float64)
    g = torch.randn((6, 32), generator=torch.Generator().manual_seed(11), dtype=torch.float64)
    rest = (jitter_embedding(e, 11, 0.8) - 0.8 * e) / e.norm(dim=-1, keepdim=True) / 0.6
    for token in range(6):
        u = e[0, token] / e[0, token].norm()
        w = g[token] - (g[token] @ u) * u
        torch.testing.assert_close(rest[0, token], w / w.norm(), rtol=0, atol=1e-12)
        assert abs(float(rest[0, token] @ u)) < 1e-14  # orthogonal


def test_tokens_and_seeds_are_independent_of_one_another():
    e = embedding(1, 1, 256, dtype=torch.float64).expand(1, 8, 256)
    across = [jitter_embedding(e, seed, 0.0)[0] for seed in (1, 2)]
    rows = torch.cat(across)
    rows = rows / rows.norm(dim=-1, keepdim=True)
    assert float((rows @ rows.T - torch.eye(16)).abs().max()) < 0.35  # 5 deviations of 1 / sqrt(256)
    assert torch.equal(jitter_embedding(e, 1, 0.0)[0], across[0])


def test_zero_vectors_stay_zero_and_numbers_stay_as_they_are():
    e = embedding(1, 4, 16)
    e[0, 2] = 0.0
    out = jitter_embedding(e, 3, 0.5)
    assert torch.equal(out[0, 2], torch.zeros(16)) and torch.isfinite(out).all()
    assert not torch.equal(out[0, 1], e[0, 1])
    assert torch.equal(jitter_embedding(embedding(4, 1), 3, 0.5), embedding(4, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_dtype_is_kept_and_the_inside_is_float64(dtype):
    e = embedding(1, 7, 64, dtype=dtype)
    out = jitter_embedding(e, 3, 0.9)
    assert out.dtype == dtype and out.device == e.device
    assert torch.equal(out, jitter_embedding(e.double(), 3, 0.9).to(dtype))


def test_a_row_does_not_depend_on_the_others():
    e = embedding(3, 5, 16)
    out = jitter_embedding(e, 3, 0.9)
    for row in range(3):
        assert torch.equal(out[row : row + 1], jitter_embedding(e[row : row + 1], 3, 0.9))


# Recipes


def test_there_and_back():
    assert Recipe.from_json(FULL.to_json()) == FULL
    assert json.loads(FULL.to_json())["jitter"] == {"seed": str(2**64 - 1), "cosine": 0.9}


def test_recipes_without_jitter_are_what_they_were():
    assert Recipe(1, 2).to_json() == '{"noise_search": 1, "noise": "1", "seed": "2"}'
    assert Recipe.from_json(Recipe(1, 2).to_json()).jitter is None


def test_moves_and_branches_keep_it():
    recipe = Recipe(1, 2, jitter=Jitter(3, 0.5))
    assert recipe.moved(Move("neighbor", 7, 0.95)).jitter == recipe.branched(BranchPoint(1.0, 1.0, 0, 1)).jitter == Jitter(3, 0.5)


def written(jitter):
    return json.dumps({**json.loads(Recipe(1, 2).to_json()), "jitter": jitter})


HOSTILE = {
    "null": (None, "'jitter' must be an object"), "list": ([], "'jitter' must be an object"), "text": ("0.9", "'jitter' must be"),
    "empty": ({}, "'cosine' must be a finite number, not None"), "no seed": ({"cosine": 0.9}, "'seed' must be a seed"),
    "bare seed": ({"seed": 5, "cosine": 0.9}, "'seed' must be a seed written as a string"),
    "big seed": ({"seed": str(2**64), "cosine": 0.9}, "below 2"), "no cosine": ({"seed": "5"}, "'cosine' must be"),
    "cosine text": ({"seed": "5", "cosine": "0.9"}, "'cosine' must be"),
    "cosine true": ({"seed": "5", "cosine": True}, "'cosine' must"),
    "cosine NaN": ({"seed": "5", "cosine": math.nan}, "'cosine' must be"),
    "cosine above 1": ({"seed": "5", "cosine": 1.01}, r"must be in \[-1, 1\], not 1.01"),
    "cosine below -1": ({"seed": "5", "cosine": -2}, r"must be in \[-1, 1\], not -2"),
    "long": ("x" * 50_000, "'jitter' must be"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_jitter_is_an_error_that_names_what(name):
    value, says = HOSTILE[name]
    with pytest.raises(ValueError, match=f"^recipe: .*{says}") as raised:
        Recipe.from_json(written(value))
    assert len(str(raised.value)) < 400


# The proposal


def test_noise_of_another_proposal_with_a_jitter_of_its_own():
    pivot = Recipe(5, 6, jitter=Jitter(1, 0.1))
    for inner in (None, NeighborProposal(0.8), AntitheticProposal()):
        got = [JitterProposal(inner, 0.7).propose(SEED, index, pivot) for index in (1, 2)]
        want = [(inner or GaussianProposal()).propose(SEED, index, pivot) for index in (1, 2)]
        assert [(g.start, g.seed, g.moves) for g in got] == [(w.start, w.seed, w.moves) for w in want]
        assert [g.jitter for g in got] == [Jitter(derived_seed(SEED, index, "jitter"), 0.7) for index in (1, 2)]


@pytest.mark.parametrize("start", [5, GIVEN, ZERO])
def test_the_same_noise(start):
    pivot = Recipe(start, 6, () if start == ZERO else (Move("neighbor", 7, 0.9),), (BranchPoint(1.0, 2.0, 3, 4),))
    got = JitterProposal(same_noise=True).propose(SEED, 3, pivot)
    assert (got.start, got.seed, got.moves, len(got.cuts)) == (pivot.start, pivot.seed, pivot.moves, 0)
    assert got.jitter == Jitter(derived_seed(SEED, 3, "jitter"), 0.9)


def test_closer_halves_both_angles():
    closer = JitterProposal(NeighborProposal(0.5), 0.5).closer()
    assert math.acos(closer.cosine) == pytest.approx(math.pi / 6)
    assert math.acos(closer.inner.cosine) == pytest.approx(math.pi / 6)
    assert JitterProposal(same_noise=True).closer().same_noise


@pytest.mark.parametrize(("given", "says"), [
    ({"cosine": 1.0}, "'cosine' must be in"), ({"cosine": -1.1}, "'cosine' must be in"),
    ({"cosine": math.nan}, "'cosine' must be in"),
    ({"inner": GaussianProposal(), "same_noise": True}, "'same_noise' keeps the noise"),
])  # fmt: skip
def test_settings_that_cannot_be_are_refused(given, says):
    with pytest.raises(ValueError, match=says):
        JitterProposal(**given)


def test_candidate_0_is_never_jittered_and_others_know_their_parent():
    search = run(RandomSearch(JitterProposal()), 5)
    assert [c.recipe.jitter is not None for c in search.candidates] == [False] + 4 * [True]
    assert [c.parent for c in search.candidates] == 5 * [None]
    search = run(RandomSearch(JitterProposal(same_noise=True)), 5)
    assert [c.parent for c in search.candidates] == [None, 0, 0, 0, 0]
    assert len({c.recipe.jitter for c in search.candidates}) == 5


def test_a_local_search_replaces_the_pivots_jitter():
    search = run(ZeroOrderSearch(neighbors=2, proposal=JitterProposal(NeighborProposal(0.8), 0.7)), 9)
    later = [c for c in search.candidates[1:] if c.parent not in (None, 0)]
    assert later and all(c.recipe.jitter == Jitter(derived_seed(SEED, c.index, "jitter"), 0.7) for c in later)
    for c in later:
        parent = search.candidates[c.parent].recipe
        assert c.recipe.moves[:-1] == parent.moves and parent.jitter != c.recipe.jitter
