"""Noises that others are built upon are kept: the same noise, drawn once, within a number of bytes."""

from __future__ import annotations

import hashlib
import json
import random

import pytest
import torch

from noise_search.search.journal.journal import entry_name
from noise_search.search.noise.bounded_cache import BoundedCache
from noise_search.search.noise.jitter import Jitter
from noise_search.search.noise.moves import Ancestor, Move
from noise_search.search.noise.proposals import (
    BoxProposal,
    EliteProposal,
    LowFrequencyProposal,
    NeighborProposal,
    OrthogonalProposal,
)
from noise_search.search.noise.recipe import GIVEN, BranchPoint, Recipe, derived_seed, make_noise

SHAPE = (1, 4, 16, 16)
BYTES = 4 * 4 * 16 * 16


class Draws:
    """Draws noise, and keeps the seeds that were asked for."""

    def __init__(self) -> None:
        self.seeds: list[int] = []

    def __call__(self, seed: int) -> torch.Tensor:
        self.seeds.append(seed)
        return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def steps(proposal, start=5, count=40):
    """Recipes of a search that moves its pivot after every third candidate."""
    pivot, made = Recipe(start, 5), []
    for index in range(1, count):
        made.append(proposal.propose(1, index, pivot))
        if index % 3 == 0:
            pivot = random.Random(index).choice(made[-3:])
    return made


PROPOSALS = {"neighbor": NeighborProposal(0.9), "box": BoxProposal(0.5), "low band": LowFrequencyProposal(2, 0.5)}


@pytest.mark.parametrize("limit", [0, 1, 3 * BYTES, 1 << 30])
@pytest.mark.parametrize("start", [5, GIVEN])
@pytest.mark.parametrize("name", PROPOSALS)
def test_the_noise_is_the_same_bit_for_bit(name, start, limit):
    kept, draw, given = BoundedCache(limit), Draws(), Draws()(77)
    for recipe in steps(PROPOSALS[name], start):
        assert torch.equal(make_noise(recipe, draw, given, kept=kept), make_noise(recipe, draw, given))
        assert kept.size <= max(limit, BYTES)
    assert len(kept) == {0: 0, 1: 1, 3 * BYTES: 3}.get(limit, 13)  # the pivots


@pytest.mark.parametrize(("name", "own"), [("neighbor", 1), ("low band", 1), ("box", 2)])
def test_a_candidate_is_drawn_from_its_pivot_at_any_depth(name, own):
    """A new pivot is made again once, from the one before it."""
    kept, draw = BoundedCache(1 << 20), Draws()
    recipes = steps(PROPOSALS[name])
    assert len(recipes[-1].moves) == 13
    for place, recipe in enumerate(recipes):
        draw.seeds.clear()
        make_noise(recipe, draw, kept=kept)
        again = 1 if place == 0 else own if place % 3 == 0 else 0
        assert len(draw.seeds) == again + own


def test_few_bytes_are_enough_for_one_pivot():
    kept, draw = BoundedCache(1), Draws()
    for place, recipe in enumerate(steps(NeighborProposal(0.9))):
        draw.seeds.clear()
        make_noise(recipe, draw, kept=kept)
        assert len(draw.seeds) == (2 if place % 3 == 0 else 1)


def test_what_nobody_builds_upon_is_not_kept():
    kept = BoundedCache(1 << 30)
    for seed in range(20):
        make_noise(Recipe(seed, seed), Draws(), kept=kept)
    assert len(kept) == 0


def test_noises_of_other_starts_are_others():
    kept, draw, move = BoundedCache(1 << 30), Draws(), Move("neighbor", 9, 0.9)
    given, connected = draw(70), lambda seed: draw(seed).sign()
    recipes = [Recipe(start, 5, (move, move), connected=False) for start in (3, 4, GIVEN)] + [
        Recipe(3, 5, (move, move), connected=True)
    ]
    for recipe in recipes * 2:
        got = make_noise(recipe, draw, given, connected, kept)
        assert torch.equal(got, make_noise(recipe, draw, given, connected))


def generations(count, elites=3, population=6):
    """Recipes of a search by elites, a generation after the other, as `SpectralSearch` makes them."""
    pivot, family, made = Recipe(5, 5), {}, []
    rng, proposal = random.Random(3), LowFrequencyProposal(1)
    for generation in range(count):
        parents = tuple(sorted(rng.sample(sorted(family)[-2 * population :], elites))) if family else ()
        if parents:
            members, todo = set(), list(parents)
            while todo:
                members.add(index := todo.pop())
                todo += family[index].parents
            place = {index: k for k, index in enumerate(sorted(members), 1)}
            lineage = tuple(Ancestor(family[i].seed, tuple(place[p] for p in family[i].parents)) for i in sorted(members))
            proposal = EliteProposal(tuple(place[p] for p in parents), lineage, 1, 0.1)
        for index in range(generation * population, (generation + 1) * population):
            made.append(proposal.propose(1, index, pivot))
            family[index] = Ancestor(made[-1].moves[-1].seed, parents)
    return made


