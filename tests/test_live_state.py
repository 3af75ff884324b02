"""What a page is told of a search: the states, what changes in them, and when it is sent."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from analytic import AnalyticSession, Constant, Listed, LowFrequency, Quadratic, prepare, statuses

from noise_search.search.base.candidate import Candidate
from noise_search.search.base.pool import Pool
from noise_search.search.core.control import FINISHED
from noise_search.search.methods.chain import Chain
from noise_search.search.methods.draft_search import DraftSearch
from noise_search.search.methods.evolution import EvolutionSearch
from noise_search.search.methods.halving import HalvingSearch
from noise_search.search.methods.path_search import PathSearch
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.methods.refinement import RefinementSearch
from noise_search.search.methods.zero_order import ZeroOrderSearch
from noise_search.search.noise.recipe import Recipe
from noise_search.search.reporting.live_feed import CANCELLED, ENDED, EVERY, FAILED, PICTURES, LiveFeed
from noise_search.search.reporting.snapshot import (
    BEST,
    EVENT_BYTES,
    NEWEST,
    OUTPUT_BYTES,
    POINTS,
    change,
    fitted,
    kept,
    merged,
    thinned,
)
from noise_search.search.run import run_search
from noise_search.verifiers.composite.ensemble import RANK_MEAN, WEIGHTED_SUM, Ensemble

STEPS = AnalyticSession.steps
ABOUT = {"id": "1d", "node": "1:2", "workflow": "w", "prompt_id": "p", "row": 0, "rows": 1}
METHODS = {
    "random": RandomSearch(), "zero order": ZeroOrderSearch(), "halving": HalvingSearch(), "evolution": EvolutionSearch(),
    "path": PathSearch(), "drafts": DraftSearch(), "default": Chain(DraftSearch(), RefinementSearch(), 0.7),
}  # fmt: skip


@dataclass
class Names:
    """An album of names."""

    place: str = "f00d"
    names: set[str] = field(default_factory=set)
    ended: bool = False
    added: list[str] = field(default_factory=list)
    asked: list[tuple[int, dict[str, Any]]] = field(default_factory=list)

    def name_of(self, candidate: Candidate, what: dict[str, Any]) -> str:
        self.asked.append((candidate.index, what))
        return f"{candidate.index}{''.join(what)}"

    def add(self, name: str, pictures: Any) -> None:
        assert pictures.shape[1:] == (4, 4, 3)
        self.names.add(name)
        self.added.append(name)

    def has(self, name: str) -> bool:
        return name in self.names

    def keep(self, names: set[str]) -> None:
        self.names &= names

    def end(self) -> None:
        self.ended = True


class Wire:
    """Time that passes when told, and what was sent at which time."""

    def __init__(self) -> None:
        self.now, self.events, self.times = 0.0, [], []
        self._waiting: list[tuple[float, Any]] = []

    def send(self, event: dict[str, Any]) -> None:
        self.events.append(json.loads(json.dumps(event, allow_nan=False)))
        self.times.append(self.now)

    def later(self, seconds: float, action: Any) -> None:
        assert seconds >= 0
        self._waiting.append((self.now + seconds, action))

    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while due := [one for one in self._waiting if one[0] <= until]:
            first = min(due, key=lambda one: one[0])
            self._waiting.remove(first)
            self.now = max(self.now, first[0])
            first[1]()
        self.now = until


def followed(search: Any, wire: Wire, pace: float = 0.05) -> LiveFeed:
    """Have a search, whose clock each model call moves, tell its states."""
    feed = LiveFeed(ABOUT, Names(), wire.send, wire.later, lambda: wire.now)
    search.observer, before = feed, search.session.on_call

    def on_call() -> None:
        search.budget.clock.now += pace
        wire.wait(pace)
        feed.touch()
        before()

    search.session.on_call = on_call
    return feed


def drive(search: Any, method: Any, wire: Wire, **options: Any) -> LiveFeed:
    feed = followed(search, wire, **options)
    for _ in run_search(search, method):
        pass
    search.close()
    feed.end(ENDED, stopped=search.stopped)
    wire.wait(1.0)
    return feed


def listed(*numbers: float) -> Listed:
    return Listed("listed", numbers=numbers)


def row(i: int, score: float | None, **more: Any) -> dict[str, Any]:
    scores = [] if score is None else [score]
    known = {"i": i, "parent": None, "state": "finished", "score": score, "scores": scores, "calls": STEPS, "thumb": str(i)}
    return {**known, "look": None, **more}


def states(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a page knows after each event."""
    out: list[dict[str, Any]] = []
    for event in events:
        out.append(merged(out[-1] if out else {}, event))
    return out


