"""A ComfyUI session around toys, and what tests compare with."""

from __future__ import annotations

from typing import Any

import torch
from toys import toy_vae  # boots ComfyUI

import comfy.sample
import comfy_extras.nodes_custom_sampler as stock_nodes

from noise_search.nodes.session import ComfySession, Graph
from noise_search.search.budget import Budget
from noise_search.search.rng import take_rng


def session_for(guider: Any, sampler: Any, sigmas: torch.Tensor, latent: dict, *, seed: int = 0, batching="auto",
                max_rows: int | None = None, kind: str = "eps", **more: Any) -> ComfySession:  # fmt: skip
    """Return a session on toys, with a budget that never ends."""
    latent = {**latent, "samples": comfy.sample.fix_empty_latent_channels(guider.model_patcher, latent["samples"])}
    noise = stock_nodes.Noise_RandomNoise(seed)
    given = noise.generate_noise(latent)
    graph = Graph(guider, sampler, sigmas, latent, noise, given, take_rng(torch.device("cpu")), None)
    session = ComfySession(graph, Budget(1000), batching=batching, **more)
    if max_rows is not None:
        session.limits.max_rows = session.max_rows = max_rows
    return session


def flat(latent: Any) -> torch.Tensor:
    """One vector of a plain or nested latent."""
    return torch.cat([part.flatten() for part in latent.unbind()]) if latent.is_nested else latent.flatten()


def relative(got: Any, wanted: Any) -> float:
    """Norm of the difference over the norm of what is wanted."""
    got, wanted = flat(got).double().cpu(), flat(wanted).double().cpu()
    assert torch.isfinite(wanted).all()
    return float((got - wanted).norm() / wanted.norm())
