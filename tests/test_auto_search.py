"""Auto search: what it chooses and why, and when it stops because the seed hardly matters."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from analytic import Constant, Part, run, said, statuses

from noise_search.search.methods.auto_search import AutoSearch, choose
from noise_search.search.methods.chain import Chain
from noise_search.search.methods.draft_search import DraftSearch
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.methods.refinement import RefinementSearch


def test_what_a_draft_takes_of_a_candidate_s_time():
    """8 s of sampling for 20 steps, 2 s for the rest: a draft of 5 steps takes 2 + 2 of 10."""
    evaluator = SimpleNamespace(image_cache=SimpleNamespace(seconds=1.5))
    search = SimpleNamespace(
        planner=SimpleNamespace(steps=20),
        runs=SimpleNamespace(seconds=8.0),
        evaluator=evaluator,
        scorer=SimpleNamespace(seconds=0.5),
    )
    assert AutoSearch._share_of_time(search) == pytest.approx(0.4)


DEFAULT, STOCHASTIC = "draft search, then refinement search", "random search, then refinement search"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ((3, 20, False, ""), "random search"),
        ((4, 20, False, ""), STOCHASTIC),
        ((7, 20, False, ""), STOCHASTIC),
        ((8, 20, False, ""), DEFAULT),
        ((64, 20, False, ""), DEFAULT),
        ((16, 20, False, "runs are alone"), "draft search"),  # drafts are whole pictures
        ((16, 20, True, ""), STOCHASTIC),
        ((16, 20, True, "runs are alone"), "random search"),
        ((16, 8, True, ""), "random search"),
        ((16, 9, True, ""), STOCHASTIC),
        ((64, 8, False, ""), "random search"),
        ((16, 9, False, ""), DEFAULT),
        ((16, 20, False, "", "no drafts"), STOCHASTIC),
        ((16, 20, False, "", "", 0.61), "random search"),
        ((16, 20, False, "", "", 0.59), DEFAULT),
    ],
)
def test_choice(given, name):
    method, why = choose(*given)
    assert method.name == name
    assert why


def test_says_what_it_chose():
    search = run(AutoSearch(), 16)
    assert search.notes == [
        f"auto search chose {DEFAULT}: the sampler is deterministic, so that drafts tell which noise is good; then details are "
        "improved"
    ]


@pytest.mark.parametrize(("session", "first"), [({}, DraftSearch()), ({"stochastic": True}, RandomSearch())])
def test_is_the_chosen_method(session, first):
    """The same candidates, costs and winner, but for four verifier calls."""
    auto, alone = run(AutoSearch(), 16, **session), run(Chain(first, RefinementSearch(), 0.7), 16, **session)
    assert auto.scorer.calls == alone.scorer.calls + 4
    assert [(c, s) for c, s in said(auto)["order"]][:1] == [(c, s) for c, s in said(alone)["order"]][:1]
    if not session:
        assert said(auto)["candidates"] == said(alone)["candidates"]
        assert auto.budget.nfe == alone.budget.nfe
    assert auto.budget.nfe <= 16 * 20


class ByIndex(Part):
    """Scores that differ by candidate as much as is said, and by `noise` for a picture that is moved by one pixel."""

    def __init__(self, spread: float, noise: float) -> None:
        super().__init__()
        self.spread, self.noise, self.first = spread, noise, None

    def values(self, images):
        own = images.sum((1, 2, 3))  # the same for a moved picture
        self.first = images[:1] if self.first is None else self.first
        same = (own - self.first.sum()).abs() < 1e-4
        moved = same & ((images - self.first).abs().amax((1, 2, 3)) > 1e-4)
        signs = torch.tensor([1.0, -1.0] * len(images))[: len(images)]
        return self.spread * own + self.noise * moved * signs


def test_stops_when_the_seed_hardly_matters():
    search = run(AutoSearch(), 16, Constant())
    assert search.stopped.startswith("the seed hardly matters here: scores differ less than the verifier's own noise (part: 0")
    assert statuses(search).count("finished") == 1  # candidate 0 is what it returns
    assert search.budget.nfe < 16 * 20 / 2


def test_goes_on_if_told_to():
    search = run(AutoSearch(stop_early=False), 16, Constant())
    assert search.stopped == ""
    assert search.budget.nfe == run(Chain(DraftSearch(), RefinementSearch(), 0.7), 16, Constant()).budget.nfe
    assert search.scorer.calls == run(Chain(DraftSearch(), RefinementSearch(), 0.7), 16, Constant()).scorer.calls


@pytest.mark.parametrize(("spread", "noise", "stops"), [(1.0, 0.0, False), (1.0, 0.01, False), (0.001, 10.0, True)])
def test_compares_the_spread_with_the_noise(spread, noise, stops):
    search = run(AutoSearch(), 16, ByIndex(spread, noise))
    assert ("seed hardly matters" in search.stopped) == stops


def test_small_budgets_are_random_search():
    assert said(run(AutoSearch(), 3))["candidates"] == said(run(RandomSearch(), 3))["candidates"]


def test_the_watch_is_taken_off():
    search = run(AutoSearch(), 16)
    assert search._watch is None
