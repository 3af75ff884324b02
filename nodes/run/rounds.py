"""Whether the models of a search fit on their device together: where they do not, they are swapped in every round."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import comfy.model_management as mm
import torch

from ...search.scoring.scorer import Scorer
from ...verifiers.composite.ensemble import models_of
from ..adapter.memory import asked_bytes, free_bytes, models_and_controls
from ..adapter.session import ComfySession

AUTO, SMALL, LARGE = "auto", "small", "large"
ROUNDS = [AUTO, SMALL, LARGE]
FIXED = "the input 'rounds' says so"
MARGIN = 1.1  # of a model's size: what ComfyUI frees before it loads it
GIB = 1 << 30


class Decided(NamedTuple):
    """The size of a search's rounds.

    Attributes:
        large: whether they are fewer and larger.
        because: why, in words; empty where everything fits.
    """

    large: bool
    because: str

    @property
    def note(self) -> str:
        """What the user should know, in words: the search is not the one of a larger card."""
        return f"{self.because}: the search goes in fewer, larger rounds" if self.large and self.because != FIXED else ""

    def as_dict(self) -> dict[str, str]:
        """Return what the report says of it."""
        return {"rounds": LARGE if self.large else SMALL, "because": self.because}


class Turn(NamedTuple):
    """What is on the device while a part of a round is worked on.

    Attributes:
        name: of the models, in words.
        sizes: bytes of weights, by model.
        work: bytes that are needed beside.
    """

    name: str
    sizes: Mapping[Any, int]
    work: float = 0.0


def decide(wanted: str, session: ComfySession, scorer: Scorer) -> Decided:
    """Return the size of a search's rounds, as the user wants it, or as it was, or is, by what fits.

    Where the search keeps a journal, what was decided first holds. One that was begun before anything was decided had
    small rounds. Where a person is asked, rounds are small.

    Args:
        wanted: the search node's input.
        session: of the search.
        scorer: of the search, with its journal.
    """
    if scorer.asks_people:
        return Decided(False, "a person is asked")
    if wanted != AUTO:
        return Decided(wanted == LARGE, FIXED)
    known = scorer.settled({"rounds": AUTO}, lambda: {"because": "" if scorer.knows_scores else why_swapped(session, scorer)})
    return Decided(bool(known["because"]), known["because"])


def why_swapped(session: ComfySession, scorer: Scorer) -> str:
    """Return why denoiser, decoder and verifier cannot stay on their device together, in words; empty if they can.

    ComfyUI frees memory for a model, by evicting others, until there is `MARGIN` of its size, if it is to be loaded, and
    what its work needs; it never does on the CPU. Models come in the order in which a round needs them.
    """
    device = session.device
    if device == torch.device("cpu") or mm.vram_state in (mm.VRAMState.HIGH_VRAM, mm.VRAMState.NO_VRAM):
        return ""  # nothing moves
    turns = [turn for turn in _turns(session, scorer) if turn.sizes]
    if len(turns) > 1 and mm.DISABLE_SMART_MEMORY:
        return "ComfyUI keeps one model at a time on the device (--disable-smart-memory)"
    usable = free_bytes(device)
    total = sum({model: size for turn in turns for model, size in turn.sizes.items()}.values())
    there: dict[Any, int] = {}
    for turn in turns:
        new = sum(size for model, size in turn.sizes.items() if model not in there)
        beside = max(mm.minimum_inference_memory(), turn.work + mm.extra_reserved_memory())
        to_load, to_stay = sum(there.values()) + MARGIN * new + beside, total + beside
        if len(turns) > 1 and usable <= max(to_load, to_stay):
            sizes = ", ".join(f"{one.name} {sum(one.sizes.values()) / GIB:.1f}" for one in turns)
            return (
                f"models are swapped in every round ({sizes} GiB, {beside / GIB:.1f} GiB to work for the {turn.name}; "
                f"{usable / GIB:.1f} GiB for all)"
            )
        there |= turn.sizes
    return ""


def _turns(session: ComfySession, scorer: Scorer) -> Iterator[Turn]:
    """Yield what takes turns in a round, as far as it is on the denoiser's device."""
    graph, device = session.graph, session.device
    rows = session.shape[0] * min(max(1, session.max_rows // session.shape[0]), 2 * session.budget.images)
    models, _ = models_and_controls(graph.guider)
    yield Turn("denoiser", _sizes(models, device), asked_bytes(graph.guider, (rows, *session.shape[1:])))
    samples = graph.latent["samples"]
    shape = (samples.unbind()[0] if samples.is_nested else samples).shape
    for vae in {id(vae): vae for vae in (graph.vae, graph.preview_vae) if hasattr(vae, "patcher")}.values():
        flat = shape[:2] + shape[3:] if len(shape) == 5 and vae.latent_dim == 2 else shape
        yield Turn("decoder", _sizes([vae.patcher], device), vae.memory_used_decode(flat, vae.vae_dtype))
    for leaf in scorer.parts:
        yield Turn(f"verifier '{leaf.name}'", _sizes(models_of(leaf), device))


def _sizes(patchers: list[Any], device: torch.device) -> dict[Any, int]:
    """Return the sizes of the models on a device, in bytes, by model: clones of a patcher share one."""
    return {patcher.model: patcher.model_size() for patcher in patchers if patcher.load_device == device}
