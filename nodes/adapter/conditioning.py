"""Conditioning jitter: a candidate's own text embeddings, in the user's guider and for stock nodes."""

from __future__ import annotations

import uuid
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor

from ...search.noise.jitter import Jitter, jitter_embedding
from ...search.noise.recipe import derived_seed
from .batch_rows import guider_with, is_own
from .batching_policy import replaced_methods

EMBEDDINGS = ("cross_attn", "pooled_output", "conditioning_llama3")  # of texts: (rows, tokens, width), (rows, width)
MAX_KEPT = 16  # guiders of suspended runs; an embedding may be large, and is soon made again


def jittered_entry(entry: dict[str, Any], place: int, jitter: Jitter) -> dict[str, Any]:
    """Return a conditioning entry with its text embeddings jittered.

    Args:
        entry: as a guider keeps it; the tensor of a CONDITIONING under "cross_attn".
        place: its index in the conditioning; every entry, and every embedding of it, is given noise of its own.
        jitter: seed and cosine.
    """
    changed = {
        name: jitter_embedding(value, derived_seed(jitter.seed, place, name), jitter.cosine)
        for name, value in embeddings(entry).items()
    }
    return {**entry, **changed}


def embeddings(entry: dict[str, Any]) -> dict[str, Tensor]:
    """Return the text embeddings of a conditioning entry."""
    found = {name: entry.get(name) for name in EMBEDDINGS}
    return {name: value for name, value in found.items() if isinstance(value, Tensor) and value.is_floating_point()}


def jittered_rows(entry: dict[str, Any], place: int, jitters: list[Jitter | None]) -> dict[str, Any]:
    """Return an entry whose row b, for each row of a latent batch, is jittered by itself; core repeats rows cyclically."""
    rows = [entry if jitter is None else jittered_entry(entry, place, jitter) for jitter in jitters]
    if len(rows) == 1:
        return rows[0]
    changed = {name: torch.cat([row[name][[b % row[name].shape[0]]] for b, row in enumerate(rows)]) for name in embeddings(entry)}
    return {**entry, **changed}


class JitteredGuiders:
    """Copies of a guider whose positive conditioning is jittered. The guider and its conditioning stay as they are."""

    def __init__(self, guider: Any) -> None:
        """Hold the guider, between samplings."""
        self._guider = guider
        self._kept: OrderedDict[Jitter, Any] = OrderedDict()

    def get(self, jitter: Jitter | None) -> Any:
        """Return the guider of candidates with a jitter; the guider itself for None.

        Raises:
            ValueError: it has no positive conditioning, or no text embedding in it.
        """
        if jitter is None:
            return self._guider
        if jitter not in self._kept:
            positive = self.check()
            entries = [jittered_entry(entry, place, jitter) for place, entry in enumerate(positive)]
            entries = [{**entry, "uuid": uuid.uuid4()} for entry in entries]  # caches tell entries apart by it
            self._kept[jitter] = guider_with(self._guider, {**self._guider.original_conds, "positive": entries})
        self._kept.move_to_end(jitter)
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return self._kept[jitter]

    def check(self) -> list[dict[str, Any]]:
        """Return the entries of the positive conditioning; raise a ValueError if there is nothing to jitter."""
        positive = (getattr(self._guider, "original_conds", None) or {}).get("positive")
        name = type(self._guider).__qualname__
        if not positive:
            raise ValueError(
                f"guider: {name} keeps no positive conditioning, so that conditioning jitter has nothing to vary: use a "
                "CFG Guider or a Basic Guider, or another proposal"
            )
        if not any(map(embeddings, positive)):
            raise ValueError(
                f"guider: the positive conditioning of {name} holds no text embedding, so that conditioning jitter has "
                "nothing to vary: use another proposal"
            )
        if bound := [method for method in replaced_methods(self._guider) if not is_own(self._guider, method)]:
            raise ValueError(_fixed(f"{name}.{bound[0]} is replaced by a function"))
        return positive


def check_entered(expected: Any, guider: Any) -> None:
    """Raise a ValueError if a sampling of one guider turns out to be that of another, which it wraps."""
    conds = expected.original_conds
    if getattr(guider, "original_conds", conds) is not conds:
        raise ValueError(_fixed(f"{type(expected).__qualname__} hands the sampling on to another guider"))


def _fixed(why: str) -> str:
    return f"guider: {why} that always uses its own conditioning, which conditioning jitter cannot vary: use another proposal"
