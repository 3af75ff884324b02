"""NOISE objects: what the user's makes at other seeds, and those of winners, which stock nodes turn into the same picture."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import comfy.model_management
import comfy.sample
import comfy.utils
import torch
from comfy.nested_tensor import NestedTensor, cat_nested
from torch import Tensor

from ...search.noise.recipe import GIVEN, Recipe, derived_seed, is_zero, make_noise
from .batching_policy import code_name

STOCK = ("prepare_noise", "prepare_noise_inner")
RANDOM_NOISE = ("comfy_extras/nodes_custom_sampler.py", "Noise_RandomNoise.generate_noise")
GAUSSIAN = (
    "noise: {name} makes the noise of candidate 0 only, and that of the others is Gaussian, as RandomNoise draws it: "
    "it cannot be drawn at other seeds ({why})"
)


def pack(latent: Any) -> Tensor:
    """Return a latent as one tensor: a nested one as (R, 1, N), as ComfyUI's guiders do."""
    return comfy.utils.pack_latents(latent.unbind())[0] if latent.is_nested else latent


def unpack_like(packed: Tensor, latent: Any) -> Any:
    """Undo `pack`, for the shapes of `latent`."""
    if not latent.is_nested:
        return packed
    return NestedTensor(comfy.utils.unpack_latents(packed, [part.shape for part in latent.unbind()]))


def join(latents: Sequence[Any]) -> Any:
    """Concatenate latents, plain or nested, by rows."""
    latents = list(latents)
    if len(latents) == 1:
        return latents[0]
    return cat_nested(latents) if latents[0].is_nested else torch.cat(latents)


def rows_of(latent: Any, first: int, count: int) -> Any:
    """Return rows first .. first + count of a plain or nested latent."""
    if latent.is_nested:
        return NestedTensor([part[first : first + count] for part in latent.unbind()])
    return latent[first : first + count]


def draw(latent: dict[str, Any], seed: int) -> Tensor:
    """Return the noise that the stock noise node gives for `seed`, packed."""
    return pack(comfy.sample.prepare_noise(latent["samples"], seed, latent.get("batch_index")))


class Drawn(NamedTuple):
    """A stock noise.

    Attributes:
        noise: (R, ...), packed.
        state: of the CPU generator after it, uint8; None if the global generators themselves are there.
    """

    noise: Tensor
    state: Tensor | None


def draw_apart(latent: dict[str, Any], seed: int) -> Drawn:
    """Return what `draw` does, where it can without touching the global random state: that takes a fraction of the time.

    A generator of its own gives the same numbers, if the functions of ComfyUI that draw are ComfyUI's own.
    """
    if not can_draw_apart():
        return Drawn(draw(latent, seed), None)
    generator = torch.Generator().manual_seed(seed)
    return Drawn(pack(_drawn_from(generator, latent["samples"], latent.get("batch_index"))), generator.get_state())


def _drawn_from(generator: torch.Generator, samples: Any, batch_index: Any) -> Any:
    """Do what stock `prepare_noise` does with the global generator."""
    inner = comfy.sample.prepare_noise_inner
    if samples.is_nested:
        return NestedTensor([inner(part, generator, batch_index) for part in samples.unbind()])
    return inner(samples, generator, batch_index)


def can_draw_apart() -> bool:
    """Tell whether the noise that ComfyUI makes, as it is now, can be drawn by a generator of one's own.

    Not if another pack put functions of its own there. ComfyUI's are tried once, on a small batch and a small nested latent.
    """
    return _draw_apart_alike(comfy.sample.prepare_noise, getattr(comfy.sample, "prepare_noise_inner", None))


@cache
def _draw_apart_alike(prepare_noise: Callable[..., Any], inner: Callable[..., Any] | None) -> bool:
    if [code_name(one) for one in (prepare_noise, inner)] != [("comfy/sample.py", one) for one in STOCK]:
        return False
    outside = torch.get_rng_state()
    plain = torch.zeros(2, 4, 3, 5)
    tried = [(plain, None), (plain, [3, 1]), (NestedTensor([plain, plain[..., 1:]]), None)]
    try:
        pairs = [
            (pack(_drawn_from(torch.Generator().manual_seed(seed), *one)), pack(prepare_noise(one[0], seed, one[1])))
            for seed, one in enumerate(tried)
        ]
    finally:
        torch.set_rng_state(outside)
    return all(torch.equal(apart, stock) for apart, stock in pairs)


