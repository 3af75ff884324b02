"""The search nodes in a running server: queue, progress, previews, files, history, Cancel, refusals."""

from __future__ import annotations

import io
import time
from typing import Any

import pytest

pytestmark = pytest.mark.server

import numpy as np
from graphs import PROMPT, STEPS, node, report_of, workflow
from PIL import Image


def saved(server: Any, result: Any, node_id: str = "save") -> list[np.ndarray]:
    """The pictures that a SaveImage node of an ended prompt wrote."""
    entries = result.outputs[node_id]["images"]
    return [np.asarray(Image.open(io.BytesIO(server.image(entry))).convert("RGB")) for entry in entries]


def progress_of(events: list, node_id: str = "search") -> list[dict[str, Any]]:
    return [data for kind, data in events if kind == "progress" and data.get("node", node_id) == node_id]


def test_a_search_from_queue_to_saved_image(server):
    before = server.previews
    result = server.run(workflow(seed=7, budget=8, keep=2))
    report = report_of(result)
    assert report["best"]["score"] >= report["baseline"]["score"] and report["seed"] == "7"
    assert report["model_calls"] == 8 * STEPS and len(report["candidates"]) == 8

    progress = progress_of(result.events)
    values = [data["value"] for data in progress]
    assert len(values) >= 3 and values == sorted(values)  # newer cores send few of them
    assert {data["max"] for data in progress} == {8 * STEPS} and values[-1] == 8 * STEPS
    assert server.previews > before

    pictures = saved(server, result)
    assert [picture.shape for picture in pictures] == [(64, 64, 3)] * 2
    assert not np.array_equal(*pictures) and all(picture.std() > 10 for picture in pictures)


def test_budget_1_saves_the_picture_of_ksampler(server):
    graph = workflow(seed=11, budget=1)
    names = ("model", "seed", "steps", "cfg", "sampler_name", "scheduler", "positive", "negative", "latent_image", "denoise")
    graph["ksampler"] = node("KSampler", **{name: graph["search"]["inputs"][name] for name in names})
    graph["decode"] = node("VAEDecode", samples=["ksampler", 0], vae=["vae", 0])
    graph["stock"] = node("SaveImage", images=["decode", 0], filename_prefix="stock")
    result = server.run(graph)
    assert np.array_equal(saved(server, result)[0], saved(server, result, "stock")[0])


@pytest.mark.parametrize("source", ["noise", "recipe"])
def test_stock_nodes_make_the_winner_again(server, source):
    """Its outputs wired into the stock SamplerCustomAdvanced, within one prompt."""
    graph = workflow(seed=12, sampler_name="euler_ancestral", budget=24)
    graph["verifier"] = node("NSImageStatistics", sharpness=1.0, exposure=0.0, colorfulness=0.0, contrast=0.0)
    inputs = graph["search"]["inputs"]
    graph["again"] = node("NSNoiseFromRecipe", recipe=["search", 6])
    graph["guider"] = node("CFGGuider", **{name: inputs[name] for name in ("model", "positive", "negative", "cfg")})
    graph["sampler"] = node("KSamplerSelect", sampler_name=inputs["sampler_name"])
    graph["stock run"] = node(
        "SamplerCustomAdvanced", noise=["search", 2] if source == "noise" else ["again", 0], guider=["guider", 0],
        sampler=["sampler", 0], sigmas=["search", 3], latent_image=["latent", 0],
    )  # fmt: skip
    graph["decode"] = node("VAEDecode", samples=["stock run", 0], vae=["vae", 0])
    graph["stock"] = node("SaveImage", images=["decode", 0], filename_prefix="stock")
    result = server.run(graph)
    report = report_of(result)
    assert report["best"]["index"] > 0  # with this seed; else choose another
    found, again = saved(server, result)[0].astype(int), saved(server, result, "stock")[0].astype(int)
    assert abs(found - again).max() <= 1


