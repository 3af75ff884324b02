"""What reads reports: the reader's refusals, the summary of a picture, CSV, the curve, the page."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from reported import candidate, recipe, report

from noise_search.search.reporting.csv_table import candidates_csv, cell
from noise_search.search.reporting.html import MAX_ROWS, lineage, report_page
from noise_search.search.reporting.report import (
    PACK_VERSION,
    carried_summary,
    curve_of,
    kept_candidates,
    read_reports,
    summary_of,
    winner_summary,
)
from noise_search.search.reporting.svg import best_so_far, draw_svg, nice_ticks

ROOT = Path(__file__).resolve().parent.parent
HOSTILE = '<script>alert(1)</script><img src=x onerror="alert(2)">\'"&\u202egnp\x00\ud800'


def read(*reports: dict) -> list[dict]:
    return read_reports(json.dumps(reports[0] if len(reports) == 1 else reports))


def test_the_version_is_that_of_the_package():
    assert f'\nversion = "{PACK_VERSION}"\n' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_a_report_and_a_list_of_them_are_read():
    assert read(report()) == [report()]
    assert read(report(), report(seed="7")) == [report(), report(seed="7")]


@pytest.mark.parametrize(("changes", "about"), [
    ({"noise_search": 3}, "another version"),
    ({"method": {"name": 3}}, "method: 'name' must be text, not 3"),
    ({"kept": []}, "'kept' is empty"),
    ({"kept": [4]}, "'kept' names candidate 4, which is none of the 4"),
    ({"kept": [True]}, "'kept' names candidate True"),
    ({"kept": [-1]}, "'kept' names candidate -1"),
    ({"verifier": None}, "'verifier' must be text, not None"),
    ({"candidates": [candidate(1)]}, "candidate 0: its 'index' is 1"),
    ({"candidates": [candidate(0, parent=0)]}, "parent"),
    ({"candidates": [candidate(0, scores={"x": "1"})]}, "its score by 'x' is '1', not a number"),
    ({"candidates": [candidate(0, model_calls=-1)]}, "-1 model calls"),
    ({"candidates": [candidate(0, scores={f"v{k}": 1.0 for k in range(101)})]}, "101 verifiers"),
    ({"rounds": [{"candidates": [9], "model_calls": 1}]}, "names candidate 9"),
    ({"budget": {}}, "budget: 'images' is missing"),
    ({"sigmas": [1, "0"]}, "'sigmas' must be numbers"),
])  # fmt: skip
def test_what_is_wrong_with_a_report_is_said(changes, about):
    with pytest.raises(ValueError, match=r"^report: ") as refused:
        read({**report(), **changes} if "candidates" not in changes else report(**changes))
    assert about in str(refused.value)


@pytest.mark.parametrize(("text", "about"), [
    ("", "not JSON"),
    ("[]", "an empty list"),
    ("{}", "no report of Noise Search"),
    ("[[[[", "not JSON"),
    ("[" * 200_000, "not JSON"),
    ('{"noise_search": 1, "gain": NaN}', "NaN is no number"),
    ('{"noise_search": 1, "gain": -Infinity}', "-Infinity is no number"),
    ('{"noise_search": 1, "gain": 1e999}', "is no score"),
    ('{"noise_search": 1, "gain": 1e200}', "is no score"),
    ('{"noise_search": 1, "gain": ' + "9" * 5000 + "}", "5000 digits"),
    (None, "must be text, not NoneType"),
])  # fmt: skip
def test_what_is_no_report_is_refused(text, about):
    with pytest.raises(ValueError, match=r"^report: ") as refused:
        read_reports(text)
    assert about in str(refused.value) and len(str(refused.value)) < 300


def test_a_picture_carries_its_own_recipe_and_scores():
    (one,) = reports = read(report(kept=[1, 3]))
    first, second = (summary_of(*pair) for pair in kept_candidates(reports))
    assert first["recipe"] == json.loads(recipe(101)) and second["recipe"] == json.loads(recipe(103))
    assert (first["candidate"], first["score"], first["scores"]) == (1, 0.75, {"redness": 0.75})
    assert (second["candidate"], second["score"]) == (3, 0.5)
    assert first["sigmas"] == [1.0, 0.5, 0.0]
    assert first["search"] == second["search"] == {
        "pack_version": PACK_VERSION, "method": "random search", "verifier": "redness", "seed": "100", "budget": 4,
        "model_calls": 32, "candidates": 4, "baseline_score": 0.25, "best_score": 0.75, "gain": 0.5,
    }  # fmt: skip
    assert winner_summary([one]) == first
    assert winner_summary([one, one])["recipe"] == [json.loads(recipe(101))] * 2


def test_what_all_pictures_carry_tells_of_each_in_order():
    (one,) = reports = read(report(kept=[1, 3]))
    (other,) = read(report(kept=[3]))
    each = [summary_of(*pair) for pair in kept_candidates(reports)]
    carried = carried_summary([one])
    assert [{**carried, "kept": None, **entry} for entry in carried["kept"]] == [{**summary, "kept": None} for summary in each]
    assert {name: value for name, value in carried.items() if name != "kept"} == winner_summary([one])
    assert carried_summary([other]) == winner_summary([other])
    assert [entry["candidate"] for entry in carried_summary([one, other])["kept"]] == [1, 3, 3]
    assert carried_summary([other, other]) == winner_summary([other, other])  # its recipe is the list already


def test_a_forged_recipe_is_refused_by_candidate():
    reports = read(report(candidates=[candidate(0, recipe='{"noise_search": 1, "file": "/etc/passwd"}')]))
    with pytest.raises(ValueError, match="report: candidate 0: recipe: 'noise' must be a seed"):
        winner_summary(reports)


def test_csv_has_a_line_for_every_candidate():
    rows = list(csv.DictReader(io.StringIO(candidates_csv(read(report())))))
    assert [row["index"] for row in rows] == ["0", "1", "2", "3"]
    assert rows[2] == {
        "index": "2", "parent": "1", "status": "pruned", "score": "", "score: redness": "", "model calls": "8",
        "looks": "sigma 3.5: 0.1", "recipe": recipe(102),
    }  # fmt: skip
    assert rows[1]["score"] == rows[1]["score: redness"] == "0.75"


def test_csv_of_a_batch_tells_the_searches_apart():
    rows = list(csv.DictReader(io.StringIO(candidates_csv(read(report(), report())))))
    assert [row["search"] for row in rows] == ["0"] * 4 + ["1"] * 4


@pytest.mark.parametrize(("value", "safe"), [
    ("=1+1", "'=1+1"), ("+1", "'+1"), ("-cmd|' /C calc'!A0", "'-cmd|' /C calc'!A0"), ("@SUM(1)", "'@SUM(1)"),
    ("  =1", "'  =1"), ("\t=1", "' =1"), ("＝1", "'＝1"), ("a\nb", "a b"), ("plain", "plain"), ("a;=1;b; -2", "a;'=1;b; '-2"),
    ('a;"=1"', "a;\"'=1\""), ("sigma 1: -0.5; sigma 2: 1", "sigma 1: -0.5; sigma 2: 1"), (-0.5, -0.5), (None, None),
])  # fmt: skip
def test_no_cell_is_a_formula(value, safe):
    assert cell(value) == safe


@pytest.mark.parametrize("text", ['x;=HYPERLINK("a")', "x; @SUM(1)", 'x;"=1+1"', 'x;""=1+1'])
def test_no_cell_is_a_formula_where_cells_are_split_at_semicolons(text):
    table = candidates_csv(read(report(candidates=[candidate(0, status=text, part=text)])))
    cells = [one for row in csv.reader(io.StringIO(table), delimiter=";") for one in row]
    assert len(cells) > 2 and not [one for one in cells if one.lstrip().startswith(("=", "@"))]


def test_column_names_are_no_formulas_and_break_no_line():
    text = candidates_csv(read(report(candidates=[candidate(0, status="=HYPERLINK(1)", part="a\n=b")])))
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["status"] == "'=HYPERLINK(1)" and row["score: a =b"] == "0.5"


def test_the_curve_goes_through_the_best_scores():
    points = list(curve_of(read(report())[0]))
    assert points == [(8, 0.25), (16, 0.75), (32, 0.5)]
    assert best_so_far(points) == [(8, 0.25), (16, 0.75)]
    svg = draw_svg(points, 0.25, 32, "redness")
    assert svg.count('class="dot"') == 3 and 'class="baseline"' in svg and "your seed: 0.25" in svg
    (budget,) = re.findall(r'class="budget" x1="([\d.]+)"', svg)
    (path,) = re.findall(r'class="best" d="([^"]+)"', svg)
    ticks = nice_ticks(0, 32)
    assert float(budget) == pytest.approx(80 + (720 - 80 - 24) * 32 / ticks[-1], abs=0.01)
    assert path.endswith(f"H{budget}") and path.count("V") == 1  # the last candidate was not better


def test_a_curve_without_scores_says_so():
    assert draw_svg([], None, None, "x") == "<p>No candidate has a score.</p>"


class Seen(HTMLParser):
    """Collects the elements and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.loose: list[str] = []  # text that may turn the direction of what follows it
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        if "\u202e" in data and self.get_starttag_text() not in ("<bdi>", "<title>"):
            self.loose.append(data)