def test_the_last_state_of_a_random_search():
    wire = Wire()
    assert drive(prepare(4, listed(0.25, 0.5, 0.125, 0.75), wave=2), RandomSearch(), wire).album.ended
    assert states(wire.events)[-1] == {
        "version": 1, "rev": len(wire.events), **ABOUT, "place": "f00d", "phase": "ended",
        "words": "done: best of 4 after 80 model calls", "method": "random search", "verifier": "listed", "parts": ["listed"],
        "calls": 80, "cap": 80, "restored": 0, "seconds": 4.0, "left": None, "stopped": "", "best": 3, "chosen": None,
        "baseline": 0.25, "budget": 4, "curve": [[20, 0.25], [40, 0.5], [80, 0.75]], "question": None,
        "candidates": [row(0, 0.25), row(1, 0.5), row(2, 0.125), row(3, 0.75)],
    }  # fmt: skip


def test_states_on_the_way():
    wire = Wire()
    drive(prepare(4, listed(0.25, 0.5, 0.125, 0.75), wave=2), RandomSearch(), wire, pace=0.25)
    known = states(wire.events)
    assert [state["rev"] for state in known] == list(range(1, len(known) + 1))
    at = next(state for state in known if state["calls"] == 60)
    new = {"scores": [], "thumb": None}
    assert at["candidates"] == [
        row(0, 0.25), row(1, 0.5), row(2, None, state="running", calls=0, **new), row(3, None, state="running", calls=0, **new),
    ]  # fmt: skip
    assert (at["phase"], at["words"]) == ("running", "random search: 2 new noises")
    assert (at["best"], at["baseline"], at["curve"]) == (1, 0.25, [[20, 0.25], [40, 0.5]])
    assert (at["seconds"], at["left"], at["cap"]) == (15.0, 5.0, 80)  # 60 calls in 15 s, 20 to go
    assert (known[0]["best"], known[0]["baseline"], known[0]["calls"], known[0]["left"]) == (None, None, 1, 19.8)


def test_parents_of_zero_order_search():
    wire, search = Wire(), prepare(13)
    drive(search, ZeroOrderSearch(), wire)
    rows = states(wire.events)[-1]["candidates"]
    assert [r["parent"] for r in rows] == [c.parent for c in search.candidates]
    assert {r["parent"] for r in rows[1:5]} == {0}
    said = [event["words"] for event in wire.events]
    assert "zero-order search: 4 neighbors of your own seed" in said
    assert f"zero-order search: 4 neighbors of candidate {rows[5]['parent']}" in said


def test_looks_and_pruned_candidates_of_halving():
    wire, search = Wire(), prepare(8)
    drive(search, HalvingSearch(), wire)
    rows = states(wire.events)[-1]["candidates"]
    assert [r["state"] for r in rows] == statuses(search)
    pruned = next(r for r in rows if r["state"] == "pruned")
    look = search.candidates[pruned["i"]].looks[-1]
    assert pruned["score"] is None
    assert pruned["look"] == pytest.approx(look["score"], rel=1e-6)
    assert pruned["scores"] == [pytest.approx(look["scores"]["part"], rel=1e-6)]
    assert pruned["thumb"] == f"{pruned['i']}sigma"
    said = [event["words"] for event in wire.events]
    assert any(words.startswith("halving search: looking half-way at ") for words in said)
    assert any("that are left, to the end" in words for words in said)


