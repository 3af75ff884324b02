"""Searches judged by a person, on the analytic session: an oracle person with a known taste."""

from __future__ import annotations

import pytest
import torch
from analytic import LowFrequency, Quadratic, Throwing, best, latent_of, prepare, run, statuses, winner
from persons import Person, Scripted

from noise_search.search.base.budget import StopRules
from noise_search.search.methods.auto_search import AutoSearch
from noise_search.search.methods.draft_search import DraftSearch
from noise_search.search.methods.evolution import EvolutionSearch
from noise_search.search.methods.halving import HalvingSearch
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.methods.zero_order import ZeroOrderSearch
from noise_search.search.scoring.scorer import Scorer, VerifierError
from noise_search.search.selection.cascade import judge_finalists
from noise_search.verifiers.composite.cascade import Cascade
from noise_search.verifiers.composite.ensemble import Ensemble
from noise_search.verifiers.human.choices import ASSISTANT, MODEL, YOU, bradley_terry
from noise_search.verifiers.human.human import HumanVerifier
from noise_search.verifiers.human.questions import ERROR, STOP, Absent, Answer, Ended

ZERO_ORDER = ZeroOrderSearch(neighbors=3, cosine=0.9)


def oracle(taste=None, **more) -> Person:
    verifier = taste or Quadratic()
    return Person(lambda picture: float(verifier.values(picture)), **more)


def sitting(search):
    return next(iter(search.scorer.sittings.values()))


def truth(search, taste=None) -> float:
    """How good the winner is by the person's taste."""
    return float((taste or Quadratic()).values(search.evaluator.pictures(search.ranked[0][0])))


def test_zero_order_goes_the_same_way_as_with_the_taste_itself():
    """It needs no more than which is best, and that is what a person says: the same candidates, the same winner."""
    human, oracle_search = run(ZERO_ORDER, 80, HumanVerifier(oracle())), run(ZERO_ORDER, 80)
    assert [c.recipe for c in human.candidates] == [c.recipe for c in oracle_search.candidates]
    assert winner(human) == winner(oracle_search)
    first = float(Quadratic().values(human.evaluator.pictures(human.baseline)))
    assert truth(human) == best(oracle_search) > best(run(RandomSearch(), 80)) > first  # 0 is the optimum


@pytest.mark.parametrize(("set_size", "questions"), [(2, 39), (3, 26), (4, 13), (16, 13)])
def test_sets_of_every_size_lead_there(set_size, questions):
    person = oracle()
    search = run(ZERO_ORDER, 40, HumanVerifier(person, set_size=set_size))
    assert winner(search) == winner(run(ZERO_ORDER, 40))
    assert len(person.asked) == questions
    assert len(search.candidates) == 40 and statuses(search) == ["finished"] * 40


def test_evolution_approaches_the_optimum():
    search = run(EvolutionSearch(elites=2), 48, HumanVerifier(oracle(ranks=True), set_size=5))
    blind = run(RandomSearch(), 48, HumanVerifier(oracle()))
    first = float(Quadratic().values(search.evaluator.pictures(search.baseline)))
    assert truth(search) > truth(blind) > first
    assert truth(blind) == best(run(RandomSearch(), 48))


def test_scores_are_the_strengths_of_all_choices():
    """Earlier candidates' scores are revised with every choice, in the pool, on the candidates and in the order."""
    search = run(ZERO_ORDER, 13, HumanVerifier(oracle()))
    want = bradley_terry([pair for choice in sitting(search).choices for pair in choice.comparisons])
    for candidate, score in search.ranked:
        assert score == candidate.score == candidate.scores["your choice"] == pytest.approx(want[candidate.index], abs=1e-5)
    assert [c.index for c, _ in search.ranked][0] == max(want, key=want.get)


def test_time_spent_waiting_does_not_count():
    class Slow(Person):
        def ask(self, question, finishing):
            answer = super().ask(question, finishing)
            waited.append(question)
            return answer

    waited = []
    person = Slow(oracle().taste)
    search = prepare(13, HumanVerifier(person), rules=StopRules(max_seconds=60))
    sitting_ = sitting(search)
    ask = sitting_.score_set

    def waiting(*args):
        found = ask(*args)
        sitting_.waited += 1000.0
        search.budget.clock.now += 1000.0
        return found

    sitting_.score_set = waiting
    for _ in ZERO_ORDER.run(search):
        pass
    assert len(search.finished.members) == 13 and len(waited) == 4
    assert search.budget.seconds == pytest.approx(0, abs=5)
    assert search.scorer.seconds < 100


