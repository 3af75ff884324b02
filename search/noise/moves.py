"""Moves: how one noise is made from another. Each is seeds and a few numbers; a recipe holds no tensor."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from .bounded_cache import BoundedCache, KeptUnder
from .linked import Linked
from .seeds import DRAWN_SEED_LIMIT, derived_seed

Draw = Callable[[int], Tensor]
NOTHING = BoundedCache(0).under(None)  # no ancestor is kept
MAX_LINEAGE = 500  # ancestors; each is drawn, and held, when a recipe is rendered and none of them is kept
MAX_LEVELS = 16
LEAST_BLOCKS = 4  # of the low band along the shorter side


@dataclass(frozen=True, slots=True)
class Ancestor:
    """A noise on the way to another.

    Attributes:
        seed: of the Gaussian it draws.
        parents: what it was drawn from, as positions in the lineage, all before its own; 0 is the noise before the
            move, 1 the first ancestor.
    """

    seed: int
    parents: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Move:
    """A step from one noise to another.

    Attributes:
        kind: a key of `MOVES`.
        seed: seed of the Gaussian the move draws.
        amount: its size. "neighbor": the cosine between the two noises, in (-1, 1]; "low_band": that of the two low
            bands, 0 for an independent one, and with a lineage the least variance of an elite distribution;
            "antithetic": -1; "orthogonal": 0; "box": the side of the box.
        levels: of the low band: blocks are 2^levels cells wide. Clamped so that 4 blocks remain along the shorter side.
        lineage: the noises this one was drawn from, in order, itself as the last; made of any sequence.
    """

    kind: str
    seed: int
    amount: float
    levels: int = 0
    lineage: Linked[Ancestor] = Linked()

    def __post_init__(self) -> None:
        object.__setattr__(self, "lineage", Linked(self.lineage))


def apply(noise: Tensor, move: Move, draw: Draw, kept: KeptUnder = NOTHING) -> Tensor:
    """Return the noise (R, ...) that a move leads to from `noise`.

    Args:
        noise: where it starts.
        move: what it does.
        draw: gives the stock noise of a seed, unit Gaussian (R, ...).
        kept: what is kept of the ancestors in the lineages of moves from this noise.

    Raises:
        ValueError: it leads nowhere: the noise is all zero, or the move draws what is there already.
    """
    if not int(torch.count_nonzero(noise)):
        raise ValueError(f"recipe: {move.kind!r} has no direction: the noise is all zero")
    return MOVES[move.kind](noise, move, draw, kept).to(noise.dtype)


def neighbor(noise: Tensor, fresh: Tensor, cosine: float) -> Tensor:
    """Return the point at angle arccos(`cosine`) from `noise`, on its sphere, in the direction of `fresh`.

    y = |x| (tau u + sqrt(1 - tau^2) w),  u = x / |x|,  w = the unit vector of fresh - (fresh . u) u.

    Args:
        noise: the pivot (R, ...).
        fresh: unit Gaussian (R, ...).
        cosine: tau in [-1, 1]; 0.95 is the seed paper's choice.

    Raises:
        ValueError: `noise` is all zero, or `fresh` is along it.

    References:
        Inference-Time Scaling for Diffusion Models beyond Scaling Denoising Steps (Ma et al., 2025), arXiv 2501.09732
    """
    # In place: a video's noise is 17 MB in float64, and memory that is new each time takes longer than the arithmetic.
    u, w = noise.to(torch.float64, copy=True), fresh.to(torch.float64, copy=True)
    norm, least = u.norm(), 1e-6 * w.norm()
    u /= norm
    w -= (w * u).sum() * u
    rest = w.norm()
    if not rest > least:  # NaN too
        raise ValueError("recipe: 'neighbor' has no direction: the noise is all zero, or its move draws the same noise")
    w /= rest
    u *= cosine
    w *= (1.0 - cosine**2) ** 0.5
    u += w
    u *= norm
    return u.to(noise.dtype)


def low_band(noise: Tensor, levels: int) -> Tensor:
    """Return the low band of a noise, float64: the coefficients of orthonormal Haar wavelets at a scale.

    One for each block of 2^levels cells along each of the last two dimensions, (the last one for latents of less than
    four, which are sound or packed): the block's sum over the root of its number of cells. Blocks at the edge
    may be partial. Of unit Gaussian noise it is unit Gaussian.

    Args:
        noise: (R, ...).
        levels: 0 for every cell; clamped so that at least 4 blocks remain along the shorter side.
    """
    coefficients = noise.double()
    for dim, blocks, counts in _axes(noise, levels):
        shape = list(coefficients.shape)
        shape[dim] = len(counts)
        sums = torch.zeros(shape, dtype=torch.float64, device=noise.device).index_add_(dim, blocks, coefficients)
        coefficients = sums / _along(counts, sums, dim).sqrt()
    return coefficients


def with_low_band(noise: Tensor, coefficients: Tensor, levels: int) -> Tensor:
    """Return a noise with its low band replaced, float64; what is above the band stays."""
    high = noise.double() - _spread(low_band(noise, levels), noise, levels)
    return high + _spread(coefficients, noise, levels)


def elite_draw(elites: Tensor, fresh: Tensor, least_variance: float) -> Tensor:
    """Return a draw from the Gaussian with the elites' mean and variance, scaled to unit second moment.

    z = (mean + sqrt(var) fresh) / sqrt(average of mean^2 + var); without the scale noise drifts away from what models
    were trained on, generation by generation.

    Args:
        elites: (E, ...).
        fresh: unit Gaussian (...).
        least_variance: floor of the variance, so that the search does not end in a few generations.

    References:
        Spectral Evolution Search: Efficient Inference-Time Scaling for Reward-Aligned Image Generation (2026),
            arXiv 2602.03208
    """
    mean = elites.mean(0)
    var = elites.var(0, correction=min(1, len(elites) - 1)).clamp(min=least_variance)
    return (mean + var.sqrt() * fresh) / (mean.square() + var).mean().sqrt()


def _low_band(noise: Tensor, move: Move, draw: Draw, kept: KeptUnder) -> Tensor:
    first = low_band(noise, move.levels)

    def band_of(ancestor: Ancestor, elites: list[Tensor]) -> Tensor:
        band = low_band(draw(ancestor.seed), move.levels)
        return elite_draw(torch.stack(elites), band, move.amount) if elites else band

    if move.lineage:
        band = _descendant(move, first, band_of, kept)
    else:
        fresh = low_band(draw(move.seed), move.levels)
        band = neighbor(first, fresh, move.amount) if move.amount else fresh
    return with_low_band(noise, band, move.levels)


def _orthogonal(noise: Tensor, move: Move, draw: Draw, kept: KeptUnder) -> Tensor:
    """The last of a group, each made orthogonal to its parents and as long as it was drawn."""

    def orthogonal_to(ancestor: Ancestor, parents: list[Tensor]) -> Tensor:
        return _across(draw(ancestor.seed).double().flatten(), parents)

    first = noise.double().flatten()
    alone = Ancestor(move.seed, (0,))
    last = _descendant(move, first, orthogonal_to, kept) if move.lineage else orthogonal_to(alone, [first])
    return last.reshape(noise.shape)


def _descendant(
    move: Move, first: Tensor, make: Callable[[Ancestor, list[Tensor]], Tensor], kept: KeptUnder
) -> Tensor:  # fmt: skip
    """Return what the last of a move's lineage is, from ancestors that are kept and from others that are made again.

    Args:
        move: its lineage is not empty.
        first: what position 0 of the lineage stands for.
        make: gives what an ancestor is, of its parents in order.
        kept: where it is looked for, and kept, by its whole descent.
    """
    lineage, keys = list(move.lineage), _descents(move)
    found, todo = {0: first}, [len(lineage)]
    while todo:
        place = todo[-1]
        if place not in found and (there := kept.get(keys[place])) is not None:
            found[place] = there
        ancestor = lineage[place - 1]
        missing = [] if place in found else [parent for parent in ancestor.parents if parent not in found]
        todo += missing
        if not missing:
            if place not in found:
                found[place] = make(ancestor, [found[parent] for parent in ancestor.parents])
                kept.add(keys[place], found[place])
            todo.pop()
    return found[len(lineage)]


def _descents(move: Move) -> list[bytes]:
    """Return, for each position in a move's lineage, a hash of all that it is made of but the noise before the move."""
    keys = _descents_of(move.kind, move.levels, move.amount, move.lineage.before)
    return [*keys, _descent(keys, move.lineage.last)]


