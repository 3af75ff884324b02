"""Verifiers that are given a run's prediction at a noise level: what they get, what it costs, what is refused. No ComfyUI."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from analytic import Constant, Quadratic, picture_of, prepare, run, said, statuses, winner

from noise_search.search.base.candidate import Candidate
from noise_search.search.methods.auto_search import AutoSearch, choose, verifier_noise
from noise_search.search.methods.backtracking import BacktrackingSearch
from noise_search.search.methods.branching import BranchingSearch
from noise_search.search.methods.draft_search import DraftSearch
from noise_search.search.methods.evolution import EvolutionSearch
from noise_search.search.methods.fk_steering import FKSteering
from noise_search.search.methods.halving import HalvingSearch
from noise_search.search.methods.path_search import PathSearch
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.methods.spectral import SpectralSearch
from noise_search.search.methods.trust_region import TrustRegionSearch
from noise_search.search.methods.zero_order import ZeroOrderSearch
from noise_search.search.noise.recipe import Recipe
from noise_search.search.scoring.scorer import Scorer, VerifierError
from noise_search.verifiers.common.base import PredictionVerifier, Verifier
from noise_search.verifiers.composite.ensemble import WEIGHTED_SUM, Ensemble


@dataclass
class Kept:
    """Scores a picture by how near its prediction is; keeps what it was given."""

    needs_prediction: float = 0.4
    name: str = "kept"
    score_range: tuple[float, float] = (-1.0, 0.0)
    needs_prompt: bool = False
    prompt: str = ""
    trusts_previews: bool = False
    given: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)

    def score_pairs(self, images, predictions):
        self.given += zip(images, predictions, strict=True)
        return -(images - predictions).square().mean((1, 2, 3))

    def score(self, images, latents=None):
        raise ValueError("kept: pictures alone")


def test_it_is_a_verifier():
    assert isinstance(Kept(), PredictionVerifier) and isinstance(Kept(), Verifier)
    assert not isinstance(Quadratic(), PredictionVerifier)


@pytest.mark.parametrize(("level", "call"), [(0.4, 12), (0.42, 11), (0.38, 12), (1.0, 0), (0.06, 18)])
@pytest.mark.parametrize("stochastic", [False, True])
def test_the_prediction_is_that_of_the_last_call_at_or_above_the_level(level, call, stochastic):
    """20 steps from 1 to 0: call k is at 1 - k / 20."""
    kept = Kept(level)
    search = run(RandomSearch(), 4, kept, stochastic=stochastic)
    assert len(kept.given) == 4
    runs = search.session.runs
    for (image, prediction), made in zip(kept.given, runs, strict=True):
        assert torch.equal(prediction, picture_of(made.promises[call])[0])
        assert torch.equal(image, picture_of(made.latent)[0])


def test_it_costs_a_decode_for_each_candidate_and_no_model_call():
    plain, kept = run(RandomSearch(), 6, Constant()), run(RandomSearch(), 6, Kept())
    assert kept.budget.nfe == plain.budget.nfe == 6 * 20
    assert kept.evaluator.decodes == 2 * plain.evaluator.decodes == 12
    assert kept.scorer.calls == 6


def test_without_such_a_verifier_nothing_is_noted():
    search = run(RandomSearch(), 3, Quadratic())
    assert search.session.prediction_levels == () and all(not c.predictions for c in search.candidates)


def test_the_best_is_the_one_that_kept_its_promise():
    kept = Kept()
    search = run(RandomSearch(), 8, kept)
    scores = [-(image - prediction).square().mean().item() for image, prediction in kept.given]
    assert winner(search) == max(range(8), key=scores.__getitem__)


def test_frames_are_averaged():
    one, four = run(RandomSearch(), 4, Kept()), run(RandomSearch(), 4, Kept(), frames=4)
    assert four.scorer.calls == 16
    assert [c.score for c in four.candidates] == pytest.approx([c.score for c in one.candidates])


METHODS = [
    ZeroOrderSearch(), EvolutionSearch(), SpectralSearch(), TrustRegionSearch(), HalvingSearch(), PathSearch(), FKSteering(),
    BranchingSearch(), BacktrackingSearch(), AutoSearch(), RandomSearch(draft_steps=5), DraftSearch(),
]  # fmt: skip


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@pytest.mark.parametrize("stochastic", [False, True])
def test_every_method_works_and_stays_in_its_budget(method, stochastic):
    kept = Kept()
    search = run(method, 12, kept, stochastic=stochastic)
    assert search.budget.nfe <= 12 * 20 and statuses(search)[0] == "finished"
    assert all(torch.isfinite(torch.tensor(score)) for _, score in search.ranked)
    for image, prediction in kept.given:
        assert not torch.equal(image, prediction)


def test_methods_that_look_half_way_say_why_they_do_not():
    search = run(HalvingSearch(), 8, Kept())
    assert statuses(search) == ["finished"] * 8
    assert any("half-denoised" in note for note in search.notes)


def test_automatic_search_makes_no_drafts():
    method, why = choose(12, 20, False, "", "reason")
    assert method.name == "random search, then refinement search" and "drafts cannot be judged (reason)" in why
    search = run(AutoSearch(), 12, Kept())
    assert "draft" not in statuses(search)


def test_the_noise_of_the_verifier_moves_both_pictures():
    """Moved alike, a prediction is as far from its picture as before."""
    search = prepare(4, Kept())
    list(search.render([search.start_candidate]))
    assert verifier_noise(search).tolist() == pytest.approx([0.0], abs=1e-7)


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize(("cut", "level"), [(8, 0.4), (8, 0.8), (14, 0.4), (14, 0.5)])
def test_branches_have_the_prediction_of_the_run_they_left_or_their_own(up, cut, level):
    search = prepare(4, kept := Kept(level), stochastic=True)
    at, back = float(search.session.sigmas[cut]), float(search.session.sigmas[cut - 4])
    with search.branching([at]):
        list(search.render([search.start_candidate]))
    branch = search.branch(search.start_candidate, at, back if up else None)
    list(search.render([branch]))
    (_, before), (_, after) = kept.given
    start = back if up else at
    own = search.session.runs[-1]
    if start >= level:
        calls = [i for i, sigma in enumerate(own.levels_of_run) if sigma >= level - 1e-6]
        assert torch.equal(after, picture_of(own.promises[calls[-1]])[0])
    else:
        assert torch.equal(after, before)


def test_drafts_leave_the_prediction_of_the_full_run():
    search = prepare(6, Kept())
    list(search.render([search.start_candidate]))
    before = search.start_candidate.predictions
    search.draft([search.start_candidate], 5)
    assert search.start_candidate.predictions is before and 0.4 in before


@pytest.mark.parametrize("level", [0.05, 0.01, 1.1])
def test_a_level_without_a_prediction_of_its_own_is_refused_before_the_search(level):
    with pytest.raises(ValueError, match=f"'kept': its 'sigma' is {level:g}.*20 steps lie between the noise levels 1 and 0.05"):
        prepare(4, Kept(level))


def test_drafts_that_are_too_short_for_it_are_refused():
    with pytest.raises(ValueError, match="of 2 steps lie between the noise levels 1 and 0.5"):
        run(RandomSearch(draft_steps=2), 6, Kept(0.4))


# The judge


def test_levels_of_several_parts_and_of_one_that_judges_at_the_end():
    parts = Ensemble((Kept(0.4), Quadratic(), Kept(0.8), Kept(0.4)), (1, 1, 1, 1), WEIGHTED_SUM)
    scorer = Scorer(parts)
    assert scorer.needs_predictions == {"kept": 0.4, "kept 2": 0.8, "kept 3": 0.4} and scorer.needs_pictures
    search = prepare(3, parts)
    search.expect(Scorer(Kept(0.2)))
    assert search.session.prediction_levels == (0.4, 0.8, 0.2)
    list(RandomSearch().run(search))
    assert search.evaluator.decodes == 3 * 3  # 0.2 is decoded for those that are judged at the end only
    assert set(search.candidates[2].predictions) == {0.4, 0.8, 0.2}
    held_out = Scorer(Kept(0.2))
    raw = held_out.score(
        [search.candidates[2]],
        [search.evaluator.pictures(search.candidates[2])],
        [None],
        search.evaluator.promised([search.candidates[2]], held_out),
    )
    want = picture_of(search.candidates[2].latent) - picture_of(search.candidates[2].predictions[0.2])
    assert raw.item() == pytest.approx(-want.square().mean().item())


@pytest.mark.parametrize("skip", [False, True])
def test_a_candidate_without_a_prediction_is_named(skip):
    scorer = Scorer(Kept(), skip_errors=skip)
    some = [Candidate(index, Recipe(index, index)) for index in range(2)]
    pictures, shown = [torch.zeros(1, 4, 4, 3)] * 2, [{0.4: torch.zeros(1, 4, 4, 3)}, {}]
    if not skip:
        with pytest.raises(VerifierError, match="'kept' failed on candidate 1.*no model call at or above the noise level 0.4"):
            scorer.score(some, pictures, [None] * 2, shown)
        return
    raw = scorer.score(some, pictures, [None] * 2, shown)
    assert raw[0].item() == 0 and raw[1].isnan().all() and len(scorer.problems) == 1


def test_the_report_does_not_depend_on_what_was_noted():
    search = prepare(4, Quadratic())
    search.expect(Scorer(Kept()))
    list(RandomSearch().run(search))
    assert said(search) == said(run(RandomSearch(), 4, Quadratic()))
