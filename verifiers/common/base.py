"""The verifier protocol, and the checks at its two borders: images in, scores out.

A verifier is a frozen spec: it may cross a socket, be cached and be shared by graphs. Whatever weights it
uses live in ComfyUI's model patchers, which it shows by `patcher` or `get_models()`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

# Resizing and sharpening overshoot [0, 1] a little; pictures in [-1, 1] or [0, 255] are another matter.
OVERSHOOT = 0.05
QUOTED = 200  # letters of an input that a message quotes
BATCH = 64  # pictures that a verifier which gains by it is handed at once


@runtime_checkable
class Verifier(Protocol):
    """Whatever scores images.

    Attributes:
        name: Short, as shown in the report.
        score_range: Lowest and highest possible score; infinite where there is no bound.
        needs_prompt: Whether the score depends on a prompt.
        prompt: The prompt, or "" where there is none.
        trusts_previews: Whether it may be asked about half-denoised pictures (decoded x0 predictions).
        batch_size: Not of every verifier; how many pictures a search hands over at once, 1 where it is not there. What is
            handed over together is lost together when a search is cut short.

    It may have `is_paid`, True where answers are paid for, so that a search sees each onto the disk at once; `notes`, texts
    that the report tells, and `score_version`, texts that set its scores apart from those that an
    earlier version of this pack gave for the same inputs.
    """

    name: str
    score_range: tuple[float, float]
    needs_prompt: bool
    prompt: str
    trusts_previews: bool

    def score(self, images: Tensor, latents: Tensor | None = None) -> Tensor:
        """Score images.

        Args:
            images: (B, H, W, 3), float or half, in [0, 1], on any device.
            latents: The latents that the images were decoded from, B rows, where the caller has them.

        Returns:
            (B,) float32 on the CPU, higher is better. A row does not depend on the other rows.
        """
        ...


@runtime_checkable
class RunVerifier(Verifier, Protocol):
    """A verifier that needs no picture: it scores runs by what happened in them. Its `score` raises a ValueError."""

    def score_runs(self, gaps: Sequence[Sequence[float]]) -> Tensor:
        """Score runs.

        Args:
            gaps: For each run the guidance gaps of its model calls so far, in order: the mean of |cond - uncond|^2 of
                its two noise predictions; NaN for a call without an unconditional one.

        Returns:
            (n,) float32 on the CPU, higher is better. A row does not depend on the other rows.
        """
        ...


@runtime_checkable
class PredictionVerifier(Verifier, Protocol):
    """A verifier that compares a picture with what the model promised on the way to it. Its `score` raises a ValueError.

    Attributes:
        needs_prediction: Noise level, in the model's own sigma, of the prediction it is given: the x0 prediction of the run's
            last model call at or above it.
    """

    needs_prediction: float

    def score_pairs(self, images: Tensor, predictions: Tensor) -> Tensor:
        """Score pictures with their predictions.

        Args:
            images: (B, H, W, 3), float or half, in [0, 1], on any device: what the runs ended in.
            predictions: (B, H, W, 3), likewise: what each promised at `needs_prediction`.

        Returns:
            (B,) float32 on the CPU, higher is better. A row does not depend on the other rows.
        """
        ...


@runtime_checkable
class VerifierEnsemble(Verifier, Protocol):
    """A verifier made of others, whose score may depend on all candidates of the pool.

    Attributes:
        parts: The verifiers; their names are unique. A part may be an ensemble too.
        reference_rows: Not of every ensemble; above 0, so many of a search's first candidates set its scales:
            `combine` then gets their scores (K, V), fewer before they are there, as its second argument.
        stands_alone: Not of every ensemble; True: a candidate's combined score does not depend on the others, once those scales
            are set.
        running: Not of every ensemble; returns what combines scores that are added to, as `ensemble.RunningRanks` does, or None.
    """

    parts: Sequence[Verifier]

    def combine(self, scores: Tensor) -> Tensor:
        """Combine the parts' scores of all candidates so far.

        Args:
            scores: (N, V), one column for each part, in the order of `parts`.

        Returns:
            (N,) float32 on the CPU, higher is better; -inf for a candidate with a score that is not finite.
        """
        ...


@runtime_checkable
class PairwiseVerifier(Verifier, Protocol):
    """A verifier that can also compare two pictures, which tells apart what its scores tie.

    It is asked at the end of a search, or of scoring a batch, about the best of the pool.

    Attributes:
        finalists: How many of the best are compared, every two of them in both orders; 0 for none.
        near: How far below the best score a finalist's may be.
    """

    finalists: int
    near: float

    def compare(self, first: Tensor, second: Tensor) -> float:
        """Return the probability that the first of two candidates' pictures (F, H, W, 3) in [0, 1] is the better one."""
        ...


