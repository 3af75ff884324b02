"""How a candidate is made again: the lineage of its noise, its step seed, its cuts, its text's jitter. A short JSON string."""

from __future__ import annotations

import json
import reprlib
import sys
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .bounded_cache import BoundedCache
from .branch_point import BranchPoint as BranchPoint
from .jitter import Jitter
from .linked import Linked
from .moves import AMOUNTS, HAS_LEVELS, HAS_LINEAGE, MAX_LEVELS, MAX_LINEAGE, MOVES, Ancestor, Draw, Move, apply
from .moves import neighbor as neighbor
from .recipe_text import AT_SEED, GIVEN, PLAIN, VERSION, recipe_text
from .seeds import DRAWN_SEED_LIMIT as DRAWN_SEED_LIMIT
from .seeds import derived_seed as derived_seed

ZERO = "zero"
SEED_LIMIT = 2**64
MAX_LENGTH = 100_000  # characters; a recipe comes from a stranger's workflow
NEEDS_NOISE = (
    "recipe: its noise is that of another NOISE node than RandomNoise: connect the same one to the input 'noise' of "
    "'Noise from Recipe' or 'Render Candidate'"
)
COPIED = ' \n\t",'  # what may stand around a recipe that was copied out of a report


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that, with model, sampler, sigmas and latent, determines a candidate.

    Attributes:
        start: seed of the first noise; `GIVEN` for the noise that was connected; `ZERO` for none (only the step noise
            differs).
        seed: step seed of the (first) run.
        moves: steps from the first noise to the candidate's, in order; made of any sequence.
        cuts: segments after the first, in order; made of any sequence.
        jitter: how the positive conditioning's text embedding is varied; None for not at all.
        connected: whether the first noise is what the connected NOISE object makes at the seed `start`; False: what stock
            `prepare_noise` draws for it.
    """

    start: int | str
    seed: int
    moves: Linked[Move] = Linked()
    cuts: Linked[BranchPoint] = Linked()
    jitter: Jitter | None = None
    connected: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "moves", Linked(self.moves))
        object.__setattr__(self, "cuts", Linked(self.cuts))

    @property
    def step_seed(self) -> int:
        """Step seed of the last run."""
        return self.cuts[-1].seed if self.cuts else self.seed

    @property
    def needs_noise(self) -> bool:
        """Whether the NOISE object that was connected is needed to make it again."""
        return self.start == GIVEN or self.connected

    @property
    def mixes_noise(self) -> bool:
        """Whether it mixes what the connected NOISE made with Gaussian noise."""
        renoised = any(cut.renoise_to > cut.sigma for cut in self.cuts)
        return self.needs_noise and (renoised or any(move.kind != "antithetic" for move in self.moves))

    def to_json(self) -> str:
        """Return the recipe as JSON; seeds are strings, since browsers round large numbers."""
        return recipe_text(self, PLAIN)

    @staticmethod
    def from_json(text: str) -> Recipe:
        """Read one recipe.

        Raises:
            ValueError: the text is no recipe; says what is wrong with it.
        """
        return _parse(_load(text))

    def moved(self, move: Move) -> Recipe:
        """Return the recipe of a noise one move further, of a run without cuts."""
        return replace(self, moves=self.moves.plus(move), cuts=())

    def branched(self, cut: BranchPoint) -> Recipe:
        """Return the recipe of a run that leaves this one."""
        return replace(self, cuts=self.cuts.plus(cut))


def recipes_from_json(text: str) -> list[Recipe]:
    """Read one recipe, or the list that a latent batch gives.

    Raises:
        ValueError: the text is neither; says what is wrong with it.
    """
    data = _load(text)
    if data == []:
        raise ValueError("recipe: an empty list: connect the 'recipe' output of a search, or paste it")
    return [_parse(item) for item in data] if isinstance(data, list) else [_parse(data)]


def make_noise(
    recipe: Recipe, draw: Draw, given: Tensor | None = None, connected: Draw | None = None, kept: BoundedCache | None = None
) -> Tensor:  # fmt: skip
    """Return the noise (R, ...) that a recipe's first run starts from.

    Args:
        recipe: its start and moves are used.
        draw: gives the stock noise of a seed, unit Gaussian (R, ...).
        given: the connected noise, for recipes that start from it.
        connected: gives the connected NOISE object's noise at a seed (R, ...).
        kept: noises that others were made from, of the same `draw`, `given` and `connected`; None keeps none.

    Raises:
        ValueError: the recipe starts from a connected noise and there is none, or a move leads nowhere.
    """
    kept = BoundedCache(0) if kept is None else kept
    start = (recipe.start, recipe.connected)
    ahead, there = [], recipe.moves
    while (noise := kept.get((start, there))) is None and there:
        ahead.append(there)
        there = there.before
    if noise is None:
        noise = _start(recipe, draw, given, connected)
    for there in reversed(ahead):
        base = (start, there.before)
        if there is recipe.moves:  # what is built upon once is built upon again: a pivot has several neighbors
            kept.add(base, noise)
        noise = apply(noise, there.last, draw, kept.under(base))
    return noise


def _start(recipe: Recipe, draw: Draw, given: Tensor | None, connected: Draw | None) -> Tensor:
    """Return the noise (R, ...) before a recipe's moves.

    Raises:
        ValueError: that is a connected noise, and there is none.
    """
    if recipe.start == ZERO:
        return torch.zeros_like(draw(0))
    if recipe.start == GIVEN and given is not None:
        return given
    at_seed = connected if recipe.connected else draw
    if recipe.start == GIVEN or at_seed is None:
        raise ValueError(NEEDS_NOISE)
    return at_seed(int(recipe.start))


def _load(text: str) -> Any:
    if not isinstance(text, str):
        raise ValueError(f"recipe: must be text, not {type(text).__name__}")
    if len(text) > MAX_LENGTH:
        raise ValueError(f"recipe: {len(text)} characters is no recipe (at most {MAX_LENGTH})")
    if text.strip(COPIED).startswith('{\\"'):  # copied out of a report, which holds recipes as JSON strings
        text = text.strip(COPIED).replace('\\"', '"')
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also numbers of too many digits
        raise ValueError(f"recipe: not JSON ({error}): connect the 'recipe' output of a search, or paste it") from error


def _parse(data: Any) -> Recipe:
    if not isinstance(data, dict) or "noise_search" not in data:
        raise ValueError("recipe: no recipe of Noise Search: connect the 'recipe' output of a search, or paste it")
    if type(data["noise_search"]) is not int or data["noise_search"] != VERSION:
        raise ValueError(f"recipe: version {_shown(data['noise_search'])} is not known here: update Noise Search")
    said = data.get("noise")
    moves = Linked(_move(item) for item in _list(data, "moves"))
    cuts = Linked(_cut(item) for item in _list(data, "cuts"))
    if said == ZERO and moves:
        raise ValueError("recipe: 'moves' from a noise that is all zero lead nowhere")
    connected = isinstance(said, str) and said.startswith(AT_SEED)
    start = said if said in (GIVEN, ZERO) else _seed(said.removeprefix(AT_SEED) if isinstance(said, str) else said, "noise")
    jitter = _jitter(data["jitter"]) if "jitter" in data else None
    return Recipe(start, _seed(data.get("seed"), "seed"), moves, cuts, jitter, connected)


def _list(data: dict, name: str) -> list:
    value = data.get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError(f"recipe: '{name}' must be a list of objects, not {_shown(value)}")
    return value


def _move(item: dict) -> Move:
    kind, amount = item.get("kind"), _number(item.get("amount"), "amount")
    if not isinstance(kind, str) or kind not in MOVES:
        raise ValueError(f"recipe: unknown move {_shown(kind)}; known: {', '.join(MOVES)}")
    what, low, high = AMOUNTS[kind]
    if not low <= amount <= high:
        raise ValueError(f"recipe: 'amount' of {kind!r} is {what} in [{low:g}, {high:g}], not {amount:g}")
    seed, levels = _seed(item.get("seed"), "seed"), item.get("levels", 0)
    if type(levels) is not int or not 0 <= levels <= (MAX_LEVELS if kind in HAS_LEVELS else 0):
        raise ValueError(f"recipe: 'levels' of {kind!r} cannot be {_shown(levels)}")
    return Move(kind, seed, amount, levels, _lineage(item, kind, seed))


def _lineage(item: dict, kind: str, seed: int) -> Linked[Ancestor]:
    """Read what a move was drawn from: lists of a seed and of positions before the list's own."""
    value = item.get("lineage", [])
    if not isinstance(value, list) or not all(isinstance(entry, list) and entry for entry in value):
        raise ValueError(f"recipe: 'lineage' must be a list of lists, not {_shown(value)}")
    if len(value) > (MAX_LINEAGE if kind in HAS_LINEAGE else 0):
        raise ValueError(f"recipe: {len(value)} ancestors are too many for {kind!r}")
    for own, (_, *parents) in enumerate(value, 1):
        if not all(type(parent) is int and 0 <= parent < own for parent in parents) or len(set(parents)) < len(parents):
            raise ValueError(f"recipe: ancestor {own} of 'lineage' must name different ones before it, not {_shown(parents)}")
    lineage = Linked(Ancestor(_seed(first, "lineage"), tuple(parents)) for first, *parents in value)
    if lineage and lineage[-1].seed != seed:
        raise ValueError(f"recipe: 'lineage' must end with the move's own seed, not with {lineage[-1].seed}")
    return lineage


