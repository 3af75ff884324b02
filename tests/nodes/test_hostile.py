"""What strangers' workflows may hold, in a running server: nothing runs, nothing is written outside, the error says why."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.server

from graphs import node, workflow
from PIL import Image
from reported import candidate, recipe, report

from live import Refused

MARKUP = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'`${7*7}{{7*7}}\r\n\u202egnp\u2066"
DEEP = "[" * 100_000
NESTED = json.dumps(recipe(1)).replace("1", '{"a":' * 300 + "1" + "}" * 300, 1)
FORGED = {"file": "/etc/passwd", "path": "../../x", "filename": "../../../x.png", "subfolder": "/etc"}
PICTURE = node("EmptyImage", width=16, height=16, batch_size=1, color=255)
HUGE = 10_000_000


def listing(folder: Path) -> dict[str, int]:
    """Every file and folder below one, with its size."""
    return {str(path.relative_to(folder)): path.lstat().st_size for path in sorted(folder.rglob("*"))}


@pytest.fixture(autouse=True)
def _nothing_is_written_outside(server: Any) -> Iterator[None]:
    """Compare what is around the output folder before and after: the base directory, and the folder that holds it."""

    def around() -> tuple[dict[str, int], list[str], list[bool]]:
        folders = [folder for folder in server.base.iterdir() if folder.name not in ("output", "temp", "custom_nodes")]
        inside = {f"{f.name}/{name}": size for f in folders if f.is_dir() for name, size in listing(f).items()}
        inside = {name: size for name, size in inside.items() if not name.startswith("user/")}  # ComfyUI's own logs and settings
        beside = [path.name for path in server.base.parent.iterdir() if path.name.startswith(("x", "evil", "passwd"))]
        return inside, sorted(folder.name for folder in folders), beside

    before = around()
    yield
    assert around() == before
    assert server.process.poll() is None and json.loads(server.get("/system_stats"))
    assert not [path for path in (server.base / "output").rglob("*") if path.is_symlink()]


def saving(text: Any, prefix: str = "hostile/a", **inputs: Any) -> dict[str, Any]:
    keep = node("NSSaveSearch", images=["picture", 0], report=text, filename_prefix=prefix, **inputs)
    return {"picture": PICTURE, "keep": keep}


def said(server: Any, graph: dict[str, Any], where: str) -> str:
    """What a workflow ends in: the message at a node."""
    result = server.wait(server.queue(graph))
    assert result.status == "error" and result.message["node_id"] == where, result.message
    assert len(result.message["exception_message"]) < 1000
    return result.message["exception_message"]


@pytest.mark.parametrize("prefix", [
    "../evil", "../../evil", "a/../../evil", "/etc/evil", "/evil", "a/../../../../../../../etc/evil", "%width%/../../evil",
    "..", "a..b", "a\x00b", "\x00", "a\nb", "a\u202egnp.exe", "\ud800", "a" * 5000, "/" * 5000,
])  # fmt: skip
def test_a_prefix_leads_nowhere_else(server, prefix):
    before = listing(server.base / "output")
    message = said(server, saving(json.dumps(report()), prefix), "keep")
    assert message.startswith("filename_prefix: ")
    assert message.isascii() and len(message) < 700
    assert listing(server.base / "output") == before


@pytest.mark.parametrize("prefix", [
    "<script>alert(1)<", "a'\"`;$(touch x)&|", "~/evil", "C:\\evil", "con", "a b", ".hidden",
])  # fmt: skip
def test_an_odd_name_stays_in_the_output_folder(server, prefix):
    before = listing(server.base / "output")
    result = server.wait(server.queue(saving(json.dumps(report()), prefix)))
    after = listing(server.base / "output")
    if result.status == "error":
        assert result.message["exception_message"].startswith("filename_prefix: ") and after == before
    else:
        names = [*result.outputs["keep"]["images"], *result.outputs["keep"]["noise_search_files"]]
        assert len(names) == 4 and len(after) >= len(before) + 4
        assert all(server.image(name) for name in names)


@pytest.mark.parametrize(("text", "about"), [
    ("x" * HUGE, "not JSON"),
    (DEEP, "not JSON"),
    (json.dumps({**report(), "gain": float("nan")}), "NaN is no number"),
    (json.dumps({**report(), "gain": float("-inf")}), "-Infinity is no number"),
    (json.dumps(report()).replace("32", "9" * 10_000), "10000 digits"),
    (json.dumps(report()).replace("0.75", "1e308"), "is no score"),
    (json.dumps({**report(), "kept": [10**9]}), "'kept' names candidate 1000000000"),
    (json.dumps({**report(), "candidates": FORGED}), "'candidates' must be a list"),
    (json.dumps(FORGED), "no report of Noise Search"),
    (json.dumps(report(candidates=[candidate(0, recipe=DEEP)])), "candidate 0: recipe: "),
    (json.dumps(report(candidates=[candidate(0, recipe="1" * HUGE)])), "candidate 0: recipe: "),
    (json.dumps(report(candidates=[candidate(0, recipe=json.dumps(FORGED))])), "candidate 0: recipe: "),
])  # fmt: skip
def test_what_is_wrong_with_a_report_is_said_at_its_node(server, text, about):
    message = said(server, saving(text), "keep")
    assert message.startswith("report: ") and about in message


def test_forged_paths_and_nested_values_in_a_report_are_only_text(server):
    nested: Any = FORGED
    for _ in range(100):
        nested = {"file": nested}
    forged = {
        **report(verifier=MARKUP, notes=[MARKUP, nested], problems=["/etc/passwd"]), **FORGED, "images": [FORGED],
        "held_out": nested, "method": {"name": "../../x", **FORGED, "proposal": nested},
    }  # fmt: skip
    before = set(listing(server.base / "output"))
    result = server.run(saving(json.dumps(forged), "hostile/forged"))
    written = set(listing(server.base / "output")) - before - {"hostile"}
    assert written == {f"hostile/forged_00001_.{ending}" for ending in ("png", "json", "csv", "html")}
    page = next(server.image(e) for e in result.outputs["keep"]["noise_search_files"] if e["filename"].endswith("html")).decode()
    assert "root:" not in page and page.count("<script>") == 1 and "<img src=x" not in page
    assert result.outputs["keep"]["images"][0]["subfolder"] == "hostile"


def test_100_000_candidates(server):
    many = [candidate(index, score=index / 1e5) for index in range(100_000)]
    one_round = {"candidates": list(range(100_000)), "model_calls": 800_000, "best": 0, "score": 1.0}
    large = report(candidates=many, rounds=[one_round])
    result = server.run(saving(json.dumps(large), "hostile/many"))
    sizes = {e["filename"].split(".")[-1]: len(server.image(e)) for e in result.outputs["keep"]["noise_search_files"]}
    assert sizes["html"] < 3_000_000
    csv = server.image(next(e for e in result.outputs["keep"]["noise_search_files"] if e["filename"].endswith("csv")))
    assert csv.count(b"\n") == 100_001


def rendering(text: str) -> dict[str, Any]:
    graph = workflow()
    inputs = graph["search"]["inputs"]
    graph["noise"] = node("RandomNoise", noise_seed=1)
    graph["guider"] = node("CFGGuider", **{name: inputs[name] for name in ("model", "positive", "negative", "cfg")})
    graph["sampler"] = node("KSamplerSelect", sampler_name="euler")
    graph["sigmas"] = node("BasicScheduler", model=["unet", 0], scheduler="simple", steps=4, denoise=1.0)
    parts = {name: [name, 0] for name in ("noise", "guider", "sampler", "sigmas", "vae")}
    graph["render"] = node("NSRenderCandidate", **parts, latent_image=["latent", 0], recipe=text)
    graph["save"]["inputs"]["images"] = ["render", 0]
    del graph["report"], graph["search"]
    return graph


def from_recipe(text: str) -> dict[str, Any]:
    return {"again": node("NSNoiseFromRecipe", recipe=text), "shown": node("PreviewAny", source=["again", 0])}


def jittering(text: str) -> dict[str, Any]:
    graph = {name: one for name, one in workflow().items() if name in ("clip", "positive")}
    graph["jitter"] = node("NSJitterConditioning", conditioning=["positive", 0], recipe=text)
    return {**graph, "shown": node("PreviewAny", source=["jitter", 0])}


def choosing(text: str) -> dict[str, Any]:
    return workflow(choose=text, seed=401)


@pytest.mark.parametrize("make", [rendering, from_recipe, jittering, choosing])
@pytest.mark.parametrize("text", [
    "x" * HUGE, "[" + "1," * (HUGE // 2) + "1]", DEEP, NESTED, json.dumps({**json.loads(recipe(1)), "noise": FORGED}),
    json.dumps(FORGED), MARKUP, "\x00", "NaN", '{"noise_search": 1, "noise": "1e999", "seed": "1"}',
    '{"noise_search": 1, "noise": "1", "seed": "1", "cuts": [{"sigma": NaN, "renoise_to": 1, "noise_seed": "1", "seed": "1"}]}',
    '{"noise_search": 1, "noise": "1", "seed": "1", "cuts": [{"sigma": 1e999, "renoise_to": 2, "noise_seed": "1", "seed": "1"}]}',
    '{"noise_search": 1, "noise": "../../x", "seed": "1"}', '{"noise_search": 1, "noise": "1", "seed": "' + "9" * 5000 + '"}',
], ids=lambda text: ascii(text[:12]))  # fmt: skip
def test_a_recipe_that_is_none_is_refused_by_input(server, make, text):
    graph = make(text)
    where = {rendering: "render", from_recipe: "again", jittering: "jitter", choosing: "search"}[make]
    message = said(server, graph, where)
    assert message.startswith("choose: " if make is choosing else "recipe: ")


def test_markup_in_prompts_and_names_is_only_text(server):
    graph = workflow(seed=402, budget=2)
    graph["positive"]["inputs"]["text"] = MARKUP
    graph["verifier"] = node(
        "NSClipScore", clip=["clip", 0], clip_vision=["clip", 1], model_name="none (use the connected models)", prompt=MARKUP,
    )  # fmt: skip
    graph["keep"] = node("NSSaveSearch", images=["search", 0], report=["search", 7], filename_prefix="hostile/markup")
    result = server.run(graph)
    (entry,) = result.outputs["keep"]["images"]
    picture = Image.open(io.BytesIO(server.image(entry)))
    assert json.loads(picture.text["prompt"])["positive"]["inputs"]["text"] == MARKUP
    files = {e["filename"].split(".")[-1]: server.image(e).decode() for e in result.outputs["keep"]["noise_search_files"]}
    assert files["html"].count("<script>") == 1 and "onerror=alert" not in files["html"].replace("&lt;img", "")


@pytest.mark.parametrize(("kind", "name"), [
    ("NSImageReward", "../../../etc/passwd"), ("NSAestheticScore", "/etc/passwd"), ("NSHPSv2", "<img src=x onerror=alert(1)>"),
    ("NSPickScore", "..\\..\\x\x00"),
])  # fmt: skip
def test_a_file_name_is_one_of_the_list(server, kind, name):
    graph = workflow(seed=403)
    graph["verifier"] = node(kind, model_name=name, prompt="x", clip_name=name)
    with pytest.raises(Refused) as refused:
        server.queue(graph)
    errors = refused.value.answer["node_errors"]["verifier"]["errors"]
    assert "model_name" in {error["extra_info"]["input_name"] for error in errors}


def test_a_foreign_workflow_beside_the_prompt_is_only_stored(server):
    """The page's form of the workflow may be anything: it is looked through for the search node, no more."""
    graph = workflow(seed=404, budget=2)
    graph["keep"] = node("NSSaveSearch", images=["search", 0], report=["search", 7], filename_prefix="hostile/foreign")
    for number, page in enumerate([{"nodes": MARKUP}, {"nodes": [None, {"id": "search", "type": "../x"}]}, [], "x", 7, None]):
        graph["search"]["inputs"]["seed"] = 404 + number
        result = server.wait(server.queue(graph, {"workflow": page, "noise_search": "mine"}))
        assert result.status == "success", result.message
        (entry,) = result.outputs["keep"]["images"]
        text = Image.open(io.BytesIO(server.image(entry))).text
        assert json.loads(text["workflow"]) == page and json.loads(text["noise_search"])["noise_search"] == 1