def test_drafts():
    wire, search = Wire(), prepare(8)
    drive(search, DraftSearch(), wire)
    rows = states(wire.events)[-1]["candidates"]
    drafts = [r for r in rows if r["state"] == "draft"]
    assert drafts and all(r["score"] is None and r["look"] is not None for r in drafts)
    assert {r["thumb"] for r in drafts} == {f"{r['i']}draft_steps" for r in drafts}
    assert all(r["thumb"] == str(r["i"]) for r in rows if r["state"] == "finished")
    said = " | ".join(event["words"] for event in wire.events)
    assert "draft search: drafting " in said and " in full" in said


def test_a_chain_says_which_part_runs():
    wire, search = Wire(), prepare(16)
    drive(search, METHODS["default"], wire)
    said = [event["words"] for event in wire.events]
    assert any(words.startswith("draft search: ") for words in said)
    assert any(words.startswith("refinement search: ") and " of candidate " in words for words in said)
    assert {event["method"] for event in wire.events} == {"draft search, then refinement search"}
    assert {event["budget"] for event in wire.events} == {16}  # though the first part has a share of it
    assert {event["cap"] for event in wire.events} == {16 * STEPS}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("pace", [0.01, 0.3])
def test_events_add_up_and_come_five_times_a_second_at_most(method, pace):
    wire = Wire()
    parts = Ensemble((Quadratic("a"), LowFrequency("b")), mode=RANK_MEAN)
    feed = drive(prepare(24, parts), method, wire, pace=pace)
    assert all(later - earlier >= EVERY - 1e-9 for earlier, later in zip(wire.times, wire.times[1:], strict=False))
    assert states(wire.events)[-1] == {**feed.final, "rev": len(wire.events)} == feed.state
    assert feed.final["phase"] == "ended" and feed.search is None
    assert [r["i"] for r in feed.final["candidates"]] == list(range(len(feed.final["candidates"])))


def test_what_does_not_change_is_not_sent_again():
    wire = Wire()
    drive(prepare(4, listed(0.25, 0.5, 0.125, 0.75), wave=2), RandomSearch(), wire, pace=0.25)
    sent = [(r["i"], r["state"]) for event in wire.events for r in event["candidates"]]
    assert sent.count((0, "finished")) == sent.count((1, "finished")) == 1
    assert sum(len(event["curve"]) for event in wire.events) == 3
    assert all(event["dropped"] == [] for event in wire.events)


def test_the_last_state_before_a_silence_is_sent():
    wire, search = Wire(), prepare(4)
    feed = followed(search, wire)
    search.method = "m"
    feed.begin(search)
    wire.wait(0.0)
    feed.doing("one")
    feed.doing("two")
    assert [event["words"] for event in wire.events] == [""]
    wire.wait(10.0)  # a verifier thinks
    assert [event["words"] for event in wire.events] == ["", "two"]
    wire.wait(10.0)
    assert len(wire.events) == 2
    search.close()


def test_pausing_asking_and_going_on():
    wire, search = Wire(), prepare(4)
    feed = followed(search, wire)
    feed.begin(search)
    wire.wait(1.0)
    search.budget.clock.now = 2.0
    feed.touch()
    wire.wait(1.0)
    search.user_requests.pause()
    search.budget.clock.now = 7.0
    feed.touch()
    wire.wait(1.0)
    search.user_requests.resume()
    question = {"id": "9", "kind": "pick", "candidates": [0]}
    feed.question = lambda: question
    feed.touch()
    wire.wait(1.0)
    feed.question = lambda: None
    feed.touch()
    wire.wait(1.0)
    said = [(event["phase"], event["words"], event["seconds"], event["question"]) for event in wire.events[1:]]
    assert said == [
        ("running", "", 2.0, None), ("paused", "paused", 2.0, None), ("asking", "waiting for your choice", 2.0, question),
        ("running", "", 7.0, None),
    ]  # fmt: skip


