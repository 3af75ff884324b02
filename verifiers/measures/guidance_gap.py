"""The guidance gap: how far apart a run's conditional and unconditional predictions are. It needs no picture.

E = sum over the first model calls of  mean |eps_cond - eps_uncond|^2,

eps the noise predictions, or velocities of flow models: both are (x - denoised) / sigma. A run that guidance pulls on
strongly lies where the model is far from its unconditional guess; the paper keeps those runs and drops the others
early. Elsewhere a large gap is read as a warning, so that the sign is a setting.

References:
    Diffusion Sampling Path Tells More: An Efficient Plug-and-Play Strategy for Sample Filtering (Wang et al., 2025),
        arXiv 2505.23343: CFG-Rejection by accumulated score differences (ASD)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

HIGH, LOW = PREFER = ("high", "low")
NO_GAP = (
    "no unconditional prediction was made, so that there is no guidance gap to measure: CFG must be above 1. Raise cfg; "
    "with a guidance-distilled model or a Basic Guider, which have no unconditional prediction, use another verifier"
)


@dataclass(frozen=True)
class GuidanceGap:
    """Scores runs by their accumulated guidance gap, E, or by -E.

    Attributes:
        first_steps: How many of a run's first model calls count; 0 for all. The paper's 10 saturate at about 20.
        prefer: "high" or "low".

    Raises:
        ValueError: If a setting is none of these.
    """

    first_steps: int = 10
    prefer: str = HIGH
    name: str = "guidance gap"
    needs_prompt: bool = False
    prompt: str = ""
    trusts_previews: bool = True  # what counts happens in the first steps

    def __post_init__(self) -> None:
        if self.first_steps < 0:
            raise ValueError(f"{self.name}: input 'first_steps' is {self.first_steps}; it must be 0 (all) or more. Usual: 10.")
        if self.prefer not in PREFER:
            raise ValueError(f"{self.name}: input 'prefer' is {self.prefer!r}; choose one of {', '.join(PREFER)}.")

    @property
    def score_range(self) -> tuple[float, float]:
        return (0.0, math.inf) if self.prefer == HIGH else (-math.inf, 0.0)

    def score_runs(self, gaps: Sequence[Sequence[float]]) -> Tensor:
        """Score runs by the gaps of their model calls, in order; NaN for a call without an unconditional prediction.

        Returns:
            (n,) float32: E, or -E. Calls without a gap add nothing.

        Raises:
            ValueError: If a run has no gap among its first calls.
        """
        sums = []
        for run in gaps:
            known = [gap for gap in run[: self.first_steps or None] if not math.isnan(gap)]
            if not known:
                raise ValueError(f"{NO_GAP}. The same is said of guiders that call no post-CFG functions")
            sums.append(math.fsum(known) if self.prefer == HIGH else -math.fsum(known))
        return torch.tensor(sums, dtype=torch.float32)

    def score(self, images: Tensor, latents: Tensor | None = None) -> Tensor:
        """Refuse pictures: what is measured happened while they were made.

        Raises:
            ValueError: Always.
        """
        raise ValueError(f"{self.name}: it measures a search's model calls and cannot score pictures. Connect another verifier.")
