"""Proposals and their moves: bands, opposites, right angles, boxes; recipes that make them again, and what is none."""

from __future__ import annotations

import math

import pytest
import torch
from analytic import Constant, Quadratic, RandomNumbers, best, prepare, run, statuses
from analytic import draw as draw_1d

from noise_search.search.methods.chain import Chain
from noise_search.search.methods.halving import HalvingSearch
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.methods.zero_order import ZeroOrderSearch
from noise_search.search.noise.moves import Ancestor, Move
from noise_search.search.noise.proposals import (
    AntitheticProposal,
    BoxProposal,
    EliteProposal,
    GaussianProposal,
    LowFrequencyProposal,
    NeighborProposal,
    OrthogonalProposal,
)
from noise_search.search.noise.recipe import GIVEN, ZERO, Recipe, derived_seed, make_noise

SEED = 7
LINEAGE = (Ancestor(11), Ancestor(12), Ancestor(13, (0, 1, 2)), Ancestor(14, (1, 3)))
PROPOSALS = {
    "gaussian": GaussianProposal(), "neighbor": NeighborProposal(0.8), "antithetic": AntitheticProposal(),
    "orthogonal": OrthogonalProposal(4), "low": LowFrequencyProposal(2), "low, near": LowFrequencyProposal(2, 0.7),
    "elite": EliteProposal((0, 2, 4), LINEAGE, 2, 0.1), "box": BoxProposal(0.8), "large box": BoxProposal(2.4),
}  # fmt: skip
USED = {name: p for name, p in PROPOSALS.items() if name not in ("gaussian", "neighbor")}


