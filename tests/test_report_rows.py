"""Candidates as rows of a report: every method's are read back whole, numbers to the digit, and nothing forged costs much."""

from __future__ import annotations

import csv
import io
import json
import random
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from analytic import as_dict, run
from every_method import METHODS, STEPS
from reported import candidate, report

from noise_search.search.base.candidate import Candidate
from noise_search.search.noise.proposals import OrthogonalProposal
from noise_search.search.noise.recipe import GIVEN, Recipe
from noise_search.search.reporting import csv_table, recipe_rows
from noise_search.search.reporting.csv_table import candidates_csv
from noise_search.search.reporting.report import carried_summary, read_reports
from noise_search.search.reporting.rows import read_rows, rows_of, shortest

OLD = Path(__file__).parent / "report_version_1.json"


def row(index: int, **fields: Any) -> dict[str, Any]:
    return {"index": index, "score": 0.5, "scores": [0.5], **fields}


def rows_report(*rows: Any, **fields: Any) -> dict[str, Any]:
    made = report(candidates=[candidate(index) for index in range(max(1, len(rows)))])
    return {**made, "noise_search": 2, "parts": ["redness"], "candidates": list(rows), **fields}


def read(*rows: Any, **fields: Any) -> list[Any]:
    return read_reports(json.dumps(rows_report(*rows, **fields)))[0]["candidates"]


def back(candidates: list[Candidate], names: list[str], calls: int | None) -> list[dict[str, Any]]:
    rows = json.loads(json.dumps(rows_of(candidates, names, calls)))
    return [dict(one) for one in read_rows(rows, names, calls)]


@pytest.mark.parametrize("name", METHODS)
def test_every_candidate_is_read_back_whole(name):
    search = run(METHODS[name], 40, steps=STEPS)
    found = back(search.candidates, search.scorer.names, search.budget.run_cost)
    assert found == [as_dict(one) for one in search.candidates] and len(found) >= 20


def test_a_search_from_a_connected_noise_is_read_back():
    own = Recipe(GIVEN, 5)
    drawn = Recipe(77, 77, connected=True)
    ones = [Candidate(0, own), Candidate(1, drawn), Candidate(2, Recipe(8, 9))]
    assert [one["recipe"] for one in back(ones, ["a"], None)] == [one.recipe.to_json() for one in ones]


def test_a_large_group_of_orthogonal_noises_is_told_by_reference():
    pivot, draw = Recipe(1, 1), OrthogonalProposal(64)
    ones = [Candidate(index, draw.propose(7, index, pivot)) for index in range(640)]
    rows = rows_of(ones, ["a"], 0)
    assert max(len(json.dumps(one)) for one in rows) < 220
    assert [one["recipe"] for one in back(ones, ["a"], 0)] == [one.recipe.to_json() for one in ones]
    assert len(ones[-1].recipe.to_json()) > 8_000


def test_what_does_not_follow_its_parent_stands_alone():
    first = METHODS["jittered"].proposal.propose(7, 3, Recipe(1, 1))
    plain = Recipe(1, 1, first.moves)
    ones = [
        Candidate(0, first),
        Candidate(1, plain, parent=0),
        Candidate(2, Recipe(1, 1), parent=0),
        Candidate(3, first, parent=0),
    ]
    assert [one["recipe"] for one in back(ones, ["a"], 0)] == [one.recipe.to_json() for one in ones]


def test_scores_have_as_few_digits_as_tell_them_apart():
    assert [shortest(value) for value in (0.25, -3.0, 0.1, torch.tensor(0.1).item(), 1e-30, None, float("nan"), 1e39)] == [
        0.25, -3.0, 0.1, 0.1, 1e-30, None, None, None,
    ]  # fmt: skip
    for value in struct.unpack("<5000f", random.Random(1).randbytes(20_000)):
        if value == value and abs(value) != float("inf"):
            said = shortest(value)
            assert struct.unpack("<f", struct.pack("<f", said))[0] == value and len(f"{abs(said):.17g}") <= 23
            assert len(repr(abs(said)).split("e")[0].replace(".", "").strip("0")) <= 9


