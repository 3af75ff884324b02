"""The search nodes on toys, as ComfyUI runs them, and what tests compare with.

found = search("eps", seed=3, budget=6, method=HalvingSearch())      # NSSearchSamplerAdvanced
found.images, found.latents, found.noise, ..., found.report          # its outputs; report as nodes read it
want = stock_with(parts("eps"), 3)                                   # stock SamplerCustomAdvanced
with at_call(3, interrupt): ...                                      # something happens inside a model call
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from inprocess import boot

boot()

import comfy.model_management as mm
import comfy.samplers
import torch
from reported import reports_in

from noise_search.nodes.definitions.results import NSNoiseFromRecipe, NSRenderCandidate
from noise_search.nodes.definitions.search import NSSearchSampler, NSSearchSamplerAdvanced
from noise_search.search.lockstep.shared_check import is_check_call
from toys import (
    ToyVerifier,
    empty_latent,
    guider,
    mask,
    run_node,
    sampler,
    sigmas_for,
    stock,
    toy_model,
    toy_vae,
)  # fmt: skip

STEPS = 6


class Found(NamedTuple):
    """The outputs of a search node, in order; the report as nodes read it."""

    images: torch.Tensor
    latents: dict[str, Any]
    noise: Any
    sigmas: torch.Tensor
    seed: int
    score: float
    recipe: str
    report: Any
    plot: torch.Tensor


def strict(text: str) -> Any:
    """Parse JSON as browsers do: NaN and infinities are refused."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


def found(outputs: tuple) -> Found:
    """Name a search node's outputs."""
    result = Found(*outputs)
    strict(result.report)
    return result._replace(report=reports_in(result.report))


def parts(kind: str, sampler_name: Any = "euler", *, steps: int = STEPS, masked: bool = False,
          latent: dict | None = None, sigmas: torch.Tensor | None = None, g: Any = None) -> dict[str, Any]:  # fmt: skip
    """Return guider, sampler, sigmas, latent_image and vae for a toy kind."""
    g = g or guider(toy_model(kind))
    latent = empty_latent(kind) if latent is None else latent
    if masked:
        channels = 16 if kind == "flow" else latent["samples"].shape[1]
        shape = (latent["samples"].shape[0], channels, *latent["samples"].shape[2:])
        latent["samples"] = torch.randn(shape, generator=torch.Generator().manual_seed(7))
        latent["noise_mask"] = mask(latent)
    return {
        "guider": g,
        "sampler": sampler(sampler_name) if isinstance(sampler_name, str) else sampler_name,
        "sigmas": sigmas_for(g.model_patcher, steps=steps) if sigmas is None else sigmas,
        "latent_image": latent,
        "vae": toy_vae(kind),
    }


def search_with(graph: dict[str, Any], noise: Any = 0, **options: Any) -> Found:
    """Run NSSearchSamplerAdvanced on the parts of a graph; `noise` is a seed or a NOISE."""
    if isinstance(noise, int):
        (noise,) = run_node("RandomNoise", noise_seed=noise)
    inputs = {"verifier": ToyVerifier(), "budget": 4, "keep": 1, **options}
    return found(run_node(NSSearchSamplerAdvanced, noise=noise, **graph, **inputs))


def search(kind: str = "eps", sampler_name: Any = "euler", noise: Any = 0, *, steps: int = STEPS, masked: bool = False,
           latent: dict | None = None, sigmas: torch.Tensor | None = None, g: Any = None, **options: Any) -> Found:  # fmt: skip
    """Run NSSearchSamplerAdvanced on a toy; options are its inputs."""
    made = parts(kind, sampler_name, steps=steps, masked=masked, latent=latent, sigmas=sigmas, g=g)
    return search_with(made, noise, **options)


def simple_search(model: Any, latent: dict, vae: Any, positive: list, negative: list, **options: Any) -> Found:
    """Run NSSearchSampler."""
    inputs = {
        "seed": 5, "steps": STEPS, "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
        "verifier": ToyVerifier(), "budget": 4, "keep": 1, **options,
    }  # fmt: skip
    graph = {"model": model, "latent_image": latent, "vae": vae, "positive": positive, "negative": negative}
    return found(run_node(NSSearchSampler, **graph, **inputs))