def gaussian(seed, shape=(1, 4, 64, 64)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def noise(recipe, draw=gaussian):
    return make_noise(recipe, draw)


def proposed(proposal, count=9, pivot=None, seed=SEED):
    """The recipes of candidates 0 to count - 1, around candidate 0."""
    pivot = pivot or Recipe(seed, seed)
    return [pivot, *(proposal.propose(seed, index, pivot) for index in range(1, count))]


def cosine(a, b):
    a, b = a.double().flatten(), b.double().flatten()
    return float(a @ b / (a.norm() * b.norm()))


def moment(x):
    return float(x.double().square().mean())


# All of them


@pytest.mark.parametrize("name", PROPOSALS)
def test_the_second_moment_stays_one(name):
    for recipe in proposed(PROPOSALS[name], 6):
        assert moment(noise(recipe)) == pytest.approx(1.0, abs=0.05)
    walk = Recipe(SEED, SEED)
    for index in range(1, 21):
        walk = PROPOSALS[name].propose(SEED, index, walk)
    x = noise(walk).double()
    assert moment(x) == pytest.approx(1.0, abs=0.05) and abs(float(x.mean())) < 0.05
    assert float((x**4).mean()) == pytest.approx(3.0, abs=0.2)


@pytest.mark.parametrize("name", PROPOSALS)
def test_a_recipe_is_all_there_is(name):
    for recipe in proposed(PROPOSALS[name], 7):
        text = recipe.to_json()
        again = Recipe.from_json(text)
        assert again == recipe and again.to_json() == text and len(text) < 500
        assert torch.equal(noise(again), noise(recipe))
        assert noise(recipe).dtype == torch.float32


@pytest.mark.parametrize("name", PROPOSALS)
def test_candidates_are_new_and_the_same_every_time(name):
    recipes = proposed(PROPOSALS[name], 9)
    assert recipes == proposed(PROPOSALS[name], 9) and len(set(recipes)) == 9
    for a in range(9):
        for b in range(a):
            assert not torch.equal(noise(recipes[a]), noise(recipes[b]))
    assert proposed(PROPOSALS[name], 9, seed=8)[1:] != recipes[1:]


@pytest.mark.parametrize("name", USED)
def test_zero_noise_is_the_same_error_as_for_neighbors(name):
    with pytest.raises(ValueError, match="of all-zero noise do not exist: connect a noise, or use Gaussian proposals"):
        USED[name].propose(SEED, 1, Recipe(ZERO, 3))


@pytest.mark.parametrize("name", [name for name in PROPOSALS if name != "gaussian"])
def test_given_noise_is_moved(name):
    given = 1.5 * gaussian(99)
    recipe = PROPOSALS[name].propose(SEED, 1, Recipe(GIVEN, 3))
    assert recipe.start == GIVEN and recipe.seed == 3
    out = make_noise(recipe, gaussian, given)
    assert out.shape == given.shape and torch.isfinite(out).all() and not torch.equal(out, given)
    with pytest.raises(ValueError, match="has no direction: the noise is all zero"):
        make_noise(recipe, gaussian, torch.zeros_like(given))


@pytest.mark.parametrize("name", ["antithetic", "orthogonal", "low", "low, near", "box"])
@pytest.mark.parametrize("method", ["random", "zero order", "halving"])
def test_every_method_takes_it(name, method):
    made = {
        "random": RandomSearch(PROPOSALS[name]), "zero order": ZeroOrderSearch(proposal=PROPOSALS[name], on_stall="shrink"),
        "halving": HalvingSearch(proposal=PROPOSALS[name]),
    }[method]  # fmt: skip
    search = run(made, 8)
    assert search.budget.nfe == 8 * 20
    assert len({c.recipe for c in search.candidates}) == len(search.candidates)
    assert all(Recipe.from_json(c.recipe.to_json()) == c.recipe for c in search.candidates)
    search = run(Chain(made, ZeroOrderSearch(proposal=PROPOSALS[name]), 0.5), 12)
    assert search.budget.nfe == 12 * 20


# Opposites


@pytest.mark.parametrize("start", [SEED, GIVEN])
def test_antithetic_pairs_sum_to_zero_exactly(start):
    recipes = proposed(AntitheticProposal(), 12, Recipe(start, 3))
    made = [make_noise(recipe, gaussian, gaussian(5)) for recipe in recipes]
    for a, b in zip(made[::2], made[1::2], strict=True):
        assert torch.equal(a + b, torch.zeros_like(a))
    assert {recipe.start for recipe in recipes[2::2]} == {derived_seed(SEED, k) for k in (2, 4, 6, 8, 10)}
    assert all(a.seed == b.seed for a, b in zip(recipes[::2], recipes[1::2], strict=True))


def test_a_pair_does_not_depend_on_the_pivot_after_the_first():
    pivot = Recipe(1, 1, (Move("neighbor", 2, 0.9),))
    assert proposed(AntitheticProposal(), 8, pivot)[2:] == proposed(AntitheticProposal(), 8)[2:]


# Right angles


@pytest.mark.parametrize(("group", "start"), [(4, SEED), (2, SEED), (6, GIVEN)])
@pytest.mark.parametrize("shape", [(1, 4, 16, 16), (1, 48)])
def test_groups_are_orthogonal(group, start, shape):
    recipes = proposed(OrthogonalProposal(group), 2 * group + 1, Recipe(start, 3))
    made = [make_noise(recipe, lambda seed: gaussian(seed, shape), gaussian(5, shape)) for recipe in recipes]
    for first in (0, group):
        for a in range(first, first + group):
            for b in range(first, a):
                assert abs(cosine(made[a], made[b])) < 1e-6
            if a > first:
                drawn = gaussian(derived_seed(SEED, a), shape)
                assert float(made[a].norm()) == pytest.approx(float(drawn.norm()), rel=1e-6)
                assert cosine(made[a], drawn) > 0.8
    assert max(abs(cosine(made[a], made[b])) for a in range(group) for b in range(group, 2 * group)) > 1e-4


def test_right_angles_end_with_the_room():
    recipes = proposed(OrthogonalProposal(64), 49)
    noise(recipes[47], draw_1d)
    with pytest.raises(ValueError, match="^recipe: 'orthogonal' has no direction: .* more than there is room for"):
        noise(recipes[48], draw_1d)


# Boxes


def test_a_box_step_is_a_clamped_gaussian_of_some_coordinates():
    pivot, shares = Recipe(SEED, 5), []
    x = noise(pivot).double()
    for index in range(1, 60):
        recipe = BoxProposal(0.8).propose(SEED, index, pivot)
        y = noise(recipe).double()
        assert recipe.seed == 5 and float(y.norm()) == pytest.approx(float(x.norm()), rel=1e-6)
        ratios = [(y / x).flatten().quantile(q) for q in (0.3, 0.5, 0.7)]
        scale = min(ratios, key=lambda ratio: abs(float(ratio) - 1))  # back to the sphere: that of a coordinate that stayed
        step = y / scale - x
        moved = step.abs() > 1e-4
        shares.append(float(moved.double().mean()))
        if shares[-1] < 0.65:  # then the middle ratio is that of a coordinate that stayed
            assert float(step.abs().max()) < 0.4 + 1e-3
            deviation = 0.8 / math.sqrt(12) * math.sqrt(1 - 0.1295)  # clamped at sqrt(3) deviations
            assert float(step[moved].std()) == pytest.approx(deviation, rel=0.08)
    inside = [share for share in shares if share < 0.65]
    assert len(inside) > 20 and min(inside) > 0.08 and max(inside) - min(inside) > 0.4


def test_a_box_moves_something():
    """However few coordinates there are: with a chance of 0.1 none of three would be chosen most of the time."""
    small = lambda seed: gaussian(seed, (1, 3))  # noqa: E731
    pivot = Recipe(SEED, 5)
    for index in range(1, 200):
        assert not torch.equal(noise(BoxProposal(0.8).propose(SEED, index, pivot), small), noise(pivot, small))


def test_an_infinite_box_is_fresh_noise():
    for index in (1, 5):
        assert BoxProposal(math.inf).propose(SEED, index, Recipe(3, 3)) == GaussianProposal().propose(SEED, index, Recipe(3, 3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OrthogonalProposal(1), "'group' must be from 2 to 64, not 1"),
        (lambda: OrthogonalProposal(65), "'group' must be"),
        (lambda: LowFrequencyProposal(-1), "'levels' must be from 0 .* to 16, not -1"),
        (lambda: LowFrequencyProposal(17), "'levels' must be"),
        (lambda: LowFrequencyProposal(4, 1.0), r"'cosine' must be in \[0, 1\), not 1"),
        (lambda: LowFrequencyProposal(4, -0.1), "'cosine' must be"),
        (lambda: LowFrequencyProposal(4, math.nan), "'cosine' must be"),
        (lambda: BoxProposal(0.0), "side of a box .* not 0"),
        (lambda: BoxProposal(math.nan), "side of a box .* not nan"),
    ],
)
def test_bad_parameters(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# What they are good for


def test_antithetic_pairs_find_no_less_than_independent_ones():
    assert all(status == "finished" for status in statuses(run(RandomSearch(AntitheticProposal()), 6)))
    search = run(RandomSearch(AntitheticProposal()), 6, RandomNumbers())
    assert best(search) >= search.baseline.score
    assert run(RandomSearch(OrthogonalProposal()), 4, Constant()).ranked[0][0].index == 0


def test_parents_in_the_report():
    """Candidate 1 of the first pair, and the first group, come from candidate 0; others from nobody."""
    for proposal, wanted in ((AntitheticProposal(), [None, 0, None, None, None, None]),
                             (OrthogonalProposal(3), [None, 0, 0, None, None, None]),
                             (LowFrequencyProposal(), [None, 0, 0, 0, 0, 0])):  # fmt: skip
        search = prepare(6, Quadratic())
        for _ in RandomSearch(proposal).run(search):
            pass
        assert [c.parent for c in search.candidates] == wanted
