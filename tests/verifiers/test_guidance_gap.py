"""The guidance gap as a verifier: sums, signs, what it refuses, and how a search asks it. No ComfyUI."""

from __future__ import annotations

import math

import pytest
import torch
from analytic import Quadratic, prepare, run, statuses

from noise_search.search.base.candidate import Candidate
from noise_search.search.methods.halving import HalvingSearch
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.noise.recipe import Recipe
from noise_search.search.scoring.scorer import Scorer, VerifierError
from noise_search.verifiers.common.base import RunVerifier, Verifier
from noise_search.verifiers.composite.ensemble import WEIGHTED_SUM, Ensemble
from noise_search.verifiers.measures.guidance_gap import HIGH, LOW, GuidanceGap
from noise_search.verifiers.measures.statistics import ImageStatistics

RUNS = [[1.0, 2.0, 4.0, 8.0], [3.0, 1.0, 1.0, 1.0], [0.5]]
NAN = math.nan


@pytest.mark.parametrize(("steps", "sums"), [(0, [15, 6, 0.5]), (2, [3, 4, 0.5]), (1, [1, 3, 0.5]), (10, [15, 6, 0.5])])
@pytest.mark.parametrize("prefer", [HIGH, LOW])
def test_the_sum_of_the_first_calls(steps, sums, prefer):
    scores = GuidanceGap(steps, prefer).score_runs(RUNS)
    assert scores.dtype == torch.float32 and scores.device.type == "cpu"
    assert scores.tolist() == [value if prefer == HIGH else -value for value in sums]
    low, high = GuidanceGap(steps, prefer).score_range
    assert ((scores >= low) & (scores <= high)).all()


def test_a_run_does_not_depend_on_the_others():
    together = GuidanceGap().score_runs(RUNS)
    assert torch.equal(together, torch.cat([GuidanceGap().score_runs([gaps]) for gaps in RUNS]))
    assert torch.equal(together.flip(0), GuidanceGap().score_runs(RUNS[::-1]))


def test_calls_without_guidance_add_nothing():
    assert GuidanceGap(3).score_runs([[NAN, 2.0, NAN, 8.0]]).tolist() == [2.0]
    for gaps in ([], [NAN, NAN, NAN, 8.0]):
        with pytest.raises(ValueError, match="CFG must be above 1.*guidance-distilled.*another verifier"):
            GuidanceGap(3).score_runs([[1.0], gaps])


def test_it_is_a_verifier_of_runs():
    gap = GuidanceGap()
    assert isinstance(gap, RunVerifier) and isinstance(gap, Verifier) and not isinstance(ImageStatistics(), RunVerifier)
    assert gap.name == "guidance gap" and gap.trusts_previews and not gap.needs_prompt and gap.prompt == ""
    assert (gap.first_steps, gap.prefer) == (10, "high")
    with pytest.raises(AttributeError):
        gap.name = "other"


def test_pictures_are_refused():
    for score in (GuidanceGap().score, Ensemble((GuidanceGap(), ImageStatistics())).score):
        with pytest.raises(ValueError, match="^guidance gap: it measures a search's model calls and cannot score pictures"):
            score(torch.rand(2, 8, 8, 3))


@pytest.mark.parametrize(("given", "says"), [
    ({"first_steps": -1}, "input 'first_steps' is -1"), ({"prefer": "most"}, "input 'prefer' is 'most'; choose one of high, low"),
])  # fmt: skip
def test_settings_that_cannot_be_are_refused(given, says):
    with pytest.raises(ValueError, match=f"^guidance gap: {says}"):
        GuidanceGap(**given)


# The judge


def candidates(*gaps):
    return [Candidate(index, Recipe(index, index), gaps=list(run)) for index, run in enumerate(gaps)]


def test_the_judge_asks_for_runs():
    scorer = Scorer(GuidanceGap(2))
    assert not scorer.needs_pictures and scorer.needs_gaps == "guidance gap"
    assert scorer.score(candidates(*RUNS), [], [None] * 3).tolist() == [[3], [4], [0.5]]
    assert scorer.calls == 0  # no picture was scored


def test_with_a_picture_verifier_both_are_asked():
    pictures = [torch.full((frames, 8, 8, 3), 0.5) for frames in (1, 2, 1)]
    bright = ImageStatistics(0, 1, 0, 0)
    scorer = Scorer(Ensemble((bright, GuidanceGap(1), GuidanceGap(0, LOW)), (1, 1, 1), WEIGHTED_SUM))
    assert scorer.needs_pictures and scorer.needs_gaps == "guidance gap"
    raw = scorer.score(candidates(*RUNS), pictures, [None] * 3)
    assert raw.tolist() == [[1, 1, -15], [1, 3, -6], [1, 0.5, -0.5]]
    assert scorer.combine(raw).tolist() == [-13, -2, 1] and scorer.calls == 4
    assert Scorer(bright).needs_pictures and Scorer(bright).needs_gaps == ""


