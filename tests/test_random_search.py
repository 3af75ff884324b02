"""Random search, and draft and commit: exact costs, and what they find."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
from analytic import Quadratic, best, mean, run, said, statuses, winner

from noise_search.search.base.budget import StopRules
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.noise.proposals import NeighborProposal


@pytest.mark.parametrize(("images", "steps"), [(1, 20), (2, 20), (8, 20), (19, 7), (3, 1)])
def test_cost_is_images_times_steps(images, steps):
    search = run(RandomSearch(), images, steps=steps)
    assert search.budget.nfe == images * steps
    assert search.evaluator.decodes == search.scorer.calls == search.scorer.verifier.pictures == images
    assert len(search.session.started) == images
    assert statuses(search) == ["finished"] * images
    assert search.stopped == ""


def test_two_calls_per_step():
    assert run(RandomSearch(), 8, heun=True).budget.nfe == 8 * 39


def test_waves_hold_as_many_runs_as_the_session_wants():
    search = run(RandomSearch(), 19)
    assert [r.candidates for r in search.rounds] == [tuple(range(8)), tuple(range(8, 16)), (16, 17, 18)]
    assert [r.nfe for r in search.rounds] == [160, 320, 380]
    assert [r.index for r in search.rounds] == [0, 1, 2]


@pytest.mark.parametrize(
    ("images", "steps", "draft", "drafts"),
    [(8, 20, 5, 24), (8, 20, 6, 20), (3, 20, 5, 4), (2, 20, 5, 0), (1, 20, 5, 0), (4, 20, 19, 2)],
)
def test_draft_cost(images, steps, draft, drafts):
    """Candidate 0 in full, drafts for what is left beside one full run, and that run for the best draft."""
    search = run(RandomSearch(draft_steps=draft), images, steps=steps)
    full = 2 if drafts else 1
    assert search.budget.nfe == full * steps + drafts * draft <= images * steps
    assert [s for s, _ in search.session.started].count(draft) == drafts
    assert search.evaluator.decodes == search.scorer.calls == drafts + full
    assert statuses(search).count("finished") == full
    assert statuses(search).count("draft") == drafts - (full - 1)
    assert search.baseline.status == "finished"
    assert search.stopped == ""
    assert search.notes == []


def test_best_draft_is_rendered_in_full():
    search = run(RandomSearch(draft_steps=5), 8)
    drafted = [c for c in search.candidates if c.looks]
    assert len(drafted) == 24
    chosen = max(drafted, key=lambda c: c.looks[0]["score"])
    assert [c.index for c, _ in search.finished.ranked() if c.index] == [chosen.index]
    assert chosen.nfe == 25
    assert chosen.looks == [{"draft_steps": 5, "scores": {"part": chosen.score}, "score": chosen.score}]


def test_drafts_of_two_calls_per_step():
    """A draft takes 9 calls and a full run 39; the plan is made for 39 * 5 / 20, rounded up."""
    search = run(RandomSearch(draft_steps=5), 8, heun=True)
    assert search.budget.nfe == 2 * 39 + 23 * 9
    assert search.budget.nfe <= 8 * 39


@pytest.mark.parametrize("calls", [25, 20, 11])
def test_drafts_that_cost_more_than_planned_leave_the_winner_its_run(calls):
    """A sampler that heeds no steps: a draft costs as much as a full run."""
    search = run(RandomSearch(draft_steps=5), 8, calls=lambda seed: calls, fixed_steps=False)
    assert search.budget.nfe == 8 * calls
    assert statuses(search).count("finished") == 2
    assert statuses(search).count("draft") == 5


@pytest.mark.parametrize("draft", [20, 21])
def test_drafts_are_shorter_than_the_run(draft):
    with pytest.raises(ValueError, match=rf"'draft_steps' must be from 1 to 19 for a run of 20 steps, not {draft}"):
        run(RandomSearch(draft_steps=draft), 4)


def test_bad_parameters():
    with pytest.raises(ValueError, match="'draft_steps' must be 0 .* not -1"):
        RandomSearch(draft_steps=-1)


def test_spec_is_frozen():
    with pytest.raises(FrozenInstanceError):
        RandomSearch().draft_steps = 3


@pytest.mark.parametrize("method", [RandomSearch(), RandomSearch(draft_steps=5)])
def test_same_seed_same_search(method):
    assert said(run(method, 12)) == said(run(method, 12))
    assert said(run(method, 12)) != said(run(method, 12, seed=8))


@pytest.mark.parametrize("method", [RandomSearch(), RandomSearch(draft_steps=5)])
@pytest.mark.parametrize("wave", [1, 3, 64])
def test_the_wave_changes_nothing(method, wave):
    assert said(run(method, 12, wave=wave)) == said(run(method, 12))


def test_a_larger_budget_keeps_the_first_candidates():
    few, many = said(run(RandomSearch(), 5)), said(run(RandomSearch(), 12))
    assert few["candidates"] == many["candidates"][:5]


def test_candidates_are_independent_unless_a_proposal_says_otherwise():
    far, near = run(RandomSearch(), 6), run(RandomSearch(NeighborProposal(0.9)), 6)
    assert [c.parent for c in far.candidates] == [None] * 6
    assert [c.parent for c in near.candidates] == [None, 0, 0, 0, 0, 0]


def test_beats_a_single_run():
    """The mean of the best of 8 unit Gaussians is 1.42; the quadratic is linear on the noise's sphere, nearly."""
    gains = []
    for seed in range(60):
        search = run(RandomSearch(), 8, seed=seed)
        assert best(search) >= search.baseline.score
        gains.append(best(search) - search.baseline.score)
    spread = 0.81 * 4 * 48**0.5 / 2  # of 2 a . b for Gaussian a, b, and of |a|^2, about
    assert 0.8 * 1.42 < mean(gains) / spread < 1.6 * 1.42


def test_the_optimum_wins():
    """The best noise is among the candidates."""
    seeds = [c.recipe.seed for c in run(RandomSearch(), 6).candidates]
    for index, seed in enumerate(seeds):
        search = run(RandomSearch(), 6, Quadratic(seed=seed))
        assert winner(search) == index
        assert best(search) == pytest.approx(0.0, abs=1e-6)


def test_no_drafts_where_the_limits_pay_for_none():
    search = run(RandomSearch(draft_steps=5), 8, rules=StopRules(max_model_calls=43))
    assert search.budget.nfe == 20
    assert "fewer drafts" in search.notes[0]
