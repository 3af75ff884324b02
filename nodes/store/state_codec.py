"""What a finished run leaves on disk, as safetensors: its latent, and what branches of it start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from comfy.nested_tensor import NestedTensor
from safetensors.torch import load, save
from torch import Tensor

from ...search.journal.caching_session import KeptRun
from ...search.lockstep.model_calls import CallRecord
from ...search.lockstep.trajectory import Trajectory
from ...search.noise.recipe import Recipe
from ..adapter.graph import LeftoverNoise, to_intermediate

Tensors = dict[str, Tensor]


class StateCodec:
    """Packs ended runs of a `ComfySession`; see `search.recall.Codec`."""

    def __init__(self, device: torch.device) -> None:
        """Unpack records for runs on a device."""
        self._device = device

    def pack(self, run: Trajectory) -> bytes:
        """Return a run's latent, records, segment and predictions."""
        tensors = _latent("latent", run.latent) | _levels("records", [record.sigma for record in run.records])
        for i, record in enumerate(run.records):
            tensors |= {f"records.{i}.x": record.x, **_levels(f"records.{i}.gaps", record.gaps)}
            tensors |= _by_level(f"records.{i}.noted", record.noted)
        if run.segment_start is not None:
            tensors |= dict(zip(("segment.noise", "segment.sigmas"), run.segment_start, strict=True))
        tensors |= _by_level("predictions", run.predictions)
        return save({name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()})

    def unpack(self, data: bytes, recipe: Recipe) -> KeptRun:
        """Return what was packed, latents where those of new runs are. Records have x, not the model's answer."""
        tensors = load(data)
        records = [self._record(tensors, i, sigma, recipe) for i, sigma in enumerate(tensors["records"].tolist())]
        segment = (tensors["segment.noise"], tensors["segment.sigmas"]) if "segment.noise" in tensors else None
        predictions = {level: _placed(latent) for level, latent in _levels_in(tensors, "predictions").items()}
        return KeptRun(_placed(_latent_in(tensors, "latent")), records, segment, predictions)

    def _record(self, tensors: Tensors, i: int, sigma: float, recipe: Recipe) -> CallRecord:
        gaps = tuple(tensors[f"records.{i}.gaps"].tolist())
        noted = {level: value.to(self._device) for level, value in _levels_in(tensors, f"records.{i}.noted").items()}
        return CallRecord(tensors[f"records.{i}.x"].to(self._device), sigma, None, None, None, recipe.jitter, gaps, noted)


def _latent(name: str, latent: Any) -> Tensors:
    """Return a latent's tensors by name: plain, nested, or with leftover noise."""
    if isinstance(latent, LeftoverNoise):
        return _latent(f"{name}.noisy", latent.samples) | _latent(f"{name}.denoised", latent.denoised)
    if latent.is_nested:
        return {f"{name}.{i}": part for i, part in enumerate(latent.unbind())}
    return {name: latent}


def _latent_in(tensors: Tensors, name: str) -> Any:
    if name in tensors:
        return tensors[name]
    if any(other.startswith(f"{name}.noisy") for other in tensors):
        return LeftoverNoise(_latent_in(tensors, f"{name}.noisy"), _latent_in(tensors, f"{name}.denoised"))
    count = sum(other.startswith(f"{name}.") for other in tensors)
    return NestedTensor([tensors[f"{name}.{i}"] for i in range(count)])


def _placed(latent: Any) -> Any:
    """Return a latent where those of new runs are."""
    if isinstance(latent, LeftoverNoise):
        return LeftoverNoise(to_intermediate(latent.samples), to_intermediate(latent.denoised))
    return to_intermediate(latent)


def _levels(name: str, levels: Sequence[float]) -> Tensors:
    return {name: torch.tensor(list(levels), dtype=torch.float64)}


def _by_level(name: str, values: Mapping[float, Any]) -> Tensors:
    tensors = _levels(name, list(values))
    for i, value in enumerate(values.values()):
        tensors |= _latent(f"{name}.{i}", value)
    return tensors


def _levels_in(tensors: Tensors, name: str) -> dict[float, Any]:
    return {level: _latent_in(tensors, f"{name}.{i}") for i, level in enumerate(tensors[name].tolist())}