@pytest.mark.parametrize("skip", [False, True])
def test_a_run_without_gaps_is_named(skip):
    scorer = Scorer(GuidanceGap(), skip_errors=skip)
    if skip:
        raw = scorer.score(candidates([1.0], [NAN], [2.0]), [], [None] * 3)
        assert raw[[0, 2]].tolist() == [[1], [2]] and raw[1].isnan().all()
        assert len(scorer.problems) == 1 and "verifier 'guidance gap' failed on candidate 1" in scorer.problems[0]
    else:
        with pytest.raises(VerifierError, match="verifier 'guidance gap' failed on candidate 1: .*CFG must be above 1"):
            scorer.score(candidates([1.0], [NAN], [2.0]), [], [None] * 3)


def test_a_wrong_number_of_scores_is_an_error():
    class Long(GuidanceGap):
        def score_runs(self, gaps):
            return torch.zeros(len(gaps) + 1)

    with pytest.raises(VerifierError, match="candidate 0: .*one score for each of 1 runs, not \\(2,\\)"):
        Scorer(Long()).score(candidates([], [], []), [], [None] * 3)


# The engine


@pytest.mark.parametrize("method", [RandomSearch(), HalvingSearch(), RandomSearch(draft_steps=5)])
@pytest.mark.parametrize("prefer", [HIGH, LOW])
def test_nothing_is_decoded_but_what_is_returned(method, prefer):
    search = run(method, 8, GuidanceGap(5, prefer))
    assert search.evaluator.decodes == search.scorer.calls == 0 and search.session.gaps_for == "guidance gap"
    best, score = search.ranked[0]
    sums = {c.index: sum(c.gaps[:5]) for c, _ in search.ranked}
    assert score == pytest.approx(sums[best.index] if prefer == HIGH else -sums[best.index])
    assert sums[best.index] == (max if prefer == HIGH else min)(sums.values())
    assert len(sums) > 1 and search.evaluator.pictures(best).shape[-1] == 3 and search.evaluator.decodes == 1


def test_cfg_rejection_prunes_by_the_gap_at_the_cost_of_random_search():
    """2N runs to a quarter, N to a half, N / 2 to the end: N full runs."""
    search = run(HalvingSearch(), 8, GuidanceGap(0), steps=20)
    assert search.budget.nfe == 8 * 20 and len(search.candidates) == 16
    cut = [c for c in search.candidates if len(c.looks) == 1 and c.status == "pruned"]
    on = [c for c in search.candidates if len(c.looks) == 2 and c.index]
    assert len(cut) == 8 and len(on) == 7 and statuses(search).count("finished") == 4
    assert all(len(c.gaps) == 5 for c in cut)
    assert max(sum(c.gaps[:5]) for c in cut) <= min(sum(c.gaps[:5]) for c in on)


def test_drafts_leave_the_gaps_of_the_full_run():
    search = run(RandomSearch(draft_steps=5), 6, GuidanceGap(0))
    for candidate, _ in search.ranked:
        assert len(candidate.gaps) == 20


def test_a_draft_of_a_finished_candidate_does_too():
    search = prepare(6, GuidanceGap(0))
    list(search.render([search.start_candidate]))
    before = search.start_candidate.gaps
    pool = search.draft([search.start_candidate], 5)
    assert len(before) == 20 and search.start_candidate.gaps == before
    assert pool.combined().tolist() != search.finished.combined().tolist()


def test_branches_have_the_gaps_of_the_calls_before_their_cut():
    search = prepare(4, GuidanceGap(0), stochastic=True)
    level = float(search.session.sigmas[8])
    with search.branching([level]):
        list(search.render([search.start_candidate]))
    same, up = (
        search.branch(search.start_candidate, level),
        search.branch(search.start_candidate, level, float(search.session.sigmas[4])),
    )
    list(search.render([same, up]))
    assert [len(c.gaps) for c in (search.start_candidate, same, up)] == [20, 20, 8 + 16]
    assert same.gaps[:8] == up.gaps[:8] == search.start_candidate.gaps[:8]
    assert same.gaps[9:] != search.start_candidate.gaps[9:] and up.gaps[8:] != search.start_candidate.gaps[8:]


def test_a_search_that_does_not_need_them_does_not_ask_for_them():
    assert run(RandomSearch(), 3, Quadratic()).session.gaps_for == ""
