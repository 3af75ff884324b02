"""Score from Graph in a running server: another pack's nodes guide a search on the demo model."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.server

from graphs import PROMPT, STEPS, demo, node, report_of
from reported import reports_in

WEIGHTS = {"sharpness": 0.0, "exposure": 1.0, "colorfulness": 1.0, "contrast": 0.0}


def workflow(verifier: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A search on the demo model; `verifier` are nodes, among them one called "verifier"."""
    inputs = {
        "model": ["unet", 0], "seed": 1, "steps": STEPS, "cfg": 3.5, "sampler_name": "euler", "scheduler": "simple",
        "positive": ["positive", 0], "negative": ["negative", 0], "latent_image": ["latent", 0], "denoise": 1.0,
        "vae": ["vae", 0], "verifier": ["verifier", 0], "budget": 6, "keep": 1,
    }  # fmt: skip
    return {
        **demo(PROMPT),
        "search": node("NSSearchSampler", **{**inputs, **changes}),
        "report": node("PreviewAny", source=["search", 7]),
        **verifier,
    }


def chain(end: dict[str, Any], output: int = 0, **settings: Any) -> dict[str, Any]:
    made = {"score": ["end", output], "prefer": "high", "batch_size": 1, "trusts_previews": True, **settings}
    return {"image": node("NSGraphImage"), "end": end, "verifier": node("NSScoreFromGraph", **made)}


def foreign(kind: str) -> dict[str, Any]:
    return chain(node("ForeignNumber", "Mine", image=["image", 0], kind=kind))


def found(server: Any, graph: dict[str, Any]) -> dict[str, Any]:
    return report_of(server.run(graph))


def test_it_chooses_what_the_native_verifier_chooses(server):
    native = found(server, workflow({"verifier": node("NSImageStatistics", **WEIGHTS)}, seed=51))
    judge = {"judge": node("NSImageStatistics", **WEIGHTS)}
    end = node("NSScoreImages", "By graph", images=["image", 0], verifier=["judge", 0])
    by_graph = found(server, workflow(chain(end, 3, trusts_previews=False) | judge, seed=51))
    assert by_graph["verifier"] == "By graph" and native["verifier"] == "image statistics"
    assert by_graph["order"] == native["order"] and by_graph["model_calls"] == native["model_calls"]
    for key in ("index", "score", "recipe"):
        assert by_graph["best"][key] == native["best"][key]
    scores = [[candidate["score"] for candidate in report["candidates"]] for report in (by_graph, native)]
    assert scores[0] == scores[1] and len(set(scores[0])) == 6
    assert native["best"]["index"] > 0  # with this seed; else choose another


def test_stock_nodes_alone_guide_a_search(server):
    """The reddest picture: scaled to one pixel, its red channel."""
    nodes = chain(node("ImageToMask", image=["scaled", 0], channel="red"))
    nodes["scaled"] = node("ImageScale", image=["image", 0], upscale_method="area", width=1, height=1, crop="disabled")
    graph = workflow(nodes, seed=52)
    graph["small"] = node("ImageScale", image=["search", 0], upscale_method="area", width=1, height=1, crop="disabled")
    graph["red"] = node("ImageToMask", image=["small", 0], channel="red")
    graph["again"] = node("PreviewAny", source=["red", 0])
    result = server.run(graph)
    report = reports_in(result.outputs["report"]["text"][0])
    assert report["best"]["score"] == max(candidate["score"] for candidate in report["candidates"])
    shown = float(result.outputs["again"]["text"][0].split("[[[")[1].split("]")[0])
    assert shown == pytest.approx(report["best"]["score"], abs=1e-4)  # the score is that of the picture put out


def image_reward(prompt: str) -> dict[str, Any]:
    nodes = chain(node("ImageRewardScore", model=["loader", 0], prompt=["text", 0], images=["image", 0]), 1)
    return nodes | {"loader": node("ImageRewardLoader", model="m"), "text": node("PrimitiveString", value=prompt)}


def cached(result: Any) -> set[str]:
    return set(next(data for kind, data in result.events if kind == "execution_cached")["nodes"])


def test_another_pack_guides_a_search_and_nothing_is_run_twice(server):
    graph = workflow(image_reward("red"), seed=53)
    first = server.run(graph)
    report = reports_in(first.outputs["report"]["text"][0])
    assert report["verifier"] == "ImageReward Score" and len(report["candidates"]) == 6
    assert {"loader", "verifier", "search"} <= cached(server.run(graph))
    graph["text"]["inputs"]["value"] = "blue"
    other = server.run(graph)
    assert "loader" in cached(other) and not {"verifier", "search"} & cached(other)
    blue = reports_in(other.outputs["report"]["text"][0])
    assert [c["score"] for c in blue["candidates"]] != [c["score"] for c in report["candidates"]]


def test_the_search_s_progress_is_the_only_one_shown(server):
    result = server.run(workflow(foreign("progress"), seed=54))
    shown = [data["node"] for kind, data in result.events if kind in ("executing", "progress") and data.get("node")]
    states = {name for kind, data in result.events if kind == "progress_state" for name in data["nodes"]}
    assert "search" in shown and "search" in states
    assert not {"end", "image"} & (set(shown) | states)
    values = [data["value"] for kind, data in result.events if kind == "progress" and data["node"] == "search"]
    assert values == sorted(values) and values[-1] == 6 * STEPS


@pytest.mark.parametrize("end", ["ForeignAsync", "ForeignLists"])
def test_async_nodes_and_lists_in_a_search(server, end):
    inputs = {"ForeignAsync": {"image": ["image", 0]}, "ForeignLists": {"images": ["image", 0], "weight": 1.0}}[end]
    report = found(server, workflow(chain(node(end, **inputs)), seed=55))
    plain = found(server, workflow(foreign("float"), seed=55))
    assert [c["score"] for c in report["candidates"]] == pytest.approx([c["score"] for c in plain["candidates"]])


def test_an_error_names_the_node_and_the_candidate(server):
    result = server.wait(server.queue(workflow(foreign("trouble"), seed=56)))
    assert result.status == "error" and result.message["node_id"] == "search"
    said = result.message["exception_message"]
    assert "verifier 'Mine' failed on candidate 0" in said
    assert "node 'Mine' (id end, ForeignNumber) failed: KeyError: 'no such weight'" in said
    nodes = chain(node("ImageRewardScore", model=["loader", 0], prompt="", images=["other", 0]))
    nodes |= {
        "loader": node("ImageRewardLoader", model="m"),
        "other": node("EmptyImage", width=8, height=8, batch_size=1, color=0),
    }
    result = server.wait(server.queue(workflow(nodes, seed=57)))
    assert result.status == "error" and result.message["node_id"] == "verifier"
    assert "no Candidate Image node lies before that" in result.message["exception_message"]


def test_cancel_inside_the_nodes_is_a_cancel(server):
    result = server.wait(server.queue(workflow(foreign("cancel"), seed=58)))
    assert result.status == "interrupted" and result.message["node_id"] == "search"
    assert len(found(server, workflow(foreign("float"), seed=59))["candidates"]) == 6
