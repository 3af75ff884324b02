"""Searches that go on from a journal: the same decisions, counts and scores as one that was never cut short."""

from __future__ import annotations

import json
import math
import random

import analytic
import pytest
from analytic import Clock, LowFrequency, Quadratic
from journaling import METHODS, Killed, finished_lines, go, killed_at, made, prepare, run, said
from persons import Person

from noise_search.search.base.budget import Budget, StopRules
from noise_search.search.core.control import FINISHED
from noise_search.search.journal.journal import LOST
from noise_search.search.journal.score_cache import ScoreCache
from noise_search.search.methods.auto_search import choose_for
from noise_search.search.methods.chain import Chain
from noise_search.search.run import run_search
from noise_search.search.scoring.scorer import VerifierError
from noise_search.search.selection.cascade import judge_finalists
from noise_search.search.selection.pairwise import compare_finalists
from noise_search.verifiers.composite.cascade import Cascade
from noise_search.verifiers.composite.ensemble import Ensemble
from noise_search.verifiers.human.human import HumanVerifier

IMAGES = 12
NEEDS_STEP_NOISE = ("FK", "branching", "branching lineages", "rollover")
EVERY = [(name, stochastic) for name in METHODS for stochastic in (False, True) if stochastic or name not in NEEDS_STEP_NOISE]


def plain(method, images, verifier=None, **session):
    """The same search without a journal."""
    search = analytic.prepare(images, verifier, **session)
    for _ in (method or choose_for(search, images)[0]).run(search):
        pass
    search.close()
    return search


@pytest.mark.parametrize(("name", "stochastic"), EVERY)
def test_a_second_search_makes_no_model_call(tmp_path, name, stochastic):
    want = plain(METHODS[name], IMAGES, stochastic=stochastic)
    first = run(METHODS[name], IMAGES, tmp_path, stochastic=stochastic)
    assert said(first) == said(want) and (first.budget.recalled, first.budget.redone) == (0, 0)
    verifier = Quadratic()
    again = run(METHODS[name], IMAGES, tmp_path, verifier, stochastic=stochastic)
    assert said(again) == said(want)
    assert made(again) == 0 and again.session.inner.rounds == []
    assert again.budget.recalled == want.budget.nfe > 0
    held = [(c.index, c.latent) for c in again.candidates if c.latent is not None]
    assert [index for index, _ in held] == [c.index for c in want.candidates if c.latent is not None]
    assert all(analytic.torch.equal(latent, want.candidates[index].latent) for index, latent in held)


