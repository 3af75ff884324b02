"""Counts the pictures that are alive.

held = Held(bytes of a picture)
with held: ...                                # held.look() wherever it matters
assert held.most <= 4
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Held(TorchDispatchMode):
    """Knows all pictures (..., H, W, 3) of at least so many bytes, such as videos, that are made inside of it and are alive.

    Attributes:
        most: so many such pictures were held at once, whenever somebody looked.
        decodes: for whoever counts them.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.made: list[weakref.ref] = []
        self.most, self.decodes = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.ndim >= 4 and out.shape[-1] == 3 and out.untyped_storage().nbytes() >= self.size:
            self.made.append(weakref.ref(out))
        return out

    def look(self, more: int = 0) -> None:
        """Note how many pictures are held, `more` beside them: parts of one tensor once."""
        alive = [tensor for ref in self.made if (tensor := ref()) is not None]
        held = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in alive}
        self.most = max(self.most, sum(held.values()) // self.size + more)
        self.made = [ref for ref in self.made if ref() is not None]
