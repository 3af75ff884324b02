"""What was found out about shared calls, remembered for as long as the model object lives.

The same graph queued again needs no check. A verdict holds for the code of all that is on the model, not for weights: a LoRA
changes none.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import comfy.model_management as mm
import torch
from torch import Tensor

from ...search.lockstep.shared_check import BRAIN, TOLERANCES, Place, SharedCalls
from .batching_policy import callables_in, code_name, conditions_of, controls_of, hooks_of, patchers_of
from .forwards import observed_forwards
from .memory import is_oom

SAME = 1e-3  # a relative difference of noise levels that makes no other place


@dataclass
class Proof:
    """The calls of one kind that were found right.

    Attributes:
        anywhere: most latent rows of them.
        second_half: most latent rows of those in the second half of the steps.
        last_steps: latent rows and noise level of those in the last step.
    """

    anywhere: int = 0
    second_half: int = 0
    last_steps: set[tuple[int, float]] = field(default_factory=set)


@dataclass
class Known:
    """What is known of one model: proofs by code and forwards, reasons against sharing by code and conditioning."""

    proofs: dict[Hashable, Proof] = field(default_factory=dict)
    reasons: dict[Hashable, str] = field(default_factory=dict)


_KNOWN: WeakKeyDictionary[Any, Known] = WeakKeyDictionary()


class ModelVerdicts:
    """What is known of a guider's model with all that is on it; see `search.shared_check.Verdicts`."""

    def __init__(self, guider: Any, masked: bool) -> None:
        """Look up a guider, between samplings; `masked`: the latent has a noise mask."""
        self._known = _KNOWN.setdefault(guider.model_patcher.model, Known())
        self._code = code_of(guider, masked)
        self._asked = (self._code, _kinds_of_conditioning(guider))

    @property
    def reason(self) -> str:
        """Why candidates must not share calls, as was found out before; empty if that was not."""
        return self._known.reasons.get(self._asked, "")

    def proven(self, forwards: Hashable, rows: int, place: Place) -> bool:
        proof = self._known.proofs.get((self._code, forwards), Proof())
        half = not place.second_half or proof.second_half >= rows
        lowest = min((sigma for count, sigma in proof.last_steps if count >= rows), default=math.inf)
        return proof.anywhere >= rows and half and (not place.last_step or place.sigma >= lowest * (1 - SAME))

    def prove(self, forwards: Hashable, rows: int, place: Place) -> None:
        proof = self._known.proofs.setdefault((self._code, forwards), Proof())
        proof.anywhere = max(proof.anywhere, rows)
        if place.second_half:
            proof.second_half = max(proof.second_half, rows)
        if place.last_step:
            proof.last_steps.add((rows, place.sigma))

    def refuse(self, reason: str) -> None:
        self._known.reasons[self._asked] = reason


def shared_calls(guider: Any, latent: dict[str, Any], compares: bool) -> SharedCalls:
    """Return what checks the shared calls of a search; its `reason` is known if candidates were found to need calls of their own.

    Args:
        guider: the user's GUIDER, between samplings.
        latent: the LATENT it works on.
        compares: whether answers are compared; if not, the user wants calls to be shared and only errors end that.
    """
    verdicts = ModelVerdicts(guider, latent.get("noise_mask") is not None)
    types = [_computes_in(patcher.model) for patcher in patchers_of(guider)]
    tolerance = max(TOLERANCES.get(dtype, BRAIN) for dtype in types)  # narrower types are computed with in one of these
    return SharedCalls(
        verdicts, tolerance, observed_forwards, is_fault, guider.model_patcher.load_device, compares=compares,
        before_check=mm.throw_exception_if_processing_interrupted, reason=verdicts.reason if compares else "",
    )  # fmt: skip


def is_fault(error: BaseException) -> bool:
    """Whether an exception of a model call may mean that the model refuses several candidates."""
    return isinstance(error, Exception) and not (isinstance(error, mm.InterruptProcessingException) or is_oom(error))


def code_of(guider: Any, masked: bool) -> Hashable:
    """Return what all code on a guider's model comes to, with the types it computes in and where."""
    things = [*callables_in(getattr(guider, "model_options", {})), *map(type, (guider, *hooks_of(guider)))]
    things += [type(control) for entry in conditions_of(guider) for control in controls_of(entry.get("control"))]
    computes = []
    for patcher in patchers_of(guider):
        model = patcher.model
        things += callables_in([patcher.model_options, patcher.wrappers, patcher.callbacks, patcher.object_patches])
        things += map(type, (patcher, model, getattr(model, "diffusion_model", None)))
        computes.append((str(model.get_dtype()), str(_computes_in(model)), str(patcher.load_device)))
    return (frozenset(map(code_name, things)), masked, tuple(computes))


def _computes_in(model: Any) -> torch.dtype:
    return model.manual_cast_dtype or model.get_dtype()


def _kinds_of_conditioning(guider: Any) -> Hashable:
    """Return what a refusal holds for, beside the code: what a model is passed depends on the conditioning and on guidance."""
    kinds = frozenset(
        (name, tuple((key, _kind(value)) for key, value in sorted(entry.items()) if key != "uuid"))
        for name, entries in getattr(guider, "original_conds", {}).items() for entry in entries
    )  # fmt: skip
    return (kinds, getattr(guider, "cfg", None) == 1.0)


def _kind(value: Any) -> Hashable:
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__qualname__
