"""What a sampler run has in the place of the guider."""

from __future__ import annotations

from types import MethodType
from typing import Any

from torch import Tensor

from .model_options import Options


class GuiderStandIn:
    """What a sampler run sees as the guider: its model calls suspend the run, its writes stay its own."""

    def __init__(self, trajectory: Any, guider: Any) -> None:
        object.__setattr__(self, "_trajectory", trajectory)
        object.__setattr__(self, "_guider", guider)
        object.__setattr__(self, "_writes", {})

    @property
    def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride] - `object`'s can be set, this one not
        return type(object.__getattribute__(self, "_guider"))

    def __getattr__(self, name: str) -> Any:
        writes, guider = self._writes, self._guider
        if name in writes:
            return writes[name]
        value = getattr(guider, name)
        if isinstance(value, MethodType) and value.__self__ is guider:
            return MethodType(value.__func__, self)  # what a method such as `set_cfg` writes is the run's own too
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        self._writes[name] = value

    def __delattr__(self, name: str) -> None:
        if name not in self._writes:
            raise AttributeError(name)
        del self._writes[name]

    def __call__(self, x: Tensor, timestep: Tensor, model_options: Options | None = None, seed: int | None = None):
        return self._trajectory.ask("__call__", self, x, timestep, model_options, seed)

    def outer_predict_noise(self, x, timestep, model_options=None, seed=None):
        return self._trajectory.ask("outer_predict_noise", self, x, timestep, model_options, seed)

    def predict_noise(self, x, timestep, model_options=None, seed=None):
        return self._trajectory.ask("predict_noise", self, x, timestep, model_options, seed)
