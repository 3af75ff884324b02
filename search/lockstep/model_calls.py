"""Model calls as data: what a run waits for, what was answered, and when an answer holds for another run."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..base.levels import same_level
from ..noise.jitter import Jitter
from .model_options import Change, Options, identity, run_post_cfg


@dataclass
class ModelCall:
    """A model call that a sampler run waits for.

    Attributes:
        method: name of the guider's method that was called.
        x: noisy latent (R, ...).
        sigma: the sigma argument as given, (R,) or 0-d.
        options: the model options as given.
        change: what this run changed in them.
        guider_writes: attributes the sampler set on its guider.
        seed: the seed argument.
    """

    method: str
    x: Tensor
    sigma: Tensor
    options: Options
    change: Change
    guider_writes: tuple[tuple[str, Any], ...]
    seed: int | None


@dataclass
class CallRecord:
    """A model call that was answered: enough to start a branch from, and to answer its twin.

    Attributes:
        x: noisy latent (R, ...) the model saw.
        sigma: its noise level.
        denoised: the guider's answer before the run's own post-CFG functions, (R, ...), model space; None if
            the guider does more after those than return their result, so that it cannot be known.
        post_cfg_args: what post-CFG functions are given ("cond_denoised", "uncond_denoised", ...), rows cut;
            None if the guider calls no post-CFG function.
        key: what must be equal for the answer to hold for another run.
        jitter: of the run's positive conditioning; branches keep it.
        gaps: guidance gaps of the run's calls up to this one, if they are recorded.
        noted: the run's predictions by noise level, those of its calls before this one.
    """

    x: Tensor
    sigma: float
    denoised: Tensor | None
    post_cfg_args: dict[str, Any] | None
    key: Hashable
    jitter: Jitter | None = None
    gaps: tuple[float, ...] = ()
    noted: Mapping[float, Tensor] = field(default_factory=dict)


def answer_from(record: CallRecord, request: ModelCall) -> Tensor | None:
    """Return a call's answer from another run's record, or None if the record does not hold for it.

    It holds if x (to a relative 1e-5), sigma and everything that may not differ within a call are the same; the
    run's own post-CFG functions are replayed on the recorded conditional and unconditional predictions.
    """
    sigma = request.sigma.flatten()
    if request_key(request) != record.key or not bool(torch.all(sigma == record.sigma)):
        return None
    if record.denoised is None or x_differs(record.x, request.x):
        return None
    if not request.change.post_cfg:
        return record.denoised.clone()
    if record.post_cfg_args is None:
        return None
    args = {**record.post_cfg_args, "denoised": record.denoised}
    args = {key: value.clone() if isinstance(value, Tensor) else value for key, value in args.items()}
    return run_post_cfg(request.change.post_cfg, args)


def record_at(records: Sequence[Any], sigma: float) -> Any | None:
    """Return the recorded call at a noise level; None if there is none."""
    return next((record for record in records if same_level(record.sigma, sigma)), None)


def at_or_above(sigma: float, level: float) -> bool:
    """Say whether a noise level is another or higher, but for rounding."""
    return sigma >= level * (1 - 1e-5)


def x_differs(recorded: Tensor, x: Tensor) -> bool:
    """Say whether two noisy latents differ by more than a relative 1e-5."""
    if recorded.shape != x.shape:
        return True
    return not float((recorded - x).norm()) <= 1e-5 * float(recorded.norm())  # NaN differs


def other_calls(levels: Sequence[float], first: Sequence[float], ended: bool) -> str:
    """Say what a run's model calls, by their noise levels, have that candidate 0's have not; empty if they are the same.

    Args:
        levels: of the run's calls.
        first: of candidate 0's.
        ended: whether both runs came to their end; else what one has made more is of no interest.
    """
    for number, (level, other) in enumerate(zip(levels, first, strict=False), 1):
        if not same_level(level, other):
            return f"its call {number} is at sigma {level:g}, candidate 0's at {other:g}"
    made = f"it makes {len(levels)} model calls, candidate 0 {len(first)}"
    return made if ended and len(levels) != len(first) else ""


def why_apart(request: ModelCall, other: ModelCall) -> str:
    """Say, in words, what a sampler gives the model in one run and not in another; empty if it is nothing of the kind."""
    one, two = (dict(r.change.key) for r in (request, other))
    names = [".".join(map(str, path)) for path in {**one, **two} if one.get(path, request) != two.get(path, other)]
    names += [name for name, value in other.guider_writes if (name, value) not in request.guider_writes]
    return f"the sampler gives the model a '{names[0]}' of each run's own" if names else ""


def request_key(request: ModelCall) -> Hashable:
    """What two requests must have in common, beside sigma, to be answered by one call."""
    writes = tuple((name, identity(value)) for name, value in request.guider_writes)
    x = request.x
    return (request.method, tuple(x.shape), x.dtype, x.device, request.change.key, writes)
