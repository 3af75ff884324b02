"""How many bytes a report takes: of every method's, a candidate's share, everything that is told of it counted."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from inprocess import boot

pytestmark = pytest.mark.comfy

boot()

from analytic import Layout, LowFrequency, Quadratic, Stripes, as_dict, run
from every_method import METHODS, STEPS
from reported import reports_in

from noise_search.nodes.run.report import report, report_text
from noise_search.verifiers.composite.ensemble import RANK_MEAN, Ensemble

EACH, FURTHER = 300, 15  # bytes: a candidate with one score, and for each further score


def written(name: str, images: int, verifier: Any = None) -> tuple[Any, str]:
    """Return an ended search and the text of its report, without looks."""
    search = run(METHODS[name], images, verifier, steps=STEPS)
    limits = SimpleNamespace(smaller_calls=0, ran_out=0)
    session = SimpleNamespace(sigmas=search.session.sigmas, max_rows=8, why_one_by_one=[], check_calls=0, limits=limits)
    made = report(search, session, METHODS[name], [search.ranked[0][0]], None)
    text = report_text(made)
    assert [dict(one) for one in reports_in(text)["candidates"]] == [as_dict(one) for one in search.candidates]
    for one in made["candidates"]:
        one.pop("looks", None)
    return search, report_text(made)


def share(name: str, images: int, verifier: Any = None) -> float:
    """Return the bytes of a candidate, between a search of `images` and one of half as many."""
    (small, short), (large, long) = (written(name, count, verifier) for count in (images // 2, images))
    return (len(long) - len(short)) / (len(large.candidates) - len(small.candidates))


@pytest.mark.parametrize("name", METHODS)
def test_a_candidate_takes_few_bytes(name):
    assert share(name, 60) <= EACH


@pytest.mark.matrix
@pytest.mark.parametrize("name", METHODS)
def test_a_candidate_takes_few_bytes_where_there_are_thousands(name):
    assert share(name, 2_000) <= EACH


@pytest.mark.parametrize("name", ["random", "zero-order", "refinement"])
def test_a_further_score_takes_15_bytes(name):
    one = share(name, 60, Ensemble((Quadratic("a"),), (1.0,), RANK_MEAN))
    four = share(name, 60, Ensemble((Quadratic("a"), LowFrequency("b"), Layout("c"), Stripes("d")), (1.0,) * 4, RANK_MEAN))
    assert four <= one + 3 * FURTHER


def test_a_report_has_a_line_for_every_candidate():
    search, text = written("random", 20)
    lines = text.split("\n")
    assert sum(line.startswith('  {"index":') for line in lines) == len(search.candidates) == 20
    assert lines[1] == ' "noise_search": 2,' and lines[0] == "{" and lines[-1] == "}"
    assert all(not math.isnan(one.score) for one in search.candidates)
