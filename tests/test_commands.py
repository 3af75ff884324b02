"""What a user commanded belongs to the journal: a search that goes on from it obeys the same at the same points."""

from __future__ import annotations

import pytest
from analytic import SEED, AnalyticSession
from journaling import METHODS, Killed, go, killed_at, made, prepare, said

from noise_search.search.core.control import FINISHED
from noise_search.search.core.user_requests import UserRequests
from noise_search.search.methods.draft_search import DraftSearch
from noise_search.search.methods.halving import HalvingSearch
from noise_search.search.methods.random_search import RandomSearch

STEPS, IMAGES = AnalyticSession.steps, 12
COMMANDS = {
    "more": [lambda controls: controls.favor(2)],
    "discard": [lambda controls: controls.discard(1)],
    "finish": [UserRequests.finish],
    "discard, more, more, finish": [
        lambda controls: (controls.discard(3), controls.favor(2)), lambda controls: None, lambda controls: controls.favor(1),
        *[lambda controls: None] * STEPS, UserRequests.finish,
    ],
}  # fmt: skip


def commanded(folder, method, commands, after, images=IMAGES):
    """Run a search whose user commands something at each model call after so many."""
    search, waiting = prepare(folder, images), list(commands)

    def on_call():
        if search.budget.nfe >= after and waiting:
            waiting.pop(0)(search.user_requests)

    search.session.on_call = on_call
    return go(search, method)


@pytest.mark.parametrize("after", [5, STEPS + 1, 4 * STEPS + 3])
@pytest.mark.parametrize("commands", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize(
    "name",
    ["random", "zero-order with drafts", "halving", "draft search", "chain", "FK, renoised", "branching, renoised", "auto"],
)
def test_a_second_search_repeats_what_was_commanded_without_a_model_call(tmp_path, name, commands, after):
    first = commanded(tmp_path, METHODS[name], commands, after)
    again = go(prepare(tmp_path, IMAGES), METHODS[name])
    assert made(again) == 0
    assert told(again) == told(first)


def told(search):
    """What a search tells, but for how many scores were asked for, and for what was asked of no candidate."""
    stopped, notes, problems = said(search)["said"]
    return {**said(search), "scored": 0, "said": (stopped, [n for n in notes if "which there is not" not in n], problems)}


def test_a_larger_budget_goes_on_from_what_was_steered(tmp_path):
    first = commanded(tmp_path, RandomSearch(), COMMANDS["more"], 4 * STEPS + 3)
    more = go(prepare(tmp_path, IMAGES + 4), RandomSearch())
    assert made(more) == 4 * STEPS
    assert [c.recipe for c in more.candidates[: len(first.candidates)]] == [c.recipe for c in first.candidates]
    assert {c.parent for c in more.candidates[len(first.candidates) :]} <= {2, *range(8, 99)}


def test_a_search_that_was_ended_goes_on_with_a_larger_budget_only(tmp_path):
    first = commanded(tmp_path, RandomSearch(), COMMANDS["finish"], 4 * STEPS + 3)
    again, more = (go(prepare(tmp_path, images), RandomSearch()) for images in (IMAGES, IMAGES + 4))
    assert (first.stopped, again.stopped, made(again)) == (FINISHED, FINISHED, 0)
    assert more.stopped != FINISHED and more.budget.nfe == (IMAGES + 4) * STEPS


def test_another_method_and_another_seed_are_other_searches(tmp_path):
    commanded(tmp_path, RandomSearch(), COMMANDS["finish"], 4 * STEPS + 3)
    for method, seed in ((HalvingSearch(), SEED), (RandomSearch(), SEED + 1)):
        search = go(prepare(tmp_path, IMAGES, seed=seed), method)
        assert search.stopped != FINISHED


@pytest.mark.parametrize("method", [RandomSearch(), DraftSearch(), HalvingSearch()], ids=lambda method: method.name)
def test_a_kill_after_a_command_loses_the_calls_under_way_only(tmp_path, method):
    whole = commanded(tmp_path / "whole", method, COMMANDS["more"], 4 * STEPS + 3)
    search = prepare(tmp_path / "killed", IMAGES)
    waiting, kill = list(COMMANDS["more"]), killed_at(9 * STEPS)

    def on_call():
        kill()
        if search.budget.nfe >= 4 * STEPS + 3 and waiting:
            waiting.pop(0)(search.user_requests)

    search.session.on_call = on_call
    with pytest.raises(Killed):
        go(search, method)
    again = go(prepare(tmp_path / "killed", IMAGES), method)
    assert told(again) == told(whole)
    assert again.budget.recalled > 4 * STEPS


def test_what_is_commanded_while_it_is_repeated_comes_in_the_place_of_what_followed(tmp_path):
    commanded(tmp_path, RandomSearch(), COMMANDS["more"], 4 * STEPS + 3)
    other = prepare(tmp_path, IMAGES)
    other.user_requests.finish()
    go(other, RandomSearch())
    assert other.stopped == FINISHED and not any(note.startswith("you asked for more") for note in other.notes)
