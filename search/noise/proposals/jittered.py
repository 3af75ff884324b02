"""Another text embedding beside another noise."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated

from ...spec import InputId, Node, Range, Tooltip
from ..jitter import Jitter
from ..recipe import Recipe, derived_seed
from .base import NoiseProposal
from .gaussian import GaussianProposal


@dataclass(frozen=True)
class JitterProposal:
    """Another proposal's noise, and beside it a text embedding that is turned by a fixed angle in a direction of its own.

    For models that hardly react to the noise. A new jitter replaces the pivot's and is taken from the text that was
    connected: the text is never further from it than the angle, however many steps a local search makes.

    Attributes:
        inner: how the noise is drawn; None for independent Gaussian noise.
        cosine: of the angle between a token's embedding and its jittered one, in [-1, 1); larger is closer.
        same_noise: keep the pivot's noise and step seed, so that only the text is varied; without `inner`.
    """

    node = Node(
        node_id="NSConditioningJitterProposal",
        display_name="Conditioning Jitter Proposal",
        description="Gives every candidate a slightly different text embedding, beside its noise. For models that hardly "
        "react to the seed (distilled and few-step ones), where new noise alone gives the same picture again.",
        search_aliases=("prompt variation", "conditioning noise", "seed variance", "diversity"),
    )

    inner: Annotated[
        NoiseProposal | None,
        InputId("proposal"),
        Tooltip("How the noise is drawn, with same_noise off. Without one: independent Gaussian noise."),
    ] = None
    cosine: Annotated[
        float,
        Range(0.0, 0.9999, 0.01, 0.0001),
        Tooltip(
            "How alike the embedding and its variation are: larger is closer. There is no paper's value; useful: 0.7 to 0.98. "
            "If the pictures leave the prompt, raise it; if they all look alike, lower it."
        ),
    ] = 0.9
    same_noise: Annotated[
        bool,
        Tooltip(
            "Keep your own seed's noise (in a zero-order search: that of the best so far), so that only the text varies. "
            "Off: noise and text both do."
        ),
    ] = False

    def __post_init__(self) -> None:
        if not -1.0 <= self.cosine < 1.0:
            raise ValueError(f"'cosine' must be in [-1, 1), not {self.cosine:g}; 0.9 is usual, 0.7 to 0.98 useful")
        if self.same_noise and self.inner is not None:
            raise ValueError("'same_noise' keeps the noise, and a 'proposal' draws another: disconnect it, or turn that off")

    def propose(self, seed: int, index: int, pivot: Recipe) -> Recipe:
        noise = self.inner or GaussianProposal()
        recipe = replace(pivot, cuts=()) if self.same_noise else noise.propose(seed, index, pivot)
        return replace(recipe, jitter=Jitter(derived_seed(seed, index, "jitter"), self.cosine))

    def closer(self) -> JitterProposal:
        inner = None if self.inner is None else self.inner.closer()
        return replace(self, inner=inner, cosine=math.cos(math.acos(self.cosine) / 2.0))
