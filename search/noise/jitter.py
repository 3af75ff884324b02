"""Jitter of text embeddings: seeded noise that keeps every vector's norm and its angle to the original."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NO_DIRECTION = 1e-6  # share of a Gaussian vector that must lie across the embedding to be a direction


@dataclass(frozen=True)
class Jitter:
    """How a candidate's text embedding differs from the one that was connected.

    Attributes:
        seed: of the Gaussian noise.
        cosine: of the angle between an embedding vector and its jittered one, in [-1, 1]; 1 changes nothing.
    """

    seed: int
    cosine: float


def jitter_embedding(embedding: Tensor, seed: int, cosine: float) -> Tensor:
    """Return an embedding with each of its vectors turned by arccos(`cosine`) in a random direction.

    e becomes |e| (cosine u + sqrt(1 - cosine^2) w),  u = e / |e|,  w = the unit vector of g - (g . u) u, g a Gaussian.
    A zero vector stays zero; one without a direction across it (of a single number) stays as it is.

    Args:
        embedding: (rows, ..., D), or one vector (D,). Rows, of a latent batch or of a video's frames, are given the
            same Gaussian, so that the jitter of a row does not depend on how many there are.
        seed: of the Gaussian, drawn on the CPU.
        cosine: in [-1, 1].
    """
    shape = embedding.shape[1:] if embedding.ndim > 1 else embedding.shape
    e = embedding.detach().to("cpu", torch.float64)
    g = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    norm = e.norm(dim=-1, keepdim=True)
    u = e / torch.where(norm > 0.0, norm, 1.0)
    w = g - (g * u).sum(-1, keepdim=True) * u
    across = w.norm(dim=-1, keepdim=True)
    turned = norm * (cosine * u + (1.0 - cosine**2) ** 0.5 * w / torch.where(across > 0.0, across, 1.0))
    has_direction = across > NO_DIRECTION * g.norm(dim=-1, keepdim=True)
    return torch.where(has_direction, turned, e).to(embedding)
