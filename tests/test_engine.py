"""The verbs of a search: what they spend, keep and tell."""

from __future__ import annotations

import math

import pytest
import torch
from analytic import Constant, Listed, Part, Quadratic, as_dict, picture_of, prepare, run, said, statuses, winner

from noise_search.search.base.budget import StopRules
from noise_search.search.core.search import NO_SCORES
from noise_search.search.methods.halving import HalvingSearch
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.methods.zero_order import ZeroOrderSearch
from noise_search.search.noise.proposals import NeighborProposal
from noise_search.search.noise.recipe import ZERO, Recipe, derived_seed

METHODS = [
    RandomSearch(),
    ZeroOrderSearch(),
    HalvingSearch(),
    RandomSearch(draft_steps=5),
    ZeroOrderSearch(draft_steps=5),
]
NAN = math.nan


class Ranks(Part):
    """An ensemble of one: its combined score is a rank in the pool."""

    def __init__(self):
        super().__init__("ranks")
        self.parts = (Quadratic(),)

    def combine(self, scores):
        return scores[:, 0].argsort().argsort().float() + 1


def test_candidate_0_is_the_user_s_own():
    search = prepare(4)
    assert search.baseline is search.candidates[0]
    assert search.baseline.recipe == Recipe(7, 7)
    assert (search.baseline.index, search.baseline.parent, search.baseline.status) == (0, None, "waiting")


def test_seeds_come_from_seed_and_index_alone():
    search = prepare(4)
    drawn = [search.propose().recipe for _ in range(3)]
    assert drawn == [Recipe(derived_seed(7, k), derived_seed(7, k)) for k in (1, 2, 3)]
    other = prepare(4)
    other.propose(NeighborProposal())
    assert other.propose().recipe == drawn[1]


def test_neighbors_of_nothing_are_refused():
    search = prepare(4)
    search.baseline.recipe = Recipe(ZERO, 7)
    with pytest.raises(ValueError, match="neighbors of all-zero noise do not exist"):
        search.propose(NeighborProposal())
    assert search.propose().recipe.start == ZERO


@pytest.mark.parametrize("method", METHODS)
def test_never_worse_than_no_search(method):
    for seed in range(5):
        search = run(method, 6, seed=seed)
        assert search.ranked[0][1] >= run(RandomSearch(), 1, seed=seed).ranked[0][1]
        assert search.baseline.status == "finished"


@pytest.mark.parametrize("method", METHODS)
def test_all_nan_returns_candidate_0_and_says_so(method):
    search = run(method, 6, Constant(number=NAN))
    assert winner(search) == 0
    assert search.notes == [NO_SCORES]
    assert {as_dict(c)["score"] for c in search.candidates} == {None}


def test_a_late_score_takes_the_note_back():
    search = run(RandomSearch(), 4, Listed(numbers=[NAN, NAN, 1, NAN]), wave=1)
    assert winner(search) == 2
    assert search.notes == []


def test_finished_candidates_are_not_rendered_again():
    search = prepare(4)
    list(search.render([search.baseline, search.propose()]))
    assert list(search.render(search.candidates)) == []
    assert search.budget.nfe == 40


def test_a_run_that_was_looked_at_goes_on_where_it_waits():
    search = prepare(4)
    others = [search.propose(), search.propose()]
    search.preview([search.baseline, *others], 0.5)
    assert search.budget.nfe == 3 * 11
    search.prune(others[:1])
    list(search.render([search.baseline, others[1]]))
    assert search.budget.nfe == 2 * 20 + 11
    assert statuses(search) == ["finished", "pruned", "finished"]
    assert search.session.runs[1].closed
    assert len(search.session.started) == 3


def test_looks_are_compared_with_all_of_their_pool():
    """Candidate 0's rank of 1 among 1 becomes its rank among all."""
    search = prepare(4, Ranks())
    pool = search.preview([search.baseline], 0.5)
    assert search.baseline.looks[0]["score"] == 1
    search.preview([search.baseline], 0.3)
    others = [search.propose() for _ in range(4)]
    assert search.preview(others, 0.5, pool) is pool
    assert sorted(c.looks[0]["score"] for c in search.candidates) == [1, 2, 3, 4, 5]
    assert search.baseline.looks[1]["score"] == 1
    assert [c.looks[0]["score"] for c, _ in pool.ranked()] == [5, 4, 3, 2, 1]


def test_a_look_holds_level_and_scores():
    search = prepare(4, Listed(numbers=[3]))
    search.preview([search.baseline], 0.5)
    assert search.baseline.looks == [{"sigma": 0.5, "scores": {"part": 3.0}, "score": 3.0}]


def test_scores_of_finished_candidates_follow_the_pool():
    search = run(RandomSearch(), 12, Ranks(), wave=5)
    assert sorted(c.score for c in search.candidates) == list(range(1, 13))
    assert [score for _, score in search.ranked] == [float(k) for k in range(12, 0, -1)]


def test_a_draft_does_not_undo_a_finished_candidate():
    search = prepare(4)
    list(search.render([search.baseline]))
    pool = search.draft([search.baseline, search.propose()], 5)
    assert statuses(search) == ["finished", "draft"]
    assert len(pool.members) == 2
    assert [c.nfe for c in search.candidates] == [25, 5]


