"""What the user asks of a running search: to end, to wait, to drop a candidate, to go on around one."""

from __future__ import annotations

import math
import threading

import pytest
from analytic import AnalyticSession, Clock, Listed, Quadratic, best, prepare, run, said, statuses, winner

from noise_search.search.core.control import FINISHED
from noise_search.search.core.user_requests import UserRequests
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
from noise_search.search.methods.refinement import RefinementSearch
from noise_search.search.methods.spectral import SpectralSearch
from noise_search.search.methods.trust_region import TrustRegionSearch
from noise_search.search.methods.zero_order import ZeroOrderSearch
from noise_search.search.noise.recipe import Recipe
from noise_search.search.run import run_search

STEPS = AnalyticSession.steps
METHODS = {
    "random": RandomSearch(), "random drafts": RandomSearch(draft_steps=5), "zero order": ZeroOrderSearch(),
    "halving": HalvingSearch(), "draft": DraftSearch(), "default": Chain(DraftSearch(), RefinementSearch(), 0.7),
    "path": PathSearch(), "fk": FKSteering(renoise=1), "evolution": EvolutionSearch(), "branching": BranchingSearch(renoise=1),
    "spectral": SpectralSearch(), "trust region": TrustRegionSearch(), "auto": AutoSearch(),
}  # fmt: skip
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


def ask_at(search, calls, *asks):
    """Ask something of a search when so many model calls were made, and `asks` in a row at every further one."""
    waiting = list(asks)

    def on_call():
        if search.budget.nfe >= calls and waiting:
            waiting.pop(0)(search.user_requests)

    search.session.on_call = on_call


def drive(search, method):
    for _ in run_search(search, method):
        pass
    search.close()
    assert all(run.closed or run.finished for run in search.session.runs)
    assert search.budget.nfe == sum(run.nfe for run in search.session.runs) == sum(c.nfe for c in search.candidates)
    return search


@every_method
def test_left_alone_a_method_runs_as_without_a_helm(method):
    assert said(drive(prepare(12), method)) == said(run(method, 12))


@every_method
@pytest.mark.parametrize("after", [1, 7, STEPS, STEPS + 1, 3 * STEPS + 5, 8 * STEPS])
def test_finish_ends_within_one_call_and_keeps_the_best(method, after):
    search, made = prepare(12), []

    def finish(controls):
        made[:] = [run.nfe for run in search.session.runs]
        controls.finish()

    ask_at(search, after, finish)
    drive(search, method)
    assert search.stopped == FINISHED
    own = {id(run) for run in search.session.runs[:1]}  # candidate 0's is the first
    before = zip(search.session.runs, [*made, *[0] * 99], strict=False)
    more = [run for run, nfe in before if run.nfe > nfe and id(run) not in own]
    leaders = [c for c in search.candidates if c.status == "finished" and any("draft_steps" in look for look in c.looks)]
    assert len(more) <= (1 if leaders else 0)  # the best draft, in full
    assert all(run.nfe == STEPS and run.finished for run in more)
    assert search.candidates[0].status == "finished"
    assert math.isfinite(best(search))


def test_finish_before_the_first_picture_renders_candidate_0_alone():
    search = prepare(12)
    ask_at(search, 3, UserRequests.finish)
    drive(search, RandomSearch())
    assert [c.nfe for c in search.candidates] == [STEPS, 1, 1, 0, 0, 0, 0, 0, *[0] * (len(search.candidates) - 8)]
    assert statuses(search).count("finished") == 1


def test_finish_while_drafting_renders_the_leading_draft():
    search = prepare(20)
    ask_at(search, STEPS + 40, UserRequests.finish)
    drive(search, DraftSearch())
    drafts = [(c.looks[-1]["score"], c.index) for c in search.candidates if c.looks]
    leader = search.candidates[max(drafts)[1]]
    assert leader.status == "finished"
    assert search.budget.nfe == STEPS + 40 + (STEPS if leader.index else 0)


