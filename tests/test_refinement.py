"""Refinement search: what it costs, whose children it makes, what a chain keeps for it, and that it climbs."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from analytic import Layout, Listed, Quadratic, best, mean, run, said, statuses, winner

from noise_search.search.base.budget import StopRules
from noise_search.search.methods.auto_search import AutoSearch
from noise_search.search.methods.chain import Chain
from noise_search.search.methods.draft_search import DraftSearch
from noise_search.search.methods.halving import HalvingSearch
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.methods.refinement import RefinementSearch
from noise_search.verifiers.composite.ensemble import Ensemble


def first_step(steps, start=0.75):
    return max(1, min(math.floor(start * steps + 1e-9), steps - 2))


def calls(steps, heun):
    """NFE of a run of so many steps."""
    return 2 * steps - 1 if heun else steps


@pytest.mark.parametrize("images", [1, 2, 3, 8])
@pytest.mark.parametrize(("steps", "heun"), [(20, False), (16, False), (7, False), (3, False), (20, True)])
@pytest.mark.parametrize("stochastic", [False, True])
def test_cost_is_the_closed_form(images, steps, heun, stochastic):
    whole, child = calls(steps, heun), calls(steps - first_step(steps), heun)
    count = (images - 1) * whole // child
    search = run(RefinementSearch(), images, steps=steps, heun=heun, stochastic=stochastic)
    assert search.budget.nfe == whole + count * child <= images * whole
    assert statuses(search) == ["finished"] * (1 + count)
    assert search.scorer.calls == search.evaluator.decodes == 1 + count
    assert search.notes == []


@pytest.mark.parametrize(("start", "step"), [(0.75, 15), (0.5, 10), (0.99, 18), (0.01, 1)])
def test_children_start_one_step_above_where_they_leave(start, step):
    search = run(RefinementSearch(start), 3)
    sigmas = search.session.sigmas
    for candidate in search.candidates[1:]:
        (cut, *more) = candidate.recipe.cuts[-1:]
        assert not more
        assert cut.renoise_to == pytest.approx(float(sigmas[step])) and cut.sigma == pytest.approx(float(sigmas[step + 1]))
        assert candidate.nfe == 20 - step


def test_every_generation_leaves_the_best_so_far():
    """Scores by index: 2 is the best of the first generation, 7 of the second, none of the third is better."""
    numbers = [0, 1, 5, 2, 1, 3, 3, 9, 3, 1, 2, 3, 4, *[0] * 9]
    search = run(RefinementSearch(children=4), 4, Listed(numbers=numbers))
    parents = [candidate.parent for candidate in search.candidates]
    assert parents == [None, 0, 0, 0, 0, 2, 2, 2, 2, 7, 7, 7, 7]
    assert len(search.candidates[9].recipe.cuts) == 3
    assert winner(search) == 7


def test_a_candidate_without_a_score_has_no_children():
    search = run(RefinementSearch(children=2), 2, Listed(numbers=[1, math.nan, math.nan, 2, 0]))
    assert [candidate.parent for candidate in search.candidates] == [None, 0, 0, 0, 0]


@pytest.mark.parametrize("first", [RandomSearch(), HalvingSearch(), DraftSearch(draft_steps=5)])
def test_a_chain_costs_the_sum_and_refines_the_winner(first):
    alone = run(first, 8)
    search = run(Chain(first, RefinementSearch(), 0.5), 16)
    begun = len(alone.candidates)
    assert said(alone)["candidates"] == said(search)["candidates"][:begun]
    children = search.candidates[begun:]
    left = 16 * 20 - alone.budget.nfe
    assert len(children) == left // 5 and search.budget.nfe == alone.budget.nfe + 5 * len(children)
    assert {child.parent for child in children[:4]} == {winner(alone)}
    assert search.notes == alone.notes


def test_a_chain_keeps_the_best_run_only():
    kept = []

    class Spy(RandomSearch):
        def run(self, search):
            for told in super().run(search):
                kept.append([c.index for c in search.candidates if c.records])
                yield told

    search = run(Chain(Spy(), RefinementSearch(), 0.5), 32, Listed(numbers=[0, 5, 1, *[2] * 5, 9, *[1] * 100]))
    assert kept == [[1], [8]]
    assert [c.index for c in search.candidates if c.records] == [8]
    assert search.runs.scope.levels == search.runs.scope.lasting == ()


@pytest.mark.parametrize(
    "chain",
    [
        Chain(RandomSearch(), Chain(RefinementSearch(), RefinementSearch(0.9), 0.75), 0.5),
        Chain(Chain(RandomSearch(), RefinementSearch(), 0.7), RefinementSearch(0.9), 0.75),
    ],
)
def test_nested_chains_keep_the_winner_s_run(chain):
    search = run(chain, 16)
    starts = [round((1 - c.recipe.cuts[-1].renoise_to) * 20) for c in search.candidates if c.recipe.cuts]
    assert starts == [15] * 16 + [18] * 40
    assert search.budget.nfe == 16 * 20 and search.notes == []
    assert search.runs.scope.lasting == search.runs.scope.levels == ()


@pytest.mark.parametrize(
    "chain",
    [
        Chain(RandomSearch(), Chain(DraftSearch(draft_steps=5), RefinementSearch(), 0.7), 0.4),
        Chain(RandomSearch(), AutoSearch(stop_early=False), 0.4),
        Chain(AutoSearch(stop_early=False), RefinementSearch(0.6), 0.7),
    ],
)
def test_the_winner_of_one_part_is_refined_in_a_later_one(chain):
    search = run(chain, 20, Listed(numbers=[0, 9, *[1] * 999]))
    children = [c for c in search.candidates if c.recipe.cuts]
    assert children and {c.parent for c in children} == {1}
    assert not any("became" in note for note in search.notes)


def test_drafts_of_candidate_0_do_not_make_children_dearer():
    """It was drafted twice, with half of the steps: 40 calls are not two latent rows."""
    chain = Chain(DraftSearch(draft_steps=10), Chain(DraftSearch(draft_steps=10), RefinementSearch(), 0.6), 0.3)
    search = run(chain, 20, Listed(numbers=[9, *[0] * 999]))
    before = sum(c.nfe for c in search.candidates if not c.recipe.cuts)
    assert search.candidates[0].nfe == 40 and search.planner.rows == 1
    assert sum(bool(c.recipe.cuts) for c in search.candidates) == (20 * 20 - before) // 5


def test_where_the_best_changes_as_the_pool_grows_it_begins_at_the_best_whose_run_is_kept():
    """By rank mean 0 ties with 1, so that its run is kept; 8 comes in between under the second part, and 1 is best."""
    low = [-float(k) for k in range(200)]
    parts = Listed("one", numbers=[10, 9, *low]), Listed("two", numbers=[5, 6, *low[:6], 5.5, *low[6:]])
    search = run(Chain(RandomSearch(), RefinementSearch(), 9 / 12), 12, Ensemble(parts))
    assert search.start_candidate.index == 1 and [c.parent for c in search.candidates[9:13]] == [0] * 4
    (note,) = search.notes
    assert note.startswith("refinement search began at candidate 0: the run of the best, candidate 1, cannot be left")


def test_without_children_it_is_the_first_method():
    alone, chained = run(RandomSearch(), 5), run(Chain(RandomSearch(), RefinementSearch(), 0.99), 5)
    assert said(alone)["candidates"] == said(chained)["candidates"]


@pytest.mark.parametrize(
    ("session", "why"),
    [
        ({"looks_halfway": False, "why_alone": ("a patch",)}, "a patch"),
        ({"fixed_steps": False}, "the sampler chooses its own steps"),
        ({"steps": 2}, "a run of 2 steps has no end to redraw"),
    ],
)
def test_runs_that_cannot_be_left_make_it_random_search(session, why):
    search = run(RefinementSearch(), 4, **session)
    assert search.notes == [f"refinement search became random search at the same cost: {why}"]
    assert said(search)["candidates"] == said(run(RandomSearch(), 4, **session))["candidates"]


def test_finished_pictures_need_no_trust_in_previews():
    verifier = Quadratic()
    verifier.trusts_previews = False
    search = run(RefinementSearch(), 2, verifier)
    assert search.notes == [] and len(search.candidates) == 5


def test_stop_rules():
    search = run(RefinementSearch(), 8, rules=StopRules(max_model_calls=31))
    assert search.budget.nfe == 30 and len(search.candidates) == 3
    search = run(RefinementSearch(), 8, rules=StopRules(patience=3), verifier=Listed(numbers=[9, *[1] * 99]))
    assert len(search.candidates) <= 5


def test_recipes_are_read_again():
    from noise_search.search.noise.recipe import Recipe

    search = run(RefinementSearch(), 4)
    for candidate in search.candidates:
        assert Recipe.from_json(candidate.recipe.to_json()) == candidate.recipe


@pytest.mark.parametrize("verifier", [Quadratic, Layout])
@pytest.mark.parametrize("first", [RandomSearch(), DraftSearch(draft_steps=5)])
def test_refining_the_winner_beats_going_on(verifier, first):
    """Paired over seeds, by more than twice the standard error: details are cheap to improve."""
    chain = Chain(first, RefinementSearch(), 0.7)
    pairs = [[run(method, 16, verifier(), seed=s) for method in (chain, first)] for s in range(16)]
    gain = torch.tensor([best(one) - best(other) for one, other in pairs])
    assert float(gain.mean()) > 2 * float(gain.std()) / 4 > 0


def test_alone_it_climbs_from_the_user_s_seed():
    found = [run(RefinementSearch(), 6, Quadratic(), seed=s) for s in range(8)]
    assert mean([best(search) - search.candidates[0].score for search in found]) > 0
    for search in found:
        scores = [told.score for told in search.rounds]
        assert scores == sorted(scores)


@pytest.mark.parametrize(
    ("wrong", "message"), [({"start": 0.0}, "'start'"), ({"start": 1.0}, "'start'"), ({"children": 0}, "'children'")]
)
def test_bad_settings(wrong, message):
    with pytest.raises(ValueError, match=message):
        RefinementSearch(**wrong)


def test_spec_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RefinementSearch().start = 0.5
