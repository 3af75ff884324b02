"""PickScore: which of two pictures people prefer for a prompt, by a CLIP-H that learned it from their choices.

    score = exp(logit_scale) cos(E_image, E_text)

The scale is the published one, learned with the weights and read from their file (about 100 in PickScore v1), so that
differences mean what they mean in the paper: the softmax of two scores is the probability that the first is preferred.
Its processor is transformers', whose fast tokenizer reads curly quotes and entities as they stand.

References:
    Pick-a-Pic: An Open Dataset of User Preferences for Text-to-Image Generation (Kirstain et al., 2023),
    arXiv 2305.01569
"""

from __future__ import annotations

from dataclasses import dataclass

from ..common.text_repair import joined
from .clip_score import ClipScore


@dataclass(frozen=True, eq=False)
class PickScore(ClipScore):
    """Cosine of the PickScore embeddings of image and prompt, times `scale`, exp(logit_scale) of its file."""

    name: str = "PickScore"

    @property
    def text(self) -> str:
        """What the published tokenizer reads of the prompt: all of it."""
        return joined(self.prompt)