@every_method
def test_more_like_this_spends_the_rest_around_that_candidate(method):
    search = prepare(16)
    wanted = []

    def favor(controls):
        wanted.append(next(c.index for c in search.candidates[1:] if c.index in search.running or c.status != "waiting"))
        controls.favor(wanted[0])

    ask_at(search, 4 * STEPS + 3, favor)
    drive(search, method)
    asked = f"you asked for more like candidate {wanted[0]}: zero-order search went on around it"
    assert asked in search.notes
    at = next(told.index for told in search.rounds if told.nfe > 4 * STEPS + 3)
    before = {i for told in search.rounds[:at] for i in told.candidates}
    before.add(0)  # it is rendered whatever is asked
    late = [search.candidates[i] for told in search.rounds[at:] for i in told.candidates if i not in before]
    around = search.candidates[late[0].index]
    assert around.recipe.start == search.candidates[wanted[0]].recipe.start
    assert around.index == wanted[0] or around.parent == wanted[0]
    assert search.stopped in ("", "the budget is spent", "the rest of the budget does not pay for another run")
    assert search.budget.nfe > 14 * STEPS  # nothing but runs that were given up


def test_more_like_this_keeps_the_settings_of_zero_order_search():
    search = prepare(16)
    ask_at(search, 4 * STEPS + 3, lambda controls: controls.favor(2))
    drive(search, Chain(ZeroOrderSearch(neighbors=3, cosine=0.8), RandomSearch()))
    moves = [c.recipe.moves[-1].amount for c in search.candidates if c.parent == 2]
    assert len(moves) >= 3
    assert set(moves) == {0.8}


def test_a_discarded_candidate_ends_and_never_wins():
    plain = run(RandomSearch(), 12)
    lost = winner(plain)
    search = prepare(12)
    ask_at(search, 12 * STEPS - 5, lambda controls: controls.discard(lost))
    drive(search, RandomSearch())
    assert winner(search) != lost
    ranked = [c.index for c, _ in plain.ranked]
    if search.candidates[lost].status == "finished":  # it was there already
        assert [c.index for c, _ in search.ranked] == [i for i in ranked if i != lost] + [lost]
    assert math.isnan(search.candidates[lost].score)
    assert search.candidates[lost].discarded


def test_a_discarded_run_makes_no_further_call():
    search = prepare(8)
    ask_at(search, 10, lambda controls: controls.discard(3))
    drive(search, RandomSearch())
    assert search.candidates[3].status == "discarded"
    assert search.candidates[3].nfe <= 2
    assert search.budget.nfe == 7 * STEPS + search.candidates[3].nfe
    assert search.ranked[-1][0].index != 3


def test_candidate_0_is_rendered_although_discarded():
    search = prepare(4)
    ask_at(search, 1, lambda controls: controls.discard(0))
    drive(search, RandomSearch())
    assert search.candidates[0].status == "finished"
    assert winner(search) != 0
    assert search.ranked[-1][0].index == 0


def test_what_is_asked_of_no_candidate_is_said():
    search = prepare(4)
    ask_at(search, 30, lambda controls: controls.favor(99), lambda controls: controls.discard(-1))
    drive(search, RandomSearch())
    assert search.notes == [
        "you asked for 'more' with candidate 99, which there is not",
        "you asked for 'discard' with candidate -1, which there is not",
    ]  # fmt: skip
    assert search.budget.nfe == 4 * STEPS


def test_a_pause_waits_and_its_time_does_not_count():
    search = prepare(4)
    told = []
    search.observer.changed = lambda search: told.append(search.user_requests.paused)

    def pause(controls):
        controls.pause()
        threading.Timer(0.2, controls.resume).start()

    ask_at(search, 5, pause)
    calls = []
    search.session.on_call, inner = (lambda: (inner(), calls.append(search.user_requests.paused))), search.session.on_call
    drive(search, RandomSearch())
    assert 0.15 < search.budget.waited < 20
    assert True in told
    assert calls.count(True) == 1  # the call it was asked in, none after
    assert said(search)["candidates"] == said(run(RandomSearch(), 4))["candidates"]


def test_a_paused_search_can_be_cancelled_and_told():
    class Cancel(BaseException):
        pass

    def cancel():
        raise Cancel

    controls = UserRequests(cancel)
    controls.pause()
    with pytest.raises(Cancel):
        controls.wait()
    controls.finish()  # what is asked of a paused search is done; it waits again afterwards
    assert controls.wait() == 0.0
    assert controls.taken() == [("finish", None)]
    with pytest.raises(Cancel):
        controls.wait()


def test_seconds_leave_out_what_was_waited():
    clock = Clock()
    search = prepare(4, clock=clock)
    clock.now, search.budget.waited = 10.0, 4.0
    assert search.budget.seconds == 6.0


