"""A ComfyUI session around toys, and what tests compare with."""

from __future__ import annotations

from typing import Any

from inprocess import boot

boot()

import comfy.sample
import comfy_extras.nodes_custom_sampler as stock_nodes
import torch

from noise_search.nodes.adapter.noise import SegmentNoise
from noise_search.nodes.adapter.session import ComfySession, SamplingInputs
from noise_search.search.base.budget import Budget
from noise_search.search.lockstep.rng import take_rng
from noise_search.search.noise.recipe import BranchPoint, Recipe
from toys import counted, sampler, stock


def session_for(guider: Any, sampler: Any, sigmas: torch.Tensor, latent: dict, *, seed: int = 0, batching="auto",
                max_rows: int | None = None, kind: str = "eps", **more: Any) -> ComfySession:  # fmt: skip
    """Return a session on toys, with a budget that never ends."""
    latent = {**latent, "samples": comfy.sample.fix_empty_latent_channels(guider.model_patcher, latent["samples"])}
    noise = stock_nodes.Noise_RandomNoise(seed)
    given = noise.generate_noise(latent)
    graph = SamplingInputs(guider, sampler, sigmas, latent, noise, given, take_rng(torch.device("cpu")), None)
    session = ComfySession(graph, Budget(1000), batching=batching, **more)
    if max_rows is not None:
        session.limits.max_rows = max_rows
    return session


def flat(latent: Any) -> torch.Tensor:
    """One vector of a plain or nested latent."""
    return torch.cat([part.flatten() for part in latent.unbind()]) if latent.is_nested else latent.flatten()


def relative(got: Any, wanted: Any) -> float:
    """Norm of the difference over the norm of what is wanted."""
    got, wanted = flat(got).double().cpu(), flat(wanted).double().cpu()
    assert torch.isfinite(wanted).all()
    return float((got - wanted).norm() / wanted.norm())


def check_lockstep(
    g: Any, name: str, sigmas: torch.Tensor, latent: dict, *, seeds: tuple[int, ...] = (5, 11, 42, 7),
    batching: str = "auto", within: float = 1e-4,
) -> list[Any]:  # fmt: skip
    """Candidates share their calls and equal stock runs, also suspended in the middle, pruned and resumed.

    Returns:
        The stock results.
    """
    smp = sampler(name)
    with counted() as alone:
        want = [stock(g, seed, smp, sigmas, latent) for seed in seeds]
    session = session_for(g, smp, sigmas, latent, batching=batching)
    assert session.why_alone == []
    runs = [session.start(Recipe(seed, seed)) for seed in seeds]
    with counted() as calls:
        session.advance(runs)
    assert calls.calls * len(seeds) == alone.calls
    for run, expected in zip(runs, want, strict=True):
        assert relative(samples_of(run), expected) < within

    session = session_for(g, smp, sigmas, latent, batching=batching)
    runs = [session.start(Recipe(seed, seed)) for seed in seeds]
    session.advance(runs, float(sigmas[len(sigmas) // 2 - 1]))
    assert not any(run.finished for run in runs)
    runs[0].close()
    session.advance(runs[1:])
    for run, expected in zip(runs[1:], want[1:], strict=True):
        assert relative(samples_of(run), expected) < within
    return want


def check_alone(g: Any, name: str | Any, sigmas: torch.Tensor, latent: dict, *, because: str,
                seeds: tuple[int, ...] = (5, 11, 42)) -> None:  # fmt: skip
    """Candidates do not share calls, the reason is given, and they equal stock runs to the bit."""
    smp = sampler(name) if isinstance(name, str) else name
    want = [stock(g, seed, smp, sigmas, latent) for seed in seeds]
    session = session_for(g, smp, sigmas, latent)
    assert any(because in reason for reason in session.why_alone), session.why_alone
    assert not session.looks_halfway
    runs = [session.start(Recipe(seed, seed)) for seed in seeds]
    session.advance(runs, float(sigmas[1]))
    for run, expected in zip(runs, want, strict=True):
        assert run.finished and torch.equal(flat(run.latent), flat(expected))


def samples_of(run: Any) -> Any:
    """What the stock sampler node would hand out."""
    return getattr(run.latent, "samples", run.latent)


def check_every_level(
    g: Any, name: str, sigmas: torch.Tensor, latent: dict, *, one_a_call: str = "", within: float = 1e-4,
    seeds: tuple[int, ...] = (5, 11, 42),
) -> list[Any]:  # fmt: skip
    """Candidates equal stock runs when they are left at any noise level, go on apart from each other, and branch there.

    Args:
        one_a_call: why they do not share their calls; empty: they do.

    Returns:
        The stock results.
    """
    smp = sampler(name)
    want = [stock(g, seed, smp, sigmas, latent) for seed in seeds]
    for sigma in map(float, sigmas[:-1]):
        session = session_for(g, smp, sigmas, latent)
        assert session.why_alone == [] and session.looks_halfway
        assert any(one_a_call in why for why in session.why_one_by_one) if one_a_call else session.why_one_by_one == []
        runs = [session.start(Recipe(seed, seed), keep_records=[sigma]) for seed in seeds]
        with counted() as calls:
            session.advance(runs, sigma)
        assert set(calls.rows_of) == {1 if one_a_call else len(seeds)}
        session.advance(runs[1:2])  # what it leaves behind must not reach the others
        session.advance(runs)
        for run, expected in zip(runs, want, strict=True):
            assert relative(samples_of(run), expected) < within, sigma
        branch = session.branch(runs[0].records[-1], BranchPoint(sigma, sigma, 3, 7))
        session.advance([branch])
        noise, levels = branch.segment_start
        alone = stock(g, SegmentNoise(noise, 7, 3), smp, levels, session.graph.latent)
        assert relative(samples_of(branch), alone) < within, sigma
    return want