@pytest.mark.parametrize(("phase", "words"), [(FAILED, "failed: the verifier is out of order"), (CANCELLED, "cancelled")])
def test_a_search_that_breaks_off(phase, words):
    wire, search = Wire(), prepare(8, listed(0.25, *[0.5] * 7), wave=1)
    feed = followed(search, wire)
    rounds = run_search(search, RandomSearch())
    next(rounds), next(rounds)
    feed.end(phase, words)
    wire.wait(1.0)
    last = states(wire.events)[-1]
    assert (last["phase"], last["words"], last["best"], last["left"]) == (phase, words, 1, None)
    assert feed.recipes["1"] == search.candidates[1].recipe
    search.close()


def test_a_search_that_never_began_tells_nothing():
    wire = Wire()
    feed = LiveFeed(ABOUT, Names(), wire.send, wire.later)
    feed.end(FAILED, "failed: no model")
    wire.wait(1.0)
    assert wire.events == [] and feed.final is None and feed.state == {}


def test_an_ended_search_says_why():
    wire, search = Wire(), prepare(8)
    feed = followed(search, wire)
    search.user_requests.finish()
    for _ in run_search(search, RandomSearch()):
        pass
    feed.end(ENDED, stopped=search.stopped, chosen=0)
    wire.wait(1.0)
    last = states(wire.events)[-1]
    assert last["stopped"] == FINISHED and last["words"] == f"done: best of 1 after 20 model calls ({FINISHED})"
    assert last["chosen"] == 0
    search.close()


def test_a_discarded_candidate_is_shown_as_such():
    wire, search = Wire(), prepare(4, listed(0.25, 0.5, 0.125, 0.75), wave=4)
    feed = followed(search, wire)
    for _ in run_search(search, RandomSearch()):
        pass
    search.user_requests.discard(3)
    search.checkpoint()
    feed.end(ENDED)
    assert [(r["state"], r["score"]) for r in feed.final["candidates"]][2:] == [("finished", 0.125), ("discarded", None)]
    assert feed.final["best"] == 1


def test_no_score_is_no_best_until_the_end():
    wire, search = Wire(), prepare(4, Constant("nothing", number=math.nan))
    feed = drive(search, RandomSearch(), wire)
    assert wire.events[-2]["best"] is None
    assert (feed.final["best"], feed.final["baseline"], feed.final["curve"]) == (0, None, [])
    assert {r["score"] for r in feed.final["candidates"]} == {None}


def test_time_left_goes_by_the_calls_of_this_run():
    wire, search = Wire(), prepare(10)
    feed = followed(search, wire)
    feed.begin(search)
    search.budget.nfe, search.budget.recalled, search.budget.run_cost = 150, 140, 20
    search.budget.clock.now = 5.0
    wire.wait(1.0)
    assert (wire.events[0]["calls"], wire.events[0]["restored"], wire.events[0]["left"]) == (150, 140, 25.0)
    search.budget.recalled = 150
    feed.touch()
    wire.wait(1.0)
    assert wire.events[1]["left"] is None


def test_a_question_that_is_asked_for_says_the_time_that_is_left_now():
    wire, search = Wire(), prepare(4)
    feed = followed(search, wire)
    assert feed.state == {}
    feed.begin(search)
    feed.question = lambda: {"candidates": [0], "seconds_left": 20.0 - wire.now}
    wire.wait(1.0)
    asked = wire.events[-1]["question"]["seconds_left"]
    wire.wait(10.0)  # nothing changes, so that there is no event
    assert feed.state["question"]["seconds_left"] == 9.0 < asked


def test_an_output_replaces_no_state_of_an_event():
    """It may be shortened, and comes before the last event or after it."""
    wire, search = Wire(), prepare(4)
    feed = followed(search, wire)
    for _ in run_search(search, RandomSearch()):
        pass
    search.close()
    wire.wait(1.0)
    feed.end(ENDED)
    assert feed.output["rev"] == wire.events[-1]["rev"]
    wire.wait(1.0)
    assert feed.output["rev"] == wire.events[-1]["rev"] and wire.events[-1]["phase"] == "ended"