def is_stock(source: Any, latent: dict[str, Any], given: Tensor) -> bool:
    """Tell whether what a NOISE object made for a latent, packed, is what stock `prepare_noise` draws for its seed."""
    plain = isinstance(source, RecipeNoise) and source.recipe == Recipe(source.seed, source.seed)
    if plain or code_name(source.generate_noise) == RANDOM_NOISE:
        return True
    return torch.equal(draw_apart(latent, source.seed).noise, given)


def at_seed(source: Any, latent: dict[str, Any], seed: int) -> Tensor:
    """Return the noise that a copy of a NOISE object with another `seed` makes for a latent, packed, on the CPU.

    The global random state is where the stock noise of that seed leaves it, unless the object changes it.

    Raises:
        ValueError: its seed cannot be set, or its noise has another shape than the latent.
    """
    other = copy.copy(source)
    try:
        other.seed = seed
    except (AttributeError, TypeError) as error:
        raise ValueError(f"noise: the seed of {type(source).__qualname__} cannot be set: {error}") from error
    draw(latent, seed)
    noise = pack(other.generate_noise(latent)).to("cpu")
    check_shape(noise, latent)
    return noise


def check_shape(noise: Tensor, latent: dict[str, Any]) -> None:
    """Raise a ValueError if a packed noise is not of a latent's shape."""
    shape, wanted = tuple(noise.shape), tuple(pack(latent["samples"]).shape)
    if shape != wanted:
        raise ValueError(f"noise: its shape is {shape}, the latent's is {wanted}: connect a noise made for this latent")


def drawn_by_seed(source: Any, latent: dict[str, Any], given: Tensor, by_stock: bool) -> tuple[bool, str]:
    """Tell whether other candidates' noise is what a NOISE object makes at their seeds.

    It is where the object's noise is decided by its seed: that is tried.

    Args:
        source: the NOISE.
        latent: LATENT dict that it made noise for.
        given: that noise, packed.
        by_stock: whether that is stock noise, see `is_stock`.

    Returns:
        Whether it is; and if it is not, why not, in words. They are empty for RandomNoise's noise, winners' of it, and none.
    """
    plain = isinstance(source, RecipeNoise) and not source.recipe.needs_noise  # an earlier winner's, as Gaussian as the others
    if plain or by_stock or is_zero(given):
        return False, ""
    first, second = derived_seed(source.seed, "noise", 1), derived_seed(source.seed, "noise", 2)
    try:
        own, one, other, again = (at_seed(source, latent, seed) for seed in (source.seed, first, second, first))
        if torch.equal(one, other):
            why = "it is the same at all of them"
        else:
            why = "" if torch.equal(own, given) and torch.equal(one, again) else "at one seed it is not the same each time"
    except comfy.model_management.InterruptProcessingException:
        raise
    except Exception as error:
        why = f"{type(error).__name__}: {str(error)[:200]}"
    return not why, GAUSSIAN.format(name=type(source).__qualname__, why=why) if why else ""


def recipe_noise(recipe: Recipe, latent: dict[str, Any], given: Tensor | None = None, source: Any = None) -> Tensor:
    """Return a recipe's first noise, packed.

    The global random state is left where the stock noise node leaves it for the recipe's step seed: samplers may
    draw from it.

    Args:
        recipe: its start, moves and seed are used.
        latent: LATENT dict of the rows to make noise for.
        given: packed noise for recipes that start from a connected one.
        source: the NOISE for recipes that start from what it makes at a seed.
    """
    at = None if source is None else lambda seed: at_seed(source, latent, seed)
    if recipe.start == recipe.seed and not (recipe.moves or recipe.connected):
        return draw(latent, recipe.seed)
    noise = make_noise(recipe, lambda seed: draw_apart(latent, seed).noise, given, at)
    if recipe.moves or recipe.start != recipe.seed:
        draw(latent, recipe.seed)
    return noise


