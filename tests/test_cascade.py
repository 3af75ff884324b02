"""A cascade in a search: who is judged again, how often, who wins, and what stays as it was."""

from __future__ import annotations

import math

import pytest
import torch
from analytic import (
    Constant,
    Layout,
    Listed,
    LowFrequency,
    Part,
    Quadratic,
    Stripes,
    Throwing,
    best,
    picture_of,
    prepare,
    run,
    said,
    winner,
)  # fmt: skip

from noise_search.search.base.budget import StopRules
from noise_search.search.methods.auto_search import AutoSearch
from noise_search.search.methods.backtracking import BacktrackingSearch
from noise_search.search.methods.branching import BranchingSearch
from noise_search.search.methods.chain import Chain
from noise_search.search.methods.draft_search import DraftSearch
from noise_search.search.methods.evolution import EvolutionSearch
from noise_search.search.methods.fk_steering import FKSteering
from noise_search.search.methods.halving import HalvingSearch
from noise_search.search.methods.path_search import PathSearch
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.methods.rollover import RolloverSearch
from noise_search.search.methods.spectral import SpectralSearch
from noise_search.search.methods.trust_region import TrustRegionSearch
from noise_search.search.methods.zero_order import ZeroOrderSearch
from noise_search.search.scoring.scorer import VerifierError
from noise_search.search.selection.cascade import NOT_SCORED, final_score, judge_finalists
from noise_search.verifiers.composite.cascade import Cascade
from noise_search.verifiers.composite.ensemble import RANK_MEAN, Ensemble

METHODS = [
    RandomSearch(), RandomSearch(draft_steps=5), ZeroOrderSearch(), ZeroOrderSearch(draft_steps=5), HalvingSearch(),
    DraftSearch(), EvolutionSearch(), SpectralSearch(), TrustRegionSearch(), PathSearch(), BacktrackingSearch(),
    BranchingSearch(), RolloverSearch(), FKSteering(), AutoSearch(), Chain(RandomSearch(), ZeroOrderSearch()),
]  # fmt: skip


def name_of(method):
    return f"{method.name}{' drafted' if getattr(method, 'draft_steps', 0) else ''}"


def ended(method, images, cascade, **more):
    """A search after the dear judge had its say."""
    search = run(method, images, cascade, **more)
    judge_finalists(search)
    return search


def order(search):
    return [candidate.index for candidate, _ in search.ranked]


@pytest.mark.parametrize("method", METHODS, ids=name_of)
def test_every_method_runs_by_the_cheap_one_and_the_dear_one_is_asked_once_each(method):
    dear = LowFrequency()
    alone = run(method, 12, Quadratic(), stochastic=True)
    search = ended(method, 12, Cascade(Quadratic(), dear, 3), stochastic=True)
    # Until then nothing differs; candidate 0 is judged too.
    assert said(search)["candidates"] == said(alone)["candidates"]
    assert search.budget.nfe == alone.budget.nfe and search.rounds[-1].score == alone.ranked[0][1]
    wanted = list(dict.fromkeys([*order(alone)[:3], 0]))
    assert sorted(c.index for c in search.evaluator.finalists.members) == sorted(wanted)
    assert dear.pictures == search.scorer.dear.calls == search.scorer.dear.scored == len(wanted)
    # The order: finalists by the dear one, the others as they were.
    scores = {k: dear.values(picture_of(search.candidates[k].latent)).item() for k in wanted}
    assert order(search)[: len(wanted)] == sorted(wanted, key=lambda k: (-scores[k], k))
    assert order(search)[len(wanted) :] == [k for k in order(alone) if k not in wanted]
    assert best(search) == max(scores.values()) >= scores[0]


@pytest.mark.parametrize("method", METHODS, ids=name_of)
def test_with_the_cheap_one_again_the_winner_stays(method):
    alone, search = run(method, 12, stochastic=True), ended(method, 12, Cascade(Quadratic(), Quadratic(), 3), stochastic=True)
    assert search.ranked[0][1] == alone.ranked[0][1]
    assert [k for k in order(search) if k] == [k for k in order(alone) if k]  # candidate 0 moves up, having been judged
    assert winner(search) == winner(alone)