def stock_with(graph: dict[str, Any], noise: Any, sigmas: torch.Tensor | None = None) -> Any:
    """Run stock SamplerCustomAdvanced on the parts of a graph; `noise` is a seed or a NOISE."""
    levels = graph["sigmas"] if sigmas is None else sigmas
    return stock(graph["guider"], noise, graph["sampler"], levels, graph["latent_image"])


def decoded(graph: dict[str, Any], samples: Any) -> torch.Tensor:
    """Run stock VAEDecode; of nested latents on the first stream, as newer cores do and users of older ones must."""
    samples = samples.unbind()[0] if samples.is_nested else samples
    return run_node("VAEDecode", vae=graph["vae"], samples={"samples": samples})[0]


def noise_of(recipe: str, noise: Any = None) -> Any:
    """Run NSNoiseFromRecipe."""
    return run_node(NSNoiseFromRecipe, recipe=recipe, noise=noise)[0]


def render(graph: dict[str, Any], noise: Any, recipe: str, **more: Any) -> tuple[torch.Tensor, dict]:
    """Run NSRenderCandidate."""
    if isinstance(noise, int):
        (noise,) = run_node("RandomNoise", noise_seed=noise)
    return run_node(NSRenderCandidate, noise=noise, **graph, recipe=recipe, **more)


@dataclass
class FarFrom:
    """A verifier that likes what differs from a picture (F, H, W, 3): a search from it never ends where it began."""

    picture: torch.Tensor
    name: str = "far from the first"
    score_range: tuple[float, float] = (0.0, 1.0)
    needs_prompt: bool = False
    trusts_previews: bool = True

    def score(self, images: torch.Tensor, latents: torch.Tensor | None = None) -> torch.Tensor:
        like = self.picture.repeat(len(images) // len(self.picture), 1, 1, 1)
        return (images - like).abs().mean(dim=(1, 2, 3)).float()


@dataclass
class Broken:
    """A toy verifier that answers with `what` where `breaks` says so of the pictures it is given."""

    what: Callable[[torch.Tensor], torch.Tensor]
    breaks: Callable[[torch.Tensor], bool] = lambda images: True
    name: str = "the broken one"
    score_range: tuple[float, float] = (-1.0, 1.0)
    needs_prompt: bool = False
    trusts_previews: bool = True
    seen: list[int] = field(default_factory=list)

    def score(self, images: torch.Tensor, latents: torch.Tensor | None = None) -> torch.Tensor:
        self.seen.append(len(images))
        return self.what(images) if self.breaks(images) else ToyVerifier().score(images)


def without_seconds(value: Any) -> Any:
    """Drop timings from a report, and what checks of shared calls cost: that is paid once for a model."""
    if isinstance(value, Mapping):
        return {key: without_seconds(inner) for key, inner in value.items() if key not in ("seconds", "check_calls")}
    return [without_seconds(inner) for inner in value] if isinstance(value, list) else value


def interrupt() -> None:
    """Press Cancel."""
    mm.interrupt_current_processing(True)


@contextlib.contextmanager
def at_call(number: int, action: Callable[[], None], *, each: bool = False, late: bool = False) -> Iterator[list[int]]:
    """Do something inside the `number`-th guided call (from 1), or in each from then on; yields the rows of every call.

    Calls that check shared ones are not among them.

    `late`: when the model has already answered (it notices Cancel by itself). Cancel is taken back at the end.
    """
    cls, rows = comfy.samplers.CFGGuider, []
    original = cls.outer_predict_noise

    def outer_predict_noise(self: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if is_check_call():
            return original(self, x, *args, **kwargs)
        rows.append(x.shape[0])
        due = len(rows) == number or (each and len(rows) > number)
        if due and not late:
            action()
        answer = original(self, x, *args, **kwargs)
        if due and late:
            action()
        return answer

    cls.outer_predict_noise = outer_predict_noise
    try:
        yield rows
    finally:
        cls.outer_predict_noise = original
        mm.interrupt_current_processing(False)
