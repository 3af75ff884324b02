"""Zero-order search: exact costs, how the pivot moves, and what it finds."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import FrozenInstanceError

import pytest
import torch
from analytic import SEED, Constant, Listed, LowFrequency, Quadratic, best, draw, mean, prepare, run, said, statuses

from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.methods.zero_order import ZeroOrderSearch
from noise_search.search.noise.proposals import GaussianProposal, NeighborProposal
from noise_search.search.noise.recipe import make_noise

NAN = math.nan


def parents(search):
    return [candidate.parent for candidate in search.candidates]


def cosines(search):
    """Cosine of the last move of each candidate; None for one of its own."""
    return [round(c.recipe.moves[-1].amount, 4) if c.recipe.moves else None for c in search.candidates]


@pytest.mark.parametrize(("images", "rounds"), [(1, []), (2, [1]), (5, [4]), (17, [4] * 4), (20, [4] * 4 + [3])])
@pytest.mark.parametrize("on_stall", ["keep", "restart", "shrink"])
def test_cost_is_images_times_steps(images, rounds, on_stall):
    search = run(ZeroOrderSearch(on_stall=on_stall), images)
    assert search.budget.nfe == images * 20
    assert search.evaluator.decodes == search.scorer.calls == images
    assert set(Counter(search.session.started).values()) == {1}  # no recipe is run twice
    assert statuses(search) == ["finished"] * images
    if on_stall != "restart":
        assert [len(r.candidates) for r in search.rounds] == [1, *rounds]
    assert search.stopped == ""


def test_one_neighbor_per_round():
    search = run(ZeroOrderSearch(neighbors=1), 6)
    assert [r.candidates for r in search.rounds] == [(0,), (1,), (2,), (3,), (4,), (5,)]


@pytest.mark.parametrize(("images", "drafts"), [(8, 24), (3, 4), (2, 0), (1, 0)])
def test_draft_cost(images, drafts):
    """Candidate 0 is drafted too, as the first pivot; the winner's full run is paid for beforehand."""
    search = run(ZeroOrderSearch(draft_steps=5), images)
    drafted = [recipe for steps, recipe in search.session.started if steps == 5]
    assert len(drafted) == len(set(drafted)) == drafts
    assert search.budget.nfe == (2 if drafts else 1) * 20 + 5 * drafts <= images * 20
    assert search.baseline.status == "finished"
    assert search.evaluator.decodes == search.scorer.calls == drafts + (2 if drafts else 1)
    assert statuses(search).count("finished") == (2 if drafts else 1)


def test_candidate_0_is_not_rendered_again_if_its_draft_is_the_best():
    numbers = [1.0, 1.0, *[0.0] * 40]
    search = run(ZeroOrderSearch(draft_steps=5), 8, Listed(numbers=numbers))
    assert search.budget.nfe == 20 + 24 * 5
    assert [c.index for c in search.finished.members] == [0]
    assert search.baseline.status == "finished"
    assert search.baseline.looks == [{"draft_steps": 5, "scores": {"part": 1.0}, "score": 1.0}]


def test_drafts_that_cost_more_than_planned_leave_the_winner_its_run():
    search = run(ZeroOrderSearch(draft_steps=5), 8, calls=lambda seed: 25, fixed_steps=False)
    assert search.budget.nfe <= 8 * 25
    assert statuses(search).count("finished") == 2


# Scores by candidate, with what each policy makes of them: parent by candidate, cosine by candidate.
# Rounds of two: candidate 0 | 1 2 | 3 4 | 5 6 | 7 8, with a fresh pivot in the round after a stall if restarted.
STALLS = [5, 3, 4, 2, 7, 6, 6, 8, 9, 1, 1]


def test_keep():
    """1 2 stall, 3 4 move to 4, 5 6 stall, 7 8 move to 8."""
    search = run(ZeroOrderSearch(neighbors=2, on_stall="keep"), 11, Listed(numbers=STALLS))
    assert parents(search) == [None, 0, 0, 0, 0, 4, 4, 4, 4, 8, 8]
    assert cosines(search) == [None, *[0.95] * 10]


