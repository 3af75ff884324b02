"""Backtracking search: when and how far it goes back, what replaces what, exact costs, and what it finds."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import pytest
from analytic import Constant, Listed, Part, run, statuses, winner

from noise_search.search.base.budget import StopRules
from noise_search.search.methods.backtracking import BacktrackingSearch

NAN = math.nan
EAGER = BacktrackingSearch(min_gain=1e9)  # goes back wherever it can
RISING = [1, 2, 3, 4, 5]  # candidate 0's four looks and its end: nothing to go back for


def ups(search):
    """Step of the checkpoint and of where it started, of every branch, in order."""
    steps = search.session.steps
    return [(round((1 - cut.sigma) * steps), round((1 - cut.renoise_to) * steps)) for cut in search.session.branches]


def parents(search):
    return [candidate.parent for candidate in search.candidates]


def closed_form(search, heun=False):
    """T starts + sum (1 + c(u, l)) + c(l, 0) if candidate 0 was left at l, counted on the steps."""
    steps = search.session.steps
    calls = [1, *[2 if heun else 1] * (steps - 1)]
    starts = sum(not c.recipe.cuts for c in search.candidates)
    retries = sum(1 + sum(calls[up + 1 : mark + 1]) for mark, up in ups(search))
    own = [c for c, _ in search.ranked if c.recipe.cuts and c.recipe.start == search.baseline.recipe.start]
    left = round((1 - own[0].recipe.cuts[0].sigma) * steps) if own else steps
    assert len(own) <= 1
    return starts * sum(calls) + retries + sum(calls[left + 1 :])


# Where it goes back


@pytest.mark.parametrize(
    ("spec", "steps", "wanted"),
    [
        ({}, 20, {4: [2, 1], 8: [6, 4, 1], 12: [10, 8, 4], 16: [14, 12, 8]}),
        ({"back": 1, "max_back": 1}, 20, {4: [3], 8: [7], 12: [11], 16: [15]}),
        ({"back": 2, "max_back": 5, "checkpoints": 1}, 20, {10: [8, 6, 5]}),
        ({"checkpoints": 30}, 4, {2: [1]}),
        ({}, 7, {3: [1], 4: [2, 1]}),  # 1 is the first with something left, 6 the last call
        ({}, 2, {}), ({}, 1, {}), ({}, 3, {}),
    ],
)  # fmt: skip
def test_checkpoints_and_steps_back(spec, steps, wanted):
    """Twice as far each time, not to where nothing of the picture is left: step 0 of these sigmas."""
    assert BacktrackingSearch(**spec).ladders([1 - k / steps for k in range(steps + 1)]) == wanted


def test_step_0_of_an_eps_model_is_no_end_of_the_picture():
    assert BacktrackingSearch(checkpoints=1).ladders([0.93, 0.8, 0.6, 0.4, 0.0]) == {2: [0]}


def test_a_score_that_rises_is_let_be():
    """Two starts are ended as they are: looked at at every checkpoint, 20 calls each."""
    search = run(BacktrackingSearch(), 3, Listed(numbers=[*RISING, 1, 1, 1, 1, 9, 7]))
    assert search.budget.nfe == 60 and ups(search) == []
    assert [[look["sigma"] for look in c.looks] for c in search.candidates[:2]] == [pytest.approx([0.8, 0.6, 0.4, 0.2])] * 2
    assert search.candidates[2].looks == []  # nothing left to go back with: no use in a look
    assert [c.score for c in search.candidates] == [5, 9, 7]


def test_it_goes_back_where_the_score_falls_further_each_time_and_the_better_replaces():
    """At 16: two from 14 are no better than 2.5, of two from 12 the second is; one more start has 21 calls."""
    scores = [1, 2, 3, 2.5, 5, 2.4, 2.5, 2.6, 2.7, 9, 8]
    search = run(BacktrackingSearch(), 3, Listed(numbers=scores))
    assert ups(search) == [(16, 14)] * 2 + [(16, 12)] * 2
    assert parents(search) == [None, 0, 0, 0, 0, None]
    assert statuses(search) == ["finished", "pruned", "pruned", "pruned", "finished", "finished"]
    assert [c.nfe for c in search.candidates] == [20, 3, 3, 5, 5 + 3, 20]
    assert search.budget.nfe == closed_form(search) == 59
    assert winner(search) == 4 and search.candidates[4].score == 9
    assert search.stopped == ""


def test_a_run_that_replaced_another_is_looked_at_and_taken_back_itself():
    """0 falls at 8: 1 (3) replaces it; at 12 1 falls to 2.9: 3 (5), back from 10, does; 3 rises to 6."""
    scores = [2, 1, 3, 4, 5, 3, 2, 2.9, 1, 5, 6, 7]
    search = run(BacktrackingSearch(), 3, Listed(numbers=scores), rules=StopRules(max_model_calls=46))
    assert ups(search) == [(8, 6)] * 2 + [(12, 10)] * 2
    assert parents(search) == [None, 0, 0, 1, 1]
    assert [c.nfe for c in search.candidates] == [20, 3 + 4, 3, 3, 3 + 4 + 3]
    assert statuses(search) == ["finished", "pruned", "pruned", "pruned", "finished"]
    assert [cut.sigma for cut in search.candidates[4].recipe.cuts] == pytest.approx([0.6, 0.4])
    assert search.budget.nfe == closed_form(search) == 43
    assert search.candidates[4].score == 7


@pytest.mark.parametrize(("limit", "looks"), [(45, 1), (46, 2)])
def test_no_look_where_nothing_could_be_tried(limit, looks):
    """The same, with or without the 10 calls for a retry at 16 beside the 7 from 12 to the end."""
    scores = [2, 1, 3, 4, 5, 3, 2, 2.9, 1, 5, 6, 7]
    search = run(BacktrackingSearch(), 3, Listed(numbers=scores), rules=StopRules(max_model_calls=limit))
    assert len(search.candidates[4].looks) == looks


def test_what_is_as_good_does_not_replace():
    search = run(BacktrackingSearch(), 3, Listed(numbers=[1, 2, 3, 2.5, 5, *[2.5] * 6, 7]))
    assert ups(search) == [(16, 14)] * 2 + [(16, 12)] * 2 + [(16, 8)] * 2
    assert statuses(search)[1:7] == ["pruned"] * 6
    assert search.budget.nfe == 20 + 2 * (3 + 5 + 9)
    assert all(c.records == () for c in search.candidates[1:])


@pytest.mark.parametrize(
    ("min_gain", "wanted"),
    [(0.0, []), (0.5, []), (0.6, [12]), (1.0, [12]), (1.1, [8, 12, 16]), (-1.0, [])],
)
def test_the_gain_that_is_asked_for(min_gain, wanted):
    """Gains of 1, 0.5 and 1 from checkpoint to checkpoint; nothing is before the first."""
    scores = [1, 2, 2.5, 3.5, 5, *[0] * 60]
    spec = BacktrackingSearch(min_gain=min_gain, back=2, max_back=2)
    search = run(spec, 3, Listed(numbers=scores), rules=StopRules(max_model_calls=41))
    assert [mark for mark, _ in ups(search)] == [mark for mark in wanted for _ in range(2)]


def test_a_threshold_asks_for_the_score_itself_and_tries_until_it_is_reached():
    """0 has 1 at 4: 2 (3) from 2 is better, from there 3 4 no, further 5 (6) does. At 8 it has 4: not yet: 7 (5)."""
    scores = [1, 9, 9, 9, 9, 2, 3, 3, 3, 6, 1, 4, 4, 5, 7, 8, 8]
    spec = BacktrackingSearch(threshold=5.0)
    search = run(spec, 4, Listed(numbers=scores), rules=StopRules(max_model_calls=64))
    assert ups(search) == [(4, 2)] * 4 + [(4, 1)] * 2 + [(8, 6)] * 2
    assert parents(search) == [None, 0, 0, 2, 2, 2, 2, 5, 5]
    assert [look["score"] for look in search.candidates[8].looks] == [5, 7, 8]
    assert search.candidates[8].score == 8
    assert search.budget.nfe == closed_form(search) == 20 + 4 * 3 + 2 * 4 + 2 * 3 + 15


def test_candidate_0_is_passed_over_where_it_is_above_the_threshold():
    search = run(BacktrackingSearch(threshold=5.0), 2, Listed(numbers=[5, 6, 7, 5, 1, 9]))
    assert ups(search) == [] and len(search.candidates) == 2


# Scores that are none, or depend on others


def test_no_score_is_no_gain():
    """At the last checkpoint; branches without a score replace nothing."""
    search = run(BacktrackingSearch(), 3, Listed(numbers=[1, 2, 3, NAN, 5, *[NAN] * 6, 9]))
    assert ups(search) == [(16, 14)] * 2 + [(16, 12)] * 2 + [(16, 8)] * 2
    assert statuses(search)[1:] == ["pruned"] * 6


def test_a_score_replaces_none():
    search = run(BacktrackingSearch(), 3, Listed(numbers=[1, 2, 3, NAN, 5, NAN, -7, 9, *RISING, 9]))
    assert len(ups(search)) == 2 and search.candidates[2].status == "finished"


def test_a_score_after_none_is_a_gain():
    search = run(BacktrackingSearch(min_gain=100.0, checkpoints=2), 2, Listed(numbers=[NAN, 3, 5, 9]))
    assert ups(search) == []


def test_without_any_score_it_returns_candidate_0():
    search = run(BacktrackingSearch(), 6, Constant(number=NAN))
    assert winner(search) == 0 and len(search.notes) == 1
    assert search.budget.nfe == closed_form(search) <= 120


class Ranks(Part):
    """An ensemble of one: its combined score is a rank in the pool, the least number is the best."""

    def __init__(self):
        super().__init__("ranks")
        self.parts = (Listed(numbers=[-1, -2, -3, -2.5, -5, -2.4, -2.6, -9, -8, -8]),)

    def combine(self, scores):
        return (-scores[:, 0]).argsort().argsort().float() + 1


def test_ranks_of_looks_at_different_levels_are_compared_in_one_pool():
    """In the pool of its own level every one of candidate 0's looks has rank 1."""
    search = run(BacktrackingSearch(), 3, Ranks(), rules=StopRules(max_model_calls=40))
    assert ups(search) == [(16, 14)] * 2
    assert search.candidates[2].status == "finished"
    assert sorted(c.looks[-1]["score"] for c in search.candidates[:3]) == [1, 2, 3]  # as the report shows them


# The spec


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"checkpoints": 0}, "'checkpoints' must be at least 1, not 0"),
        ({"retries": 0}, "'retries' must be at least 1, not 0"),
        ({"back": 0}, "'back' must be at least 1, not 0"),
        ({"max_back": 1}, r"'max_back' must be at least 'back' \(2 steps\), not 1"),
        ({"min_gain": NAN}, "'min_gain' must be a finite number, not nan"),
        ({"threshold": math.inf}, "'threshold' must be a finite number, not inf"),
    ],
)
def test_bad_parameters(wrong, message):
    with pytest.raises(ValueError, match=message):
        BacktrackingSearch(**wrong)


def test_spec_is_frozen():
    with pytest.raises(FrozenInstanceError):
        BacktrackingSearch().back = 3