def test_with_all_as_finalists_it_is_the_dear_one_alone():
    alone = run(RandomSearch(), 12, Layout())
    for cascade in (Cascade(Quadratic(), Layout(), 12), Cascade(Quadratic(), Layout(), 0, 1.0)):
        search = ended(RandomSearch(), 12, cascade)
        assert [(c.index, score) for c, score in search.ranked] == [(c.index, score) for c, score in alone.ranked]


@pytest.mark.parametrize(
    ("count", "share", "asked"), [(1, 0.5, 2), (4, 0.5, 5), (20, 0.5, 12), (0, 0.25, 4), (0, 0.26, 5), (0, 0.01, 2)]
)
def test_how_many_are_asked(count, share, asked):
    """Of 12 candidates whose last is best: so many finalists, and candidate 0."""
    dear = Constant()
    search = ended(RandomSearch(), 12, Cascade(Listed(numbers=range(12)), dear, count, share))
    assert (dear.pictures, search.scorer.dear.scored, search.scorer.scored) == (asked, asked, 12)


def test_among_finalists_the_dear_one_decides_and_ties_go_to_the_earlier():
    search = ended(RandomSearch(), 6, Cascade(Listed(numbers=[0, 5, 1, 4, 2, 3]), Listed(numbers=[7, 7, 9, 8]), 3))
    # Judged again in the cheap order: candidates 1, 3, 5, then 0.
    assert [(c.index, score) for c, score in search.ranked] == [(5, 9), (0, 8), (1, 7), (3, 7), (4, 2), (2, 1)]
    assert [c.score for c in search.candidates] == [0, 5, 1, 4, 2, 3]
    assert [final_score(search, c) for c in search.candidates[:2]] == [8, 7]
    assert math.isnan(final_score(search, search.candidates[4]))


def test_dropped_pictures_are_decoded_again_and_counted():
    """The best one's are kept; two other finalists' and candidate 0's are not."""
    search = ended(RandomSearch(), 6, Cascade(Listed(numbers=range(6)), Stripes(), 3))
    assert search.evaluator.decodes == 6 + 3
    assert torch.equal(search.evaluator.pictures(search.ranked[0][0]), picture_of(search.ranked[0][0].latent))
    assert search.evaluator.decodes == 6 + 3  # the new best one's are kept now
    assert ended(RandomSearch(), 6, Cascade(Listed(numbers=range(6)), Stripes(), 3), keep=6).evaluator.decodes == 6


def test_the_new_best_is_shown():
    shown = []
    cascade = Cascade(Listed(numbers=[1, 2, 3]), Listed(numbers=[0, 0, 5]), 2)
    search = ended(RandomSearch(), 3, cascade, on_best=lambda images, score: shown.append((images, score)))
    assert winner(search) == 0
    assert [score for _, score in shown] == [3, 5]
    assert torch.equal(shown[-1][0], picture_of(search.baseline.latent))


def test_many_finalists_are_asked_in_groups_of_one_order():
    dear = LowFrequency()
    dear.batch_size = 64
    search = ended(RandomSearch(), 40, Cascade(Quadratic(), dear, 20))
    assert (dear.pictures, dear.asked) == (len(search.evaluator.finalists.members), 3)
    alone = run(RandomSearch(), 40, LowFrequency())
    judged = {c.index for c in search.evaluator.finalists.members}
    assert order(search)[: len(judged)] == [k for k in order(alone) if k in judged]


def test_an_ensemble_may_be_the_dear_one():
    parts = (Listed("a", numbers=[1, 2, 3]), Listed("b", numbers=[30, 20, 40]))
    search = ended(RandomSearch(), 5, Cascade(Listed(numbers=range(5)), Ensemble(parts, mode=RANK_MEAN), 2))
    # Asked in the order 4, 3, 0: ranks (1, 2), (2, 1), (3, 3).
    assert [(c.index, score) for c, score in search.ranked[:3]] == [(0, 3), (3, 1.5), (4, 1.5)]
    assert (search.scorer.dear.calls, search.scorer.dear.scored) == (6, 3)


# Stop rules, looks


