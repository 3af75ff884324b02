"""One progress bar over the whole search, in model calls, with the best so far beside what is being sampled."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import comfy.utils
import latent_preview
from PIL import Image
from torch import Tensor

from ...search.base.budget import Budget
from ...search.lockstep.trajectory import Trajectory
from ...verifiers.common.preprocess import eight_bit

PREVIEW_SIDE = 512  # pixels
PREVIEW_EVERY = 0.25  # seconds


class Progress:
    """Shows how far a node's searches are.

    Attributes:
        done: model calls of the searches that ended, in latent rows.
    """

    def __init__(self, guider: Any, searches: int, images: int, steps: int) -> None:
        """Prepare a bar over `searches` searches of `images` whole images of about `steps` model calls."""
        patcher = guider.model_patcher
        self._previewer: Any = latent_preview.get_previewer(patcher.load_device, patcher.model.latent_format)
        self._searches, self._images, self._steps = searches, images, steps
        self._bar = comfy.utils.ProgressBar(searches * images * steps)
        self._best: Image.Image | None = None
        self._shown = 0.0
        self.done = 0
        self.budget: Budget | None = None

    def begin(self, budget: Budget) -> None:
        """Follow the next search."""
        self.done += self.budget.nfe if self.budget is not None else 0
        self.budget, self._best = budget, None

    def begin_anew(self, budget: Budget) -> None:
        """Follow the search that is under way from its beginning."""
        self.budget = budget

    def called(self, runs: Sequence[Trajectory], denoised: Tensor) -> None:
        """Count a model call; show the first of its rows at most four times a second."""
        preview = None
        if time.monotonic() - self._shown > PREVIEW_EVERY:
            preview = self._beside(self._sampled(denoised))
            self._shown = time.monotonic()
        self._update(preview)

    def best(self, images: Tensor, score: float) -> None:
        """Show a new best picture (F, H, W, 3)."""
        self._best = _fitted(Image.fromarray(eight_bit(images[0]).numpy()))
        self._update(self._beside(None))

    def _update(self, preview: Image.Image | None) -> None:
        if self.budget is None:
            return
        total = self._images * (self.budget.run_cost or self._steps) * self._searches
        shown = None if preview is None else ("JPEG", preview, PREVIEW_SIDE * 2)
        value = min(self.done + self.budget.nfe, total)
        self._bar.update_absolute(value, total, shown)

    def _sampled(self, denoised: Tensor) -> Image.Image | None:
        if self._previewer is None or denoised.ndim not in (4, 5):
            return None
        shown = self._previewer.decode_latent_to_preview_image("JPEG", denoised[:1])
        return None if shown is None else _fitted(shown[1])  # other packs' previewers may show elsewhere

    def _beside(self, sampled: Image.Image | None) -> Image.Image | None:
        """Put what is being sampled left of the best so far."""
        pictures = [picture for picture in (sampled, self._best) if picture is not None]
        if len(pictures) < 2:
            return pictures[0] if pictures else None
        pictures[0] = pictures[0].resize(pictures[1].size)
        joined = Image.new("RGB", (pictures[0].width * 2 + 8, pictures[0].height))
        joined.paste(pictures[0], (0, 0))
        joined.paste(pictures[1], (pictures[0].width + 8, 0))
        return joined


def _fitted(picture: Image.Image) -> Image.Image:
    picture = picture.convert("RGB")
    picture.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    return picture
