"""Model families in ComfyUI's own classes, tiny and with random weights: whole searches take seconds on a CPU.

    for name in FAMILIES: ...                # those whose classes this core has
    family, patcher = FAMILIES[name], patcher_of(name)
    g = guider(family, patcher)              # conditioning with every key that the family reads
    latent = latent_of(family)

A network's parameters are all random: zero-initialized layers, as published networks start with, would hide the rest.
"""

from __future__ import annotations

import functools

from inprocess import boot

boot()

import comfy.supported_models

from .build import Draw, Family, build, conditioning, guider, latent_of
from .pictures import PICTURES
from .sound import SOUND
from .video import VIDEO

ALL = {**PICTURES, **VIDEO, **SOUND}
FAMILIES = {name: family for name, family in ALL.items() if hasattr(comfy.supported_models, family.config)}


@functools.lru_cache(maxsize=1)  # the tests of a family follow one another
def patcher_of(name: str):
    """Return a family's model."""
    return build(FAMILIES[name])


__all__ = ["ALL", "FAMILIES", "Draw", "Family", "build", "conditioning", "guider", "latent_of", "patcher_of"]
