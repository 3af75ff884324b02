"""A person's choices over HTTP: questions, pictures and answers of a running server, and what happens when nobody is there."""

from __future__ import annotations

import io
import json
import time
import urllib.error
import urllib.request
from typing import Any

import pytest

pytestmark = pytest.mark.server

from graphs import PROMPT, node, report_of, workflow
from PIL import Image
from reported import reports_in

QUESTIONS = "/noise_search/questions"


def judged_by_you(budget: int = 7, **settings: Any) -> dict[str, Any]:
    """Zero-order search on the demo model, judged by a person; `settings` are inputs of the human verifier."""
    verifier = {"set_size": 4, "timeout": 0.0, "when_absent": "model of your choices", **settings}
    return {
        **workflow(steps=4, budget=budget),
        "verifier": node("NSHumanVerifier", **verifier),
        "oracle": node("NSDemoOracle", prompt=PROMPT, mode="soft score"),
        "method": node("NSZeroOrderSearch", neighbors=3, cosine=0.9, on_stall="keep", draft_steps=0),
    }


def open_question(server: Any, prompt_id: str, other_than: str = "") -> dict[str, Any]:
    """Wait for the next question of a prompt."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        listed = json.loads(server.get(QUESTIONS))["questions"]
        found = [q for q in listed if q["prompt_id"] == prompt_id and q["id"] != other_than]
        if found:
            return found[0]
        time.sleep(0.05)
    raise TimeoutError(server.log()[-3000:])


def refused(server: Any, path: str, body: Any = None) -> tuple[int, str]:
    """Send a request that is to fail; return its status and what it said."""
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(server.url + path, data=data, headers={"Content-Type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request)
    return error.value.code, json.loads(error.value.read())["error"]


def queue_without_page(server: Any, graph: dict[str, Any]) -> dict[str, Any]:
    """Queue as a script does that gives no client id; return the ended prompt's history."""
    prompt_id = server.post("/prompt", {"prompt": graph})["prompt_id"]
    deadline = time.monotonic() + 120
    while not (entry := server.history(prompt_id)).get("status"):
        assert time.monotonic() < deadline, server.log()[-3000:]
        time.sleep(0.1)
    return entry


def test_you_pick_and_the_search_goes_on(server):
    prompt_id = server.queue(judged_by_you())
    first = open_question(server, prompt_id)
    assert first["candidates"] == [0, 1, 2, 3] and first["node"] == "search" and first["asked"] == 0
    assert first["seconds_left"] is None and first["model_ready"] is False
    for index in first["candidates"]:
        assert Image.open(io.BytesIO(server.get(f"{QUESTIONS}/{first['id']}/{index}"))).size == (64, 64)
    server.post(f"{QUESTIONS}/{first['id']}", {"ranking": [2]})
    second = open_question(server, prompt_id, first["id"])
    assert second["candidates"] == [2, 4, 5, 6] and second["best"] == 2 and second["asked"] == 1
    assert refused(server, f"{QUESTIONS}/{first['id']}/2")[0] == 404
    server.post(f"{QUESTIONS}/{second['id']}", {"ranking": []})
    result = server.wait(prompt_id)
    assert result.status == "success"
    report = report_of(result)
    assert report["best"]["index"] == 2
    assert report["choices"] == [
        {"shown": [0, 1, 2, 3], "ranking": [2], "by": "you", "best": 0},
        {"shown": [2, 4, 5, 6], "ranking": [], "by": "you", "best": 2},
    ]
    assert json.loads(server.get(QUESTIONS)) == {"questions": []}


def test_wrong_answers_are_refused_and_the_question_stays(server):
    prompt_id = server.queue(judged_by_you(budget=4))
    question = open_question(server, prompt_id)
    path = f"{QUESTIONS}/{question['id']}"
    assert refused(server, path, {"ranking": [99]}) == (
        400, "'ranking' must name candidates of this question (0, 1, 2, 3), each at most once"
    )  # fmt: skip
    assert refused(server, path, b"not json")[0] == 400
    assert refused(server, path, {"ranking": ["<script>"]})[0] == 400
    assert refused(server, path, {"ranking": [0] * 5000})[0] == 413
    assert refused(server, path, {"take_over": True})[0] == 400
    assert refused(server, f"{QUESTIONS}/{'0' * 32}", {"ranking": [0]})[0] == 400
    assert refused(server, f"{path}/77")[0] == 404
    server.post(path, {"ranking": [0]})
    assert server.wait(prompt_id).status == "success"


def test_cancel_while_a_question_is_open(server):
    prompt_id = server.queue(judged_by_you())
    open_question(server, prompt_id)
    server.interrupt()
    assert server.wait(prompt_id).status == "interrupted"
    assert json.loads(server.get(QUESTIONS)) == {"questions": []}


def test_a_question_times_out(server):
    result = server.run(judged_by_you(timeout=0.5, when_absent="stop with the best"))
    report = report_of(result)
    assert report["stopped"] == "nobody answered in 0.5 s: the search ended with the best so far"
    assert report["best"]["index"] == 0 and report["choices"] == []


def test_without_a_page_the_search_stops_with_the_best(server):
    entry = queue_without_page(server, judged_by_you(when_absent="stop with the best"))
    report = reports_in(entry["outputs"]["report"]["text"][0])
    assert report["best"]["index"] == 0 and report["choices"] == []
    assert report["stopped"].startswith("nobody can be asked, since no page queued this")


def test_without_a_page_and_without_choices_the_model_cannot_answer(server):
    entry = queue_without_page(server, judged_by_you())
    report = reports_in(entry["outputs"]["report"]["text"][0])
    assert report["best"]["index"] == 0
    assert "has 0 of the 5 picks it needs, and no 'assistant' is connected" in report["stopped"]


def test_without_a_page_the_assistant_answers(server):
    entry = queue_without_page(server, judged_by_you(assistant=["oracle", 0]))
    report = reports_in(entry["outputs"]["report"]["text"][0])
    assert {choice["by"] for choice in report["choices"]} == {"assistant"} and len(report["order"]) == 7


def test_without_a_page_as_an_error(server):
    entry = queue_without_page(server, judged_by_you(when_absent="error"))
    assert entry["status"]["status_str"] == "error"
    said = [data for kind, data in entry["status"]["messages"] if kind == "execution_error"][0]
    assert said["node_id"] == "search"
    assert said["exception_message"].startswith("Human Verifier: nobody can be asked, since no page queued this")