def test_restored_candidates_find_their_pictures():
    wire, search = Wire(), prepare(3)
    feed = followed(search, wire)
    feed.album.names |= {"1"}
    feed.begin(search)
    for index in (1, 2):
        search.propose()
        search.candidates[index].status = "finished"
        search.evaluator.scored.append(search.candidates[index])
    feed.changed(search)
    wire.wait(1.0)
    found = [(r["thumb"], r.get("name")) for r in wire.events[-1]["candidates"]]
    assert found == [(None, None), ("1", None), (None, "2")]  # without a picture the recipe has a name too
    assert feed.recipes == {str(index): search.candidates[index].recipe for index in (1, 2)}
    feed.shown(search.candidates[:2], [search.session.decode(torch_zeros())] * 2, {})
    assert feed.album.added == ["0"]  # the other is there


def test_restored_looks_find_their_pictures_once_each():
    wire, search = Wire(), prepare(4)
    feed = followed(search, wire)
    feed.album.names |= {"1draft_steps", "2sigma"}
    feed.begin(search)
    draft, half, gone = (search.propose() for _ in range(3))
    for candidate, what in ((draft, {"draft_steps": 5}), (half, {"sigma": 0.5}), (gone, {"sigma": 0.5})):
        candidate.looks.append({**what, "scores": {"part": 0.25}, "score": 0.25})
        search.evaluator.scored.append(candidate)
    for _ in range(3):
        feed.changed(search)
    half.looks.append({"sigma": 0.125, "scores": {"part": 0.5}, "score": 0.5})
    draft.status = "finished"
    search.evaluator.scored += [draft, half]
    for _ in range(3):
        feed.changed(search)
    wire.wait(1.0)
    first, then = [(1, {"draft_steps": 5}), (2, {"sigma": 0.5}), (3, {"sigma": 0.5})], [(1, {}), (2, {"sigma": 0.125})]
    assert feed.album.asked == first + then
    found = [(r["thumb"], r.get("name"), r["look"]) for r in wire.events[-1]["candidates"][1:]]
    assert found == [("1draft_steps", None, 0.25), ("2sigma", None, 0.5), (None, None, 0.25)]
    assert feed.recipes == {"1draft_steps": draft.recipe, "1": draft.recipe, "2sigma": half.recipe}


def torch_zeros() -> Any:
    return torch.zeros(1, 48)


def many(count: int, parts: int = 1, best: int = 5) -> tuple[list[Candidate], Pool]:
    """Candidates that are finished, and the pool of their scores."""
    pool = Pool(lambda raw: raw[:, 0], [f"part {number}" for number in range(parts)])
    out = [Candidate(index, Recipe(index, index), status="finished", nfe=20) for index in range(count)]
    scores = [1e9 if c.index == best else -math.sin(c.index) - c.index / count for c in out]
    for candidate, standing in zip(out, pool.add(out, torch.tensor([scores] * parts).T), strict=True):
        candidate.standing = standing
    return out, pool


def test_the_best_and_the_newest_are_kept():
    candidates, pool = many(5000)
    rows = kept(candidates, pool, {0, 4000})
    order = [c.index for c in sorted(candidates, key=lambda c: -c.score) if c.index not in (0, 4000)]
    want = {0, 4000} | set(order[: BEST - 2]) | set(range(5000 - NEWEST, 5000))
    assert [c.index for c in rows] == sorted(want)
    few, pool = many(30)
    assert kept(few, pool, {0}) == few


def large(count: int, parts: int) -> tuple[Any, LiveFeed, Wire]:
    """A search that made so many candidates, scored by so many verifiers."""
    wire = Wire()
    leaves = [Constant(f"part {number}") for number in range(parts)]
    search = prepare(count, Ensemble(tuple(leaves), mode=WEIGHTED_SUM))
    feed = followed(search, wire)
    feed.begin(search)
    search.candidates[:], search.evaluator.finished = many(count, parts)
    search.evaluator.scored += search.candidates
    feed._thumbs.update((c.index, f"{c.index:032x}") for c in search.candidates)
    return search, feed, wire