@pytest.mark.parametrize(("name", "stochastic"), EVERY)
def test_a_search_goes_on_from_where_it_was_cut(tmp_path, name, stochastic):
    want = plain(METHODS[name], IMAGES, stochastic=stochastic)
    total = want.budget.nfe
    for part, call in enumerate((3, total // 3, total // 2, total - 2)):
        folder = tmp_path / str(part)
        cut = prepare(folder, IMAGES, stochastic=stochastic, on_call=killed_at(call))
        with pytest.raises(Killed):
            go(cut, METHODS[name])
        again = run(METHODS[name], IMAGES, folder, stochastic=stochastic)
        assert said(again) == said(want)
        lines = finished_lines(again)
        assert len(lines) == len(set(lines)) == sum(c.status == "finished" for c in want.candidates)


@pytest.mark.parametrize(("name", "stochastic"), EVERY)
def test_a_larger_budget_computes_only_what_is_new(tmp_path, name, stochastic):
    run(METHODS[name], IMAGES, tmp_path, stochastic=stochastic)
    before = set(finished_lines(run(METHODS[name], IMAGES, tmp_path, stochastic=stochastic)))
    more = run(METHODS[name], 2 * IMAGES, tmp_path, stochastic=stochastic)
    assert said(more) == said(plain(METHODS[name], 2 * IMAGES, stochastic=stochastic))
    lines = finished_lines(more)
    assert len(lines) == len(set(lines)) and before <= set(lines)
    assert more.budget.recalled >= 20


def test_the_new_candidates_of_random_search_are_all_that_is_paid(tmp_path):
    run(METHODS["random"], 8, tmp_path)
    more = run(METHODS["random"], 11, tmp_path)
    assert (more.budget.nfe, more.budget.recalled, more.budget.redone) == (220, 160, 0)
    assert len(more.session.inner.started) == 3 and more.session.ledger.candidates == 8


class Slow(Quadratic):
    """Takes as long for a picture as so many model calls."""

    def __init__(self, clock, seconds):
        super().__init__()
        self.clock, self.seconds = clock, seconds

    def values(self, images):
        self.clock.now += self.seconds * len(images)
        return super().values(images)


def timed(folder, seconds, method=METHODS["auto search"], clock=None):
    """A search whose model calls take a second each, and scores so many."""
    clock = clock or Clock()
    return run(method, IMAGES, folder, Slow(clock, seconds), clock=clock, on_call=clock.tick)


@pytest.mark.parametrize(("seconds", "chosen"), [(1, "draft search, then"), (25, "random search")])
def test_what_was_chosen_by_measured_time_is_chosen_again(tmp_path, seconds, chosen):
    """A draft of 5 steps takes 6 seconds of 21, or 30 of 45; what an earlier search left behind takes none."""
    first = timed(tmp_path, seconds)
    assert first.notes[0].startswith(f"auto search chose {chosen}")
    again = timed(tmp_path, 50 - seconds)
    assert said(again) == said(first) and made(again) == 0


def test_it_is_chosen_again_where_a_person_judges(tmp_path, monkeypatch):
    """A decode of 30 seconds beside model calls of one: that is written down too, though what a person said is not."""
    clock, decode = Clock(), analytic.AnalyticSession.decode
    monkeypatch.setattr(analytic.AnalyticSession, "decode", lambda *given: ([clock.tick() for _ in range(30)], decode(*given))[1])
    found = []
    for _ in range(2):
        person = Person(lambda images: float(images[0, 0, 0, 0]))
        found.append(run(METHODS["auto search"], IMAGES, tmp_path, HumanVerifier(person), clock=clock, on_call=clock.tick))
        assert len(person.asked) > 1
    assert found[0].notes[0].startswith("auto search chose random search: scoring takes so long")
    assert said(found[1]) == said(found[0])


def test_of_what_an_earlier_search_left_behind_no_time_is_known(tmp_path, monkeypatch):
    """All that is done for a candidate 0 that is known is to decode it: that is not what a candidate takes."""
    clock, decode = Clock(), analytic.AnalyticSession.decode
    monkeypatch.setattr(analytic.AnalyticSession, "decode", lambda *given: (clock.tick(), decode(*given))[1])
    timed(tmp_path, 1, METHODS["random"], clock)
    for _ in range(2):
        assert timed(tmp_path, 1, clock=clock).notes[0].startswith("auto search chose draft search, then")


class Shaky(Quadratic):
    """Scores by the first number, and a little by lot."""

    def __init__(self, lots, shake):
        super().__init__()
        self.lots, self.shake = random.Random(lots), shake

    def values(self, images):
        return super().values(images) + analytic.torch.tensor([self.lots.gauss(0, self.shake) for _ in images])


def test_what_a_verifier_said_of_a_moved_picture_it_says_again(tmp_path):
    """The noise of a verifier that answers by lot is another each time, and the search would end where it did not."""
    first = run(METHODS["auto search"], IMAGES, tmp_path, verifier := Shaky(1, 0.0))
    asked = verifier.pictures
    again = run(METHODS["auto search"], IMAGES, tmp_path, verifier := Shaky(2, 1e6))
    assert said(again) == said(first) and made(again) == 0 and not again.stopped
    assert asked > 4 and verifier.pictures == 0


def test_a_state_that_is_gone_or_damaged_is_rendered_again_and_said(tmp_path):
    want = plain(METHODS["random"], 8)
    first = run(METHODS["random"], 8, tmp_path)
    states = sorted((tmp_path / "states").iterdir())
    states[0].unlink()
    states[1].write_bytes(b"\0" + states[1].read_bytes()[1:])
    again = run(METHODS["random"], 8, tmp_path)
    assert said(again) == said(want) == said(first)
    assert (made(again), again.budget.recalled) == (40, 120)
    assert again.session.ledger.journal.notes == [LOST]
    assert made(run(METHODS["random"], 8, tmp_path)) == 0


def test_the_state_of_a_parent_that_is_gone_is_made_again(tmp_path):
    want = plain(METHODS["refinement"], 8)
    run(METHODS["refinement"], 6, tmp_path)
    for state in (tmp_path / "states").iterdir():
        state.unlink()
    assert said(run(METHODS["refinement"], 8, tmp_path)) == said(want)


@pytest.mark.parametrize("name", ["random", "halving", "draft search", "FK", "FK after random", "path", "evolution"])
def test_how_many_runs_go_together_decides_nothing(tmp_path, name):
    """Memory may have run out in the first search, and does not where nothing is computed."""
    method = {**METHODS, "FK after random": Chain(METHODS["random"], METHODS["FK"], 0.4)}[name]
    first, again = (said(run(method, 24, tmp_path, stochastic=True, wave=wave)) for wave in (8, 32))
    assert len(first.pop("rounds")) >= len(again.pop("rounds")) and first == again


@pytest.mark.parametrize("name", ["path", "backtracking"])
@pytest.mark.parametrize("call", [25, 37])
def test_a_search_can_be_ended_while_the_parent_of_a_run_is_made_again(tmp_path, name, call):
    run(METHODS[name], 6, tmp_path, stochastic=True)
    for state in (tmp_path / "states").iterdir():
        state.unlink()
    made_so_far = []

    def on_call():
        made_so_far.append(search.budget.redone)
        if len(made_so_far) == call:
            search.user_requests.finish()

    search = prepare(tmp_path, 8, stochastic=True, on_call=on_call)
    list(run_search(search, METHODS[name]))
    assert search.stopped == FINISHED and search.ranked and search.budget.redone > 0
    assert made_so_far[call - 1] > made_so_far[call - 2]  # it was
    assert len(made_so_far) <= call + 1


def test_a_run_that_is_brought_back_can_be_discarded(tmp_path):
    """It does not go on from there."""
    run(METHODS["halving"], 6, tmp_path)
    for state in (tmp_path / "states").iterdir():
        state.unlink()
    redone = []

    def on_call():
        if search.budget.redone and not redone:
            redone.extend(index for index in search.running if index)
            for index in redone:
                search.user_requests.discard(index)

    search = prepare(tmp_path, 6, on_call=on_call)
    list(run_search(search, METHODS["halving"]))
    given_up = [search.candidates[index] for index in redone]
    assert given_up and all(candidate.status == "discarded" for candidate in given_up)


def test_a_run_whose_score_was_not_written_is_scored_from_what_it_left(tmp_path):
    class Broken(Quadratic):
        batch_size = 64

        def values(self, images):
            if self.asked == 3:
                raise Killed
            return super().values(images)

    with pytest.raises(Killed):
        run(METHODS["zero-order"], 12, tmp_path, Broken())
    verifier = Quadratic()
    again = run(METHODS["zero-order"], 12, tmp_path, verifier)
    assert said(again) == said(plain(METHODS["zero-order"], 12))
    assert again.budget.recalled == 180 and made(again) == 60 and verifier.pictures == 12 - 5


class OneByOne(Quadratic):
    """Answers one picture after another; the search is cut, or the answer fails, before one of them, from 1."""

    def __init__(self, at=0, error=Killed):
        super().__init__()
        self.at, self.error, self.answered, self.reached = at, error, [], 0

    def values(self, images):
        found = []
        for image in images:
            self.reached += 1
            if self.reached == self.at:
                raise self.error
            found.append(super().values(image[None]))
            self.answered.append(tuple(image.flatten().tolist()))
        return analytic.torch.cat(found)


@pytest.mark.parametrize("name", ["draft search", "auto"])
@pytest.mark.parametrize("at", [1, 2, 3, 7, 9, 12])
@pytest.mark.parametrize("error", [Killed, RuntimeError("no network")], ids=["killed", "failed"])
def test_drafts_and_answers_of_a_wave_that_was_cut_while_it_was_scored_are_kept(tmp_path, name, at, error):
    want = plain(METHODS[name], 8, all_ := OneByOne(), steps=16)
    with pytest.raises(Killed if error is Killed else VerifierError):
        run(METHODS[name], 8, tmp_path, first := OneByOne(at, error), steps=16)
    states = {path.stem for path in (tmp_path / "states").iterdir()}
    again = run(METHODS[name], 8, tmp_path, rest := OneByOne(), steps=16)
    assert said(again) == said(want)
    assert first.answered + rest.answered == all_.answered and len(first.answered) == at - 1
    lines = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    runs = [line["name"] for line in lines if line.get("kind") == "run"]
    assert len(runs) == len(set(runs))  # no draft and no picture was made twice
    finished = set(finished_lines(again))
    assert {path.stem for path in (tmp_path / "states").iterdir()} == finished  # drafts are kept until they are scored
    assert at == 1 or states - finished


def test_one_failing_picture_has_no_other_judged_again(tmp_path):
    verifier = OneByOne(7, RuntimeError("it shows a face"))
    search = run(METHODS["random"], 8, tmp_path, verifier, skip_errors=True)
    assert verifier.reached == 8 and len(verifier.answered) == 7 and len(search.scorer.problems) == 1
    run(METHODS["random"], 8, tmp_path, again := OneByOne(), skip_errors=True)
    assert again.answered == [tuple(search.evaluator.pictures(search.candidates[6]).flatten().tolist())]


def test_of_several_parts_only_those_are_asked_again_that_did_not_answer(tmp_path):
    parts = named("sure", OneByOne()), named("shaky", OneByOne(4, RuntimeError("no network")))
    with pytest.raises(VerifierError):
        run(METHODS["random"], 8, tmp_path, Ensemble(parts))
    again = named("sure", OneByOne()), named("shaky", OneByOne())
    search = run(METHODS["random"], 8, tmp_path, Ensemble(again))
    assert [len(part.answered) for part in (*parts, *again)] == [8, 3, 0, 5]
    whole = named("sure", OneByOne()), named("shaky", OneByOne())
    assert said(search) == said(plain(METHODS["random"], 8, Ensemble(whole)))


def named(name, verifier):
    verifier.name = name
    return verifier


@pytest.mark.parametrize("name", ["random", "halving", "zero-order with drafts", "branching"])
def test_two_verifiers_share_runs_and_never_scores(tmp_path, name):
    verifiers = {"one": Quadratic(), "other": LowFrequency()}
    wanted = {by: plain(METHODS[name], IMAGES, verifier, stochastic=True) for by, verifier in verifiers.items()}
    for round_ in range(2):
        for by, verifier in verifiers.items():
            got = run(METHODS[name], IMAGES, tmp_path, verifier, by=by, stochastic=True)
            assert said(got) == said(wanted[by])
            assert not round_ or made(got) == 0
    assert said(wanted["one"]) != said(wanted["other"])


def test_methods_share_what_they_have_in_common(tmp_path):
    run(METHODS["random"], 12, tmp_path)
    got = run(METHODS["chain"], 12, tmp_path)
    assert said(got) == said(plain(METHODS["chain"], 12))
    # Its 6 random candidates are known; the winner is brought back to where refinement leaves it.
    assert (got.budget.recalled, got.budget.redone, got.session.ledger.candidates) == (120, 17, 6)


def test_a_cascade_asks_neither_judge_again(tmp_path):
    def searched():
        cheap, dear = Quadratic(name="cheap"), LowFrequency(name="dear")
        search = prepare(tmp_path, 8, Cascade(cheap, dear, share=0.5))
        journal = search.session.ledger.journal
        search.scorer.dear.book = ScoreCache(journal, "verifier-dear", search.scorer.dear.names)
        for _ in METHODS["random"].run(search):
            pass
        judge_finalists(search)
        search.close()
        return search, cheap.pictures, dear.pictures

    first, *asked = searched()
    again, *nothing = searched()
    assert asked[0] == 8 and asked[1] >= 4 and nothing == [0, 0]
    assert [c.index for c, _ in again.ranked] == [c.index for c, _ in first.ranked]
    assert (again.scorer.scored, again.scorer.dear.scored) == (first.scorer.scored, first.scorer.dear.scored)


class Undecided(Quadratic):
    """Grades all alike, and of two pictures prefers one that it draws by lot."""

    finalists, near = 4, 0.5

    def __init__(self, lots):
        super().__init__()
        self.lots, self.compared = random.Random(lots), 0

    def values(self, images):
        return super().values(images) * 0

    def compare(self, first, second):
        self.compared += 1
        return self.lots.random()


def test_finalists_are_compared_once(tmp_path):
    """A comparison may be paid for, and a second answer be another."""

    def searched(images, lots):
        search = prepare(tmp_path, images, verifier := Undecided(lots))
        for _ in METHODS["random"].run(search):
            pass
        compare_finalists(search, lambda error: False)
        search.close()
        return search, verifier.compared

    first, asked = searched(6, 1)
    again, nothing = searched(6, 2)
    assert (asked, nothing) == (12, 0) and again.finals == first.finals and said(again) == said(first)
    assert searched(8, 3)[1] == 0  # the first of equals are still the finalists


class Moody(Quadratic):
    """Makes up once by how much it scores all higher."""

    def __init__(self, mood):
        super().__init__()
        self.mood, self.by = mood, None

    def settle(self, settled):
        self.by = settled(lambda: [self.mood])

    def values(self, images):
        return super().values(images) + self.by[0]


@pytest.mark.parametrize("skip_errors", [False, True])
def test_what_a_verifier_made_up_once_stays(tmp_path, skip_errors):
    run(METHODS["random"], 6, tmp_path, Moody(100.0), skip_errors=skip_errors)
    more = run(METHODS["random"], 8, tmp_path, later := Moody(-100.0), skip_errors=skip_errors)
    assert later.by == [100.0] and later.pictures == 2
    assert said(more) == said(plain(METHODS["random"], 8, Moody(100.0)))
    other = run(METHODS["random"], 8, tmp_path, Moody(0.0), by="another verifier", skip_errors=skip_errors)
    assert said(other) == said(plain(METHODS["random"], 8, Moody(0.0)))


def test_an_ensemble_whose_scale_the_first_set_scores_the_same(tmp_path):
    verifier = Ensemble((Quadratic(name="a"), LowFrequency(name="b")), mode="calibrated sum", calibrate_on=4)
    want = plain(METHODS["zero-order"], 12, verifier)
    for call in (50, 130, 10**6):
        search = prepare(tmp_path, 12, verifier, on_call=killed_at(call))
        try:
            go(search, METHODS["zero-order"])
        except Killed:
            continue
        assert said(search) == said(want) and search.budget.recalled > 0


class Gaps(Quadratic):
    """Scores runs by their guidance gaps."""

    trusts_previews = True

    def score_runs(self, gaps):
        return analytic.torch.tensor([math.fsum(run) for run in gaps])


class Kept(Quadratic):
    """Likes what differs from what was promised at a level."""

    needs_prediction = 0.5

    def score_pairs(self, images, predictions):
        return (images - predictions).square().sum((1, 2, 3))


@pytest.mark.parametrize(("verifier", "name"), [(Gaps, "halving"), (Gaps, "chain"), (Gaps, "branching"), (Kept, "random"),
                                                (Kept, "chain"), (Kept, "zero-order")])  # fmt: skip
def test_what_judges_need_of_runs_is_kept(tmp_path, verifier, name):
    """The next verifier needs what the first did, and has no scores."""
    want = plain(METHODS[name], IMAGES, verifier(), stochastic=True)
    run(METHODS[name], IMAGES, tmp_path, stochastic=True)  # notes nothing
    for call in (100, 10**6):
        search = prepare(tmp_path, IMAGES, verifier(), by="a", stochastic=True, on_call=killed_at(call))
        try:
            go(search, METHODS[name])
        except Killed:
            continue
    assert said(search) == said(want)
    assert said(run(METHODS[name], IMAGES, tmp_path, verifier(), by="b", stochastic=True)) == said(want)
    assert made(run(METHODS[name], IMAGES, tmp_path, verifier(), by="b", stochastic=True)) == 0


def test_failures_that_were_passed_over_are_asked_again_where_there_is_a_picture(tmp_path):
    class Failing(Quadratic):
        fails = True

        def values(self, images):
            if self.fails:
                raise RuntimeError("no network")
            return super().values(images)

    broken = Failing()
    assert len(run(METHODS["random"], 4, tmp_path, broken, skip_errors=True).scorer.problems) == 4
    broken.fails = False
    again = run(METHODS["random"], 4, tmp_path, broken, skip_errors=True)
    assert said(again) == said(plain(METHODS["random"], 4)) and made(again) == 0


@pytest.mark.parametrize("session", [
    {"looks_halfway": False, "why_alone": ("a patch",)}, {"fixed_steps": False, "calls": lambda seed: 10 + seed % 17},
    {"heun": True},
], ids=["alone", "adaptive", "heun"])  # fmt: skip
@pytest.mark.parametrize("name", ["random", "random with drafts", "zero-order", "auto"])
def test_other_kinds_of_runs(tmp_path, session, name):
    want = plain(METHODS[name], IMAGES, **session)
    for call in (70, 150, 10**6):
        search = prepare(tmp_path, IMAGES, on_call=killed_at(call), **session)
        try:
            go(search, METHODS[name])
        except Killed:
            continue
    assert said(search) == said(want)
    assert said(run(METHODS[name], IMAGES, tmp_path, **session)) == said(want)


def test_runs_that_go_alone_are_written_down_one_by_one(tmp_path):
    session = {"looks_halfway": False, "why_alone": ("a patch",)}
    with pytest.raises(Killed):
        run(METHODS["random"], 12, tmp_path, on_call=killed_at(91), **session)
    assert run(METHODS["random"], 12, tmp_path, **session).budget.recalled == 80


@pytest.mark.parametrize("name", ["random", "halving", "path", "chain"])
def test_a_smaller_budget_is_kept(tmp_path, name):
    run(METHODS[name], 16, tmp_path)
    for images in (1, 3, 7):
        got = run(METHODS[name], images, tmp_path)
        assert said(got) == said(plain(METHODS[name], images)) and got.budget.nfe <= images * 20


def test_time_that_recalling_takes_is_not_what_a_model_call_takes(tmp_path):
    budget = Budget(100, StopRules(max_seconds=100.0), run_cost=20, clock=(clock := Clock()))
    budget.recall(1000)
    assert budget.calls_in_time == math.inf
    clock.now = 10.0
    budget.count(20)
    with budget.redo():
        budget.count(20)
    assert (budget.nfe, budget.recalled, budget.redone) == (1020, 1000, 20)
    assert budget.calls_in_time == 90.0 * 40 / 10


def test_a_halted_search_makes_no_call_again():
    budget = Budget(4, run_cost=20)
    budget.nfe = 80
    with budget.redo():
        assert budget.allows(1) and not budget.refused
        budget.halted = True
        assert not budget.allows(1) and budget.refused