@lru_cache(maxsize=16)  # the children of a generation share all of their lineage but themselves
def _descents_of(kind: str, levels: int, amount: float, lineage: Linked[Ancestor]) -> list[bytes]:
    keys = [f"{kind} {levels} {amount!r}".encode()]
    for ancestor in lineage:
        keys.append(_descent(keys, ancestor))
    return keys


def _descent(keys: Sequence[bytes], ancestor: Ancestor) -> bytes:
    of = [keys[0], str(ancestor.seed).encode(), *(keys[parent] for parent in ancestor.parents)]
    return hashlib.sha256(b"|".join(of)).digest()


def _across(v: Tensor, others: list[Tensor]) -> Tensor:
    if not others:
        return v
    q = torch.linalg.qr(torch.stack(others, 1))[0]
    w = v - q @ (q.T @ v)
    w = w - q @ (q.T @ w)  # what rounding left of the first
    if not w.norm() > 1e-6 * v.norm():
        raise ValueError("recipe: 'orthogonal' has no direction: its moves draw the same noise, or more than there is room for")
    return w * (v.norm() / w.norm())


def _box(noise: Tensor, move: Move, draw: Draw, kept: KeptUnder) -> Tensor:
    """A step of the coordinates that a coin chooses, clamped to the box and put back on the sphere of the noise.

    The coin falls with a chance in (0.1, 0.9) that is the move's own; one coordinate at least is chosen.

    References:
        Trust-Region Noise Search for Black-Box Alignment of Diffusion and Flow Models (Schweiger et al., 2026),
            arXiv 2603.14504
    """
    chance = 0.1 + 0.8 * derived_seed(move.seed, "chance") / DRAWN_SEED_LIMIT
    coin = draw(derived_seed(move.seed, "mask")).double()
    chosen = (coin < torch.special.ndtri(torch.tensor(chance, dtype=torch.float64))) | (coin == coin.min())
    step = (draw(move.seed).double() * (move.amount / math.sqrt(12.0))).clamp(-move.amount / 2.0, move.amount / 2.0)
    x = noise.double()
    y = x + chosen * step
    return y * (x.norm() / y.norm())