@pytest.mark.parametrize(("count", "parts"), [(5000, 1), (100_000, 4), (400, 60)])
def test_events_and_outputs_stay_small(count, parts):
    search, feed, wire = large(count, parts)
    wire.wait(5.0)
    for part, name in enumerate(search.finished.names):  # all scores move
        search.finished.revise(part, {c.index: c.scores[name] - 1e-3 for c in search.candidates})
    feed.touch()
    wire.wait(20.0)
    assert len(wire.events) > 2
    assert max(len(json.dumps(event)) for event in wire.events) <= EVENT_BYTES < 32_000
    assert states(wire.events)[-1] == feed.state
    assert len(feed.state["candidates"]) <= BEST + NEWEST
    out = fitted([feed.state])
    assert len(json.dumps({"noise_search": out})) <= OUTPUT_BYTES + 100 < 200_000
    rows = {r["i"]: r for r in out[0]["candidates"]}
    assert rows[5] == next(r for r in feed.state["candidates"] if r["i"] == 5) and 0 in rows
    assert out[0]["best"] == feed.state["best"] == 5
    assert len(rows) == len(feed.state["candidates"]) or parts > 1


def test_without_pictures_recipes_have_names():
    search, feed, wire = large(700, 1)
    feed._thumbs.clear()
    feed.changed(search)
    wire.wait(20.0)
    assert max(len(json.dumps(event)) for event in wire.events) <= EVENT_BYTES
    feed.end(ENDED, "done")
    wire.wait(20.0)
    rows = states(wire.events)[-1]["candidates"]
    assert [(r["thumb"], r["name"]) for r in rows] == [(None, str(r["i"])) for r in rows]
    assert len(rows) < 700 and feed.recipes == {str(r["i"]): search.candidates[r["i"]].recipe for r in rows}


def test_outputs_of_many_rows_fit_too():
    _, feed, wire = large(400, 4)
    wire.wait(5.0)
    state = {**feed.state, "curve": [[n, n / 7] for n in range(POINTS)]}
    for rows in (2, 10, 100, 1000):
        out = fitted([{**state, "row": row, "rows": rows} for row in range(rows)])
        assert len(json.dumps(out)) <= OUTPUT_BYTES
        assert [one["row"] for one in out] == list(range(len(out)))
        assert all({0, 5} <= {r["i"] for r in one["candidates"]} and one["curve"][-1] == [299, 299 / 7] for one in out)
        assert len(out) == rows or rows == 1000
    assert fitted([state]) == [state]


def test_candidates_that_fall_behind_are_dropped():
    known = {"candidates": [row(0, 0.5), row(1, 0.25)], "curve": [[1, 0.25], [2, 0.5], [3, 0.5]]}
    now = {"candidates": [row(0, 0.5), row(2, 0.75)], "curve": [[1, 0.25], [2, 0.5], [4, 0.75]]}
    event, whole = change(known, now)
    assert whole and event == {"candidates": [row(2, 0.75)], "curve": [[4, 0.75]], "curve_from": 2, "dropped": [1]}
    assert merged(known, event) == now
    event, whole = change(known, {**now, "candidates": [row(2, 0.75), row(3, 0.875)]}, room=0)
    assert not whole and event["candidates"] == [row(2, 0.75)]  # one at least


@pytest.mark.parametrize("count", [0, 1, 2, 5, 299, 300, 301, 5000])
def test_thinned_points(count):
    points = list(range(count))
    out = thinned(points, 300)
    assert len(out) <= 300 and out[-1:] == points[-1:] and out[:1] == points[:1]
    assert out == sorted(set(out)) and (out == points or count > 300)


def test_pictures_are_bounded():
    search, feed, _ = large(900, 1)
    feed._thumbs.clear()
    picture = search.session.decode(torch_zeros())
    for candidate in search.candidates:
        feed.shown([candidate], [picture], {})
        assert len(feed.album.names) <= PICTURES
    assert {"0", "5", "899", "800"} <= feed.album.names == set(feed.recipes)
    feed.end(ENDED, "done")
    assert {r["thumb"] for r in feed.final["candidates"]} - {None} == feed.album.names
    assert len(feed.album.names) <= BEST + NEWEST
