"""Frames of the pack between a search node's `execute` and the model call, counted in a small search on the toy model."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from pack import node_classes
from source import LAYERS

BUDGET = 4


def _callers() -> Iterator[FrameType]:
    """Yield the frames that lead to the caller of this function, innermost first, those of parent greenlets included."""
    greenlet = importlib.import_module("greenlet").getcurrent()
    frame: FrameType | None = sys._getframe(2)
    while greenlet is not None:
        while frame is not None:
            yield frame
            frame = frame.f_back
        greenlet = greenlet.parent
        frame = greenlet.gr_frame if greenlet is not None else None


def frames_to_model_calls(root: Path) -> list[list[str]]:
    """Run a small search of a checkout and return, for every model call, the frames of the pack that lead to it.

    The node gets no method, and so few steps that it takes random search.

    Returns:
        Outermost first, from the node's `execute`: "file: function".
    """
    nodes = {node.define_schema().node_id: node for node in node_classes(root)}
    base, toys = importlib.import_module("comfy.model_base").BaseModel, importlib.import_module("toys")
    run_node = importlib.import_module("inprocess").run_node
    logging.disable(logging.WARNING)  # of weights that the toy models lack
    calls: list[list[str]] = []
    original = base.apply_model

    def apply_model(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(list(reversed([said for frame in _callers() if (said := _said(frame, root))])))
        return original(self, *args, **kwargs)

    guider = toys.guider(toys.toy_model("eps"))
    base.apply_model = apply_model
    try:
        run_node(
            nodes["NSSearchSamplerAdvanced"], noise=run_node("RandomNoise", noise_seed=3)[0], guider=guider,
            sampler=toys.sampler("euler"), sigmas=toys.sigmas_for(guider.model_patcher), latent_image=toys.empty_latent("eps"),
            vae=toys.toy_vae("eps"), verifier=toys.ToyVerifier(), budget=BUDGET, keep=1, resume="off",
        )  # fmt: skip
    finally:
        base.apply_model = original
        logging.disable(logging.NOTSET)
    return calls


def _said(frame: FrameType, root: Path) -> str:
    """Name a frame of the pack; empty for one of anything else."""
    path = Path(frame.f_code.co_filename)
    if not path.is_relative_to(root) or path.relative_to(root).parts[0] not in LAYERS:
        return ""
    return f"{path.relative_to(root)}: {getattr(frame.f_code, 'co_qualname', frame.f_code.co_name)}"  # since Python 3.11
