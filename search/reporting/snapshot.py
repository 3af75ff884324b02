"""What a page is told of a search: one JSON object, and what changed in it since the last time.

Only plain attributes are read, each once, so that a state can be made in another thread than the search's.
"""

from __future__ import annotations

import heapq
import json
import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..base.candidate import Candidate, calls_of
from ..base.pool import Pool
from ..core.observer import SearchView

VERSION = 1
BEST, NEWEST = 200, 100  # candidates in a state
POINTS = 300  # of a curve, at most
NAME = 100  # letters of a verifier's name, at most
EVENT_BYTES = 30_000  # of an event, as JSON
OUTPUT_BYTES = 150_000  # of all states in a node's output, as JSON


@dataclass(frozen=True)
class Plan:
    """What a search set out to spend; a chain changes the budget on its way.

    Attributes:
        method: name of the whole method.
        images: whole images.
        steps: of a full run.
        max_calls, max_seconds: further limits; 0 for none.
    """

    method: str
    images: int
    steps: int
    max_calls: int
    max_seconds: float

    @staticmethod
    def of(search: SearchView) -> Plan:
        """Return the plan of a search that is about to begin."""
        budget = search.budget
        return Plan(search.method, budget.images, search.steps, budget.rules.max_model_calls, budget.rules.max_seconds)

    def cap(self, run_cost: int | None) -> int:
        """Return the most NFE; an estimate while candidate 0's cost is not known."""
        return min(self.images * (run_cost or self.steps), self.max_calls or self.images * (run_cost or self.steps))

    def left(self, search: SearchView, seconds: float) -> float | None:
        """Estimate the seconds to the end from the pace of the calls that this search made itself; None if it made none."""
        budget = search.budget
        made = budget.nfe - budget.recalled
        if made <= 0 or budget.halted:
            return None
        left = max(0, self.cap(budget.run_cost) - budget.nfe) * seconds / made
        return min(left, max(0.0, self.max_seconds - seconds)) if self.max_seconds else left


class Course:
    """Follows the rounds of one search: at which model call which candidate was scored."""

    def __init__(self) -> None:
        """Start before the first round."""
        self._calls, self._rounds, self._before = array("q"), 0, 0

    def curve(self, search: SearchView) -> list[list[Any]]:
        """Return (model calls, best score) wherever it rose, by the scores as they are now, and at the end."""
        new = search.rounds[self._rounds :]
        self._calls.extend(calls for calls, _ in calls_of(((told.candidates, told.nfe) for told in new), self._before))
        self._rounds += len(new)
        self._before = new[-1].nfe if new else self._before
        scores = search.finished.combined()[: len(self._calls)].nan_to_num(nan=-math.inf)  # in the order of the rounds
        highest = scores.cummax(0).values if len(scores) else scores
        rose = highest > torch.cat([torch.tensor([-math.inf]), highest[:-1]])[: len(highest)]
        points = [(self._calls[at], at) for at in rose.nonzero().flatten().tolist()]
        if points and points[-1][0] < self._before:
            points.append((self._before, points[-1][1]))
        return [[calls, _number(float(highest[at]))] for calls, at in thinned(points, POINTS)]