def test_drafts_that_are_cut_off():
    search = prepare(2, rules=StopRules(max_model_calls=28))
    list(search.render([search.baseline]))
    pool = search.draft([search.propose(), search.propose()], 5)
    assert statuses(search) == ["finished", "cut off", "cut off"]
    assert pool.members == []
    assert search.budget.nfe == 28


def test_a_draft_whose_full_run_is_cut_off_was_no_finished_candidate():
    search = prepare(8, calls=lambda seed: 20 if seed == 7 else 30, fixed_steps=False)
    search.budget.images = 2
    list(search.render([search.baseline]))
    candidate = search.propose()
    candidate.status = "draft"
    assert list(search.render([candidate])) == []
    assert candidate.status == "cut off"
    assert [c.index for c, _ in search.ranked] == [0]


def test_nothing_is_decoded_twice_but_for_halving_s_looks():
    search = run(RandomSearch(), 6, keep=2)
    assert search.evaluator.decodes == 6
    for candidate, _ in search.ranked[:2]:
        assert torch.equal(search.evaluator.pictures(candidate), picture_of(candidate.latent))
    assert search.evaluator.decodes == 6
    dropped = search.ranked[2][0]
    assert torch.equal(search.evaluator.pictures(dropped), picture_of(dropped.latent))
    assert search.evaluator.decodes == 7


def test_new_bests_are_shown():
    shown = []
    numbers = [1, 3, 2, 3, 5, 4]
    search = run(RandomSearch(), 6, Listed(numbers=numbers), wave=1, on_best=lambda images, score: shown.append((images, score)))
    assert [score for _, score in shown] == [1, 3, 5]
    assert torch.equal(shown[-1][0], picture_of(search.candidates[4].latent))


def test_a_best_that_was_dropped_is_decoded_anew():
    """With ranks, an older candidate may come out on top later."""

    class Fickle(Ranks):
        def combine(self, scores):
            return torch.tensor([float(len(scores) > 2), *[0.5] * (len(scores) - 1)])

    shown = []
    search = run(RandomSearch(), 3, Fickle(), wave=1, on_best=lambda images, score: shown.append(images))
    assert len(shown) == 3
    assert torch.equal(shown[0], shown[2])
    assert search.evaluator.decodes == 4


def test_rounds_tell_what_happened():
    search = run(RandomSearch(), 5, Listed(numbers=[1, 4, 2, 6, 5]), wave=2)
    assert [(r.candidates, r.best, r.score, r.nfe) for r in search.rounds] == [
        ((0, 1), 1, 4.0, 40), ((2, 3), 3, 6.0, 80), ((4,), 3, 6.0, 100)
    ]  # fmt: skip


def test_several_frames_per_candidate():
    search = run(RandomSearch(), 3, frames=4)
    assert search.evaluator.pictures(search.ranked[0][0]).shape == (4, 4, 4, 3)
    assert (search.evaluator.decodes, search.scorer.calls) == (3, 12)


def test_an_exception_mid_run_keeps_what_was_found_and_counted():
    calls = []

    def interrupt():
        calls.append(1)
        if len(calls) == 50:
            raise KeyboardInterrupt

    search = prepare(8, wave=1, on_call=interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(RandomSearch().run(search))
    search.close()
    assert [c.index for c, _ in search.ranked] and len(search.ranked) == 2
    assert search.budget.nfe == sum(c.nfe for c in search.candidates) == 50
    assert search.session.runs[2].closed


def test_what_a_failed_round_holds_of_an_earlier_look_is_no_result():
    """Of 6 survivors of a look, one has made its last call when the search breaks off; its picture is not known yet."""
    calls = []

    def interrupt():
        calls.append(1)
        if len(calls) == 6 * 2 + 6 + 1:
            raise KeyboardInterrupt

    search = prepare(8, steps=4, on_call=interrupt)
    others = [search.start_candidate, *(search.propose() for _ in range(5))]
    search.preview(others, 0.75)
    with pytest.raises(KeyboardInterrupt):
        list(search.render(others))
    assert [run.finished for run in search.session.runs].count(True) == 1
    assert search.finished.members == [] and search.evaluator.decodes == 6


def test_close_ends_runs_that_wait():
    search = prepare(4)
    search.preview([search.baseline, search.propose()], 0.5)
    search.close()
    assert all(run.closed for run in search.session.runs)


@pytest.mark.parametrize("method", METHODS)
def test_a_report_holds_plain_values(method):
    import json

    assert json.loads(json.dumps(said(run(method, 6)), allow_nan=False))


def test_images_left():
    search = prepare(8, rules=StopRules(max_model_calls=70))
    assert search.planner.images == 8
    list(search.render([search.baseline]))
    assert search.planner.images == 3
    list(search.render([search.propose()]))
    assert search.planner.images == 2  # candidate 0 and one more


@pytest.mark.parametrize(
    ("rules", "fixed", "first"),
    [({}, True, False), ({}, False, True), ({"max_model_calls": 9}, True, True), ({"max_seconds": 9}, True, True),
     ({"target_score": 0.0, "patience": 3}, True, False)],
)  # fmt: skip
def test_candidate_0_goes_first_where_its_cost_is_needed(rules, fixed, first):
    search = prepare(8, rules=StopRules(**rules), fixed_steps=fixed)
    assert search.planner.baseline_first is first
    list(RandomSearch().run(search))
    assert (search.rounds[0].candidates == (0,)) is first
