"""Recipes: JSON both ways, hostile JSON, seeds, and neighbours on the sphere."""

from __future__ import annotations

import json
import math
import sys

import pytest
import torch

from noise_search.search.noise.recipe import (  # fmt: skip
    DRAWN_SEED_LIMIT,
    GIVEN,
    MAX_LENGTH,
    VERSION,
    ZERO,
    BranchPoint,
    Move,
    Recipe,
    derived_seed,
    is_zero,
    make_noise,
    neighbor,
    recipes_from_json,
)

FULL = Recipe(
    2**64 - 1, 2**63, (Move("neighbor", 7, 0.95), Move("neighbor", 2**64 - 1, -1.0)),
    (BranchPoint(7.123456789012345, 7.123456789012345, 0, 2**50), BranchPoint(0.1, 14.6, 3, 4)),
)  # fmt: skip


def written(**changes):
    """The JSON of a full recipe with some entries replaced; None removes one."""
    data = {**json.loads(FULL.to_json()), **changes}
    return json.dumps({key: value for key, value in data.items() if value is not None})


def move(**changes):
    return written(moves=[{"kind": "neighbor", "seed": "7", "amount": 0.9, **changes}])


def cut(**changes):
    return written(cuts=[{"sigma": 1.0, "renoise_to": 2.0, "noise_seed": "1", "seed": "2", **changes}])


# JSON


@pytest.mark.parametrize(
    "recipe", [FULL, Recipe(0, 0), Recipe(GIVEN, 5), Recipe(ZERO, 5), Recipe(GIVEN, 1, FULL.moves), Recipe(1, 2, (), FULL.cuts)]
)
def test_there_and_back(recipe):
    text = recipe.to_json()
    assert Recipe.from_json(text) == recipe
    assert Recipe.from_json(json.dumps(json.loads(text), indent=4)) == recipe
    assert recipes_from_json(text) == [recipe]
    assert recipes_from_json(f"[{text}, {text}]") == [recipe, recipe]


@pytest.mark.parametrize("around", ["{}", '"{}"', '"{}",\n', "  {}\n"])
def test_a_recipe_copied_out_of_a_report_is_read(around):
    report = json.dumps({"recipe": FULL.to_json()}, indent=1)
    copied = report.split('"recipe": "')[1].rsplit('"', 1)[0]
    assert copied.startswith('{\\"')
    assert recipes_from_json(around.replace("{}", copied)) == [FULL]


def test_the_text_is_stable():
    """Published: old recipes must be read for ever."""
    text = Recipe(5, 6, (Move("neighbor", 7, 0.95),), (BranchPoint(1.5, 2.5, 8, 9),)).to_json()
    assert text == (
        '{"noise_search": 1, "noise": "5", "seed": "6", '
        '"moves": [{"kind": "neighbor", "seed": "7", "amount": 0.95}], '
        '"cuts": [{"sigma": 1.5, "renoise_to": 2.5, "noise_seed": "8", "seed": "9"}]}'
    )


def test_seeds_are_strings_since_browsers_round_them():
    def numbers(value):
        if isinstance(value, dict):
            value = list(value.values())
        return sum(map(numbers, value), []) if isinstance(value, list) else [value] if isinstance(value, int) else []

    assert numbers(json.loads(FULL.to_json())) == [VERSION]


def test_a_float32_noise_level_survives():
    sigma = float(torch.tensor(5.092408180236816, dtype=torch.float32))
    (found,) = Recipe.from_json(Recipe(1, 1, (), (BranchPoint(sigma, sigma, 1, 1),)).to_json()).cuts
    assert found.sigma == sigma and found.renoise_to == found.sigma