@runtime_checkable
class SettlingVerifier(Verifier, Protocol):
    """A verifier whose every score depends on something that it makes up once, and would make up otherwise another time."""

    def settle(self, settled: Callable[[Callable[[], Any]], Any]) -> None:
        """Take what an earlier search made up, before anything is scored.

        Args:
            settled: Returns what is written down, JSON values, or else what it is handed gives.
        """
        ...


@runtime_checkable
class PeopleVerifier(Verifier, Protocol):
    """A verifier that asks people, who compare; a search has one sitting with them.

    Attributes:
        asks_people: True.
    """

    asks_people: bool

    def begin(self) -> Any:
        """Return a new sitting, a `sitting.Sitting`: `score_set` scores new candidates, `revised` all earlier ones again."""
        ...


@runtime_checkable
class VerifierCascade(Verifier, Protocol):
    """Two verifiers: one for every candidate, and one for the best of those only, which has the last word.

    Attributes:
        cheap: Scores all candidates; the search goes by it.
        expensive: Scores the finalists when the search has ended.
    """

    cheap: Verifier
    expensive: Verifier

    def finalists_among(self, count: int) -> int:
        """Return how many of `count` finished candidates `expensive` is asked for."""
        ...


def check_images(images: Tensor, name: str) -> Tensor:
    """Check images at a verifier's door and return them as (B, H, W, 3) in [0, 1].

    Alpha is dropped, a grey image gets three equal channels, an overshoot of at most 0.05 is clamped.

    Args:
        images: (B, H, W, 1, 3 or 4), floating point.
        name: The verifier's name, for messages.

    Raises:
        ValueError: For another rank, number of channels, type or range, for no image, and for NaN.
    """
    found = f"{name}: input 'images' is {_described(images)}"
    if not isinstance(images, Tensor) or images.ndim != 4:
        raise ValueError(
            f"{found}; expected a batch (B, H, W, 3). Add the batch axis to a single picture; hand the frames"
            " of a video over as a batch."
        )
    if images.shape[-1] not in (1, 3, 4):
        raise ValueError(f"{found}; expected 3 channels, last (1 and 4 are converted). Move them to the end.")
    if not images.dtype.is_floating_point:
        raise ValueError(f"{found}; expected floating point in [0, 1]. Divide 8-bit pictures by 255.")
    if images.numel() == 0:
        raise ValueError(f"{found}; there is no pixel to score. Connect at least one picture.")
    images = images[..., :3] if images.shape[-1] > 1 else images.expand(-1, -1, -1, 3)
    unusable = images.flatten(1).isfinite().logical_not().any(1).nonzero().flatten().tolist()
    if unusable:
        raise ValueError(f"{found}; picture(s) {unusable} hold NaN or infinite pixels. Decode them with a float32 VAE.")
    low, high = images.min().item(), images.max().item()
    if low < -OVERSHOOT or high > 1 + OVERSHOOT:
        raise ValueError(f"{found} with values from {low:.4g} to {high:.4g}; expected [0, 1]. Rescale them.")
    return images.clamp(0, 1) if low < 0 or high > 1 else images


def check_scores(name: str, scores: Any, n: int) -> Tensor:
    """Check what a verifier returned and give it as (n,) float32 on the CPU; NaN is let through.

    Args:
        name: The verifier's name.
        scores: What its `score` returned.
        n: The number of images it was given.

    Raises:
        ValueError: Naming the verifier, if this is not a floating-point tensor of shape (n,).
    """
    expected = f"expected a floating-point tensor of shape ({n},), one score for each image"
    if not isinstance(scores, Tensor):
        raise ValueError(f"verifier '{name}' returned {type(scores).__name__}; {expected}. Mend its score().")
    if scores.shape != (n,) or not scores.dtype.is_floating_point:
        raise ValueError(f"verifier '{name}' returned {_described(scores)}; {expected}. Mend its score().")
    return scores.detach().to(device="cpu", dtype=torch.float32)


def quoted(text: str, most: int = QUOTED) -> str:
    """Return a text in quotes for a message, cut with what was cut said if it is longer than `most` letters."""
    return repr(text) if len(text) <= most else f"{text[:most]!r}… ({len(text) - most} more letters)"


def _described(value: Any) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"a {str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}"
