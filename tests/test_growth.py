"""What a search does for a candidate does not grow with those before it: counted in operations, and in what stays in memory."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import journaling
import pytest
import torch
from analytic import SIZE, Constant, Listed, LowFrequency, Quadratic, Stripes, best, prepare, run, winner
from torch.utils._python_dispatch import TorchDispatchMode

from noise_search.search.base.budget import StopRules
from noise_search.search.base.candidate import Candidate
from noise_search.search.base.standings import Alone
from noise_search.search.core.latent_store import SPARE
from noise_search.search.methods.auto_search import AutoSearch
from noise_search.search.methods.backtracking import BacktrackingSearch
from noise_search.search.methods.branching import BranchingSearch
from noise_search.search.methods.chain import Chain
from noise_search.search.methods.draft_search import DraftSearch
from noise_search.search.methods.evolution import EvolutionSearch, least_drawn
from noise_search.search.methods.fk_steering import FKSteering
from noise_search.search.methods.halving import HalvingSearch
from noise_search.search.methods.path_search import PathSearch
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.methods.refinement import RefinementSearch
from noise_search.search.methods.rollover import RolloverSearch
from noise_search.search.methods.spectral import SpectralSearch
from noise_search.search.methods.trust_region import TrustRegionSearch
from noise_search.search.methods.zero_order import ZeroOrderSearch
from noise_search.search.noise.recipe import Recipe
from noise_search.search.run import run_search
from noise_search.search.scoring.scorer import Scorer
from noise_search.verifiers.composite.ensemble import (
    CALIBRATED,
    GATE,
    MANY,
    RANK_MEAN,
    WEIGHTED_SUM,
    Z_SCORE,
    Ensemble,
    RunningRanks,
    rank_mean,
    tied_ranks,
)

METHODS = {
    "random": RandomSearch(), "zero-order": ZeroOrderSearch(), "drafts": DraftSearch(), "refinement": RefinementSearch(),
    "evolution": EvolutionSearch(), "wide evolution": EvolutionSearch(tournament=0.3), "spectral": SpectralSearch(),
    "trust region": TrustRegionSearch(), "halving": HalvingSearch(), "FK": FKSteering(renoise=1), "paths": PathSearch(),
    "branching": BranchingSearch(block=4, renoise=1), "rollover": RolloverSearch(block=4, renoise=1),
    "backtracking": BacktrackingSearch(), "auto": AutoSearch(), "chain": Chain(DraftSearch(), RefinementSearch(), 0.7),
    "paths, then refinement": Chain(PathSearch(), RefinementSearch()),
}  # fmt: skip
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


def ensemble(mode: str = RANK_MEAN, **settings: Any) -> Ensemble:
    return Ensemble((Quadratic("a"), LowFrequency("b"), Stripes("c")), mode=mode, **settings)


class Counted:
    """Counts the calls of a function."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        self.calls, self.sizes, plain = 0, 0, getattr(owner, name)

        def counting(*args: Any, **more: Any) -> Any:
            self.calls += 1
            self.sizes += len(args[1]) if len(args) > 1 and isinstance(args[1], torch.Tensor) else 0
            return plain(*args, **more)

        monkeypatch.setattr(owner, name, counting)


