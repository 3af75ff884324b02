"""Searches of the analytic session that keep a journal: begun, cut short, and gone on with by new objects."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from analytic import SEED, AnalyticSession, Clock, Left, Quadratic, as_dict
from safetensors.torch import load, save

from noise_search.search.base.budget import Budget, StopRules
from noise_search.search.core.commands import log_in
from noise_search.search.core.search import Search, SearchSettings
from noise_search.search.journal.caching_session import CacheContext, CachingSession, KeptRun
from noise_search.search.journal.journal import Journal
from noise_search.search.journal.score_cache import ScoreCache
from noise_search.search.methods.auto_search import AutoSearch, choose_for
from noise_search.search.methods.backtracking import BacktrackingSearch
from noise_search.search.methods.branching import BranchingSearch
from noise_search.search.methods.chain import Chain
from noise_search.search.methods.draft_search import DraftSearch
from noise_search.search.methods.evolution import EvolutionSearch
from noise_search.search.methods.fk_steering import FKSteering
from noise_search.search.methods.halving import HalvingSearch
from noise_search.search.methods.path_search import PathSearch
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.methods.refinement import RefinementSearch
from noise_search.search.methods.rollover import RolloverSearch
from noise_search.search.methods.spectral import SpectralSearch
from noise_search.search.methods.trust_region import TrustRegionSearch
from noise_search.search.methods.zero_order import ZeroOrderSearch
from noise_search.search.noise.proposals import JitterProposal
from noise_search.search.noise.recipe import Recipe
from noise_search.search.run import run_search
from noise_search.search.scoring.scorer import Scorer

KEY = "a set-up"
AUTO = None  # as the search nodes run without a method

METHODS = {
    "random": RandomSearch(),
    "random, jittered": RandomSearch(proposal=JitterProposal()),
    "random with drafts": RandomSearch(draft_steps=5),
    "zero-order": ZeroOrderSearch(),
    "zero-order with drafts": ZeroOrderSearch(draft_steps=5),
    "zero-order with restarts": ZeroOrderSearch(on_stall="restart"),
    "halving": HalvingSearch(),
    "draft search": DraftSearch(),
    "refinement": RefinementSearch(),
    "chain": Chain(RandomSearch(), RefinementSearch()),
    "chain of three": Chain(HalvingSearch(), Chain(ZeroOrderSearch(), RefinementSearch())),
    "path": PathSearch(),
    "FK": FKSteering(),
    "FK, renoised": FKSteering(renoise=2),
    "evolution": EvolutionSearch(),
    "branching": BranchingSearch(),
    "branching, renoised": BranchingSearch(renoise=2, children=3),
    "branching lineages": BranchingSearch(lineages=2, block=4),
    "rollover": RolloverSearch(),
    "rollover, renoised": RolloverSearch(renoise=2),
    "backtracking": BacktrackingSearch(),
    "spectral": SpectralSearch(),
    "spectral with drafts": SpectralSearch(draft_steps=5),
    "trust region": TrustRegionSearch(),
    "auto": AUTO,
    "auto search": AutoSearch(),
}


class AnalyticCodec:
    """What an ended `AnalyticRun` leaves behind, as safetensors."""

    def pack(self, run: Any) -> bytes:
        tensors = {"latent": run.latent, **_floats("levels", run.predictions), "sigmas": _f64([r.sigma for r in run.records])}
        for i, record in enumerate(run.records):
            tensors |= {f"{i}.known": record.known, f"{i}.gaps": _f64(record.gaps), **_floats(f"{i}.levels", record.predictions)}
        return save({name: tensor.clone() for name, tensor in tensors.items()})

    def unpack(self, data: bytes, recipe: Recipe) -> KeptRun:
        tensors = load(data)
        records = [
            Left(sigma, tensors[f"{i}.known"], tuple(tensors[f"{i}.gaps"].tolist()), _numbered(tensors, f"{i}.levels"))
            for i, sigma in enumerate(tensors["sigmas"].tolist())
        ]
        return KeptRun(tensors["latent"], records, None, _numbered(tensors, "levels"))


def _f64(values: Any) -> torch.Tensor:
    return torch.tensor(list(values), dtype=torch.float64)


def _floats(name: str, values: dict[float, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: _f64(values), **{f"{name}.{i}": value for i, value in enumerate(values.values())}}


def _numbered(tensors: dict[str, torch.Tensor], name: str) -> dict[float, torch.Tensor]:
    return {level: tensors[f"{name}.{i}"] for i, level in enumerate(tensors[name].tolist())}


def prepare(
    folder: Path, images: int, verifier: Any = None, *, key: str = KEY, by: str = "verifier", seed: int = SEED,
    rules: StopRules | None = None, skip_errors: bool = False, clock: Clock | None = None, large_rounds: bool = False,
    **session: Any,
) -> Search:  # fmt: skip
    """Return a search with a journal in a folder that has not begun."""
    clock = clock or Clock()
    budget = Budget(images, rules or StopRules(), clock=clock)
    scorer = Scorer(verifier or Quadratic(), skip_errors=skip_errors, clock=clock)
    journal = Journal(folder, key)
    scorer.book = ScoreCache(journal, by, scorer.names)
    inner = AnalyticSession(budget, **session)
    recalling = CachingSession(inner, CacheContext(journal, AnalyticCodec(), budget, scorer.book))
    search = Search(recalling, scorer, budget, SearchSettings(Recipe(seed, seed), seed, large_rounds=large_rounds))
    search.control.keep_commands(log_in(journal, by, [str(seed)]))
    return search


def go(search: Search, method: Any) -> Search:
    """Run a search to its end."""
    method = method or choose_for(search, search.budget.images)[0]
    try:
        for _ in run_search(search, method):
            pass
    finally:
        search.close()
        search.session.ledger.journal.close()
    return search


def run(method: Any, images: int, folder: Path, verifier: Any = None, **more: Any) -> Search:
    """Return a search with a journal that has ended."""
    return go(prepare(folder, images, verifier, **more), method)


class Killed(BaseException):
    """A stand-in for a kill: nothing that handles exceptions may take it for a failure."""


def killed_at(call: int) -> Callable[[], None]:
    """Return what ends a search within a model call, from 1."""
    left = [call]

    def on_call() -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    return on_call


def said(search: Search) -> dict[str, Any]:
    """What a report tells, but for seconds and for what was spared."""
    return {
        "candidates": [as_dict(candidate) for candidate in search.candidates],
        "order": [(candidate.index, score) for candidate, score in search.ranked],
        "rounds": [(r.candidates, r.best, r.score, r.nfe) for r in search.rounds],
        "nfe": search.budget.nfe,
        "scored": search.scorer.scored,
        "said": (search.stopped, list(search.notes), list(search.scorer.problems)),
    }


def made(search: Search) -> int:
    """Model calls that the session really made."""
    return search.budget.nfe - search.budget.recalled + search.budget.redone


def finished_lines(search: Search) -> list[str]:
    """Names of the finished runs in the journal's file, one for each line."""
    lines = (search.session.ledger.journal.folder / "journal.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    return [entry["name"] for entry in entries if entry.get("kind") == "run" and not entry["what"]]
