"""How a family is described, and built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from inprocess import boot

boot()

import comfy.clip_vision
import comfy.model_patcher
import comfy.samplers
import comfy.supported_models
import torch
from comfy.nested_tensor import NestedTensor

from toynets import fill

CPU = torch.device("cpu")
REFUSED = "fails with several candidates in one call"
COUPLED = "get other answers than alone"
SEEDED = "draws from the seed"


class Draw:
    """Draws random tensors: `draw(2, 8)`."""

    def __init__(self, seed: int) -> None:
        """Start from a seed."""
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int) -> torch.Tensor:
        """Return unit Gaussian numbers of a shape."""
        return torch.randn(shape, generator=self._generator)


def nothing(draw: Draw) -> dict[str, Any]:
    """Return an empty dictionary."""
    return {}


@dataclass(frozen=True)
class Family:
    """A model family.

    Attributes:
        config: class in `comfy.supported_models`.
        net: its `unet_config`, the sizes of the network; a network's other defaults are those of published models.
        latent: shape of one row; for nested latents, that of each stream.
        text: shape of one row of the text embedding.
        extras: what is in the conditioning beside it.
        weights: what the model class itself reads from a checkpoint.
        gain: of the random weights.
        cfg: of the guider.
        ignores: entries of the conditioning that this network, or this core's, does not look at.
        alone: words of the reason why its candidates do not share calls; empty if they do, on this core.
    """

    config: str
    net: dict[str, Any]
    latent: tuple
    text: tuple[int, ...] = (5, 16)
    extras: Callable[[Draw], dict[str, Any]] = nothing
    weights: Callable[[Draw], dict[str, torch.Tensor]] = nothing
    gain: float = 1.0
    cfg: float = 3.0
    ignores: tuple[str, ...] = ()
    alone: str = ""


def build(family: Family) -> comfy.model_patcher.ModelPatcher:
    """Make the model of a family, as ComfyUI makes it from a checkpoint; its network's parameters are random."""
    config = getattr(comfy.supported_models, family.config)(family.net)
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model(family.weights(Draw(9)), "", CPU).eval()
    fill(model.diffusion_model, seed=1, gain=family.gain)
    return comfy.model_patcher.ModelPatcher(model, load_device=CPU, offload_device=CPU)


def conditioning(family: Family, seed: int, rows: Sequence[int] = (0,)) -> list:
    """Make a CONDITIONING of such rows: random text, and what the family reads beside it."""
    parts = [(draw(1, *family.text), family.extras(draw)) for draw in (Draw(100 * seed + row) for row in rows)]
    text = torch.cat([words for words, _ in parts])
    return [[text, {name: join([extra[name] for _, extra in parts]) for name in parts[0][1]}]]


def join(values: list[Any]) -> Any:
    """Put what rows hold into one value: tensors are stacked, also inside lists, dictionaries and CLIP vision outputs."""
    first = values[0]
    if isinstance(first, torch.Tensor):
        return torch.cat(values)
    if isinstance(first, comfy.clip_vision.Output):
        joined = comfy.clip_vision.Output()
        vars(joined).update(join([vars(value) for value in values]))
        return joined
    if isinstance(first, dict):
        return {name: join([value[name] for value in values]) for name in first}
    if isinstance(first, (list, tuple)):
        return type(first)(join(list(inner)) for inner in zip(*values, strict=True))
    return first


def guider(family: Family, patcher: comfy.model_patcher.ModelPatcher, rows: Sequence[int] = (0,)) -> comfy.samplers.CFGGuider:
    """Make a stock CFGGuider between two conditionings of the family, of such rows."""
    made = comfy.samplers.CFGGuider(patcher)
    made.set_conds(conditioning(family, 1, rows), conditioning(family, 2, rows))
    made.set_cfg(family.cfg)
    return made


def latent_of(family: Family, rows: int = 1) -> dict[str, Any]:
    """Make the empty LATENT that a user would start from."""
    if isinstance(family.latent[0], tuple):
        return {"samples": NestedTensor([torch.zeros(rows, *shape) for shape in family.latent])}
    return {"samples": torch.zeros(rows, *family.latent)}
