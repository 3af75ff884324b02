"""Save Search in a running server: what it writes, what its pictures carry."""

from __future__ import annotations

import csv
import io
import json
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.server

import numpy as np
from graphs import node, workflow
from PIL import Image
from reported import recipe, reports_in


def saving(**changes: Any) -> dict[str, Any]:
    """The search of `graphs.workflow`, saved by Save Search. `changes` are inputs of the search node."""
    graph = workflow(**changes)
    graph["keep"] = node("NSSaveSearch", images=["search", 0], report=["search", 7], filename_prefix="kept/of %width%")
    return graph


def files(server: Any, result: Any, node_id: str = "keep") -> dict[str, bytes]:
    """The report files that an ended prompt wrote, by ending."""
    return {entry["filename"].split(".")[-1]: server.image(entry) for entry in result.outputs[node_id]["noise_search_files"]}


def pictures(server: Any, result: Any, node_id: str = "keep") -> list[Image.Image]:
    return [Image.open(io.BytesIO(server.image(entry))) for entry in result.outputs[node_id]["images"]]


def test_pictures_and_reports_are_written(server):
    result = server.run(saving(seed=201, keep=2))
    report = reports_in(result.outputs["report"]["text"][0])
    shown = pictures(server, result)
    stock = [Image.open(io.BytesIO(server.image(entry))) for entry in result.outputs["save"]["images"]]
    assert [np.array_equal(a, b) for a, b in zip(shown, stock, strict=True)] == [True, True]
    names = [entry["filename"] for entry in result.outputs["keep"]["images"]]
    assert names == ["of 64_00001_.png", "of 64_00002_.png"] and {e["subfolder"] for e in result.outputs["keep"]["images"]} == {
        "kept"
    }

    for picture, index in zip(shown, report["kept"], strict=True):
        said = json.loads(picture.text["noise_search"])
        assert said["recipe"] == json.loads(report["candidates"][index]["recipe"]) and said["candidate"] == index
        assert said["score"] == report["candidates"][index]["score"] and said["search"]["model_calls"] == report["model_calls"]
        assert json.loads(picture.text["prompt"])["search"]["class_type"] == "NSSearchSampler"

    written = files(server, result)
    assert reports_in(written["json"].decode()) == report
    rows = list(csv.DictReader(io.StringIO(written["csv"].decode())))
    assert [row["recipe"] for row in rows] == [candidate["recipe"] for candidate in report["candidates"]]
    page = written["html"].decode()
    assert page.count("<img ") == 2 and page.count("<tr ") == 4
    assert {entry["filename"] for entry in result.outputs["keep"]["noise_search_files"]} == {
        f"of 64_00001_.{ending}" for ending in ("json", "csv", "html")
    }


def test_a_second_run_overwrites_nothing_and_what_is_not_asked_for_is_not_written(server):
    graph = saving(seed=202, budget=2)
    graph["keep"]["inputs"] |= {"save_csv": False, "save_html": False, "filename_prefix": "twice"}
    first = server.run(graph)
    graph["search"]["inputs"]["seed"] = 203
    second = server.run(graph)
    names = [entry["filename"] for r in (first, second) for entry in r.outputs["keep"]["noise_search_files"]]
    assert names == ["twice_00001_.json", "twice_00002_.json"]


def test_a_batch_is_saved_with_a_list_of_reports(server):
    graph = saving(seed=204, budget=2, keep=2)
    graph["latent"]["inputs"]["batch_size"] = 2
    result = server.run(graph)
    reports = reports_in(result.outputs["report"]["text"][0])
    said = [json.loads(picture.text["noise_search"]) for picture in pictures(server, result)]
    assert [one["recipe"] for one in said] == [json.loads(r["candidates"][k]["recipe"]) for r in reports for k in r["kept"]]
    assert files(server, result)["html"].decode().count("<section>") == 2


def test_pictures_that_are_not_the_reports_are_refused(server):
    graph = saving(seed=205, budget=3, keep=3)
    graph["one"] = node("ImageFromBatch", image=["search", 0], batch_index=0, length=2)
    graph["keep"]["inputs"]["images"] = ["one", 0]
    result = server.wait(server.queue(graph))
    assert result.status == "error" and result.message["node_id"] == "keep"
    assert result.message["exception_message"].startswith("images: 2 pictures cannot be those of the 3")