class RecipeNoise:
    """A NOISE that makes a recipe's noise for whatever latent it meets."""

    def __init__(self, recipe: Recipe, given: Tensor | None = None, source: Any = None) -> None:
        """Hold a recipe, and what it starts from: the packed connected noise, or the connected NOISE."""
        self.recipe, self.given, self.source = recipe, given, source
        self.seed = recipe.seed

    def of_given(self, given: Tensor) -> RecipeNoise:
        """Return this noise with what the connected NOISE made, packed, if the recipe starts from that."""
        return RecipeNoise(self.recipe, given, self.source) if self.recipe.start == GIVEN else self

    def generate_noise(self, input_latent: dict[str, Any]) -> Any:
        """Return noise of the latent's shape, on the CPU."""
        samples = input_latent["samples"]
        if self.recipe.start == GIVEN and self.given is None and self.source is not None:
            made = self.source.generate_noise(input_latent)
            return self.of_given(pack(made).to("cpu")).generate_noise(input_latent) if self.recipe.moves else made
        shape = tuple(pack(samples).shape)
        if self.given is not None and tuple(self.given.shape) != shape:
            raise ValueError(
                f"noise: this winner was found for a latent of shape {tuple(self.given.shape)}, not {shape}: connect a "
                "latent of the same size"
            )
        return unpack_like(recipe_noise(self.recipe, input_latent, self.given, self.source), samples)


class SegmentNoise:
    """A NOISE that starts the last segment of a branched run, for the latent it was found with."""

    def __init__(self, noise: Tensor, seed: int, drawn: int) -> None:
        """Hold the packed noise (R, ...), the step seed, and the seed that was drawn last before the run."""
        self.noise, self.seed, self._drawn = noise, seed, drawn

    def generate_noise(self, input_latent: dict[str, Any]) -> Any:
        """Return the segment's noise, on the CPU; the global random state is where its run found it."""
        samples = input_latent["samples"]
        if pack(samples).shape != self.noise.shape:
            wanted, got = tuple(self.noise.shape), tuple(pack(samples).shape)
            raise ValueError(f"noise: made for the latent it was found with, of shape {wanted}, not {got}")
        draw(input_latent, self._drawn)
        return unpack_like(self.noise, samples)


class BatchNoise:
    """A NOISE for a latent batch whose rows were searched one after another."""

    def __init__(self, noises: Sequence[Any], sigmas: Sequence[Tensor] = (), source: Any = None) -> None:
        """Hold one NOISE and its sigmas per row, and the NOISE that some start from; the step seed is the first one's."""
        self.noises, self._source = list(noises), source
        self._one_run = all(torch.equal(levels, sigmas[0]) for levels in sigmas)
        self.seed = self.noises[0].seed

    def generate_noise(self, input_latent: dict[str, Any]) -> Any:
        """Return the stacked noise of all rows, on the CPU."""
        samples = input_latent["samples"]
        if samples.shape[0] != len(self.noises):
            raise ValueError(
                f"noise: it is for a latent batch of {len(self.noises)}, not of {samples.shape[0]}: "
                "connect the latent batch it was found with"
            )
        if not self._one_run:
            raise ValueError(
                "noise: the winners of this batch branched at different noise levels, so that no single run gives them "
                "all: use the latents output, or render each row's recipe with 'Render Candidate'"
            )
        noises = self.noises
        if self._source is not None:  # a row of a batch starts from that row of the batch's noise
            made = self._source.generate_noise(input_latent)
            noises = [noise.of_given(pack(rows_of(made, row, 1)).to("cpu")) for row, noise in enumerate(noises)]
        rows = [row_latent(input_latent, row) for row in range(len(noises))]
        return join([noise.generate_noise(row) for noise, row in zip(noises, rows, strict=True)])


def row_latent(latent: dict[str, Any], row: int) -> dict[str, Any]:
    """Return the LATENT dict of one row of a batch, with that row's mask; unknown keys are kept."""
    out = {**latent, "samples": rows_of(latent["samples"], row, 1)}
    out.pop("batch_index", None)
    mask = latent.get("noise_mask")
    if mask is not None:
        out["noise_mask"] = mask_rows(mask, [row], latent["samples"])
    return out


def mask_rows(mask: Any, rows: Sequence[int], latent: Any) -> Any:
    """Return the rows of a noise mask that belong to rows of a latent; itself if one mask serves all.

    For a video ComfyUI takes a mask of less than five dimensions for one: (F, H, W) or (F, 1, H, W), of F frames.
    """
    if mask.is_nested:
        return NestedTensor([mask_rows(part, rows, of) for part, of in zip(mask.unbind(), latent.unbind(), strict=False)])
    first = latent.unbind()[0] if latent.is_nested else latent
    if mask.ndim < (5 if first.ndim == 5 else 3) or mask.shape[0] == 1:
        return mask
    return mask[[row % mask.shape[0] for row in rows]]  # core repeats masks cyclically too
