"""Checks of shared calls know how exact a prediction can be: where a latent is large, its own rounding is no coupling."""

from __future__ import annotations

import pytest
import torch

from noise_search.search.lockstep.shared_check import EXACT, Place, SharedCall, SharedCalls

SIGMA = 0.03  # a last noise level


class Unknown:
    """Nothing is remembered."""

    def proven(self, forwards, rows, place):
        return False

    def prove(self, forwards, rows, place):
        pass

    def refuse(self, reason):
        pass


def accepted(size: float, answer) -> bool:
    """Whether a shared call of three latents of such a size is used; `answer` is the model."""
    x = size * torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    call = SharedCall(x, answer(x), 1, None, Place(True, True, SIGMA), False, answer)
    checks = SharedCalls(Unknown(), EXACT, None, lambda error: True, torch.device("cpu"))
    return checks.accept(call)


def rounding(x: torch.Tensor) -> torch.Tensor:
    """Rounds up in calls of one latent."""
    out = x - SIGMA * torch.tanh(x)
    return torch.nextafter(out, torch.full_like(out, torch.inf)) if len(x) == 1 else out


def coupling(x: torch.Tensor) -> torch.Tensor:
    """Adds a mean over the latents."""
    return x - SIGMA * (torch.tanh(x) + 0.01 * torch.tanh(x).mean(0, keepdim=True))


@pytest.mark.parametrize("size", [1.0, 150.0])
def test_rounding_of_the_latent_is_no_coupling(size):
    assert accepted(size, rounding)
    assert not accepted(size, coupling)