def test_scores_that_are_none_are_read_as_such():
    one, other = read(row(0, noise="1", scores=[None]), {"index": 1, "noise": "2", "status": "pruned"})
    assert (one["score"], one["scores"], one["looks"], one["discarded"]) == (0.5, {"redness": None}, [], False)
    assert (other["score"], other["scores"], other["status"], other["model_calls"]) == (None, {}, "pruned", 8)
    assert [len(one), "recipe" in one, one.get("file")] == [9, True, None]


@pytest.mark.parametrize(("rows", "about"), [
    ([row(1)], "candidate 0: its 'index' is 1"),
    ([{"noise": "1"}], "candidate 0: 'index' is missing"),
    ([3], "candidate 0: must be an object, not 3"),
    ([row(0, parent=0)], "parent' of '0' names candidate 0"),
    ([row(0), row(1, parent=2), row(2)], "parent' of '1' names candidate 2"),
    ([row(0, parent=-1)], "parent' of '0' names candidate -1"),
    ([row(0, scores=[0.5, 0.5])], "2 scores by the 1 of 'parts'"),
    ([row(0, scores=["0.5"])], "'0.5' is no score"),
    ([row(0, score=1e39)], "1e+39 is no score"),
    ([row(0, score=True)], "'score' must be a number or null, not True"),
    ([row(0, looks=[3])], "looks: must be an object, not 3"),
    ([row(0, looks=[{"sigma": 1.0, "score": 1.0}])], "looks: 'scores' is missing"),
    ([row(0, model_calls=-1)], "-1 model calls cannot have been made"),
    ([row(0, noise=7)], "'noise' must be text, not 7"),
    ([row(0, moves={})], "'moves' must be a list, not {}"),
    ([row(0, moves=[3])], "'moves' must be a list of objects, not [3]"),
    ([row(0, cuts=[[]])], "'cuts' must be a list of objects, not [[]]"),
])  # fmt: skip
def test_what_is_wrong_with_a_row_is_said(rows, about):
    with pytest.raises(ValueError, match=r"^report: ") as refused:
        read(*rows)
    assert about in str(refused.value)


@pytest.mark.parametrize(("changes", "about"), [
    ({"parts": None}, "'parts' must be different names of verifiers, not None"),
    ({"parts": ["a", "a"]}, "'parts' must be different names"),
    ({"parts": [["a"]]}, "'parts' must be different names"),
    ({"model_calls_per_image": None}, "candidate 0: 'model_calls' is missing"),
    ({"model_calls_per_image": 7.5}, "candidate 0: 'model_calls' is missing"),
    ({"noise_search": True}, "another version"),
    ({"noise_search": 3}, "another version"),
])  # fmt: skip
def test_what_is_wrong_with_what_rows_have_in_common_is_said(changes, about):
    with pytest.raises(ValueError, match=r"^report: ") as refused:
        read(row(0), **changes)
    assert about in str(refused.value)


def move(seed: int, *drawn_from: Any) -> dict[str, Any]:
    made = {"kind": "low_band", "seed": str(seed), "amount": 0.1, "levels": 1}
    return {**made, "drawn_from": list(drawn_from)} if drawn_from else made