def test_restart():
    """1 2 stall; 3 (2) is a fresh pivot with neighbors 4 (7) and 5 (6): 4 wins; 6 (6) 7 (8): 7; 8 (9) 9: 8; 10."""
    search = run(ZeroOrderSearch(neighbors=2, on_stall="restart"), 11, Listed(numbers=STALLS))
    assert parents(search) == [None, 0, 0, None, 3, 3, 4, 4, 7, 7, 8]
    assert [r.candidates for r in search.rounds] == [(0,), (1, 2), (3, 4, 5), (6, 7), (8, 9), (10,)]
    assert not search.candidates[3].recipe.moves


def test_restart_counts_its_pivot():
    """All stall: 0 | 1 2 | 3: 4 5 | 6: 7 8 | 9: 10, in 11 runs; nothing is left for a pivot without neighbors."""
    search = run(ZeroOrderSearch(neighbors=2, on_stall="restart"), 11, Listed(numbers=[9, 1, 1, 8, 1, 1, 7, 1, 1, 6, 1]))
    assert [r.candidates for r in search.rounds] == [(0,), (1, 2), (3, 4, 5), (6, 7, 8), (9, 10)]
    assert parents(search) == [None, 0, 0, None, 3, 3, None, 6, 6, None, 9]
    assert search.ranked[0][0].index == 0


def test_restart_with_one_run_left():
    """A fresh pivot alone is still a candidate."""
    search = run(ZeroOrderSearch(neighbors=2, on_stall="restart"), 4, Listed(numbers=[9, 1, 1, 8]))
    assert [r.candidates for r in search.rounds] == [(0,), (1, 2), (3,)]
    assert parents(search) == [None, 0, 0, None]


def test_restart_remembers_the_best_of_all():
    search = run(ZeroOrderSearch(neighbors=2, on_stall="restart"), 6, Listed(numbers=[9, 1, 1, 2, 4, 3]))
    assert search.ranked[0][0].index == 0


def test_shrink():
    """The angle halves at each stall (1 2, and 5 6), and stays after a move."""
    search = run(ZeroOrderSearch(neighbors=2, on_stall="shrink"), 11, Listed(numbers=STALLS))
    once, twice = (round(math.cos(math.acos(0.95) / n), 4) for n in (2, 4))
    assert cosines(search) == [None, 0.95, 0.95, *[once] * 4, *[twice] * 4]
    assert parents(search) == [None, 0, 0, 0, 0, 4, 4, 4, 4, 8, 8]


@pytest.mark.parametrize("on_stall", ["keep", "restart", "shrink"])
def test_a_tie_is_no_stall(on_stall):
    """Not with the pivot (5), nor among neighbors: the earlier one is followed (6, 6)."""
    search = run(ZeroOrderSearch(neighbors=2, on_stall=on_stall), 7, Listed(numbers=[5, 5, 4, 6, 6, 6, 6]))
    assert parents(search) == [None, 0, 0, 0, 0, 3, 3]
    assert cosines(search) == [None, *[0.95] * 6]


@pytest.mark.parametrize("on_stall", ["keep", "restart", "shrink"])
def test_all_ties(on_stall):
    search = run(ZeroOrderSearch(on_stall=on_stall), 14, Constant())
    assert parents(search) == [None, *[0] * 13]
    assert search.ranked[0][0].index == 0


@pytest.mark.parametrize(
    ("numbers", "followed"),
    [([NAN, 1, 2, 0, 0], [0, 0, 2, 2]), ([NAN, NAN, 2, 0, 0], [0, 0, 2, 2]), ([1, NAN, NAN, 0, 0], [0, 0, 0, 0])],
)
def test_a_number_is_better_than_nan(numbers, followed):
    search = run(ZeroOrderSearch(neighbors=2), 5, Listed(numbers=numbers))
    assert parents(search)[1:] == followed


def test_nan_all_over_is_no_stall():
    search = run(ZeroOrderSearch(neighbors=2, on_stall="restart"), 7, Constant(number=NAN))
    assert parents(search) == [None, *[0] * 6]


def test_neighbors_keep_norm_and_angle():
    search = run(ZeroOrderSearch(cosine=0.8), 9)
    for candidate in search.candidates[1:]:
        mine = make_noise(candidate.recipe, draw)
        pivot = make_noise(search.candidates[candidate.parent].recipe, draw)
        assert float(torch.cosine_similarity(mine, pivot)) == pytest.approx(0.8, abs=1e-6)
        assert float(mine.norm()) == pytest.approx(float(pivot.norm()), rel=1e-6)
        assert candidate.recipe.seed == SEED  # the step seed stays the pivot's