HOSTILE = {
    "nothing": ("", "not JSON"),
    "no text": (None, "must be text"),
    "bytes": (b"{}", "must be text"),
    "a tensor": (torch.zeros(2), "must be text"),
    "words": ("a red circle", "not JSON"),
    "10 MB": ("x" * 10_000_000, "characters"),
    "10 MB of spaces": (FULL.to_json() + " " * 10_000_000, "characters"),
    "deep lists": ("[" * 50_000 + "]" * 50_000, "not JSON|no recipe"),
    "deep objects": ('{"a":' * 15_000 + "1" + "}" * 15_000, "not JSON|no recipe"),
    "deep moves": (written(moves="DEEP").replace('"DEEP"', "[" * 900 + "]" * 900), "'moves' must be a list|not JSON"),
    "deep kind": (move(kind="DEEP").replace('"DEEP"', "[" * 900 + "]" * 900), "unknown move|not JSON"),
    "a number": ("5", "no recipe"),
    "null": ("null", "no recipe"),
    "a list of numbers": ("[1, 2]", "no recipe"),
    "an empty list": ("[]", "no recipe|empty"),
    "a list in a list": (f"[[{FULL.to_json()}]]", "no recipe"),
    "another JSON": ('{"nodes": []}', "no recipe"),
    "a huge integer": (written(noise_search="N").replace('"N"', "9" * 5000), "recipe:"),
    "next version": (written(noise_search=2), "version 2 .*update"),
    "version as text": (written(noise_search="1"), "version '1'"),
    "version true": (written(noise_search=True), "version True"),
    "version 1.0": (written(noise_search=1.0), "version 1.0"),
    "long version": (written(noise_search="y" * 50_000), "version 'y"),
    "no noise": (written(noise=None), "'noise' must be a seed"),
    "no seed": (written(seed=None), "'seed' must be a seed"),
    "integer seed": (written(seed=5), "'seed' must be .* string of digits, not 5"),
    "float seed": (written(seed=5.0), "'seed' must be .* not 5.0"),
    "float in a string": (written(seed="5.0"), "'seed' must be .* not '5.0'"),
    "negative seed": (written(seed="-5"), "'seed' must be .* not '-5'"),
    "seed with a plus": (written(seed="+5"), "'seed' must be"),
    "seed with spaces": (written(seed=" 5"), "'seed' must be"),
    "seed with underscores": (written(seed="1_000"), "'seed' must be"),
    "seed in other digits": (written(seed="٣"), "'seed' must be"),
    "seed squared": (written(seed="²"), "'seed' must be"),
    "empty seed": (written(seed=""), "'seed' must be"),
    "seed true": (written(seed=True), "'seed' must be"),
    "seed of 2^64": (written(seed=str(2**64)), "below 2\\^64"),
    "seed of a million digits": (written(seed="9" * 90_000), "'seed' must be"),
    "seed list": (written(seed=["5"]), "'seed' must be"),
    "unknown start": (written(noise="taken"), "'noise' must be a seed"),
    "start list": (written(noise=[]), "'noise' must be a seed"),
    "moves of nothing": (written(noise=ZERO), "'moves' from a noise that is all zero"),
    "moves object": (written(moves={}), "'moves' must be a list"),
    "moves text": (written(moves="neighbor"), "'moves' must be a list"),
    "moves of numbers": (written(moves=[1]), "'moves' must be a list"),
    "cuts object": (written(cuts={"sigma": 1}), "'cuts' must be a list"),
    "unknown move": (move(kind="jump"), "unknown move 'jump'; known: neighbor"),
    "move list": (move(kind=["neighbor"]), "unknown move"),
    "no kind": (move(kind=None), "unknown move None"),
    "amount text": (move(amount="0.9"), "'amount' must be a finite number"),
    "amount true": (move(amount=True), "'amount' must be a finite number"),
    "amount null": (move(amount=None), "'amount' must be a finite number"),
    "amount NaN": (move(amount=math.nan), "'amount' must be a finite number"),
    "amount Infinity": (move(amount=math.inf), "'amount' must be a finite number"),
    "amount 1e999": (move(amount="N").replace('"N"', "1e999"), "'amount' must be a finite number"),
    "amount of 400 digits": (move(amount="N").replace('"N"', "1" + "0" * 400), "'amount' must be a finite number"),
    "amount above 1": (move(amount=1.0001), "cosine in \\[-1, 1\\], not 1.0001"),
    "amount below -1": (move(amount=-2), "cosine in"),
    "float move seed": (move(seed=7.5), "'seed' must be"),
    "sigma 0": (cut(sigma=0), "0 < sigma"),
    "negative sigma": (cut(sigma=-1.0), "0 < sigma"),
    "sigma NaN": (cut(sigma=math.nan), "'sigma' must be a finite number"),
    "sigma -Infinity": (cut(sigma=-math.inf), "'sigma' must be a finite number"),
    "sigma of 400 digits": (cut(sigma="N").replace('"N"', "1" + "0" * 400), "'sigma' must be a finite number"),
    "renoised down": (cut(renoise_to=0.5), "sigma <= renoise_to"),
    "renoise NaN": (cut(renoise_to=math.nan), "'renoise_to' must be a finite number"),
    "no renoise": (cut(renoise_to=None), "'renoise_to' must be a finite number"),
    "cut without seed": (cut(seed=None), "'seed' must be"),
    "cut with a float noise seed": (cut(noise_seed=1.0), "'noise_seed' must be"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(HOSTILE))
def test_hostile_text_is_an_error_that_names_what(name):
    text, says = HOSTILE[name]
    for read in (Recipe.from_json, recipes_from_json):
        with pytest.raises(ValueError, match=says) as raised:
            read(text)
        assert str(raised.value).startswith("recipe")
        assert len(str(raised.value)) < 400  # it is shown to the user


def test_nesting_up_to_the_parsers_limit():
    """Some depth is parsed, but too deep to be shown in the error from a frame further down."""
    limit = sys.getrecursionlimit()
    for depth in range(limit - 200, limit + 10):
        for text in (written(moves="DEEP"), move(kind="DEEP"), written(seed="DEEP"), move(amount="DEEP")):
            with pytest.raises(ValueError, match="^recipe"):
                Recipe.from_json(text.replace('"DEEP"', "[" * depth + "]" * depth))


def test_one_bad_recipe_in_a_list_is_an_error():
    with pytest.raises(ValueError, match="unknown move"):
        recipes_from_json(f"[{FULL.to_json()}, {move(kind='jump')}]")


def test_the_longest_recipe_is_read():
    """A long lineage: as many moves as fit."""
    moves = tuple(Move("neighbor", 2**64 - 1, 0.95) for _ in range(1400))
    recipe = Recipe(1, 1, moves)
    assert len(recipe.to_json()) < MAX_LENGTH
    assert Recipe.from_json(recipe.to_json()) == recipe


# Seeds


def test_derived_seeds_do_not_overlap():
    """Neighbouring user seeds share no candidate, as seed, seed + 1, seed + 2, ... would."""
    drawn = {(seed, k): derived_seed(seed, k) for seed in (0, 1, 2, 3, 41, 42, 43, 2**64 - 1) for k in range(2000)}
    assert len(set(drawn.values())) == len(drawn)
    assert all(0 <= seed < DRAWN_SEED_LIMIT for seed in drawn.values())
    assert DRAWN_SEED_LIMIT == 2**50


def test_derived_seeds_are_spread():
    seeds = [derived_seed(7, k) for k in range(4000)]
    for bit in range(50):
        ones = sum(seed >> bit & 1 for seed in seeds)
        assert abs(ones - 2000) < 5 * math.sqrt(1000)


def test_derived_seeds_depend_on_the_whole_path():
    paths = [(1, 23), (12, 3), (1, 2, 3), (123,), (1, "noise", 3), (1, "step", 3), (1,), (1, 0), (10,)]
    assert len({derived_seed(*path) for path in paths}) == len(paths)


def test_derived_seeds_are_published():
    """A recipe found today is drawn again tomorrow."""
    assert [derived_seed(0, 1), derived_seed(42, 1), derived_seed(2**64 - 1, "noise", 3)] == SEEDS


SEEDS = [422199253799175, 1109036976969253, 625526943070223]


# Noise


def gaussian(shape, seed, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def cosine(a, b):
    a, b = a.double().flatten(), b.double().flatten()
    return float(a @ b / (a.norm() * b.norm()))


SHAPES = [(1, 4, 8, 8), (1, 16, 3, 8, 8), (4, 4, 8, 8), (1, 1, 1048), (1, 4, 128, 128)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tau", [0.95, 0.999999, 0.5, 0.0, -0.3, -1.0, 1.0])
def test_neighbours_are_at_the_angle_on_the_sphere(tau, shape):
    """Nested latents are packed to (R, 1, N): the sphere is that of all their parts."""
    noise, fresh = gaussian(shape, 1), gaussian(shape, 2)
    before = noise.clone(), fresh.clone()
    out = neighbor(noise, fresh, tau)
    assert out.shape == noise.shape and out.dtype == noise.dtype
    assert abs(cosine(out, noise) - tau) < 1e-6
    assert math.isclose(float(out.double().norm()), float(noise.double().norm()), rel_tol=1e-6)
    assert torch.equal(noise, before[0]) and torch.equal(fresh, before[1])


def test_neighbours_are_computed_in_float64():
    """In float32 what is left of a direction close to the noise is rounding, and the angle is wrong."""
    noise = gaussian((1, 4, 64, 64), 1)
    fresh = noise + 3e-5 * gaussian(noise.shape, 2)
    assert abs(cosine(neighbor(noise, fresh, 0.0), noise)) < 1e-6
    tau = 1.0 - 1e-6
    out = neighbor(noise.double(), gaussian(noise.shape, 2, torch.float64), tau)
    assert math.isclose(math.acos(cosine(out, noise)), math.acos(tau), rel_tol=1e-6)


def test_neighbours_lie_in_the_plane_of_both_noises():
    noise, fresh = gaussian((1, 4, 32, 32), 1), gaussian((1, 4, 32, 32), 2)
    out = neighbor(noise, fresh, 0.8).double().flatten()
    basis = torch.linalg.qr(torch.stack([noise.double().flatten(), fresh.double().flatten()], dim=1))[0]
    assert float((out - basis @ (basis.T @ out)).norm() / out.norm()) < 1e-6
    assert float(out @ fresh.double().flatten()) > 0  # towards it


@pytest.mark.parametrize("steps", [1, 50])
def test_neighbours_stay_gaussian(steps):
    """Mean, deviation, and kurtosis of unit noise, also after a long walk; within 5 standard errors."""
    noise = gaussian((1, 4, 128, 128), 0)
    for k in range(steps):
        noise = neighbor(noise, gaussian(noise.shape, 100 + k), 0.95)
    x, n = noise.double().flatten(), noise.numel()
    assert abs(float(x.mean())) < 5 / math.sqrt(n)
    assert abs(float(x.std()) - 1) < 5 / math.sqrt(2 * n)
    assert abs(float((x**4).mean()) - 3) < 5 * math.sqrt(96 / n)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize("cosine", [-1.0, -0.3, 0.0, 0.95, 1.0])
def test_a_neighbour_is_the_formula_bit_for_bit(cosine, dtype):
    """Recipes are made again for ever; what they are made from is not touched."""
    noise, fresh = gaussian((2, 4, 9, 7), 1).to(dtype), gaussian((2, 4, 9, 7), 2).to(dtype)
    x, v = noise.double(), fresh.double()
    u = x / x.norm()
    w = v - (v * u).sum() * u
    w = w / w.norm()
    wanted = (x.norm() * (cosine * u + (1.0 - cosine**2) ** 0.5 * w)).to(dtype)
    before = noise.clone(), fresh.clone()
    assert torch.equal(neighbor(noise, fresh, cosine), wanted)
    assert torch.equal(noise, before[0]) and torch.equal(fresh, before[1])


def test_zero_noise_has_no_neighbours():
    with pytest.raises(ValueError, match="all zero"):
        neighbor(torch.zeros(1, 4, 8, 8), gaussian((1, 4, 8, 8), 1), 0.9)


@pytest.mark.parametrize("size", [1.0, -1.0, 3.7])
def test_a_move_along_the_noise_itself_is_an_error(size):
    """A stranger's recipe may name the same seed twice: the direction would be rounding."""
    noise = gaussian((1, 4, 8, 8), 1)
    with pytest.raises(ValueError, match="draws the same noise"):
        neighbor(noise, size * noise, 0.9)
    with pytest.raises(ValueError, match="draws the same noise"):
        make_noise(Recipe(1, 1, (Move("neighbor", 1, 0.9),)), draw)


def draw(seed):
    return gaussian((1, 4, 8, 8), seed)


def test_noise_is_made_from_the_start_by_the_moves():
    assert torch.equal(make_noise(Recipe(3, 9), draw), draw(3))
    assert torch.equal(make_noise(Recipe(GIVEN, 9), draw, draw(4)), draw(4))
    assert is_zero(make_noise(Recipe(ZERO, 9), draw)) and not is_zero(draw(1))
    recipe = Recipe(3, 9).moved(Move("neighbor", 5, 0.9)).moved(Move("neighbor", 6, 0.5))
    assert torch.equal(make_noise(recipe, draw), neighbor(neighbor(draw(3), draw(5), 0.9), draw(6), 0.5))
    assert recipe.start == 3 and recipe.seed == 9 and len(recipe.moves) == 2


def test_given_noise_must_be_given():
    for recipe in (Recipe(GIVEN, 9), Recipe(4, 9, connected=True)):
        with pytest.raises(ValueError, match="connect the same one to the input 'noise'"):
            make_noise(recipe, draw)


def test_noise_of_a_connected_object_at_a_seed():
    def other(seed):
        return draw(seed).sign()

    recipe = Recipe(4, 9, connected=True)
    assert torch.equal(make_noise(recipe, draw, connected=other), other(4))
    moved = recipe.moved(Move("neighbor", 5, 0.9))
    assert torch.equal(make_noise(moved, draw, draw(8), other), neighbor(other(4), draw(5), 0.9))
    text = moved.to_json()
    assert json.loads(text)["noise"] == "given@4" and Recipe.from_json(text) == moved
    assert moved.needs_noise and Recipe(GIVEN, 9).needs_noise and not Recipe(4, 9).needs_noise


@pytest.mark.parametrize("noise", ["given@", "given@x", "given@-1", "given@given", f"given@{2**64}", "zero@4", "@4"])
def test_what_is_no_noise_of_a_connected_object(noise):
    with pytest.raises(ValueError, match="^recipe: 'noise' must be"):
        Recipe.from_json(json.dumps({"noise_search": 1, "noise": noise, "seed": "7"}))


def test_recipes_from_before_mean_what_they_did():
    """What needs no connected object is written as ever; an older pack refuses the new kind of noise, which it cannot make."""
    for text, recipe in [
        ('{"noise_search": 1, "noise": "5", "seed": "7"}', Recipe(5, 7)),
        ('{"noise_search": 1, "noise": "given", "seed": "7"}', Recipe(GIVEN, 7)),
        ('{"noise_search": 1, "noise": "zero", "seed": "7"}', Recipe(ZERO, 7)),
    ]:
        assert Recipe.from_json(text) == recipe and recipe.to_json() == text and not recipe.connected
