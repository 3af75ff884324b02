"""A person as a verifier: pictures are shown side by side, and what is picked scores higher.

The pictures of a search are asked about in small sets; each set holds the best so far, so that all choices are about
one another, and the strengths they add up to (choices.py) are the scores. A new choice changes the strengths of
earlier pictures too: hence `revised`.

Where the person is away, or had enough, a model of the choices made so far (taste.py) answers the same questions, or
an assistant, another verifier, does. Their answers count as choices as well, but the model learns from the person's only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..common.base import Verifier, VerifierCascade, check_images
from ..common.features import share
from ..composite.ensemble import leaves_of, models_of
from .comparison_session import ComparisonSession
from .questions import BY_MODEL, NAME, WHEN_ABSENT, AnswerProvider

LEAST_SET, LARGEST_SET = 2, 16


@dataclass(frozen=True, eq=False)
class HumanVerifier:
    """A person who picks, as a spec; `begin` gives the one sitting of a search.

    Attributes:
        asker: carries questions to the person.
        set_size: pictures side by side at most, the best so far included.
        timeout: seconds to wait for each answer; 0 for as long as it takes.
        when_absent: what happens without one: see `WHEN_ABSENT`.
        assistant: scores in the person's place while the model has too few choices; its scores are features of the model.
        clip_vision: ComfyUI's CLIP_VISION object, whose embeddings are features of the model too.
    """

    asker: AnswerProvider
    set_size: int = 4
    timeout: float = 0.0
    when_absent: str = BY_MODEL
    assistant: Verifier | None = None
    clip_vision: Any = None
    name: str = "your choice"
    score_range: tuple[float, float] = (-math.inf, math.inf)
    needs_prompt: bool = False
    prompt: str = ""
    trusts_previews: bool = False  # nobody should have to judge a half-denoised picture
    asks_people: bool = True

    def __post_init__(self) -> None:
        if not LEAST_SET <= self.set_size <= LARGEST_SET:
            raise ValueError(f"{NAME}: input 'set_size' is {self.set_size}; from {LEAST_SET} to {LARGEST_SET} fit. Usual: 4.")
        if not 0 <= self.timeout < math.inf:
            raise ValueError(f"{NAME}: input 'timeout' is {self.timeout}; set seconds, or 0 to wait for as long as it takes.")
        if self.when_absent not in WHEN_ABSENT:
            raise ValueError(f"{NAME}: input 'when_absent' is {self.when_absent!r}; choose one of {', '.join(WHEN_ABSENT)}.")
        for leaf in leaves_of(self.assistant):
            if isinstance(leaf, VerifierCascade) or any(
                hasattr(leaf, other) for other in ("asks_people", "score_runs", "needs_prediction")
            ):
                raise ValueError(
                    f"{NAME}: input 'assistant' holds {leaf.name!r}, which does not score single finished pictures. Connect "
                    "one that does: CLIP Score, a reward model, an ensemble of such."
                )

        object.__setattr__(self, "_sharing", share([self, *leaves_of(self.assistant)]))

    def begin(self) -> ComparisonSession:
        """Return a sitting without any choice."""
        return ComparisonSession(self)

    def get_models(self) -> list[Any]:
        """Return the model patchers of assistant and encoder, for ComfyUI's tracking of models in use."""
        own = [] if self.clip_vision is None else [self.clip_vision.patcher]
        return own + ([] if self.assistant is None else models_of(self.assistant))

    def score(self, images: Tensor, latents: Tensor | None = None) -> Tensor:
        """Ask about a batch (B, H, W, 3) in [0, 1] as a pool of its own: (B,) float32; NaN for what nobody judged."""
        pictures = check_images(images, self.name).split(1)
        sitting = self.begin()
        sitting.recall = pictures.__getitem__
        sitting.score_set(range(len(pictures)), pictures)
        strengths = sitting.revised()
        return torch.tensor([strengths.get(index, math.nan) for index in range(len(pictures))])