def test_the_page_shows_everything():
    (one,) = reports = read(report(notes=["one note"]))
    text = report_page(reports, [["data:image/jpeg;base64,AAAA"]])
    seen = Seen(text)
    assert seen.tags.count("svg") == 1 and seen.tags.count("tr") == 1 + 4 and seen.tags.count("img") == 1
    assert ("src", "data:image/jpeg;base64,AAAA") in seen.attributes and "one note" in text
    assert lineage(one, 3) == [3, 1]


def test_scores_of_a_cascade_are_not_mixed():
    made = report(kept=[1, 3], cascade={"verifier": "dear", "scores": {"0": 40.0, "1": 60.0, "3": 50.0}})
    made["baseline"]["score"], made["best"]["score"] = 40.0, 60.0
    (one,) = reports = read(made)
    assert [summary_of(*pair)["score"] for pair in kept_candidates(reports)] == [60.0, 50.0]
    text = report_page(reports, [["data:,", "data:,"]])
    assert "candidate 1, score 60" in text and "candidate 3, score 50" in text and "your seed: 0.25" in text
    for forged in ("dear", {"scores": 1}, {"scores": {"3": "50"}}):
        assert summary_of({**one, "cascade": forged}, one["candidates"][3])["score"] == 0.5


def test_nothing_in_a_report_becomes_markup():
    made = report(
        verifier=HOSTILE, notes=[HOSTILE], problems=[HOSTILE], stopped=HOSTILE, seed=HOSTILE,
        method={"name": HOSTILE, HOSTILE: HOSTILE}, held_out={"verifier": HOSTILE},
        candidates=[candidate(0, status=HOSTILE, part=HOSTILE, recipe=HOSTILE), candidate(1, part=HOSTILE + "2")],
    )  # fmt: skip
    text = report_page(read(made), [["data:,"]])
    seen = Seen(text)
    assert seen.tags.count("script") == 1 and seen.tags.count("img") == 1
    assert not [name for name, _ in seen.attributes if name.startswith("on")]
    assert "\x00" not in text and "\u202e" in text and seen.loose == []


def test_the_page_is_as_long_as_its_table():
    many = [candidate(index, score=float(index)) for index in range(MAX_ROWS + 5)]
    text = report_page(read(report(candidates=many)), [[]])
    assert Seen(text).tags.count("tr") == 1 + MAX_ROWS and "5 more are in the JSON" in text
    assert f'id="c0-{MAX_ROWS + 4}"' in text and 'id="c0-4"' not in text
