"""Noise levels: when two are the same."""

from __future__ import annotations


def same_level(sigma: float, other: float) -> bool:
    """Say whether two noise levels are one, but for rounding."""
    return abs(sigma - other) <= 1e-5 * other