class Largest(TorchDispatchMode):
    """Notes the most elements of any tensor that is made."""

    elements = 0

    def __torch_dispatch__(self, function: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for one in out if isinstance(out, (tuple, list)) else [out]:
            self.elements = max(self.elements, one.numel() if isinstance(one, torch.Tensor) else 0)
        return out


# Ranks.


def values(count: int, columns: int, seed: int = 0) -> torch.Tensor:
    """Numbers of which some are equal."""
    numbers = torch.randn(count, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (numbers * 4).round() / 4


def by_definition(column: list[float]) -> list[float]:
    return [sum(other < one for other in column) + (sum(other == one for other in column) + 1) / 2 for one in column]


def test_tied_ranks_are_those_of_the_definition_and_take_no_room_for_pairs():
    numbers = values(500, 3)
    with Largest() as largest:
        ranks = tied_ranks(numbers)
    assert ranks.dtype == torch.float64
    assert ranks.T.tolist() == [by_definition(column) for column in numbers.T.tolist()]
    assert largest.elements <= numbers.numel()


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.3, -2.0, 1.1), (1.0, 0.0, 1.0)])
@pytest.mark.parametrize("at_once", [1, 7, MANY])
def test_running_ranks_are_the_rank_means_of_all_rows_so_far(weights, at_once):
    numbers = values(3 * MANY // 2 if at_once == MANY else 60, 3)
    numbers[4, 1], numbers[11, 0] = math.nan, math.inf
    ranks = RunningRanks(weights)
    for first in range(0, len(numbers), at_once):
        ranks.add(numbers[first : first + at_once])
        rows = numbers[: first + at_once]
        usable = rows.isfinite().all(1)
        want = torch.full((len(rows),), -math.inf, dtype=torch.float64)
        want[usable] = rank_mean(rows[usable], torch.tensor(weights, dtype=torch.float64))
        assert [ranks.score(place) for place in range(len(rows))] == pytest.approx(want.tolist(), rel=1e-14)


# The pool.


VERIFIERS = {
    "one": lambda: Quadratic("a"),
    "rank mean": ensemble,
    "weighted": lambda: ensemble(weights=(1.0, -0.3, 2.0)),
    "z-score": lambda: ensemble(Z_SCORE),
    "sum": lambda: ensemble(WEIGHTED_SUM),
    "calibrated": lambda: ensemble(CALIBRATED),
    "gate": lambda: ensemble(GATE, gates=(None, 0.0, None)),
    "sum in ranks": lambda: Ensemble((Quadratic("a"), Ensemble((LowFrequency("b"), Stripes("c")), mode=WEIGHTED_SUM))),
    "ranks in ranks": lambda: Ensemble((Quadratic("a"), Ensemble((LowFrequency("b"), Stripes("c"))))),
    "constant": lambda: Ensemble((Constant("a"), Constant("b"), Constant("c"))),
}


@pytest.mark.parametrize("verifier", VERIFIERS.values(), ids=VERIFIERS)
def test_the_best_are_the_first_of_all_whatever_happens(verifier):
    """Against the order of all scores, combined anew after every step; indices do not follow the order of entry."""
    scorer, lots, discards = Scorer(verifier()), random.Random(1), [0]
    columns = len(scorer.names)
    pool, plain = scorer.pool(lambda: discards[0]), []
    indices = lots.sample(range(1000), 300)
    numbers = values(300, columns, seed=2).float()
    numbers[lots.sample(range(300), 9)] = math.nan
    refined: dict[int, float] = {}
    while indices:
        count = min(len(indices), lots.choice((1, 1, 3, 40)))
        some, indices = [Candidate(index, Recipe(index, index)) for index in indices[:count]], indices[count:]
        raw = numbers[len(plain) : len(plain) + count]
        scorer.enter(some, raw)
        pool.add(some, raw)
        assert pool.add([], torch.tensor([])) == []  # none of a method's children came to their end
        plain += some
        if lots.random() < 0.1:
            lots.choice(plain).discarded = True
            discards[0] += 1
        if not indices:
            refined = {plain[3].index: 1e6, plain[5].index: -1e6}
            pool.refine(refined)
        scores = scorer.combine(numbers[: len(plain)]).tolist()
        scores = [math.nan if c.discarded else refined.get(c.index, s) for c, s in zip(plain, scores, strict=True)]
        want = sorted(zip(plain, scores, strict=True), key=lambda p: (p[1] != p[1], -p[1] if p[1] == p[1] else 0, p[0].index))
        for wanted in (1, 4, len(plain) + 1):
            assert [c.index for c, _ in pool.best(wanted)] == [c.index for c, _ in want[:wanted]]
        assert [c.index for c, _ in pool.in_order()] == [c.index for c, _ in want]
        assert [score for _, score in pool.best(4)] == pytest.approx([score for _, score in want[:4]], nan_ok=True, rel=1e-6)
        assert [pool.score(place) for place in range(len(plain))] == pytest.approx(scores, nan_ok=True, rel=1e-6, abs=1e-6)
        assert [c.index for c, _ in pool.ranked()] == [c.index for c, _ in want]


def test_scores_of_a_person_that_are_revised_change_the_order():
    scorer = Scorer(Quadratic())
    pool = scorer.pool()
    some = [Candidate(index, Recipe(index, index)) for index in range(3)]
    standings = pool.add(some, torch.tensor([[1.0], [2.0], [3.0]]))
    assert pool.best()[0][0] is some[2]
    pool.revise(0, {0: 5.0})
    assert [c.index for c, _ in pool.best(3)] == [0, 2, 1]
    assert standings[0].scores == {"part": 5.0} and standings[0].score == 5.0


# What a search asks of it.


@every_method
def test_one_verifier_combines_every_candidate_once(monkeypatch, method):
    added = Counted(monkeypatch, Alone, "add")
    combined = Counted(monkeypatch, Scorer, "combine")
    search = run(method, 60)
    assert added.sizes == combined.sizes >= len(search.finished.members)
    scored = sum(len(c.looks) + (c.status == "finished") for c in search.candidates)
    seen_twice = scored if isinstance(method, (BacktrackingSearch, RolloverSearch)) else 0  # their own pools of all looks
    assert added.sizes <= scored + seen_twice


@pytest.mark.parametrize("images", [200, 800])
@pytest.mark.parametrize("method", [RandomSearch(), ZeroOrderSearch(), RefinementSearch(), TrustRegionSearch()])
def test_of_an_ensemble_few_candidates_are_ranked_again(monkeypatch, method, images):
    """However many there are already: a hundred lookups of a candidate's rank for each that is added."""
    combined = Counted(monkeypatch, Ensemble, "combine")
    looked = Counted(monkeypatch, RunningRanks, "score")
    search = run(method, images, ensemble())
    assert combined.calls == 0
    assert looked.calls <= 60 * len(search.candidates)
    assert best(search) == max(score for _, score in search.ranked)


def test_other_ensembles_are_combined_once_a_wave(monkeypatch):
    combined = Counted(monkeypatch, Ensemble, "combine")
    search = run(RandomSearch(), 80, ensemble(Z_SCORE))
    assert combined.calls == len(search.rounds) == 10


@every_method
def test_no_recipe_is_hashed_to_choose_what_is_shown(monkeypatch, method):
    search = prepare(40)
    hashed = Counted(monkeypatch, Recipe, "__hash__")
    for _ in method.run(search):
        pass
    search.close()
    assert hashed.calls == 0


def test_more_pictures_are_chosen_among_those_at_hand(monkeypatch):
    search = prepare(200, keep=4)
    hashed = Counted(monkeypatch, Recipe, "__hash__")
    for _ in RandomSearch().run(search):
        pass
    assert hashed.calls <= (4 + search.session.wave + 1) * len(search.rounds)


@pytest.mark.parametrize(
    ("count", "share"),
    [(1, 0.9), (2, 0.9), (3, 0.5), (8, 0.9), (40, 0.9), (40, 0.05), (500, 0.5), (500, 0.9), (500, 0.01), (90, 1.0)],
)
def test_a_tournament_is_that_of_the_whole_sample(count, share):
    drawn = max(1, round(share * count))
    places = [least_drawn(seed, count, drawn) for seed in range(60)]
    assert places == [min(random.Random(seed).sample(range(count), drawn)) for seed in range(60)]


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_tournament_makes_no_sample_that_it_can_do_without(monkeypatch, share):
    """A sample takes several times as long as the numbers that it draws."""
    sampled = Counted(monkeypatch, random.Random, "sample")
    for seed in range(60):
        least_drawn(seed, 500, round(share * 500))
    assert sampled.calls == 0


def test_evolution_ranks_a_generation_once(monkeypatch):
    from noise_search.search.base.pool import Pool

    ranked = Counted(monkeypatch, Pool, "ranked")
    run(EvolutionSearch(), 60)
    assert ranked.calls == 0


# What stays in memory.


def holders(search: Any) -> list[Candidate]:
    return [c for c in search.candidates if c.latent is not None or c.records or c.segment_start is not None or c.predictions]


@pytest.mark.parametrize("verifier", [Quadratic, ensemble], ids=["one", "ensemble"])
@every_method
def test_few_candidates_hold_latents(method, verifier):
    most, search = 0, prepare(120, verifier(), keep=2, wave=4)
    for _ in run_search(search, method):
        most = max(most, len(holders(search)))
    search.close()
    likely = method.likely_parents() if isinstance(method, EvolutionSearch) else 1  # of this generation, and of the next
    assert len(search.finished.members) > SPARE + 4 or isinstance(method, (BranchingSearch, FKSteering, HalvingSearch))
    assert most <= 2 * SPARE + max(2, 2 * likely) + 1 + 2
    assert search.best[0].latent is not None and search.baseline.latent is not None
    assert search.budget.redone == 0 or verifier is ensemble


@every_method
def test_what_was_dropped_is_made_again_and_counted_apart(method):
    search = run(method, 60)
    dropped = next(c for c in search.candidates if c.status == "finished" and c.latent is None)
    spent, calls = search.budget.nfe, dropped.nfe
    pictures = search.evaluator.pictures(dropped)
    score = float(search.scorer.verifier.values(pictures)[0])
    assert score == pytest.approx(dropped.score, abs=1e-4)
    assert search.budget.nfe == spent and dropped.nfe == calls and search.budget.redone >= 20
    assert dropped.latent.shape == (1, SIZE)


def test_a_chosen_candidate_holds_its_latent_again():
    search = run(RandomSearch(), 40)
    dropped = next(c for c in search.candidates if c.latent is None)
    search.choose(dropped)
    assert dropped.latent is not None and search.budget.nfe == 40 * 20 and search.budget.redone == search.runs.restored == 20


def test_what_the_journal_has_is_not_rendered_again(tmp_path):
    search = journaling.prepare(tmp_path, 40)
    for _ in run_search(search, RandomSearch()):
        pass
    dropped = next(c for c in search.candidates if c.latent is None)
    made, before = len(search.session.runs), (search.budget.nfe, search.budget.recalled, search.session.ledger.candidates)
    assert search.evaluator.pictures(dropped).shape == (1, 4, 4, 3)
    assert len(search.session.runs) == made and search.budget.redone == 0
    assert (search.budget.nfe, search.budget.recalled, search.session.ledger.candidates) == before
    search.close()
    search.session.ledger.journal.close()


def test_a_parent_that_was_dropped_is_left_all_the_same():
    """A tournament may choose anyone; where only the best few are held, the children are the same."""
    method = EvolutionSearch(tournament=0.05)
    kept = run(method, 60)
    search = prepare(60)
    shed = search.runs._store.shed
    search.runs._store.shed = lambda pool, latents, parents, always: shed(pool, latents, -SPARE, always)
    for _ in method.run(search):
        pass
    search.close()
    assert search.budget.redone > 0 == kept.budget.redone
    assert [c.recipe for c in search.candidates] == [c.recipe for c in kept.candidates]
    assert [c.score for c in search.candidates] == pytest.approx([c.score for c in kept.candidates], nan_ok=True)


# What cannot be paid for.


RULES = {
    "none": StopRules(), "patience": StopRules(patience=9), "target": StopRules(target_score=-1e9), "calls": StopRules(505),
    "seconds": StopRules(max_seconds=403.0),
}  # fmt: skip


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
@every_method
def test_no_candidate_is_made_that_is_not_begun(method, rules):
    search = prepare(48, rules=rules)
    clock = search.budget.clock
    search.session.on_call = clock.tick
    for _ in run_search(search, method):
        pass
    search.close()
    assert [c.index for c in search.candidates if c.nfe == 0] == []


def test_a_generation_that_is_cut_short_makes_no_more_children():
    numbers = [0.0] * 8 + [9.0] + [1.0] * 100
    search = run(EvolutionSearch(), 40, Listed(numbers=numbers), rules=StopRules(patience=20), wave=4)
    assert "patience" in search.stopped and winner(search) == 8
    assert all(c.status == "finished" for c in search.candidates)
