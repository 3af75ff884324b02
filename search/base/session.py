"""What a search needs of the world: noise in, latents and pictures out. The one place a backend plugs in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from ..noise.recipe import BranchPoint, Recipe


class Run(Protocol):
    """A candidate's run: `Trajectory` in ComfyUI, something simpler in an analytic session.

    Attributes:
        nfe: model calls so far, in latent rows.
        finished: whether it came to its end.
        latent: result, or denoised prediction of a run that waits; latent space of the VAE.
        records: model calls it can be left at for a branch; each has its `sigma`.
        levels: noise levels of its model calls so far, in order.
        odd: which of these calls saw the latent in another shape: a part of it, or another size.
        segment_start: what a stock run of a branch's own segment starts from; None for a whole run.
        gaps: guidance gaps of its model calls so far, those before it branched included, if the session notes them.
        predictions: of an ended run, its denoised predictions by the noise levels the session notes, each of the last model
            call at or above that level, those before it branched included; latent space of the VAE.
    """

    nfe: int
    finished: bool
    latent: Any
    records: Sequence[Any]
    levels: Sequence[float]
    odd: Sequence[int]
    segment_start: Any
    gaps: Sequence[float]
    predictions: Mapping[float, Any]

    def close(self) -> None: ...


class Calls(NamedTuple):
    """What is left to know of an ended run: see `Run`."""

    levels: Sequence[float]
    nfe: int
    finished: bool = True


class Session(Protocol):
    """Runs of one model, sampler, prompt and latent.

    Attributes:
        sigmas: the user's noise levels (S + 1,), descending, model units.
        noise_shares: how much of a latent is noise at each of them (S + 1,), in [0, 1]: scale / (alpha + scale) of
            x = alpha latent + scale noise. Sigma itself for flow models.
        stochastic: whether the sampler draws noise of its own, so that runs with different step seeds part.
        looks_halfway: whether runs can be suspended and resumed.
        fixed_steps: whether every full run is believed to make the model calls of the first, until one makes others.
        known_steps: whether it is known, before any run, that each makes a call at every noise level but the last.
        uneven: what a run did that ended that belief, in words; empty if none did.
        leader: the first whole run, or what is left to know of it: all others are believed to make its calls.
        wave: how many runs are best advanced together.
        why_alone: why runs cannot share model calls, in words; empty if they can.
        gaps_for: name of the verifier that needs the guidance gaps of runs; empty: they are not noted.
        prediction_levels: noise levels at which the predictions of runs are noted.
        checkpoint: called before every model call; may wait, and may close runs.
    """

    sigmas: Tensor
    noise_shares: Tensor
    stochastic: bool
    looks_halfway: bool
    fixed_steps: bool
    known_steps: bool
    uneven: str
    leader: Run | Calls | None
    wave: int
    why_alone: Sequence[str]
    gaps_for: str
    prediction_levels: Sequence[float]
    checkpoint: Callable[[], None]

    def note_for_scoring(self, gaps_for: str, levels: Sequence[float]) -> None:
        """Set `gaps_for` and `prediction_levels`: what is noted of runs from now on."""

    def set_leader(self, leader: Run | Calls) -> None:
        """Set `leader`."""

    def ask_before_calls(self, checkpoint: Callable[[], None]) -> None:
        """Set `checkpoint`."""

    def start(self, recipe: Recipe, keep_records: Sequence[float] = ()) -> Run:
        """Prepare the run of a recipe without cuts, kept for branches at some levels; no model call is made."""
        ...

    def branch(self, record: Any, cut: BranchPoint, keep_records: Sequence[float] = ()) -> Run:
        """Prepare a run from a recorded call of another, renoised or not, with its own seed; no model call is made."""
        ...

    def advance(self, runs: Sequence[Run], until_sigma: float = 0.0) -> None:
        """Run until every run's next model call has a sigma below `until_sigma`, or to the end; count the calls."""
        ...

    def decode(self, latent: Any, preview: bool = False) -> Tensor:
        """Return the pictures (F, H, W, 3) in [0, 1] of one latent (R, ...)."""
        ...

    def draft(self, steps: int) -> Session:
        """Return the same session with `steps` steps, spread over the user's sigmas."""
        ...


@runtime_checkable
class RecallsRuns(Protocol):
    """A session that knows runs of an earlier search."""

    def recall(self, recipe: Recipe, keep: Sequence[float] = ()) -> Run | None:
        """Return the ended run of a recipe, recorded at some noise levels; None if it does not know it."""
        ...