def test_target_score_and_patience_go_by_the_cheap_one():
    dear = Constant(number=1e6)
    numbers = [0, 1, 2, 3, 4, 5, 6, 7]
    search = ended(RandomSearch(), 8, Cascade(Listed(numbers=numbers), dear, 2), rules=StopRules(target_score=3.0), wave=1)
    assert search.stopped == "the target score 3 was reached" and len(search.finished.members) == 4
    cascade = Cascade(Listed(numbers=[5, 1, 2, 3, 4, 0, 0, 0]), dear, 2)
    search = ended(RandomSearch(), 8, cascade, rules=StopRules(patience=3))
    assert "patience 3" in search.stopped and winner(search) == 0


def test_only_the_cheap_one_looks():
    dear = LowFrequency(trusts_previews=False)
    search = ended(HalvingSearch(), 8, Cascade(Quadratic(), dear, 2))
    assert search.notes == [] and any(c.looks for c in search.candidates)
    assert dear.pictures <= 3 < search.scorer.scored
    search = ended(HalvingSearch(), 8, Cascade(Quadratic(trusts_previews=False), LowFrequency(), 2))
    assert "cannot be trusted" in search.notes[0]


# What goes wrong


def test_a_finalist_without_a_score_stays_among_the_others():
    search = ended(RandomSearch(), 4, Cascade(Listed(numbers=range(4)), Listed(numbers=[math.nan, 5, 6, 4]), 3))
    assert [(c.index, score) for c, score in search.ranked] == [(1, 6), (2, 5), (0, 4), (3, 3)]
    assert search.scorer.dear.problems == ["verifier 'part' returned nan for candidate 3: it ranks last"]


@pytest.mark.parametrize("dear", [Constant(number=math.nan), Throwing()])
def test_without_any_score_the_order_is_the_cheap_one_s(dear):
    search = ended(RandomSearch(), 5, Cascade(Quadratic(), dear, 3), skip_errors=True)
    assert order(search) == order(run(RandomSearch(), 5))
    assert search.notes == [NOT_SCORED]
    assert final_score(search, search.baseline) == search.baseline.score


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()])
def test_a_failure_leaves_the_search_as_it_was(error):
    class Late(Part):
        def values(self, images):
            if self.asked > 1:
                raise error
            return torch.zeros(len(images))

    search = run(RandomSearch(), 24, Cascade(Quadratic(), Late(), 20))
    with pytest.raises(VerifierError if isinstance(error, RuntimeError) else KeyboardInterrupt):
        judge_finalists(search)
    assert order(search) == order(run(RandomSearch(), 24)) and search.evaluator.finalists is None
    assert torch.equal(search.evaluator.pictures(search.ranked[0][0]), picture_of(search.ranked[0][0].latent))


def test_nothing_happens_without_a_cascade_or_a_candidate():
    search = ended(RandomSearch(), 4, Quadratic())
    assert said(search) == said(run(RandomSearch(), 4)) and search.evaluator.finalists is None
    search = prepare(4, Cascade(Quadratic(), Throwing(), 2))
    judge_finalists(search)
    assert search.evaluator.finalists is None and search.ranked == []


def test_it_is_the_same_every_time_and_for_every_wave():
    made = [ended(HalvingSearch(), 8, Cascade(Quadratic(), Layout(), 3), wave=wave) for wave in (8, 8, 1)]
    assert said(made[0]) == said(made[1]) == said(made[2])


def test_what_was_discarded_is_not_judged_again():
    search = run(RandomSearch(), 6, Cascade(Quadratic(), dear := Stripes("dear"), 6))
    for index in (0, 3):
        search.user_requests.discard(index)
    search.checkpoint()
    judge_finalists(search)
    assert dear.pictures == 4
    assert {c.index for c in search.evaluator.finalists.members} == {1, 2, 4, 5}
    assert [c.index for c, _ in search.ranked[-2:]] == [0, 3]


def test_a_discard_after_the_dear_judge_mixes_no_scores():
    search = ended(RandomSearch(), 6, Cascade(Quadratic(), Stripes("dear"), 6))
    before, (first, second) = {c.index: c.score for c in search.candidates}, (c for c, _ in search.ranked[:2])
    search.user_requests.discard(first.index)
    search.checkpoint()
    assert search.ranked[0][0] is second
    assert {c.index: c.score for c in search.candidates if c is not first} == {
        index: score for index, score in before.items() if index != first.index
    }
