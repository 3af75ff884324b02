"""Where a run is left for a new one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BranchPoint:
    """Where a run was left for a new one.

    Attributes:
        sigma: noise level of the model call it was left at, model units.
        renoise_to: noise level the new run starts from; `sigma` if nothing was added.
        noise_seed: seed of the Gaussian added on the way up.
        seed: step seed of the new run.
    """

    sigma: float
    renoise_to: float
    noise_seed: int
    seed: int
