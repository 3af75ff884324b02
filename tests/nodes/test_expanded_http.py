"""Searches that another node builds while it runs, as loops do: journals, the page's node, questions, another winner."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

pytestmark = pytest.mark.server

from following import ask, live_events, searches_of, wait_until
from graphs import STEPS, loop, node, twice, workflow
from PIL import Image

from live import Server


@pytest.fixture(scope="module")
def keeping():
    """A server that keeps journals."""
    with Server(NOISE_SEARCH_JOURNAL_MB="500") as running:
        yield running


KINDS = {"both": twice, "search": loop}


def states(server: Any, prompt_id: str) -> list[dict[str, Any]]:
    """The searches of a prompt, in order of their beginning."""
    return [s for s in reversed(searches_of(server, server.client_id)) if s["prompt_id"] == prompt_id]


@pytest.mark.parametrize("shown", KINDS)
def test_they_are_shown_at_the_node_that_the_page_knows_and_go_on_from_their_journals(keeping, shown):
    server, seed = keeping, 300 if shown == "both" else 310
    first = server.run(KINDS[shown](seed=seed))
    one, two = states(server, first.prompt_id)
    assert {s["node"] for s in (one, two)} == {event["node"] for event in live_events(server, first.prompt_id)} == {shown}
    assert [s["number"] for s in (one, two)] == [1, 2] and one["search"] != two["search"]
    assert [s["restored"] for s in (one, two)] == [0, 0]
    again = server.run(KINDS[shown](seed=seed, budget=4))
    assert [s["restored"] for s in states(server, again.prompt_id)] == [3 * STEPS] * 2


@pytest.mark.parametrize("shown", KINDS)
def test_another_winner_is_that_of_one_of_them(keeping, shown):
    server, seed = keeping, 320 if shown == "both" else 330
    before = states(server, server.run(KINDS[shown](seed=seed)).prompt_id)
    chosen = before[1]
    row = next(row for row in chosen["candidates"] if row["i"] != chosen["best"])
    recipe = ask(server, f"/recipes/{chosen['place']}/{row['thumb']}")[2]
    result = server.run(KINDS[shown](seed=seed, choose=json.dumps({chosen["search"]: recipe})))
    assert [s["chosen"] for s in states(server, result.prompt_id)] == [None, row["i"]]
    assert [s["best"] for s in states(server, result.prompt_id)] == [s["best"] for s in before]
    assert [s["restored"] for s in states(server, result.prompt_id)] == [3 * STEPS] * 2


@pytest.mark.parametrize("shown", KINDS)
def test_each_asks_its_own_question(keeping, shown):
    server = keeping
    graph = KINDS[shown](seed=340 if shown == "both" else 350)
    graph["verifier"] = node("NSHumanVerifier", set_size=4, timeout=0.0, when_absent="error")
    prompt_id = server.queue(graph)
    picked = []
    for number in (1, 2):
        state = wait_until(server, prompt_id, lambda s, n=number: s["number"] == n and s["question"], shown)
        assert [s["question"] and s["question"]["id"] for s in states(server, prompt_id)][-1] == state["question"]["id"]
        picked.append(state["question"]["candidates"][-1])
        body = {"command": "answer", "question": state["question"]["id"], "ranking": [picked[-1]]}
        assert ask(server, f"/searches/{state['id']}/commands", body)[0] == 200
    assert server.wait(prompt_id).status == "success"
    assert [s["best"] for s in states(server, prompt_id)] == picked


def test_pictures_carry_the_recipes_of_the_page_s_node(keeping):
    page = {"nodes": [{"id": "search", "type": "NSSearchSampler"}, {"id": "save", "type": "SaveImage"}]}
    prompt_id = keeping.queue(loop(seed=360), {"workflow": page})
    result = keeping.wait(prompt_id)
    summaries = [output["noise_search_found"][0] for key, output in result.outputs.items() if "noise_search_found" in output]
    assert len(summaries) == 2 and summaries[0]["recipe"] != summaries[1]["recipe"]
    picture = Image.open(io.BytesIO(keeping.image(result.outputs["other"]["images"][0])))
    assert json.loads(picture.text["noise_search"])["search"] in summaries
    kept = json.loads(picture.text["workflow"])["nodes"][0]["properties"]["noise_search"]
    assert kept == json.loads(picture.text["noise_search"])["search"]


def test_the_searches_of_a_list_are_told_apart(keeping):
    graph = workflow(seed=["seeds", 0], budget=2)
    graph["seeds"] = node("ForeignNumbers", numbers="370,371")
    result = keeping.run(graph)
    one, two = states(keeping, result.prompt_id)
    assert [(s["node"], s["search"], s["number"]) for s in (one, two)] == [("search", "search", 1), ("search", "search[1]", 2)]
