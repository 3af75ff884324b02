"""Draft search: exact costs, who gets children, which drafts are rendered in full, and what it finds."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from analytic import Constant, LowFrequency, Part, Quadratic, best, draw, latent_of, mean, run, said, statuses

from noise_search.search.base.budget import StopRules
from noise_search.search.methods.draft_search import DraftSearch
from noise_search.search.methods.random_search import RandomSearch


def drafted(search):
    return [recipe for steps, recipe in search.session.started if steps != search.steps]


def rendered(search):
    return [recipe for steps, recipe in search.session.started if steps == search.steps]


@pytest.mark.parametrize(
    ("images", "finals", "drafts"),
    [(3, 1, 1 * 4), (4, 1, 2 * 4), (8, 2, 5 * 4), (21, 4, 16 * 4), (64, 13, 50 * 4)],
)
def test_cost(images, finals, drafts):
    """n = ((N - 1 - F) T) // d drafts of d = 5 of T = 20 steps; one in five images is a final."""
    search = run(DraftSearch(), images)
    assert len(drafted(search)) == drafts
    more = 0 if search.candidates[0] in [c for c, _ in by_draft(search)[:finals]] else 1
    assert len(rendered(search)) == finals + more
    assert search.budget.nfe == 20 * (finals + more) + 5 * drafts <= images * 20
    assert search.evaluator.decodes == search.scorer.calls == drafts + finals + more
    assert set(Counter(map(str, search.session.started)).values()) == {1}


def by_draft(search):
    looked = [(c, c.looks[0]["score"]) for c in search.candidates if c.looks]
    return sorted(looked, key=lambda pair: (-pair[1], pair[0].index))


@pytest.mark.parametrize("images", [1, 2])
def test_too_small_a_budget_renders_what_it_can(images):
    search = run(DraftSearch(), images)
    assert search.baseline.status == "finished"
    assert search.budget.nfe <= images * 20


@pytest.mark.parametrize(("steps", "draft"), [(8, 4), (10, 4), (16, 4), (20, 5), (30, 8), (50, 12)])
def test_steps_of_a_draft(steps, draft):
    search = run(DraftSearch(), 8, steps=steps)
    assert {count for count, _ in search.session.started} == {steps, draft}


def test_a_short_run_is_not_drafted():
    search = run(DraftSearch(), 6, steps=7)
    assert said(search)["candidates"] == said(run(RandomSearch(), 6, steps=7))["candidates"]
    assert search.notes == ["draft search became random search: a run of 7 steps is too short for drafts"]


def test_draft_steps_that_are_no_shorter_are_refused():
    with pytest.raises(ValueError, match="draft_steps"):
        run(DraftSearch(draft_steps=20), 6)


def test_the_best_drafts_are_rendered():
    search = run(DraftSearch(), 21)
    best_drafts = [c for c, _ in by_draft(search)[:4]]
    finished = [c for c in search.candidates if c.status == "finished"]
    assert finished == sorted({*best_drafts, search.baseline}, key=lambda c: c.index)
    assert search.ranked[0][0] in finished


def test_children_are_of_the_best_so_far():
    """64 drafts: 19 independent (candidate 0 among them), then rounds of 4 x 2 children of the best four."""
    search = run(DraftSearch(), 21)
    drafts = [c for c in search.candidates if c.looks]
    assert [c.parent for c in drafts[:19]] == [None] * 19
    known = drafts[:19]
    while len(known) < len(drafts):
        ranked = sorted(known, key=lambda c: (-c.looks[0]["score"], c.index))[:4]
        children = drafts[len(known) : len(known) + 8]
        assert [c.parent for c in children] == [c.index for c in ranked for _ in range(2)][: len(children)]
        assert {c.recipe.moves[-1].amount for c in children} == {0.9}
        known = known + children


@pytest.mark.parametrize(("warm_up", "independent"), [(1.0, 64), (0.5, 32), (0.01, 1)])
def test_share_of_independent_drafts(warm_up, independent):
    search = run(DraftSearch(warm_up=warm_up), 21)
    assert [c.parent for c in search.candidates if c.looks].count(None) == independent


def test_all_independent_with_one_final_is_random_search_on_drafts():
    """But for candidate 0, whose draft is compared too, and costs one."""
    search = run(DraftSearch(draft_steps=5, warm_up=1.0, finals=1), 8)
    other = run(RandomSearch(draft_steps=5), 8)
    assert [c.recipe for c in search.candidates] == [c.recipe for c in other.candidates][: len(search.candidates)]
    assert len(other.candidates) == len(search.candidates) + 1


def test_nan_scores_get_no_children():
    class Picky(Part):
        def values(self, images):
            scores = Quadratic().values(images)
            return scores.where(latent_of(images)[:, 0] > 0.1, math.nan)

    search = run(DraftSearch(), 21, Picky())
    bad = {c.index for c in search.candidates if c.looks and c.looks[0]["score"] != c.looks[0]["score"]}
    assert bad
    assert not bad & {c.parent for c in search.candidates}


def test_stop_rules():
    assert "target" in run(DraftSearch(), 21, Constant(), rules=StopRules(target_score=0.1)).stopped
    limited = run(DraftSearch(), 21, rules=StopRules(max_model_calls=150))
    assert limited.budget.nfe <= 150
    assert statuses(limited).count("finished") >= 2


@pytest.mark.parametrize("images", [12, 100, 1000])
def test_a_limit_far_below_the_number_of_images_leaves_drafts_and_finals(images):
    """200 calls: candidate 0, 2 finals, and (200 - 60) / 5 drafts."""
    search = run(DraftSearch(draft_steps=5), images, rules=StopRules(max_model_calls=200))
    assert search.budget.nfe == 200 and len(search.finished.members) == 3
    assert sum(len(c.looks) for c in search.candidates) == 28
    assert search.notes == ["fewer drafts than planned could be paid for"]


def test_reaches_what_random_search_needs_three_times_the_calls_for():
    """Over 30 seeds on smooth objectives whose drafts tell the truth: 21 images against 64."""
    for verifier in (LowFrequency, lambda: Quadratic(seed=5)):
        ours = mean([best(run(DraftSearch(), 21, verifier(), seed=s, blur=0.0)) for s in range(30)])
        spread = mean([best(run(RandomSearch(), 64, verifier(), seed=s)) for s in range(30)])
        assert ours > spread


@pytest.mark.parametrize(
    "settings",
    [{"draft_steps": -1}, {"warm_up": 0.0}, {"warm_up": 1.1}, {"parents": 0}, {"children": 0}, {"cosine": 1.0}, {"finals": -1}],
)
def test_bad_settings(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        DraftSearch(**settings)


def test_neighbors_keep_the_norm():
    search = run(DraftSearch(), 21)
    child = next(c for c in reversed(search.candidates) if c.recipe.moves)
    from noise_search.search.noise.recipe import make_noise

    first = draw(child.recipe.start)
    assert math.isclose(make_noise(child.recipe, draw).norm(), first.norm(), rel_tol=1e-5)
