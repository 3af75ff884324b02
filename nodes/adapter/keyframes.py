"""Hook keyframes: changes of weights along the noise levels, which are state of the model and only move forward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ...search.lockstep.trajectory import Trajectory
from .batching_policy import hooks_of


def has_keyframes(guider: Any) -> bool:
    """Whether hooks on the conditioning change their strength along the noise levels."""
    return any(hook.hook_keyframe.keyframes for hook in hooks_of(guider))


def replay_keyframes(guider: Any, options: dict[str, Any], runs: Sequence[Trajectory]) -> None:
    """Walk hook keyframes through the noise levels that resumed runs have behind them, as one uncut run would.

    Args:
        guider: inside its `sample`.
        options: model options of the round.
        runs: all with the same levels behind them.
    """
    if not has_keyframes(guider):
        return
    for hook in hooks_of(guider):
        hook.hook_keyframe._curr_t = -1.0  # ComfyUI's own reset leaves the last noise level of the round before
    for sigma in runs[0].behind:
        for conds in guider.conds.values():
            for cond in conds or []:
                hooks, at = cond.get("hooks"), torch.tensor([sigma])
                begin, end = cond.get("timestep_start"), cond.get("timestep_end")
                if hooks is None or (begin is not None and sigma > begin) or (end is not None and sigma < end):
                    continue
                guider.model_patcher.prepare_hook_patches_current_keyframe(at, hooks, options)
