"""Moves: low bands and their elites, the text of moves and of lineages, and what is none."""

from __future__ import annotations

import json
import math

import pytest
import torch

from noise_search.search.noise.moves import MAX_LINEAGE, Ancestor, Move, elite_draw, low_band, neighbor, with_low_band
from noise_search.search.noise.proposals import (
    AntitheticProposal,
    BoxProposal,
    EliteProposal,
    LowFrequencyProposal,
    OrthogonalProposal,
)
from noise_search.search.noise.recipe import Recipe, derived_seed, make_noise

SEED = 7
LINEAGE = (Ancestor(11), Ancestor(12), Ancestor(13, (0, 1, 2)), Ancestor(14, (1, 3)))


def gaussian(seed, shape=(1, 4, 64, 64)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def noise(recipe):
    return make_noise(recipe, gaussian)


def cosine(a, b):
    a, b = a.double().flatten(), b.double().flatten()
    return float(a @ b / (a.norm() * b.norm()))


def moment(x):
    return float(x.double().square().mean())


# Low bands

SHAPES = [(1, 4, 8, 8), (1, 4, 13, 30), (1, 16, 3, 8, 11), (4, 4, 16, 8), (1, 64, 45), (1, 1, 1048), (1, 48), (1, 2, 3, 3)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("levels", [0, 1, 2, 3, 4, 16])
def test_low_and_high_make_the_whole(shape, levels):
    """The band's own coefficients change nothing; the band of what is high is empty; both are orthogonal."""
    x = gaussian(1, shape)
    low = low_band(x, levels)
    assert torch.allclose(with_low_band(x, low, levels), x.double(), rtol=0, atol=1e-14)
    high = with_low_band(x, torch.zeros_like(low), levels)
    assert float(low_band(high, levels).abs().max()) < 1e-12
    assert float(low.square().sum() + high.square().sum()) == pytest.approx(float(x.double().square().sum()), rel=1e-12)
    other = gaussian(2, low.shape).double()
    assert torch.allclose(low_band(with_low_band(x, other, levels), levels), other, atol=1e-12)
    assert levels or torch.equal(low, x.double()) and torch.equal(with_low_band(x, other, 0), other)


@pytest.mark.parametrize(
    ("shape", "levels", "wanted"),
    [
        ((1, 4, 128, 128), 4, (1, 4, 8, 8)), ((1, 4, 64, 96), 3, (1, 4, 8, 12)), ((1, 4, 13, 64), 2, (1, 4, 4, 16)),
        ((1, 4, 16, 128), 4, (1, 4, 4, 32)), ((1, 4, 8, 8), 4, (1, 4, 4, 4)), ((1, 4, 3, 9), 4, (1, 4, 3, 9)),
        ((1, 16, 3, 32, 32), 3, (1, 16, 3, 4, 4)), ((1, 64, 45), 3, (1, 64, 6)), ((1, 1, 1048), 4, (1, 1, 66)),
        ((1, 48), 4, (1, 6)), ((1, 4, 7, 7), 1, (1, 4, 4, 4)), ((1, 4, 6, 6), 1, (1, 4, 6, 6)),
    ],
)  # fmt: skip
def test_at_least_four_blocks_remain(shape, levels, wanted):
    assert low_band(gaussian(1, shape), levels).shape == wanted


def test_the_low_band_is_sums_of_blocks():
    x = gaussian(3, (1, 1, 9, 13)).double()
    low = low_band(x, 1)
    assert float(low[0, 0, 0, 0]) == pytest.approx(float(x[0, 0, :2, :2].sum()) / 2)
    assert float(low[0, 0, 4, 6]) == pytest.approx(float(x[0, 0, 8, 12]))  # a block of one cell in the corner
    assert float(low[0, 0, 4, 0]) == pytest.approx(float(x[0, 0, 8, :2].sum()) / math.sqrt(2))


def test_the_low_band_of_noise_is_unit_gaussian():
    low = torch.stack([low_band(gaussian(k, (1, 4, 13, 30)), 1) for k in range(100)])
    assert moment(low) == pytest.approx(1.0, abs=5 * math.sqrt(2 / low.numel()))


def test_only_the_low_band_is_redrawn():
    pivot = Recipe(SEED, 5)
    for kind, tau in ((0.0, None), (0.7, 0.7)):
        recipe = LowFrequencyProposal(3, kind).propose(SEED, 4, pivot)
        x, y = noise(pivot), noise(recipe)
        assert recipe.seed == 5
        assert torch.allclose(with_low_band(x, low_band(y, 3), 3).float(), y, atol=1e-6)  # its high band is the pivot's
        fresh = low_band(gaussian(derived_seed(SEED, 4)), 3)
        if tau is None:
            assert torch.allclose(low_band(y, 3), fresh, atol=1e-6)
        else:
            assert cosine(low_band(y, 3), low_band(x, 3)) == pytest.approx(tau, abs=1e-6)
            assert torch.allclose(low_band(y, 3), neighbor(low_band(x, 3), fresh, tau), atol=1e-6)


def test_closer_is_half_the_angle_and_half_the_side():
    assert LowFrequencyProposal(4, 0.0).closer() == LowFrequencyProposal(4, math.cos(math.pi / 4))
    assert BoxProposal(0.8).closer() == BoxProposal(0.4)
    for same in (AntitheticProposal(), OrthogonalProposal(3)):
        assert same.closer() == same


def test_an_elite_distribution_has_unit_second_moment():
    elites = torch.stack([3.0 + gaussian(k) for k in range(5)]).double()
    fresh = torch.stack([gaussian(100 + k) for k in range(20)]).double()
    drawn = torch.stack([elite_draw(elites, eps, 0.1) for eps in fresh])
    assert moment(drawn) == pytest.approx(1.0, abs=0.01)
    assert float(drawn.mean()) > 0.9  # it leans to what the elites have in common
    same = elite_draw(torch.stack([elites[0]] * 3), fresh[0], 0.5)  # no variance of their own: the floor
    scale = (elites[0].square() + 0.5).mean().sqrt()
    assert torch.allclose(same, (elites[0] + 0.5**0.5 * fresh[0]) / scale)


def test_lineage_is_what_a_noise_was_drawn_from():
    """Position 0 is the noise before the move; 1 and 2 are fresh; 3 comes of 0, 1, 2; the last of 0, 2 and 4."""
    recipe = EliteProposal((0, 2, 4), LINEAGE, 2, 0.1).propose(SEED, 9, Recipe(SEED, 5))
    bands = [low_band(gaussian(seed), 2) for seed in (SEED, 11, 12)]
    bands.append(elite_draw(torch.stack(bands), low_band(gaussian(13), 2), 0.1))
    bands.append(elite_draw(torch.stack([bands[1], bands[3]]), low_band(gaussian(14), 2), 0.1))
    own = elite_draw(torch.stack([bands[0], bands[2], bands[4]]), low_band(gaussian(derived_seed(SEED, 9)), 2), 0.1)
    assert torch.equal(noise(recipe), with_low_band(gaussian(SEED), own, 2).float())


# Recipes


def text(kind="low_band", **changes):
    move = {"kind": kind, "seed": "14", "amount": 0.1, "levels": 2, "lineage": [["11"], ["14", 0, 1]], **changes}
    move = {key: value for key, value in move.items() if value is not None}
    return json.dumps({"noise_search": 1, "noise": "5", "seed": "6", "moves": [move]})


def test_the_text_of_moves_is_stable():
    """Published: old recipes must be read for ever."""
    moves = (
        Move("low_band", 14, 0.1, 2, (Ancestor(11), Ancestor(14, (0, 1)))), Move("low_band", 3, 0.0, 4),
        Move("antithetic", 1, -1.0), Move("orthogonal", 9, 0.0, lineage=(Ancestor(9, (0,)),)), Move("box", 2, 0.8),
    )  # fmt: skip
    assert json.loads(Recipe(5, 6, moves).to_json())["moves"] == [
        {"kind": "low_band", "seed": "14", "amount": 0.1, "levels": 2, "lineage": [["11"], ["14", 0, 1]]},
        {"kind": "low_band", "seed": "3", "amount": 0.0, "levels": 4},
        {"kind": "antithetic", "seed": "1", "amount": -1.0},
        {"kind": "orthogonal", "seed": "9", "amount": 0.0, "lineage": [["9", 0]]},
        {"kind": "box", "seed": "2", "amount": 0.8},
    ]
    assert Recipe.from_json(Recipe(5, 6, moves).to_json()) == Recipe(5, 6, moves)
    assert Recipe.from_json(text()) == Recipe(5, 6, moves[:1])


HOSTILE = {
    "no list": (text(lineage={"11": []}), "'lineage' must be a list of lists"),
    "text": (text(lineage="11"), "'lineage' must be a list of lists"),
    "null": (text(lineage="N").replace('"N"', "null"), "'lineage' must be a list of lists"),
    "numbers": (text(lineage=[1, 2]), "'lineage' must be a list of lists"),
    "empty ancestor": (text(lineage=[[], ["14"]]), "'lineage' must be a list of lists"),
    "object ancestor": (text(lineage=[{"seed": "14"}]), "'lineage' must be a list of lists"),
    "itself": (text(lineage=[["14", 1]]), "ancestor 1 of 'lineage' must name different ones before it, not \\[1\\]"),
    "a circle": (text(lineage=[["11", 2], ["14", 1]]), "ancestor 1 of 'lineage'"),
    "one after": (text(lineage=[["11"], ["14", 0, 2]]), "ancestor 2 of 'lineage'"),
    "negative": (text(lineage=[["11"], ["14", -1]]), "ancestor 2 of 'lineage'"),
    "twice": (text(lineage=[["11"], ["14", 0, 0]]), "ancestor 2 of 'lineage'"),
    "true": (text(lineage=[["11"], ["14", True]]), "ancestor 2 of 'lineage'"),
    "float": (text(lineage=[["11"], ["14", 1.0]]), "ancestor 2 of 'lineage'"),
    "nested": (text(lineage=[["11"], ["14", [0]]]), "ancestor 2 of 'lineage'"),
    "a list for a seed": (text(lineage=[[["11"]], ["14"]]), "'lineage' must be a seed"),
    "number for a seed": (text(lineage=[[11], ["14", 0]]), "'lineage' must be a seed .* not 11"),
    "large seed": (text(lineage=[[str(2**64)], ["14"]]), "'lineage' must be below 2\\^64"),
    "another end": (text(lineage=[["11"], ["12", 0]]), "must end with the move's own seed, not with 12"),
    "too many": (text(lineage=[["14"]] * (MAX_LINEAGE + 1)), "501 ancestors are too many for 'low_band'"),
    "of a neighbor": (text("neighbor", levels=None), "2 ancestors are too many for 'neighbor'"),
    "of a box": (text("box", levels=None, amount=0.8), "2 ancestors are too many for 'box'"),
    "of an opposite": (text("antithetic", levels=None, amount=-1.0), "2 ancestors are too many"),
    "levels of a neighbor": (text("neighbor", lineage=None), "'levels' of 'neighbor' cannot be 2"),
    "levels negative": (text(levels=-1), "'levels' of 'low_band' cannot be -1"),
    "levels huge": (text(levels=10**30), "'levels' of 'low_band' cannot be 10"),
    "levels true": (text(levels=True), "'levels' of 'low_band' cannot be True"),
    "levels float": (text(levels=2.0), "'levels' of 'low_band' cannot be 2.0"),
    "levels text": (text(levels="2"), "'levels' of 'low_band' cannot be '2'"),
    "box of nothing": (text("box", levels=None, lineage=None, amount=0.0), "'amount' of 'box' is the side of a box in .* not 0"),
    "box without end": (text("box", levels=None, lineage=None, amount=math.inf), "'amount' must be a finite number"),
    "huge box": (text("box", levels=None, lineage=None, amount=1e7), "the side of a box"),
    "half an opposite": (text("antithetic", levels=None, lineage=None, amount=0.5), "'amount' of 'antithetic' is .* not 0.5"),
    "other angle": (text("orthogonal", levels=None, lineage=None, amount=0.5), "'amount' of 'orthogonal' is .* not 0.5"),
    "large cosine": (text(amount=1.5), "'amount' of 'low_band' is a cosine in \\[-1, 1\\], not 1.5"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_lineage_is_an_error_that_names_what(name):
    recipe, says = HOSTILE[name]
    with pytest.raises(ValueError, match=says) as raised:
        Recipe.from_json(recipe)
    assert str(raised.value).startswith("recipe: ") and len(str(raised.value)) < 400


def test_a_strangers_longest_lineage_is_rendered():
    lineage = [[str(k), *range(max(0, k - 5), k)] for k in range(1, MAX_LINEAGE)] + [["14", 0, 400, 499]]
    out = noise(Recipe.from_json(text(lineage=lineage)))
    assert torch.isfinite(out).all() and moment(out) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("kind", ["low_band", "orthogonal"])
def test_moves_that_draw_what_is_there_lead_nowhere(kind):
    lineage = (Ancestor(5), Ancestor(5, (0, 1))) if kind == "orthogonal" else ()
    amount = 0.0 if kind == "orthogonal" else 0.5
    with pytest.raises(ValueError, match="^recipe: .* has no direction"):
        noise(Recipe(5, 6, (Move(kind, 5, amount, 0, lineage),)))
