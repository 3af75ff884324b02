"""Searches whose shared model calls turn out to be wrong, or are refused: the right pictures, and honest counts."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.comfy

from inprocess import boot

boot()

from coupled import CoupledNet, PickyNet, toy_with
from remembered import keep_journals, remembered, told
from searching import decoded, parts, search_with, stock_with, without_seconds
from sessions import relative

from noise_search.search.methods.fk_steering import FKSteering
from noise_search.search.methods.halving import HalvingSearch
from noise_search.search.methods.random_search import RandomSearch
from toys import counted, guider, sigmas_for

METHODS = {"random": RandomSearch(), "halving": HalvingSearch(), "FK": FKSteering(), "default": None}
STEPS, BUDGET = 12, 8
KNOWN = ("check_calls", "given_up_calls", "notes", "recalled", "plot")


def graph_with(network, method="random", **settings):
    """The parts of a graph whose model couples rows or fails on several."""
    model = toy_with(network, **settings)
    name = "euler_ancestral" if method == "FK" else "euler"
    return parts("flow", name, sigmas=sigmas_for(model, "simple", STEPS), g=guider(model))


def facts(report):
    return {key: value for key, value in without_seconds(report).items() if key not in KNOWN}


def check_best(graph, found):
    """The winner's noise, sigmas and seed give its picture in stock nodes."""
    samples = stock_with(graph, found.noise, found.sigmas)
    assert relative(found.images, decoded(graph, samples)) < 1e-4


@pytest.mark.parametrize("method", METHODS)
def test_a_search_that_finds_out_late_begins_anew(method):
    """Rows see each other below sigma 0.4 only, as the last step shows when the others are over."""
    graph = graph_with(CoupledNet, method, below=400)
    with counted() as calls:
        found = search_with(graph, 3, budget=BUDGET, method=METHODS[method])
    report = found.report
    assert "begun anew" in report["notes"][0] and "get other answers than alone" in report["one_by_one_because"][0]
    assert report["model_calls"] <= BUDGET * STEPS and report["batch"] == 1
    assert 0 < report["given_up_calls"] <= BUDGET * STEPS
    assert sum(calls.checks) + calls.rows == report["model_calls"] + report["check_calls"] + report["given_up_calls"]
    check_best(graph, found)

    with counted() as calls:
        again = search_with(graph, 3, budget=BUDGET, method=METHODS[method])
    assert facts(again.report) == facts(report) and again.report["notes"] == report["notes"][1:]
    assert calls.rows == report["model_calls"] and calls.checks == [] and again.report["given_up_calls"] == 0


@pytest.mark.parametrize("method", ["halving", "default"])
def test_what_was_written_before_it_was_found_out_is_not_recalled(method, tmp_path, monkeypatch):
    keep_journals(tmp_path, monkeypatch)
    graph = graph_with(CoupledNet, method, below=400)
    first = remembered(graph, 3, budget=BUDGET, method=METHODS[method])
    with counted() as calls:
        second = remembered(graph, 3, budget=BUDGET, method=METHODS[method])
    assert calls.rows == 0 and facts(told(second.report)) == facts(told(first.report))
    monkeypatch.undo()
    plain = search_with(graph, 3, budget=BUDGET, method=METHODS[method])
    assert [c["score"] for c in plain.report["candidates"]] == [c["score"] for c in first.report["candidates"]]


@pytest.mark.parametrize("method", METHODS)
def test_a_search_whose_shared_calls_are_refused_goes_on(method):
    graph = graph_with(PickyNet, method)
    with counted() as calls:
        found = search_with(graph, 3, budget=BUDGET, method=METHODS[method])
    report = found.report
    assert report["one_by_one_because"] == [
        "the model fails with several candidates in one call (RuntimeError: the mask has 2 rows)"
    ]
    assert report["given_up_calls"] == report["check_calls"] == 0 and report["model_calls"] <= BUDGET * STEPS
    assert calls.rows - report["model_calls"] == max(calls.rows_of) > 1  # nothing that was answered is computed again
    check_best(graph, found)