def test_choosing_a_pruned_candidate_renders_it_beyond_the_budget():
    search = drive(prepare(8), HalvingSearch())
    pruned = next(c for c in search.candidates if c.status == "pruned")
    spent, before = search.budget.nfe, pruned.nfe
    search.choose(pruned)
    assert pruned.status == "finished"
    assert search.budget.nfe == spent + STEPS
    assert pruned.nfe == before + STEPS
    alone = prepare(1, Quadratic())
    alone.candidates[0].recipe = Recipe(pruned.recipe.start, pruned.recipe.seed)
    drive(alone, RandomSearch())
    assert pruned.score == pytest.approx(alone.candidates[0].score, rel=1e-6)


def asking_when_scored(search, call, ask):
    """Have the user ask something while the verifier looks for the `call`-th time; return the search."""
    inner, calls = search.scorer.verifier.score, []

    def score(images, latents=None):
        calls.append(len(images))
        if len(calls) == call:
            ask(search)
        return inner(images, latents)

    search.scorer.verifier.score = score
    return search


@pytest.mark.parametrize("look", [2, 3])
def test_a_run_that_waits_half_way_is_no_picture_when_it_is_discarded(look):
    def ask(search):
        for index in search.running - {0}:
            search.user_requests.discard(index)

    search = drive(asking_when_scored(prepare(8), look, ask), HalvingSearch())
    dropped = [c for c in search.candidates if c.discarded]
    assert dropped and all(c.status in ("discarded", "pruned") and c.scores == {} for c in dropped)
    assert all(c.nfe == STEPS for c, _ in search.ranked)


@pytest.mark.parametrize("method", [HalvingSearch(), PathSearch(), FKSteering(renoise=1), BacktrackingSearch()])
def test_what_an_image_costs_is_not_changed_by_discarding_candidate_0(method):
    search = prepare(8)
    ask_at(search, 2, lambda controls: controls.discard(0))
    drive(search, method)
    assert search.budget.run_cost == STEPS
    assert 7 * STEPS < search.budget.nfe <= 8 * STEPS
    assert winner(search) != 0


@pytest.mark.parametrize("asked", [1, STEPS + 3, STEPS + 9, 2 * STEPS + 5, 3 * STEPS + 2, 4 * STEPS])
def test_backtracking_goes_on_without_what_was_discarded(asked):
    search = prepare(8)
    ask_at(search, asked, lambda controls: [controls.discard(index) for index in range(1, len(search.candidates))])
    drive(search, BacktrackingSearch())
    assert search.budget.nfe > 6 * STEPS
    assert not search.ranked[0][0].discarded


@every_method
@pytest.mark.parametrize("after", [1, STEPS + 1, STEPS + 60])
@pytest.mark.parametrize("again", [UserRequests.finish, lambda controls: controls.favor(0)], ids=["finish", "more"])
def test_what_is_asked_after_finish_changes_nothing(method, after, again):
    once, more = prepare(20), prepare(20)
    ask_at(once, after, UserRequests.finish)
    ask_at(more, after, UserRequests.finish, lambda controls: None, again, again)
    for search in (once, more):
        drive(search, method)
    assert said(more) == said(once)
    assert more.stopped == FINISHED


def test_finish_after_the_drafts_renders_no_other():
    method = Chain(DraftSearch(), RefinementSearch(), 0.5)
    search = prepare(20)
    search.observer.doing = lambda words: search.user_requests.finish() if words.startswith("refinement") else None
    drive(search, method)
    drafts = [(c.looks[-1]["score"], c.status) for c in search.candidates if c.looks]
    assert max(drafts)[1] == "finished" and ("draft" in dict(drafts).values())
    finals = round(10 / 5)
    assert search.budget.nfe <= 10 * STEPS and statuses(search).count("finished") == 1 + finals


def test_finish_while_the_best_draft_is_rendered_ends_with_it():
    search = prepare(20)
    search.observer.doing = lambda words: search.user_requests.finish() if "in full" in words else None
    drive(search, DraftSearch())
    drafts = [(c.looks[-1]["score"], -c.index) for c in search.candidates if c.looks]
    assert search.candidates[-max(drafts)[1]].status == "finished"
    assert search.budget.nfe <= 20 * STEPS


def test_discard_is_heard_while_the_last_pictures_are_scored():
    search = prepare(8, Listed(numbers=range(8)))
    drive(asking_when_scored(search, 1, lambda search: search.user_requests.discard(7)), RandomSearch())
    assert winner(search) == 6 and search.candidates[7].discarded


def test_finish_is_heard_while_the_last_pictures_are_scored():
    search = prepare(4)
    search.observer.doing = lambda words: search.user_requests.finish() if "scoring" in words else None
    drive(search, RandomSearch())
    assert search.stopped == FINISHED and not search.user_requests.finishing
