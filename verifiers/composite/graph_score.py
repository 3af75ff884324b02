"""Scores that the nodes of a graph compute: the verifier asks them, and reads numbers from what they answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..common.base import check_images

HIGH, LOW = PREFER = ("high", "low")


@dataclass(frozen=True)
class GraphScore:
    """Scores pictures by what a function, a chain of nodes, says of them.

    Attributes:
        run: Takes pictures (n, H, W, 3), float32, n at most `batch_size`; returns the values of one output of a node, as
            ComfyUI holds them: a list. What they hold together must be n numbers.
        name: Short, as shown in the report.
        prefer: "high" or "low": which numbers are good. "low" turns them around.
        batch_size: How many pictures `run` may get at once. With more than 1, a row is as independent of the others as
            the nodes are.
        trusts_previews: Whether half-denoised pictures may be scored.
        models: The model patchers that the nodes use, as far as they are known.

    Raises:
        ValueError: For another `prefer`, and a `batch_size` below 1.
    """

    run: Callable[[Tensor], Sequence[Any]]
    name: str
    prefer: str = HIGH
    batch_size: int = 1
    trusts_previews: bool = True
    models: tuple[Any, ...] = ()
    needs_prompt: bool = False
    prompt: str = ""
    score_range: tuple[float, float] = (-math.inf, math.inf)

    def __post_init__(self) -> None:
        if self.prefer not in PREFER:
            raise ValueError(f"{self.name}: input 'prefer' is {self.prefer!r}; choose one of {', '.join(PREFER)}")
        if self.batch_size < 1:
            raise ValueError(f"{self.name}: input 'batch_size' is {self.batch_size}; it must be at least 1")

    def get_models(self) -> list[Any]:
        """Return the known model patchers, for ComfyUI's tracking of models in use."""
        return list(self.models)

    def score(self, images: Tensor, latents: Tensor | None = None) -> Tensor:
        """Score images (B, H, W, 3) in [0, 1]: (B,) float32, the chain's numbers, or their negatives if low is good.

        Raises:
            ValueError: If a node fails, or the chain does not answer one number for each picture.
        """
        images = check_images(images, self.name)
        found: list[float] = []
        for part in images.split(self.batch_size):
            try:
                # a copy: nodes of other packs may write into what they are given
                found += numbers(self.run(part.detach().float().clone()), len(part))
            except ValueError as error:
                last = len(found) + len(part) - 1
                which = f"picture {last}" if len(part) == 1 else f"pictures {len(found)} to {last}"
                where = f" ({which} of {len(images)}, from 0)" if len(images) > 1 else ""
                raise ValueError(f"{self.name}: {error}{where}") from error
        scores = torch.tensor(found, dtype=torch.float32)
        return -scores if self.prefer == LOW else scores


def numbers(values: Sequence[Any], count: int) -> list[float]:
    """Read `count` numbers from the values of an output.

    A number is an int, a float, a bool, a text that is a number as a whole, an element of a tensor or an array; lists
    of those are read through.

    Raises:
        ValueError: For anything else, and another count; says what was found.
    """
    found = [number for value in values for number in _flat(value, count)]
    if len(found) != count:
        raise ValueError(
            f"the output connected to 'score' gave {len(found)} numbers for {count} picture(s); one for each is needed."
            " Set 'batch_size' to 1 if the nodes answer one number for a whole batch"
        )
    return found


def _flat(value: Any, count: int) -> list[float]:
    if isinstance(value, str):
        try:
            return [float(value)]
        except ValueError:
            shown = value if len(value) <= 60 else value[:57] + "..."
            raise ValueError(
                f"the output connected to 'score' is the text {shown!r}, which is not a number. Connect the node's number"
                " output, or cut the text down to the number with a text node"
            ) from None
    if isinstance(value, (int, float)):
        return [float(value)]
    if isinstance(value, (list, tuple)):
        return [number for item in value for number in _flat(item, count)]
    shape = getattr(value, "shape", None)  # tensors, arrays and numpy's scalars
    if shape is not None and hasattr(value, "tolist"):
        if math.prod(shape) > count:
            raise ValueError(
                f"the output connected to 'score' is a {type(value).__name__} of shape {tuple(shape)}; {count} number(s)"
                " are needed. Connect a node's number (FLOAT, INT or STRING), not a picture, mask or embedding"
            )
        return _flat(value.tolist(), count)  # plain Python now: a list or a single value
    return _unreadable(value)


def _unreadable(value: Any) -> list[float]:
    raise ValueError(
        f"the output connected to 'score' is of type {type(value).__name__}, which holds no number. Connect a FLOAT, INT or"
        " STRING"
    )