def test_the_plot_output_is_a_picture(server):
    graph = workflow(seed=13)
    graph["plot"] = node("PreviewImage", images=["search", 8])
    (plot,) = saved(server, server.run(graph), "plot")
    assert plot.shape == (600, 960, 3) and plot.std() > 10


def wait_for_progress(server: Any, prompt_id: str, at_least: int) -> list[dict[str, Any]]:
    """Wait until the search has made so many model calls; return its progress events."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        seen = progress_of([event for event in list(server.events) if event[1].get("prompt_id") == prompt_id])
        if seen and seen[-1]["value"] >= at_least:
            return seen
        time.sleep(0.005)
    raise TimeoutError(f"no {at_least} model calls\n{server.log()[-3000:]}")


def cancel_halfway(server: Any, **changes: Any) -> tuple[Any, int, int]:
    """Cancel a long search after its first wave; return how it ended, its value then and at the end."""
    budget = 40
    prompt_id = server.queue(workflow(budget=budget, **changes))
    wait_for_progress(server, prompt_id, 33 * STEPS)
    server.interrupt()
    at_cancel = wait_for_progress(server, prompt_id, 0)[-1]["value"]
    result = server.wait(prompt_id)
    values = [data["value"] for data in progress_of(result.events)]
    assert at_cancel < budget * STEPS  # it was still running
    return result, at_cancel, values[-1]


def check_usable(server: Any, seed: int) -> None:
    result = server.run(workflow(seed=seed, budget=2))
    assert len(report_of(result)["candidates"]) == 2 and len(saved(server, result)) == 1


def test_cancel_stops_within_one_model_call(server):
    result, at_cancel, at_end = cancel_halfway(server, seed=21, batching="off")
    assert result.status == "interrupted" and result.message["node_id"] == "search"
    assert result.message["node_type"] == "NSSearchSampler" and "save" not in result.outputs
    # One row a call: the one that was being made, and those whose messages were on their way.
    assert at_end - at_cancel <= 4
    check_usable(server, seed=22)


def test_cancel_may_keep_the_best_so_far(server):
    result, at_cancel, at_end = cancel_halfway(server, seed=23, batching="off", on_cancel="keep best")
    assert result.status == "success"
    report = report_of(result)
    assert "cancelled" in report["stopped"] and at_end - at_cancel <= 4
    assert 32 <= len(report["order"]) < 40 and report["model_calls"] <= at_end + 1
    assert report["best"]["score"] >= report["baseline"]["score"]
    (picture,) = saved(server, result)
    assert picture.shape == (64, 64, 3) and picture.std() > 10
    check_usable(server, seed=24)


def test_cancel_before_the_first_picture_is_a_cancel(server):
    prompt_id = server.queue(workflow(seed=25, budget=100, steps=400, on_cancel="keep best", batching="off"))
    wait_for_progress(server, prompt_id, 3)
    server.interrupt()
    result = server.wait(prompt_id)
    assert result.status == "interrupted" and "save" not in result.outputs
    check_usable(server, seed=26)


@pytest.mark.parametrize(("changes", "about"), [
    ({"budget": 0}, "budget"),
    ({"keep": 0}, "keep"),
    ({"budget": "many"}, "budget"),
    ({"seed": 2**64}, "seed"),
    ({"verifier": ["vae", 0]}, "verifier"),
    ({"method": ["verifier", 0]}, "method"),
    ({"limits": ["method", 0]}, "limits"),
])  # fmt: skip
def test_a_bad_workflow_is_refused_by_node_and_input(server, changes, about):
    from live import Refused

    with pytest.raises(Refused) as refused:
        server.queue(workflow(**changes))
    errors = refused.value.answer["node_errors"]["search"]
    assert errors["class_type"] == "NSSearchSampler"
    assert {error["extra_info"]["input_name"] for error in errors["errors"]} == {about}


def test_a_missing_input_is_named(server):
    from live import Refused

    graph = workflow()
    del graph["search"]["inputs"]["verifier"]
    with pytest.raises(Refused) as refused:
        server.queue(graph)
    (error,) = refused.value.answer["node_errors"]["search"]["errors"]
    assert error["type"] == "required_input_missing" and error["extra_info"]["input_name"] == "verifier"


def ends_in(server: Any, graph: dict[str, Any]) -> dict[str, Any]:
    result = server.wait(server.queue(graph))
    assert result.status == "error"
    return result.message


def test_errors_while_running_name_the_node_and_say_what_to_do(server):
    message = ends_in(server, workflow(seed=31, denoise=0.0))
    assert message["node_id"] == "search" and message["exception_message"].startswith("sigmas: ")

    from live import Refused

    try:  # newer cores refuse it, older ones run it
        message = ends_in(server, workflow(seed=36, batching="maybe"))
        assert message["node_id"] == "search" and message["exception_message"].startswith("batching: 'maybe'")
    except Refused as refused:
        (error,) = refused.answer["node_errors"]["search"]["errors"]
        assert error["extra_info"]["input_name"] == "batching"

    graph = workflow(seed=32)
    graph["method"] = node("NSRandomSearch", draft_steps=STEPS)
    message = ends_in(server, graph)
    assert message["node_id"] == "search" and "'draft_steps' must be from 1 to" in message["exception_message"]

    graph = workflow(seed=33)
    graph["verifier"] = node(
        "NSClipScore", clip=["clip", 0], clip_vision=["clip", 1], model_name="none (use the connected models)", prompt=" ",
    )  # fmt: skip
    message = ends_in(server, graph)
    assert message["node_id"] == "verifier" and "prompt" in message["exception_message"]

    graph = workflow(seed=34)
    graph["again"] = node("NSNoiseFromRecipe", recipe="a red circle")
    graph["shown"] = node("PreviewAny", source=["again", 0])
    message = ends_in(server, graph)
    assert message["node_id"] == "again" and message["exception_message"].startswith("recipe: ")
    check_usable(server, seed=35)


def test_clip_guides_and_the_oracle_watches(server):
    graph = workflow(seed=41, budget=6, held_out=["verifier", 0], verifier=["clip score", 0])
    graph["clip score"] = node(
        "NSClipScore", clip=["clip", 0], clip_vision=["clip", 1], model_name="none (use the connected models)", prompt=PROMPT,
    )  # fmt: skip
    report = report_of(server.run(graph))
    assert report["verifier"] == "CLIP score" and report["held_out"]["verifier"] == "oracle"
    assert set(report["held_out"]["scores"]) == {"0", str(report["best"]["index"])}


def test_a_batch_of_two_and_an_advanced_search(server):
    graph = workflow(seed=42)
    graph["latent"]["inputs"]["batch_size"] = 2
    inputs = graph["search"]["inputs"]
    graph["noise"] = node("RandomNoise", noise_seed=42)
    graph["guider"] = node("CFGGuider", **{name: inputs[name] for name in ("model", "positive", "negative", "cfg")})
    graph["sampler"] = node("KSamplerSelect", sampler_name="dpmpp_2m")
    graph["sigmas"] = node("BasicScheduler", model=["unet", 0], scheduler="simple", steps=STEPS, denoise=1.0)
    graph["search"] = node(
        "NSSearchSamplerAdvanced", noise=["noise", 0], guider=["guider", 0], sampler=["sampler", 0], sigmas=["sigmas", 0],
        latent_image=["latent", 0], vae=["vae", 0], verifier=["verifier", 0], budget=3, keep=1,
    )  # fmt: skip
    result = server.run(graph)
    reports = report_of(result)
    assert len(reports) == len(saved(server, result)) == 2
    values = [data["value"] for data in progress_of(result.events)]
    assert values == sorted(values) and values[-1] == 2 * 3 * STEPS  # one bar over both searches