@pytest.mark.parametrize(("rows", "about"), [
    ([row(0)], "neither the candidate nor a parent of it says its 'noise'"),
    ([row(0), row(1, parent=0)], "neither the candidate nor a parent of it says its 'noise'"),
    ([row(0, noise="1", moves=[move(2, 0)])], "must name candidates before it"),
    ([row(0, noise="1"), row(1, parent=0, moves=[move(2, 0)])], "drawn from that of candidate 0, which has no moves"),
    ([row(0, noise="1"), row(1, parent=0, moves=[move(2, [0, 10**9])])], "must name candidates before it"),
    ([row(0, noise="1"), row(1, parent=0, moves=[move(2, "0")])], "must name candidates before it"),
    ([row(0, noise="1"), row(1, parent=0, moves=[{**move(2), "drawn_from": 1}])], "of candidate 1 must be a list of candidates"),
    ([row(0, noise="1"), row(1, parent=0, moves=[{**move(2), "drawn_from": 0}])], "of candidate 0 must be a list of candidates"),
    ([row(0, noise="1"), row(1, parent=0, moves=[move(2, True)])], "must name candidates before it"),
    ([*[row(k, noise="1", moves=[move(k)]) for k in range(600)], row(600, parent=0, moves=[move(9, [0, 599])])], "more than 500"),
    ([row(0, noise="1", moves=[move(0)]), *[row(k, noise="1", moves=[move(k, k - 1)]) for k in range(1, 600)]], "more than 500"),
])  # fmt: skip
def test_a_recipe_that_the_rows_do_not_hold_is_refused(rows, about):
    with pytest.raises(ValueError, match=r"^report: candidate \d+: recipe: ") as refused:
        _ = read(*rows)[-1]["recipe"]
    assert about in str(refused.value)


def test_a_chain_of_10_000_parents_is_put_together():
    step = {"kind": "neighbor", "seed": "7", "amount": 0.9}
    found = read(row(0, noise="1"), *[row(k, parent=k - 1, moves=[step]) for k in range(1, 10_001)])
    assert json.loads(found[-1]["recipe"]) == {"noise_search": 1, "noise": "1", "seed": "1", "moves": [step] * 10_000}
    assert len(found[-1]["recipe"]) < recipe_rows.MAX_TEXT


def test_a_recipe_that_grows_without_end_is_not_put_together():
    long = [{"kind": "x" * 1_000}] * 100
    found = read(row(0, noise="1"), *[row(k, parent=k - 1, moves=long) for k in range(1, 50)])
    assert len(found[9]["recipe"]) > 900_000
    with pytest.raises(ValueError, match=r"candidate 49: recipe: more than 1000000 characters are not put together"):
        _ = found[49]["recipe"]


def test_20_000_candidates_in_one_line_of_descent_are_read_and_tabled(monkeypatch):
    """Of what a row replaces nothing is walked: each of these recipes is of a few words."""
    walked = []
    original = recipe_rows._after
    monkeypatch.setattr(recipe_rows, "_after", lambda *about: walked.append(1) or original(*about))
    jitters = [row(k, parent=k - 1, jitter={"seed": str(k), "cosine": 0.9}) for k in range(1, 20_000)]
    reports = read_reports(json.dumps(rows_report(row(0, noise="1", moves=[move(1)]), *jitters)))
    table = candidates_csv(reports)
    assert table.count("\n") == 20_001 and table.rstrip().endswith('"jitter"": {""seed"": ""19999"", ""cosine"": 0.9}}"')
    assert len(walked) == 20_000  # a row's moves, once


def test_a_table_holds_so_much_and_says_where_the_rest_is(monkeypatch):
    monkeypatch.setattr(csv_table, "MAX_RECIPES", 90)
    text = candidates_csv(read_reports(json.dumps(rows_report(*[row(k, noise=str(k)) for k in range(5)]))))
    recipes = [one["recipe"] for one in csv.DictReader(io.StringIO(text))]
    assert [one.startswith("{") for one in recipes] == [True, True, False, False, False]
    assert recipes[2] == "too long for this table: Render Candidate takes the report and the index"


def test_a_report_of_version_1_is_read_as_it_was():
    text = OLD.read_text(encoding="utf-8")
    (one,) = read_reports(text)
    assert one == json.loads(text) and one["noise_search"] == 1
    kinds = {name for c in one["candidates"] for name in json.loads(c["recipe"])}
    assert kinds >= {"moves", "cuts", "jitter"} and {len(c["scores"]) for c in one["candidates"]} == {2}
    summary = carried_summary([one])
    assert summary["noise_search"] == 1 and summary["recipe"] == json.loads(one["best"]["recipe"])
    rows = list(csv.DictReader(io.StringIO(candidates_csv([one]))))
    assert [line["recipe"] for line in rows] == [c["recipe"] for c in one["candidates"]]
