"""Seeds that are derived from the user's."""

from __future__ import annotations

import hashlib

DRAWN_SEED_LIMIT = 2**50  # browsers round larger integers


def derived_seed(seed: int, *path: int | str) -> int:
    """Derive a seed below 2^50 by hash, so that neighbouring seeds do not give overlapping candidates."""
    text = ":".join(["noise-search", str(seed), *map(str, path)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % DRAWN_SEED_LIMIT
