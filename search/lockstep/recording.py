"""What is noted of a model call while it is made: enough for a branch to start from it, and its guidance gap."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from .model_calls import CallRecord, ModelCall, request_key
from .model_options import POST_CFG, Options, rows_of
from .trajectory import Trajectory


@contextmanager
def recorded(options: Options, position: int, seen: dict[str, Any]) -> Iterator[None]:
    """Note what post-CFG functions are given, after the graph's own `position` ones and before those of single runs.

    `seen` gets those arguments, and under "result" what the last post-CFG function returned. The options stay the same
    object, since what is patched into the model may keep state in it; they are put back as they were.
    """

    def given(args: dict[str, Any]) -> Tensor:
        seen.update(args)
        return args["denoised"]

    def returned(args: dict[str, Any]) -> Tensor:
        seen["result"] = args["denoised"]
        return args["denoised"]

    before = options.get(POST_CFG)
    functions = [] if before is None else list(before)
    options[POST_CFG] = [*functions[:position], given, *functions[position:], returned]
    try:
        yield
    finally:
        if before is None:
            del options[POST_CFG]
        else:
            options[POST_CFG] = before


def record_of(run: Trajectory, seen: dict[str, Any] | None, answer: Tensor, first: int, total: int) -> CallRecord:
    """Keep a run's pending call: `answer` is its rows of the result, first .. of `total` rows in all."""
    request = run.request
    rows = request.x.shape[0]
    args = None if seen is None else {key: _kept(rows_of(value, first, rows, total)) for key, value in seen.items()}
    after_cfg = answer.clone() if not request.change.post_cfg else None if args is None else args["denoised"]
    sigma = float(request.sigma.flatten()[0])
    return CallRecord(
        request.x.clone(), sigma, after_cfg, args, request_key(request), run.jitter, tuple(run.gaps), dict(run.noted)
    )


def guidance_gaps(seen: dict[str, Any], levels: Tensor, requests: Sequence[ModelCall]) -> list[float]:
    """Return the guidance gap of each run in a call: the mean of |cond - uncond|^2 / sigma^2 over its latent.

    That is the mean square of the difference of the conditional and the unconditional noise prediction, and of flow
    velocities likewise: both are (x - denoised) / sigma.

    Args:
        seen: what post-CFG functions were given, "cond_denoised" and "uncond_denoised" (n R, ...) among it.
        levels: sigma of each row (n R,), or one for all.
        requests: of the runs; the rows of each follow those of the one before.

    Returns:
        One number for each run; NaN where there was no unconditional prediction.
    """
    counts = [request.x.shape[0] for request in requests]
    cond, uncond = seen.get("cond_denoised"), seen.get("uncond_denoised")
    if seen.get("uncond") is None or cond is None or uncond is None or cond.shape[0] != sum(counts):
        return [math.nan] * len(requests)  # without an unconditional prediction ComfyUI hands out zeros in its place
    rows = (cond.float() - uncond.float()).flatten(1).square().mean(1)
    rows = rows / levels.flatten().to(rows).square()
    return torch.stack([part.mean() for part in rows.split(counts)]).tolist()


def _kept(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value