SUMMARY = {"noise_search": 1, "recipe": json.loads(recipe(5))}


def hidden(workflow: Any, **prompt: Any) -> SimpleNamespace:
    return SimpleNamespace(unique_id="9", prompt=prompt, extra_pnginfo={"workflow": workflow, "other": [1]})


@pytest.mark.comfy
def test_the_workflow_in_a_picture_holds_the_pictures_own_recipe():
    from noise_search.nodes.run.metadata import carry, png_info

    workflow = {"nodes": [{"id": 1, "type": "NSSearchSampler", "properties": {"a": 1}}, {"id": 9, "type": "NSSaveSearch"}]}
    given = hidden(workflow, **{"9": {"inputs": {"report": ["1", 7]}}})
    winner = {**SUMMARY, "recipe": json.loads(recipe(6))}
    carry(given.extra_pnginfo, "1", winner)
    assert given.extra_pnginfo["noise_search"] == {"1": winner}
    chunks = {name.split(b"\0")[0].decode(): json.loads(name.split(b"\0")[1]) for _, name, *_ in png_info(given, SUMMARY).chunks}
    assert chunks["noise_search"] == SUMMARY and chunks["other"] == [1]
    assert chunks["workflow"]["nodes"][0]["properties"] == {"a": 1, "noise_search": SUMMARY}
    assert workflow["nodes"][0]["properties"] == {"a": 1, "noise_search": winner}  # what other nodes save


@pytest.mark.comfy
def test_a_search_node_is_found_inside_subgraphs():
    from noise_search.nodes.run.metadata import find_node

    search = {"id": 3, "type": "NSSearchSamplerAdvanced"}
    inner = {"id": "b", "nodes": [search, {"id": 4, "type": "KSampler"}]}
    outer = {"id": "a", "nodes": [{"id": 2, "type": "b"}]}
    workflow = {"nodes": [{"id": 1, "type": "a"}, {"id": 5, "type": "gone"}], "definitions": {"subgraphs": [outer, inner]}}
    assert find_node(workflow, "1:2:3") is search
    for nowhere in ("1:2:4", "1", "5:3", "7", "", "1:2:3:4"):
        assert find_node(workflow, nowhere) is None
    for odd in (None, [], {"nodes": 3}, {"nodes": [3]}, {"definitions": []}):
        assert find_node(odd, "1") is None


@pytest.mark.comfy
def test_metadata_can_be_switched_off(monkeypatch):
    from comfy.cli_args import args

    from noise_search.nodes.run.metadata import png_info

    monkeypatch.setattr(args, "disable_metadata", True)
    assert png_info(hidden({"nodes": []}), SUMMARY) is None


def test_a_stock_save_image_carries_the_winners_recipe(server):
    graph = workflow(seed=206, budget=3)
    page = {"nodes": [{"id": "search", "type": "NSSearchSampler"}, {"id": "save", "type": "SaveImage"}]}
    result = server.wait(server.queue(graph, {"workflow": page}))
    report = reports_in(result.outputs["report"]["text"][0])
    (picture,) = pictures(server, result, "save")
    said = json.loads(picture.text["noise_search"])
    assert said["search"]["recipe"] == json.loads(report["best"]["recipe"])
    assert said["search"]["sigmas"] == report["sigmas"] and len(report["sigmas"]) == 9
    kept = json.loads(picture.text["workflow"])["nodes"]
    assert kept[0]["properties"]["noise_search"] == said["search"] == result.outputs["search"]["noise_search_found"][0]
    assert "properties" not in kept[1]


def test_stock_pictures_of_several_kept_candidates_carry_all_recipes_in_order(server):
    result = server.wait(server.queue(workflow(seed=207, budget=4, keep=3), {}))
    report = reports_in(result.outputs["report"]["text"][0])
    shown = pictures(server, result, "save")
    assert len(shown) == len(report["kept"]) == 3
    recipes = [json.loads(report["candidates"][index]["recipe"]) for index in report["kept"]]
    for picture in shown:
        said = json.loads(picture.text["noise_search"])["search"]
        assert [entry["recipe"] for entry in said["kept"]] == recipes and said["recipe"] == recipes[0]
        assert [entry["candidate"] for entry in said["kept"]] == report["kept"]
    assert "kept" not in result.outputs["search"]["noise_search_found"][0]  # of the node it is the winner