def test_cosine_0_is_random_search_on_the_sphere():
    """Directions are fresh noise less its share along the pivot: orthogonal to it, otherwise as Gaussian noise is."""
    search = prepare(1)
    pivot = search.baseline
    noises = [make_noise(search.propose(NeighborProposal(0.0), pivot).recipe, draw)[0] for _ in range(600)]
    first, noises = draw(SEED)[0], torch.stack(noises)
    assert torch.allclose(noises.norm(dim=1), first.norm().expand(600), rtol=1e-5)
    assert float((noises @ first).abs().max()) < 1e-3
    fresh = torch.stack([draw(move.recipe.moves[0].seed)[0] for move in search.candidates[1:]])
    assert float((noises - fresh).norm() / fresh.norm()) < 0.3  # they are those draws, but for pivot and norm
    basis = torch.linalg.qr(torch.cat([first[:, None], torch.eye(48)[:, :47]], 1))[0][:, 1:]
    across = noises @ basis / first.norm() * 47**0.5  # unit variance, if isotropic
    assert float(across.mean(0).abs().max()) < 4.5 / 600**0.5
    assert float((across.var(0) - 1).abs().max()) < 4.5 * (2 / 600) ** 0.5


def test_with_gaussian_proposals_it_is_random_search():
    """Candidate for candidate; only the waves differ."""
    method = ZeroOrderSearch(proposal=GaussianProposal())
    assert said(run(method, 14, wave=4)) == said(run(RandomSearch(), 14))


@pytest.mark.parametrize("on_stall", ["keep", "restart", "shrink"])
@pytest.mark.parametrize("draft_steps", [0, 5])
def test_same_seed_same_search_whatever_the_wave(on_stall, draft_steps):
    method = ZeroOrderSearch(on_stall=on_stall, draft_steps=draft_steps)
    first = said(run(method, 12))
    assert first == said(run(method, 12))
    assert first == said(run(method, 12, wave=1)) == said(run(method, 12, wave=3))
    assert first != said(run(method, 12, seed=8))


def test_a_larger_budget_keeps_the_first_candidates():
    few, many = said(run(ZeroOrderSearch(), 6)), said(run(ZeroOrderSearch(), 30))
    assert few["candidates"] == many["candidates"][:6]


@pytest.mark.parametrize("method", [ZeroOrderSearch(), ZeroOrderSearch(on_stall="restart"), ZeroOrderSearch(draft_steps=5)])
def test_beats_a_single_run(method):
    searches = [run(method, 9, seed=seed) for seed in range(20)]
    gains = [best(search) - search.baseline.score for search in searches]
    assert min(gains) >= 0.0
    assert mean(gains) > 5.0  # the baseline is at about -78 of 0


@pytest.mark.parametrize("verifier", [Quadratic, LowFrequency])
def test_beats_random_search_on_a_smooth_objective(verifier):
    seeds = range(12)
    climbed = [best(run(ZeroOrderSearch(), 80, verifier(), seed=seed)) for seed in seeds]
    drawn = [best(run(RandomSearch(), 80, verifier(), seed=seed)) for seed in seeds]
    assert sum(a > b for a, b in zip(climbed, drawn, strict=True)) >= 10
    assert mean(climbed) > mean(drawn)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"neighbors": 0}, "'neighbors' must be at least 1, not 0"),
        ({"on_stall": "stop"}, "'on_stall' must be one of keep, restart, shrink, not 'stop'"),
        ({"cosine": 1.0}, r"'cosine' must be in \[-1, 1\), not 1"),
        ({"cosine": -1.5}, r"'cosine' must be in \[-1, 1\), not -1.5"),
        ({"cosine": NAN}, r"'cosine' must be in \[-1, 1\), not nan"),
        ({"draft_steps": -2}, "'draft_steps' must be 0 .* not -2"),
    ],
)
def test_bad_parameters(wrong, message):
    with pytest.raises(ValueError, match=message):
        ZeroOrderSearch(**wrong)


def test_drafts_are_shorter_than_the_run():
    with pytest.raises(ValueError, match="'draft_steps' must be from 1 to 19 for a run of 20 steps, not 20"):
        run(ZeroOrderSearch(draft_steps=20), 4)


def test_spec_is_frozen():
    with pytest.raises(FrozenInstanceError):
        ZeroOrderSearch().cosine = 0.5