def _cut(item: dict) -> BranchPoint:
    sigma, up = _number(item.get("sigma"), "sigma"), _number(item.get("renoise_to"), "renoise_to")
    if not 0.0 < sigma <= up:
        raise ValueError(f"recipe: a cut needs 0 < sigma <= renoise_to, not {sigma:g} and {up:g}")
    return BranchPoint(sigma, up, _seed(item.get("noise_seed"), "noise_seed"), _seed(item.get("seed"), "seed"))


def _jitter(item: Any) -> Jitter:
    if not isinstance(item, dict):
        raise ValueError(f"recipe: 'jitter' must be an object with a seed and a cosine, not {_shown(item)}")
    cosine = _number(item.get("cosine"), "cosine")
    if not -1.0 <= cosine <= 1.0:
        raise ValueError(f"recipe: 'cosine' of the jitter must be in [-1, 1], not {cosine:g}")
    return Jitter(_seed(item.get("seed"), "seed"), cosine)


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= sys.float_info.max:
        raise ValueError(f"recipe: '{name}' must be a finite number, not {_shown(value)}")
    return float(value)


def _seed(value: Any, name: str) -> int:
    if not isinstance(value, str) or not value.isascii() or not value.isdigit() or len(value) > 20:
        raise ValueError(f"recipe: '{name}' must be a seed written as a string of digits, not {_shown(value)}")
    if int(value) >= SEED_LIMIT:
        raise ValueError(f"recipe: '{name}' must be below 2^64, not {value}")
    return int(value)


def _shown(value: Any) -> str:
    """Return a value as an error message shows it: it may be anything, of any length."""
    text = reprlib.repr(value)  # not deeper than it is long: a value may be nested to the limit
    return text if len(text) <= 60 else f"{text[:60]}..."


def is_zero(noise: Tensor) -> bool:
    """Say whether a noise holds nothing (DisableNoise, a later stage with leftover noise)."""
    return int(torch.count_nonzero(noise)) == 0