def test_the_model_takes_over_and_agrees_with_the_taste():
    """A taste that pictures show; the person tires after 12 questions, and the search goes on as they would have."""
    taste = LowFrequency()
    search = run(RandomSearch(), 70, HumanVerifier(oracle(taste, patience=12)))
    choices = sitting(search).choices
    assert [choice.by for choice in choices] == [YOU] * 12 + [MODEL] * 14
    numbers = [float(taste.values(search.evaluator.pictures(candidate))) for candidate in search.candidates]
    hits = sum(choice.ranking[0] == max(choice.shown, key=numbers.__getitem__) for choice in choices[12:])
    assert hits >= 10  # of 14; a guess has 4
    assert numbers[winner(search)] >= sorted(numbers)[-3]


def test_the_model_leads_zero_order_on():
    taste = LowFrequency()
    search = run(ZeroOrderSearch(3, cosine=0.5), 70, HumanVerifier(oracle(taste, patience=12)))
    numbers = [float(taste.values(search.evaluator.pictures(candidate))) for candidate in search.candidates]
    assert {choice.by for choice in sitting(search).choices[12:]} == {MODEL}
    assert numbers[winner(search)] >= sorted(numbers)[-3] > numbers[0]


def test_nobody_there_and_to_stop_returns_your_own_seed():
    search = run(ZERO_ORDER, 13, HumanVerifier(oracle(patience=0, why="no page is open"), when_absent=STOP))
    assert winner(search) == 0
    assert search.stopped == "no page is open: the search ended with the best so far"
    assert len(search.finished.members) <= 8  # what was on its way


def test_who_leaves_keeps_the_best_so_far():
    person = oracle(patience=3)
    search = run(ZERO_ORDER, 25, HumanVerifier(person, when_absent=STOP))
    same = run(ZERO_ORDER, 10)
    assert winner(search) == winner(same)
    assert search.stopped.startswith("nobody answered in 20 s")
    assert [c.score == c.score for c in search.candidates] == [True] * 10 + [False] * 3


def test_nobody_there_as_an_error():
    search = prepare(13, HumanVerifier(oracle(patience=0), when_absent=ERROR))
    with pytest.raises(ValueError, match="Human Verifier: nobody answered in 20 s, and 'when_absent' is 'error'"):
        list(ZERO_ORDER.run(search))


def test_errors_of_a_person_are_not_skipped():
    """`skip_errors` is for pictures that a verifier fails on; and nobody is asked twice."""
    person = oracle(patience=0)
    search = prepare(13, HumanVerifier(person, when_absent=ERROR), skip_errors=True)
    with pytest.raises(ValueError, match="when_absent"):
        list(ZERO_ORDER.run(search))
    assert len(person.asked) == 1


def test_an_assistant_scores_in_the_persons_place():
    search = run(ZERO_ORDER, 22, HumanVerifier(oracle(patience=0), assistant=Quadratic()))
    assert {choice.by for choice in sitting(search).choices} == {ASSISTANT}
    assert winner(search) == winner(run(ZERO_ORDER, 22))


def test_an_assistant_that_fails_is_gone_on_without():
    search = run(ZERO_ORDER, 13, HumanVerifier(oracle(), assistant=Throwing()), skip_errors=True)
    assert [c.recipe for c in search.candidates] == [c.recipe for c in run(ZERO_ORDER, 13, HumanVerifier(oracle())).candidates]
    assert search.scorer.problems == ["verifier 'your choice' could not be helped by its assistant: RuntimeError: out of order"]
    nobody = run(ZERO_ORDER, 13, HumanVerifier(oracle(patience=0), assistant=Throwing()), skip_errors=True)
    assert nobody.stopped.endswith("and the 'assistant' failed: the search ended with the best so far")
    with pytest.raises(VerifierError, match="could not be helped by its assistant.*set on_verifier_error to 'skip'"):
        run(ZERO_ORDER, 13, HumanVerifier(oracle(), assistant=Throwing()))


def test_ending_the_search_while_it_asks():
    """The question is withdrawn at once, though a model call is far."""

    class Ending(Person):
        def ask(self, question, finishing):
            assert not finishing()
            if len(self.asked) == 2:
                search.user_requests.finish()
                assert finishing()
                raise Ended("you ended it")
            return super().ask(question, finishing)

    search = prepare(25, HumanVerifier(Ending(oracle().taste)))
    list(ZERO_ORDER.run(search))
    assert search.stopped == "you ended it" and winner(search) == winner(run(ZERO_ORDER, 7))


def test_what_was_discarded_is_not_shown_again():
    person = oracle()
    search = prepare(13, HumanVerifier(person))
    rounds = ZERO_ORDER.run(search)
    next(rounds)
    next(rounds)
    gone = winner(search)
    search.user_requests.discard(gone)
    list(rounds)
    assert all(gone not in question.candidates for question in person.asked[-2:])
    assert winner(search) != gone