def snapshot(
    search: SearchView, plan: Plan, thumbs: Mapping[int, str], names: Mapping[int, str],
    course: Course, musts: Iterable[int] = (), best: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return the part of a state that the search itself knows.

    Args:
        search: at any moment.
        plan: what it set out to spend.
        thumbs: names of small pictures, by candidate.
        names: what the recipes of candidates without a small picture are found by.
        course: of this search.
        musts: candidates to tell of however bad they are.
        best: the winner, where that is known better than by the scores.
    """
    budget, candidates, parts = search.budget, list(search.candidates), search.scorer.names
    best = _best(search.finished) if best is None else best
    chosen = kept(candidates, search.finished, {0, *musts, *([] if best is None else [best])})
    running = search.running
    return {
        "method": plan.method,
        "verifier": search.scorer.name[:NAME],
        "parts": [part[:NAME] for part in parts],
        "calls": budget.nfe,
        "cap": plan.cap(budget.run_cost),
        "restored": budget.recalled,
        "best": best,
        "baseline": _number(search.baseline.score),
        "budget": plan.images,
        "curve": course.curve(search),
        "candidates": [_row(c, c.index in running, parts) | _found(c.index, thumbs, names) for c in chosen],
    }


def kept(candidates: Sequence[Candidate], finished: Pool, musts: set[int]) -> list[Candidate]:
    """Return the best and the newest candidates by index, those that must be told of among the best.

    The best are the finished ones with a score; if these are few, those with the best looks after them.
    """
    room = BEST - len(musts)
    best = [c.index for c, score in finished.best(BEST) if not math.isnan(score) and c.index not in musts][:room]
    if len(best) < room:
        others = ((value, -c.index) for c in candidates if (value := _seen(c, finished)) is not None and c.index not in musts)
        best += [-index for _, index in heapq.nlargest(room - len(best), others)]
    wanted = musts | set(best) | {c.index for c in candidates[-NEWEST:]}
    return [candidates[index] for index in sorted(wanted) if index < len(candidates)]


def change(known: Mapping[str, Any], now: Mapping[str, Any], room: int = EVENT_BYTES) -> tuple[dict[str, Any], bool]:
    """Return an event that turns one state into another, and whether it does so in full.

    Args:
        known: what the page has; {} for nothing.
        now: what it should have.
        room: bytes of JSON that the event may take; rows of candidates that do not fit stay for another.
    """
    rows = {row["i"]: row for row in known.get("candidates", ())}
    before, curve = known.get("curve", []), now["curve"]
    pairs = enumerate(zip(before, curve, strict=False))
    shared = next((at for at, (old, new) in pairs if old != new), min(len(before), len(curve)))
    dropped = sorted(rows.keys() - {row["i"] for row in now["candidates"]})
    event = {**now, "candidates": [], "curve": curve[shared:], "curve_from": shared, "dropped": dropped}
    changed = [row for row in now["candidates"] if rows.get(row["i"]) != row]
    room -= len(json.dumps(event))
    for row in changed:
        room -= len(json.dumps(row)) + 2
        if room < 0 and event["candidates"]:
            break
        event["candidates"].append(row)
    return event, len(event["candidates"]) == len(changed)


def merged(known: Mapping[str, Any], event: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a page knows after an event."""
    rows = {row["i"]: row for row in (*known.get("candidates", ()), *event["candidates"])}
    state = {key: value for key, value in event.items() if key not in ("curve_from", "dropped")}
    state["curve"] = [*known.get("curve", [])[: event["curve_from"]], *event["curve"]]
    state["candidates"] = [rows[index] for index in sorted(rows.keys() - set(event["dropped"]))]
    return state


def fitted(states: Sequence[dict[str, Any]], room: int = OUTPUT_BYTES) -> list[dict[str, Any]]:
    """Return states whose JSON fits in so many bytes: each gets an equal share, and its best candidates stay.

    Where even these are too much, since there are hundreds of states, the last ones are left out.
    """
    out: list[dict[str, Any]] = []
    for state in states:
        short, count = state, BEST + NEWEST
        while (size := len(json.dumps(short)) + 2) > room // (len(states) - len(out)) and count > 1:
            count //= 2
            short = _shortened(state, count)
        room -= size
        if room < 0:
            break
        out.append(short)
    return out


def _shortened(state: dict[str, Any], count: int) -> dict[str, Any]:
    musts = {0, state["best"], state["chosen"]}
    best = sorted(state["candidates"], key=lambda row: (row["i"] not in musts, *_below(row)))[: max(count, len(musts))]
    return {**state, "candidates": sorted(best, key=lambda row: row["i"]), "curve": thinned(state["curve"], count)}


def _below(row: Mapping[str, Any]) -> tuple[bool, float]:
    """Order rows, best first."""
    value = row["look"] if row["score"] is None else row["score"]
    return row["score"] is None, math.inf if value is None else -value


def thinned(points: Sequence[Any], most: int) -> list[Any]:
    """Return every point, every second, every fourth, ... and the last: the most that fit. What stays stays for long."""
    stride = 1
    while math.ceil((len(points) - 1) / stride) + 1 > most and stride < len(points):
        stride *= 2
    return [*points[:-1:stride], *points[-1:]]


def _best(finished: Pool) -> int | None:
    """Return the leader by the scores so far, the earlier one of equals; None without any score."""
    return next((candidate.index for candidate, score in finished.best() if not math.isnan(score)), None)


def _seen(candidate: Candidate, finished: Pool) -> float | None:
    """Return the score of a candidate's last look; None if that is not known, or not what is known best of it."""
    if candidate.discarded or not candidate.looks or (candidate in finished and not math.isnan(candidate.score)):
        return None
    return _number(_look(candidate).get("score"))


def names_in(rows: Iterable[Mapping[str, Any]]) -> set[str]:
    """Return the names that rows of candidates say."""
    return {name for row in rows if (name := row["thumb"] or row.get("name"))}


def _found(index: int, thumbs: Mapping[int, str], names: Mapping[int, str]) -> dict[str, Any]:
    """Return what a candidate's picture and recipe are found by: one name, since each takes its room in every event."""
    thumb = thumbs.get(index)
    return {"thumb": thumb} if thumb or index not in names else {"thumb": None, "name": names[index]}


def _row(candidate: Candidate, running: bool, parts: Sequence[str]) -> dict[str, Any]:
    look, status = _look(candidate), candidate.status
    scores = candidate.scores or look.get("scores", {})
    if running and status in ("waiting", "draft"):
        status = "running"
    return {
        "i": candidate.index,
        "parent": candidate.parent,
        "state": "discarded" if candidate.discarded else status,
        "score": _number(candidate.score),
        "scores": [_number(scores.get(part)) for part in parts] if scores else [],
        "calls": candidate.nfe,
        "look": _number(look.get("score")),
    }


def _look(candidate: Candidate) -> Mapping[str, Any]:
    looks = candidate.looks
    return looks[-1] if looks else {}


def _number(value: float | None) -> float | None:
    """Return a number with the digits that a float32 has; None for what JSON has not."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.7g}")
