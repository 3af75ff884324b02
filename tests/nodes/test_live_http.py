"""The live dashboard's side of the server: events, states, commands, thumbnails, recipes, what a node shows afterwards."""

from __future__ import annotations

import asyncio
import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

pytestmark = pytest.mark.server

import aiohttp
from following import ROOT, ask, live_events, searches_of, tell, wait_until
from graphs import STEPS, node, report_of, workflow
from PIL import Image

from noise_search.search.core.control import FINISHED
from noise_search.search.noise.recipe import Recipe
from noise_search.search.reporting.snapshot import merged


@contextmanager
def another_page(server: Any, client: str) -> Iterator[list[dict[str, Any]]]:
    """Another client of the server; yields its events as they come."""
    heard: list[dict[str, Any]] = []
    ready, done = threading.Event(), threading.Event()

    async def listen() -> None:
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{server.url}/ws?clientId={client}") as channel:
            ready.set()
            while not done.is_set():
                try:
                    message = await channel.receive(timeout=0.1)
                except asyncio.TimeoutError:
                    continue
                if message.type == aiohttp.WSMsgType.TEXT:
                    heard.append(json.loads(message.data))

    thread = threading.Thread(target=lambda: asyncio.run(listen()), daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield heard
    finally:
        done.set()
        thread.join(10)


def test_a_search_is_told_to_the_page_that_queued_it_alone(server):
    with another_page(server, "another") as heard:
        prompt_id = server.queue(workflow(seed=51, budget=6))
        assert server.wait(prompt_id).status == "success"
        last = wait_until(server, prompt_id, lambda state: state["phase"] == "ended")
        assert "status" in {event["type"] for event in heard}
        assert "noise_search.update" not in {event["type"] for event in heard}
    events = live_events(server, prompt_id)
    assert [event["rev"] for event in events] == list(range(1, len(events) + 1))
    assert max(len(json.dumps(event)) for event in events) < 32_000
    assert {event["phase"] for event in events} == {"running", "ended"}
    assert any(event["words"].endswith("your own seed and 5 new noises") for event in events)
    assert [state for state in searches_of(server, server.client_id) if state["prompt_id"] == prompt_id] == [last]
    assert searches_of(server, "another") == []
    assert ask(server, f"/searches/{last['id']}")[2] == ask(server, f"/searches/{last['id']}", prefix="/api" + ROOT)[2] == last


def test_the_last_state_agrees_with_the_report(server):
    result = server.run(workflow(seed=52, budget=6))
    report, state = report_of(result), wait_until(server, result.prompt_id, lambda state: state["phase"] == "ended")
    for name, in_report in (("i", "index"), ("parent", "parent"), ("state", "status"), ("calls", "model_calls")):
        assert [row[name] for row in state["candidates"]] == [candidate[in_report] for candidate in report["candidates"]]
    scores = [candidate["score"] for candidate in report["candidates"]]
    assert [row["score"] for row in state["candidates"]] == pytest.approx(scores, rel=1e-6)
    assert (state["best"], state["calls"], state["cap"]) == (report["best"]["index"], report["model_calls"], 6 * STEPS)
    assert (state["node"], state["workflow"], state["row"], state["rows"]) == ("search", None, 0, 1)
    assert state["curve"][-1] == [6 * STEPS, pytest.approx(report["best"]["score"], rel=1e-6)]
    (shown,) = result.outputs["search"]["noise_search"]
    assert {**shown, "rev": 0} == {**state, "rev": 0} and shown["rev"] <= state["rev"]
    assert len(json.dumps(server.history(result.prompt_id))) < 200_000
    (executed,) = [data for kind, data in result.events if kind == "executed" and data["node"] == "search"]
    assert executed["output"]["noise_search"] == [shown]


def test_thumbnails_and_recipes(server):
    result = server.run(workflow(seed=53, budget=4))
    state = wait_until(server, result.prompt_id, lambda state: state["phase"] == "ended")
    recipes = [candidate["recipe"] for candidate in report_of(result)["candidates"]]
    for row, recipe in zip(state["candidates"], recipes, strict=True):
        status, headers, data = ask(server, f"/thumbs/{state['place']}/{row['thumb']}")
        assert status == 200 and len(data) <= 10_000
        assert headers["Content-Type"] == "image/jpeg" and "immutable" in headers["Cache-Control"]
        picture = Image.open(io.BytesIO(data))
        assert picture.format == "JPEG" and picture.size == (64, 64)
        status, headers, said = ask(server, f"/recipes/{state['place']}/{row['thumb']}")
        assert status == 200 and headers["Cache-Control"] == "no-store"
        assert Recipe.from_json(json.dumps(said)) == Recipe.from_json(recipe)
    assert len({row["thumb"] for row in state["candidates"]}) == 4


def test_candidates_without_a_picture_have_recipes(server):
    graph = workflow(seed=68, budget=3)
    graph["verifier"] = node("NSGuidanceGap", first_steps=0, prefer="high")
    result = server.run(graph)
    state = wait_until(server, result.prompt_id, lambda state: state["phase"] == "ended")
    assert [row["i"] for row in state["candidates"] if row["thumb"] is not None] == [state["best"]]  # decoded in the end
    for row, candidate in zip(state["candidates"], report_of(result)["candidates"], strict=True):
        status, _, said = ask(server, f"/recipes/{state['place']}/{row['thumb'] or row['name']}")
        assert status == 200 and Recipe.from_json(json.dumps(said)) == Recipe.from_json(candidate["recipe"])


def test_a_workflows_id_and_the_rows_of_a_batch(server):
    graph = workflow(seed=54, budget=2)
    graph["latent"]["inputs"]["batch_size"] = 2
    workflow_id = "0c1d5bdc-5bd4-4a8a-b5e5-a1b5a2a8a9f0"
    extra = {"extra_pnginfo": {"workflow": {"id": workflow_id, "nodes": []}}}
    prompt_id = server.post("/prompt", {"prompt": graph, "client_id": server.client_id, "extra_data": extra})["prompt_id"]
    result = server.wait(prompt_id)
    states = result.outputs["search"]["noise_search"]
    assert [(state["row"], state["rows"], state["workflow"]) for state in states] == [(0, 2, workflow_id), (1, 2, workflow_id)]
    assert states[0]["id"] != states[1]["id"]
    assert [state["phase"] for state in states] == ["ended", "ended"]


def test_a_hostile_workflow_id_is_no_id(server):
    extra = {"extra_pnginfo": {"workflow": {"id": {"__proto__": "x" * 5000}}}}
    body = {"prompt": workflow(seed=55, budget=1), "client_id": server.client_id, "extra_data": extra}
    result = server.wait(server.post("/prompt", body)["prompt_id"])
    assert result.outputs["search"]["noise_search"][0]["workflow"] is None


def test_pause_resume_and_finish(server):
    prompt_id = server.queue(workflow(seed=56, budget=64))
    state = wait_until(server, prompt_id, lambda state: state["calls"] >= 8 * STEPS + 2 and state["best"] is not None)
    assert tell(server, state, "pause") == (200, {"ok": True})
    wait_until(server, prompt_id, lambda state: state["phase"] == "paused" and state["words"] == "paused")
    time.sleep(1.5)
    first = ask(server, f"/searches/{state['id']}")[2]
    time.sleep(1.0)
    assert ask(server, f"/searches/{state['id']}")[2]["calls"] == first["calls"] < 64 * STEPS
    assert tell(server, state, "resume") == (200, {"ok": True})
    state = wait_until(server, prompt_id, lambda now: now["calls"] > first["calls"] + 8)
    assert state["phase"] == "running"
    tell(server, state, "pause")
    time.sleep(1.5)
    tell(server, state, "discard", candidate=0)
    tell(server, state, "finish")
    result = server.wait(prompt_id)
    report, last = report_of(result), wait_until(server, prompt_id, lambda state: state["phase"] == "ended")
    assert result.status == "success" and report["stopped"] == last["stopped"] == FINISHED
    assert report["model_calls"] == last["calls"] < 64 * STEPS
    assert last["candidates"][0]["state"] == "discarded" and report["best"]["index"] != 0
    assert tell(server, last, "finish") == (409, {"error": "this search has ended: queue it again"})


def test_finish_while_paused_makes_no_further_call(server):
    prompt_id = server.queue(workflow(seed=57, budget=64))
    state = wait_until(server, prompt_id, lambda state: state["best"] is not None)
    tell(server, state, "pause")
    time.sleep(2.0)  # within one model call
    before = ask(server, f"/searches/{state['id']}")[2]["calls"]
    tell(server, state, "finish")
    assert report_of(server.wait(prompt_id))["model_calls"] == before


def test_more_like_one(server):
    prompt_id = server.queue(workflow(seed=58, budget=24, batching="off"))
    state = wait_until(server, prompt_id, lambda state: state["best"] is not None and len(state["candidates"]) > 3)
    assert tell(server, state, "more", candidate=3) == (200, {"ok": True})
    candidates = report_of(server.wait(prompt_id))["candidates"]
    assert len([c for c in candidates if c["parent"] == 3]) >= 4
    words = [event["words"] for event in live_events(server, prompt_id)]
    assert "zero-order search: 4 neighbors of candidate 3" in words


def test_a_page_that_is_reloaded_finds_the_search_that_runs(server):
    prompt_id = server.queue(workflow(seed=59, budget=32, batching="off"))
    wait_until(server, prompt_id, lambda state: state["best"] is not None)
    newest = searches_of(server, server.client_id)[0]
    assert newest["prompt_id"] == prompt_id and newest["phase"] == "running" and newest["rev"] > 1
    state: dict[str, Any] = {}
    deadline = time.monotonic() + 10
    while state.get("rev") != newest["rev"] and time.monotonic() < deadline:
        state = {}
        for event in live_events(server, prompt_id):
            if event["rev"] <= newest["rev"]:
                state = merged(state, event)
    assert state == newest
    server.interrupt()
    assert server.wait(prompt_id).status == "interrupted"
    last = wait_until(server, prompt_id, lambda state: state["phase"] == "cancelled")
    assert (last["words"], last["left"]) == ("cancelled", None)
    best = last["candidates"][last["best"]]
    status, _, recipe = ask(server, f"/recipes/{last['place']}/{best['thumb']}")
    assert status == 200 and Recipe.from_json(json.dumps(recipe))
    assert searches_of(server, server.client_id)[0] == last


def test_a_search_that_fails_says_why(server):
    graph = workflow(seed=60)
    graph["method"] = node("NSRandomSearch", draft_steps=STEPS)
    prompt_id = server.queue(graph)
    result = server.wait(prompt_id)
    last = wait_until(server, prompt_id, lambda state: state["phase"] == "failed")
    assert last["words"] == "failed: " + result.message["exception_message"].strip()
    assert "'draft_steps' must be from 1 to" in last["words"]


def test_two_search_nodes_and_one_inside_a_subgraph(server):
    graph = workflow(seed=61, budget=2)
    graph["1:2"] = json.loads(json.dumps(graph["search"]))
    graph["1:2"]["inputs"]["seed"] = 62
    graph["other"] = node("SaveImage", images=["1:2", 0], filename_prefix="other")
    result = server.run(graph)
    states = {name: result.outputs[name]["noise_search"][0] for name in ("search", "1:2")}
    assert [state["node"] for state in states.values()] == ["search", "1:2"]
    assert states["search"]["id"] != states["1:2"]["id"]
    assert {event["node"] for event in live_events(server, result.prompt_id)} == {"search", "1:2"}
    wait_until(server, result.prompt_id, lambda state: state["phase"] == "ended", "1:2")
    assert [state["node"] for state in searches_of(server, server.client_id)[:2]] in (["search", "1:2"], ["1:2", "search"])


def test_two_equal_search_nodes_have_a_dashboard_each(server):
    graph = workflow(seed=63, budget=2)
    graph["twin"] = json.loads(json.dumps(graph["search"]))
    graph["other"] = node("SaveImage", images=["twin", 0], filename_prefix="twin")
    outputs = server.run(graph).outputs
    assert outputs["search"]["noise_search"][0]["id"] != outputs["twin"]["noise_search"][0]["id"]


def test_a_prompt_that_need_not_run_again_still_shows_its_search(server):
    graph = workflow(seed=64, budget=2)
    first = server.run(graph)
    again = server.run(graph)
    if server.object_info()["NSSearchSampler"].get("has_intermediate_output"):  # newer cores
        assert again.outputs["search"] == first.outputs["search"]
    assert live_events(server, again.prompt_id) == []


def test_without_a_client_nothing_is_sent(server):
    with another_page(server, "bystander") as heard:
        prompt_id = server.post("/prompt", {"prompt": workflow(seed=65, budget=2)})["prompt_id"]
        deadline = time.monotonic() + 60
        while not (entry := server.history(prompt_id)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert "noise_search.update" not in {event["type"] for event in heard}
    (state,) = entry["outputs"]["search"]["noise_search"]
    assert ask(server, f"/searches/{state['id']}")[2]["phase"] == "ended"  # a script that knows the id may ask
    assert live_events(server, prompt_id) == []


UNKNOWN = "0123456789abcdef" * 2


@pytest.fixture(scope="module")
def ended(server) -> dict[str, Any]:
    return server.run(workflow(seed=66, budget=2)).outputs["search"]["noise_search"][0]


@pytest.mark.parametrize("path", [
    f"/searches/{UNKNOWN}", "/searches/abc", f"/searches/{UNKNOWN.upper()}", f"/searches/{UNKNOWN}0", "/searches/" + "a" * 5000,
    f"/thumbs/{UNKNOWN}/{UNKNOWN}", "/thumbs/{place}/" + UNKNOWN, "/thumbs/..%2f..%2f/" + UNKNOWN, "/thumbs/{place}/..%2f{thumb}",
    "/thumbs/{place}/{thumb}.jpg", "/thumbs/{place}/{thumb}%00", "/thumbs/{place}/%2e%2e", "/thumbs/{place}/" + "a" * 5000,
    "/thumbs/{place}/{thumb}%0a", f"/recipes/{UNKNOWN}/{UNKNOWN}", "/recipes/{place}/" + UNKNOWN, "/recipes/{place}/..%2f{thumb}",
    "/thumbs/{place}/..%5c{thumb}", "/recipes/%3Cscript%3E/{thumb}",
])  # fmt: skip
def test_what_there_is_not_is_refused(server, ended, path):
    path = path.replace("{place}", ended["place"]).replace("{thumb}", ended["candidates"][0]["thumb"])
    status, headers, answer = ask(server, path)
    assert status == 404 and headers.get_content_type() == "application/json" and set(answer) == {"error"}
    assert "<" not in answer["error"]


@pytest.mark.parametrize("client", ["", "&x=1", "a" * 201])
def test_a_list_is_of_one_page(server, client):
    status, _, answer = ask(server, "/searches?client_id=" + client)
    assert status == 400 and answer["error"].startswith("client_id: ")


def test_commands_that_are_none(server):
    prompt_id = server.queue(workflow(seed=67, budget=64))
    state = wait_until(server, prompt_id, lambda state: len(state["candidates"]) == 64 or state["best"] is not None)
    count, where = len(state["candidates"]), f"/searches/{state['id']}/commands"
    for body in ({}, {"command": "stop"}, {"command": None}, {"command": ["finish"]}, {"command": "__class__"}):
        status, _, answer = ask(server, where, body)
        assert status == 400 and answer["error"].startswith("command: it must be one of finish, pause, resume")
    for candidate in (-1, 10**9, count + 1000, True, "3", 1.0, None, [0], {"i": 0}):
        for command in ("more", "discard"):
            status, _, answer = ask(server, where, {"command": command, "candidate": candidate})
            assert status == 400 and answer["error"].startswith("candidate: it must be a whole number from 0 to ")
    for body in (b"", b"{", b"[]", b"3", b"\xff", b"[" * 5000):
        assert ask(server, where, body)[0] == 400
    assert ask(server, where, b'{"command": "finish", "x": "' + b"x" * 20_000 + b'"}')[0] == 413
    assert ask(server, where, {"command": "finish"}, kind="text/plain")[0] == 415
    assert ask(server, f"/searches/{UNKNOWN}/commands", {"command": "finish"})[0] == 404
    status, _, answer = ask(server, where, {"command": "answer", "question": UNKNOWN, "ranking": [0]})
    assert status == 409 and "question" in answer["error"]
    assert ask(server, f"/searches/{state['id']}")[2]["phase"] == "running"  # none of it was obeyed
    assert tell(server, state, "finish")[0] == 200
    assert server.wait(prompt_id).status == "success"


@pytest.mark.parametrize("body", [{}, {"id": "../.."}, {"id": UNKNOWN, "place": UNKNOWN}, {"place": 3}, {"path": "/etc"}, []])
def test_what_to_forget_is_said_by_hex_digits(server, body):
    assert ask(server, "/forget", body)[0] == 400
