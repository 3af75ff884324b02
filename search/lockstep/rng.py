"""The global random state of torch, as a value that can be taken, kept and put back."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class RngState(NamedTuple):
    """The state of torch's global generators.

    Attributes:
        cpu: state of the CPU generator, uint8.
        device: state of the accelerator's generator, uint8; None on a CPU.
    """

    cpu: Tensor
    device: Tensor | None


def take_rng(device: torch.device) -> RngState:
    """Return the present state of the CPU's and of `device`'s global generator."""
    if device.type == "cpu":
        return RngState(torch.get_rng_state(), None)
    backend = getattr(torch, device.type, None)
    if backend is None or not hasattr(backend, "get_rng_state"):  # DirectML has no generator of its own to ask for
        return RngState(torch.get_rng_state(), None)
    state = backend.get_rng_state() if device.type == "mps" else backend.get_rng_state(device)
    return RngState(torch.get_rng_state(), state)


def put_rng(state: RngState, device: torch.device) -> None:
    """Set the CPU's and `device`'s global generator to `state`."""
    torch.set_rng_state(state.cpu)
    if state.device is None or device.type == "cpu":
        return
    backend = getattr(torch, device.type)
    backend.set_rng_state(state.device) if device.type == "mps" else backend.set_rng_state(state.device, device)


def stand_after(seed: int, cpu: Tensor, device: torch.device) -> None:
    """Put all global generators where `torch.manual_seed(seed)` and then draws on the CPU leave them.

    Without an accelerator `torch.manual_seed` writes down the call stack each time, for one that may come: 50 times as long
    as to seed a generator.

    Args:
        seed: of all of them.
        cpu: state of the CPU generator after the draws, uint8.
        device: where runs draw; other generators are left alone if it is the CPU.
    """
    if device.type != "cpu":
        torch.manual_seed(seed)
    torch.set_rng_state(cpu)
