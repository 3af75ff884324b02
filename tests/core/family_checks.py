"""What is checked of a family: its network looks at all that it is given, and every candidate is its stock run."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from inprocess import boot

boot()

import comfy.clip_vision
import torch
from families import FAMILIES, Draw, guider, latent_of, patcher_of
from searching import Found, render, search_with
from sessions import relative

from noise_search.nodes.adapter.noise import RecipeNoise, SegmentNoise
from noise_search.nodes.run import runner
from noise_search.search.base.candidate import Candidate
from noise_search.search.methods.fk_steering import FKSteering
from noise_search.search.methods.halving import HalvingSearch
from noise_search.search.methods.random_search import RandomSearch
from toys import ToyVerifier, sampler, sigmas_for, stock

SEED = 3
# Sampler, steps, budget, method: what is searched.
SEARCHES = {
    "random": ("euler_ancestral", 4, 3, RandomSearch()),
    "halving": ("euler", 4, 3, HalvingSearch()),
    "default": ("euler", 9, 8, None),
    "fk steering": ("euler_ancestral", 5, 3, FKSteering(ess_threshold=1.0, lam=50.0)),
}


class AnyVAE:
    """Makes a picture of 4 x 4 pixels from a latent of any shape."""

    def decode(self, samples: torch.Tensor) -> torch.Tensor:
        flat = samples.flatten(1).float()
        flat = flat / flat.std().clamp(min=1.0)
        weights = torch.randn(flat.shape[1], 48, generator=torch.Generator().manual_seed(3)) / flat.shape[1] ** 0.5
        return torch.sigmoid(flat @ weights).reshape(-1, 4, 4, 3)


@contextlib.contextmanager
def candidates() -> Iterator[list[Candidate]]:
    """Collect the finished candidates of a search; with as large a `keep`, all have their latents."""
    original, found = runner.take, []

    def take(*args: Any) -> Any:
        best, finalists = original(*args)
        found.extend(finalists)
        return best, finalists

    runner.take = take
    try:
        yield found
    finally:
        runner.take = original


def looked_halfway(report: dict[str, Any], which: str) -> bool:
    """Whether a search did what its method is for: it pruned, it drafted and refined, or it copied."""
    statuses = {candidate["status"] for candidate in report["candidates"]}
    copied = any("cuts" in json.loads(c["recipe"]) and c["status"] == "finished" for c in report["candidates"])
    return {"random": True, "halving": "pruned" in statuses, "default": "draft" in statuses and copied}.get(which, copied)


def graph_of(name: str, sampler_name: str, steps: int) -> dict[str, Any]:
    """Return what is connected to NSSearchSamplerAdvanced."""
    family, patcher = FAMILIES[name], patcher_of(name)
    return {
        "guider": guider(family, patcher), "sampler": sampler(sampler_name), "sigmas": sigmas_for(patcher, steps=steps),
        "latent_image": latent_of(family), "vae": AnyVAE(),
    }  # fmt: skip


def check_search(name: str, which: str) -> Found:
    """Search; all finished candidates equal stock runs, copies also the whole of their recipes rendered alone.

    Returns:
        The node's outputs.
    """
    sampler_name, steps, budget, method = SEARCHES[which]
    graph = graph_of(name, sampler_name, steps)
    with candidates() as ended:
        found = search_with(graph, SEED, method=method, budget=budget, verifier=ToyVerifier(), keep=1000)
    assert len(ended) == sum(c["status"] == "finished" for c in found.report["candidates"]) >= 2
    for candidate in ended:
        noise, sigmas = RecipeNoise(candidate.recipe), graph["sigmas"]
        if cuts := candidate.recipe.cuts:
            start, sigmas = candidate.segment_start
            noise = SegmentNoise(start, candidate.recipe.step_seed, cuts[-1].noise_seed)
            _, alone = render(graph, SEED, candidate.recipe.to_json())
            assert relative(candidate.latent, alone["samples"]) < 1e-4, candidate
        want = stock(graph["guider"], noise, graph["sampler"], sigmas, graph["latent_image"])
        assert relative(candidate.latent, want) < 1e-4, candidate
    return found


def seen(name: str, **changed: Any) -> tuple[torch.Tensor, tuple, dict]:
    """Return the network's answers to a step from a middle noise level, and what it was given at its first call.

    Args:
        name: of the family.
        changed: other entries of the positive conditioning.
    """
    family, patcher = FAMILIES[name], patcher_of(name)
    g = guider(family, patcher)
    g.original_conds["positive"] = [{**entry, **changed} for entry in g.original_conds["positive"]]
    calls: list[tuple] = []

    def hook(module: Any, args: tuple, kwargs: dict, answer: Any) -> None:
        calls.append((flat(answer), args, kwargs))

    handle = patcher.model.diffusion_model.register_forward_hook(hook, with_kwargs=True)
    try:
        stock(g, SEED, "euler", sigmas_for(patcher, steps=4)[[2, 4]], latent_of(family))
    finally:
        handle.remove()
    return torch.cat([answer for answer, *_ in calls]), *calls[0][1:]


def flat(answer: Any) -> torch.Tensor:
    """Return an answer, or a list of one for each stream, as one vector."""
    parts = [answer] if isinstance(answer, torch.Tensor) else answer
    return torch.cat([part.flatten() for part in parts])


def other(value: Any, draw: Draw) -> Any:
    """Return a value of the same shape, with other numbers, also inside lists, dictionaries and CLIP vision outputs."""
    if isinstance(value, torch.Tensor):
        if set(value.unique().tolist()) <= {0, 1}:  # a mask: as many of both
            return value.flip(-1)
        return draw(*value.shape).to(value.dtype) if value.is_floating_point() else value + 1
    if isinstance(value, comfy.clip_vision.Output):
        changed = comfy.clip_vision.Output()
        vars(changed).update(other(vars(value), draw))
        return changed
    if isinstance(value, dict):
        return {name: other(inner, draw) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(other(inner, draw) for inner in value)
    return value * 2 if isinstance(value, (int, float)) else value


def lower(sigma: Any) -> Any:
    """Return a lower noise level, of each stream."""
    return sigma * 0.6 if isinstance(sigma, torch.Tensor) else type(sigma)(map(lower, sigma))


def looks(name: str) -> dict[str, float]:
    """How much the network's answer changes, relative, with the latent, the noise level and each entry of the conditioning."""
    answer, args, kwargs = seen(name)
    assert torch.isfinite(answer).all()
    net = patcher_of(name).model.diffusion_model
    x, t, *rest = args
    own = flat(net(x, t, *rest, **kwargs))
    unlike = {"latent": (other(x, Draw(5)), t), "sigma": (x, lower(t))}
    found = {what: difference(flat(net(*changed, *rest, **kwargs)), own) for what, changed in unlike.items()}
    entry = guider(FAMILIES[name], patcher_of(name)).original_conds["positive"][0]
    keys = [key for key, value in entry.items() if key not in ("model_conds", "uuid") and value is not None]
    return found | {key: difference(seen(name, **{key: other(entry[key], Draw(6))})[0], answer) for key in keys}


def difference(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """Return the norm of the difference, relative."""
    return float((got - wanted).norm() / wanted.norm())