def test_half_finished_pictures_are_never_shown():
    for method in (HalvingSearch(), DraftSearch(), ZeroOrderSearch(3, draft_steps=4), EvolutionSearch()):
        person = oracle()
        search = run(method, 16, HumanVerifier(person))
        shown = {index for question in person.asked for index in question.candidates}
        assert all(search.candidates[index].status == "finished" for index in shown)
        assert not any(candidate.looks for candidate in search.candidates)
        assert len(search.finished.members) >= 16
        told = " ".join(search.notes)
        assert isinstance(method, EvolutionSearch) or "a person is asked about finished pictures only" in told


def test_auto_search_asks_about_candidates_only():
    person = oracle()
    search = run(AutoSearch(), 16, HumanVerifier(person))
    assert "auto search chose random search" in " ".join(search.notes)  # no drafts
    new = [index for question in person.asked for index in question.candidates if index != question.best]
    assert sorted(new) == list(range(1, len(search.finished.members)))  # each once; the first is the first best


def test_as_a_part_of_an_ensemble():
    """Your choice and a verifier, ranks averaged; the person is shown their own best, whatever the ensemble's is."""
    person = oracle()
    ensemble = Ensemble((HumanVerifier(person), LowFrequency()))
    search = run(ZERO_ORDER, 22, ensemble)
    assert search.scorer.names == ["your choice", "part"]
    strengths = bradley_terry([pair for choice in sitting(search).choices for pair in choice.comparisons])
    raw = torch.stack([row for _, row in search.finished.entries])
    assert raw[:, 0].tolist() == pytest.approx([strengths[c.index] for c in search.finished.members], abs=1e-5)
    assert torch.equal(search.finished.combined(), ensemble.combine(raw))
    liked = 0  # rendered first, to know what a run costs
    for question in person.asked:
        assert question.best == liked
        liked = max(question.candidates, key=lambda index: person.taste(search.evaluator.pictures(search.candidates[index])))


def test_a_calibrated_ensemble_takes_its_scale_from_revised_strengths():
    ensemble = Ensemble((HumanVerifier(oracle()), LowFrequency()), mode="calibrated sum", calibrate_on=4)
    search = run(ZERO_ORDER, 13, ensemble)
    raw = torch.stack([row for _, row in search.finished.entries])
    assert search.finished.combined().tolist() == pytest.approx(ensemble.combine(raw, raw[:4]).tolist(), abs=1e-5)


def test_as_the_last_word_of_a_cascade():
    """A verifier searches; the person is shown the finalists only."""
    person = oracle(LowFrequency())
    search = run(ZERO_ORDER, 22, Cascade(Quadratic(), HumanVerifier(person, set_size=4), count=12))
    judge_finalists(search)
    cheap = [c.index for c, _ in sorted(search.finished.ranked(), key=lambda pair: -pair[1])][:12]
    shown = {index for question in person.asked for index in question.candidates}
    assert shown == {*cheap, 0}
    tastes = {index: person.taste(search.evaluator.pictures(search.candidates[index])) for index in shown}
    assert winner(search) == max(tastes, key=tastes.get)
    scores = dict(
        zip([c.index for c in search.evaluator.finalists.members], search.evaluator.finalists.combined().tolist(), strict=True)
    )
    choices = search.scorer.sittings["finalists: your choice"].choices
    want = bradley_terry([pair for choice in choices for pair in choice.comparisons])
    assert scores == pytest.approx({index: want[index] for index in scores}, abs=1e-5)


def test_a_cascade_whose_person_is_away_keeps_the_first_order():
    search = run(ZERO_ORDER, 13, Cascade(Quadratic(), HumanVerifier(oracle(patience=0), when_absent=STOP)))
    judge_finalists(search)
    assert winner(search) == winner(run(ZERO_ORDER, 13))
    assert "nobody answered in 20 s: the search ended with the best so far" in search.notes


def test_two_searches_with_one_verifier_do_not_mix():
    verifier = HumanVerifier(oracle())
    one, other = run(ZERO_ORDER, 7, verifier), run(ZERO_ORDER, 7, verifier, seed=99)
    assert sitting(one) is not sitting(other)
    assert len(sitting(one).choices) == len(sitting(other).choices) == 2


def test_a_person_who_says_all_bad_every_time():
    search = run(ZERO_ORDER, 10, HumanVerifier(Scripted([Answer(())] * 3)))
    assert winner(search) == 0 and len(search.finished.members) == 10


def test_a_broken_asker_is_not_taken_for_absence():
    search = prepare(7, HumanVerifier(Scripted([RuntimeError("no screen")])))
    with pytest.raises(RuntimeError, match="no screen"):
        list(ZERO_ORDER.run(search))


def test_a_judge_without_people_has_none_to_wait_for():
    scorer = Scorer(Throwing())
    assert (scorer.asks_people, scorer.set_size, scorer.waited, scorer.ended, scorer.sittings) == (False, 0, 0, "", {})
    assert issubclass(Ended, Absent) and latent_of(torch.full((1, 4, 4, 3), 0.5)).abs().max() == 0
