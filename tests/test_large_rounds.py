"""Fewer, larger rounds: what they save where models are swapped in each, and that they change nothing else."""

from __future__ import annotations

import math

import analytic
import pytest
from analytic import Clock, Listed
from journaling import METHODS, go, made, prepare, said
from swapping import Card, on_card

from noise_search.search.base.budget import StopRules
from noise_search.search.core.control import FINISHED
from noise_search.search.methods.auto_search import choose_for
from noise_search.search.methods.branching import BranchingSearch
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.run import run_search
from noise_search.search.scoring import image_cache

IMAGES = 16
NEEDS_STEP_NOISE = ("FK", "branching", "branching lineages", "rollover")
EVERY = [(name, stochastic) for name in METHODS for stochastic in (False, True) if stochastic or name not in NEEDS_STEP_NOISE]


def ended(search, method):
    for _ in run_search(search, method or choose_for(search, search.budget.images)[0]):
        pass
    search.close()
    return search


# Of 16 images of 24 steps: loads of denoiser, decoder and verifier in small rounds, in large ones.
SWAPS = {
    "random": (6, 3), "zero-order": (15, 6), "halving": (17, 9), "draft search": (30, 9), "refinement": (48, 6),
    "auto": (39, 12), "FK": (26, 9), "branching": (119, 12), "rollover": (1019, 21), "backtracking": (228, 18),
    "evolution": (15, 9), "path": (18, 12), "spectral": (12, 6), "trust region": (15, 9),
}  # fmt: skip


@pytest.mark.parametrize("name", SWAPS)
def test_models_are_swapped_in_fewer_rounds(name):
    found = []
    for large in (False, True):
        card = Card()
        search = on_card(card, IMAGES, large_rounds=large, steps=24, stochastic=name in NEEDS_STEP_NOISE)
        ended(search, METHODS[name])
        found.append(card.swaps)
    assert tuple(found) == SWAPS[name]


def test_the_pictures_of_a_large_round_are_scored_together_at_1024_x_1024(monkeypatch):
    """Of these, 21 fit into what pictures may take; a large round has more of them."""
    monkeypatch.setattr(image_cache, "PICTURE_BYTES", 21 * 4 * 4 * 3 * 4)
    card = Card()
    ended(on_card(card, IMAGES, large_rounds=True, steps=24), METHODS["auto"])
    assert card.swaps == 12


@pytest.mark.parametrize(("name", "stochastic"), EVERY)
def test_large_rounds_keep_the_budget_and_score_all_that_ends(name, stochastic):
    search = ended(analytic.prepare(IMAGES, stochastic=stochastic, large_rounds=True), METHODS[name])
    assert search.budget.nfe == sum(run.nfe for run in search.session.runs) == sum(c.nfe for c in search.candidates)
    assert search.budget.nfe <= IMAGES * search.budget.run_cost and search.budget.reserved == 0
    assert all(run.closed for run in search.session.runs if not run.finished)
    finished = [c for c in search.candidates if c.status == "finished"]
    assert search.baseline in finished and sorted(c.index for c in finished) == sorted(c.index for c, _ in search.ranked)
    assert not any(math.isnan(c.score) for c in finished)
    assert sorted(index for told in search.rounds for index in told.candidates) == sorted(c.index for c in finished)


@pytest.mark.parametrize(("name", "stochastic"), EVERY)
def test_a_search_in_large_rounds_is_recalled(tmp_path, name, stochastic):
    want = ended(analytic.prepare(IMAGES, stochastic=stochastic, large_rounds=True), METHODS[name])
    first, again = (go(prepare(tmp_path, IMAGES, stochastic=stochastic, large_rounds=True), METHODS[name]) for _ in range(2))
    assert said(first) == said(again) == said(want)
    assert made(first) == want.budget.nfe and made(again) == 0


def test_a_stop_rule_looks_at_scores_as_often_as_in_small_rounds():
    rules = StopRules(patience=3)
    found = [
        ended(
            analytic.prepare(64, Listed(numbers=range(64, 0, -1)), rules=rules, clock=Clock(), large_rounds=large), RandomSearch()
        )
        for large in (False, True)
    ]
    assert said(found[0]) == said(found[1]) and len(found[1].candidates) == 4


def test_runs_that_go_one_by_one_are_scored_together():
    card = Card()
    search = on_card(card, IMAGES, large_rounds=True, fixed_steps=False, calls=lambda seed: 18 + seed % 5)
    ended(search, RandomSearch())
    assert card.swaps == 3 and len(search.session.rounds) > 10


def test_what_waits_to_be_scored_is_scored_when_the_user_ends_the_search():
    search = analytic.prepare(IMAGES, stochastic=True, large_rounds=True)
    scored = []

    def on_call():
        if search.budget.nfe == 25:
            scored.append(search.scorer.scored)
            search.user_requests.finish()

    search.session.on_call = on_call
    ended(search, BranchingSearch())
    assert scored == [0]  # candidate 0 had ended, and waited
    assert search.budget.nfe == 25 and search.stopped == FINISHED
    assert [c.index for c, _ in search.ranked] == [0] and not math.isnan(search.baseline.score)