@pytest.mark.parametrize("limit", [0, 1, 5 * BYTES, 1 << 30])
def test_elites_lineages_are_kept_too(limit):
    kept, draw = BoundedCache(limit), Draws()
    for recipe in generations(8):
        assert torch.equal(make_noise(recipe, draw, kept=kept), make_noise(recipe, draw))


def test_a_child_of_elites_is_one_draw_however_long_its_lineage():
    kept, draw = BoundedCache(1 << 30), Draws()
    recipes = generations(12)
    assert len(recipes[-1].moves[-1].lineage) > 20
    for place, recipe in enumerate(recipes):
        draw.seeds.clear()
        make_noise(recipe, draw, kept=kept)
        assert draw.seeds[-1] == recipe.moves[-1].seed
        # Beside it the start, once, and the first generation, which had no lineage, where it becomes one.
        assert len(draw.seeds) <= (2 if place < 6 else 4)
    assert len(draw.seeds) == 1


def test_a_group_at_right_angles_draws_each_member_once():
    kept, draw, proposal = BoundedCache(1 << 30), Draws(), OrthogonalProposal(8)
    pivot = Recipe(3, 3)
    for index in range(8, 16):
        recipe = proposal.propose(1, index, pivot)
        wanted = make_noise(recipe, Draws())
        draw.seeds.clear()
        assert torch.equal(make_noise(recipe, draw, kept=kept), wanted)
        assert len(draw.seeds) == (2 if index == 9 else 1)


def test_the_longest_unused_go_first():
    kept = BoundedCache(3 * 4)
    for key in "abc":
        kept.add(key, torch.zeros(1))
    assert kept.get("a") is not None
    kept.add("d", torch.zeros(1))
    assert kept.get("b") is None and all(kept.get(key) is not None for key in "acd") and kept.size == 12
    kept.add("large", torch.zeros(100))
    assert len(kept) == 1 and kept.get("large") is not None and kept.size == 400
    kept.add("large", torch.ones(100))
    assert not kept.get("large").any() and kept.size == 400


# The text


def as_data(recipe):
    """A recipe as JSON values, written down once more."""
    noise = f"given@{recipe.start}" if recipe.connected else str(recipe.start)
    data = {"noise_search": 1, "noise": noise, "seed": str(recipe.seed)}
    if recipe.moves:
        data["moves"] = [_move(move) for move in recipe.moves]
    if recipe.cuts:
        names = ("sigma", "renoise_to"), ("noise_seed", "seed")
        data["cuts"] = [
            {**{n: getattr(c, n) for n in names[0]}, **{n: str(getattr(c, n)) for n in names[1]}} for c in recipe.cuts
        ]
    if recipe.jitter is not None:
        data["jitter"] = {"seed": str(recipe.jitter.seed), "cosine": recipe.jitter.cosine}
    return data


def _move(move):
    data = {"kind": move.kind, "seed": str(move.seed), "amount": move.amount}
    if move.kind == "low_band":
        data["levels"] = move.levels
    if move.lineage:
        data["lineage"] = [[str(a.seed), *a.parents] for a in move.lineage]
    return data


def texts():
    deep = steps(NeighborProposal(0.95), count=80)
    cuts = [BranchPoint(0.1 + k / 7, 0.2 + k / 7, derived_seed(k), k) for k in range(30)]
    yield from [Recipe(0, 0), Recipe("zero", 2**64 - 1), Recipe(GIVEN, 1), Recipe(3, 4, connected=True)]
    yield from [
        *deep,
        *steps(BoxProposal(1e-6)),
        *generations(6),
        *[OrthogonalProposal(5).propose(1, k, Recipe(7, 7)) for k in range(9)],
    ]
    for count in range(30):
        for moves in ((), deep[-1].moves):
            yield Recipe(8, 9, moves, cuts[:count])
            yield Recipe(8, 9, moves, cuts[count:], Jitter(count, 0.9))


def test_the_text_and_the_name_are_those_of_the_json_values():
    """Names are published: journals of earlier versions are found by them."""
    for recipe in [*texts()] * 2:
        data = as_data(recipe)
        assert recipe.to_json() == json.dumps(data) and Recipe.from_json(json.dumps(data)) == recipe
        for what in ({}, {"sigma": 1.5}, {"draft_steps": 4, "sigma": 0.1}):
            noise = "ab" if recipe.needs_noise else ""
            canonical = json.dumps([data, what, noise], sort_keys=True, separators=(",", ":"))
            assert entry_name(recipe, what, "ab") == hashlib.sha256(canonical.encode()).hexdigest()[:32]


def test_a_name_is_published():
    recipe = Recipe(5, 6, (Move("neighbor", 7, 0.95), Move("low_band", 9, 0.1, 3, (Ancestor(8), Ancestor(9, (0, 1))))))
    assert entry_name(recipe, {"sigma": 2.5}) == "096c4e0896db55e7efd81176359bb138"