MOVES: dict[str, Callable[[Tensor, Move, Draw, KeptUnder], Tensor]] = {
    "neighbor": lambda noise, move, draw, kept: neighbor(noise, draw(move.seed), move.amount),
    "low_band": _low_band,
    "antithetic": lambda noise, move, draw, kept: -noise,
    "orthogonal": _orthogonal,
    "box": _box,
}
AMOUNTS = {  # what it is, and its range
    "neighbor": ("a cosine", -1.0, 1.0),
    "low_band": ("a cosine", -1.0, 1.0),
    "antithetic": ("the cosine of an opposite", -1.0, -1.0),
    "orthogonal": ("the cosine of a right angle", 0.0, 0.0),
    "box": ("the side of a box", 1e-6, 1e6),
}
HAS_LEVELS, HAS_LINEAGE = ("low_band",), ("low_band", "orthogonal")


def _axes(noise: Tensor, levels: int) -> list[tuple[int, Tensor, Tensor]]:
    """Return, for each dimension that the low band is of: it, the block of each cell, and the cells of each block."""
    dims = (-2, -1) if noise.ndim >= 4 else (-1,)
    side, shorter = 2 ** min(levels, MAX_LEVELS), min(noise.shape[dim] for dim in dims)
    while side > 1 and -(-shorter // side) < LEAST_BLOCKS:
        side //= 2
    axes = []
    for dim in dims:
        blocks = torch.arange(noise.shape[dim], device=noise.device) // side
        axes.append((noise.ndim + dim, blocks, torch.bincount(blocks).double()))
    return axes


def _along(values: Tensor, like: Tensor, dim: int) -> Tensor:
    shape = [1] * like.ndim
    shape[dim] = len(values)
    return values.reshape(shape)


def _spread(coefficients: Tensor, noise: Tensor, levels: int) -> Tensor:
    """Return the part of a noise of that shape that a low band is."""
    for dim, blocks, counts in _axes(noise, levels):
        coefficients = (coefficients / _along(counts, coefficients, dim).sqrt()).index_select(dim, blocks)
    return coefficients
