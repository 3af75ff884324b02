"""Templates: placeholders, settings, presets, and where pictures and reports come from."""

from __future__ import annotations

import json

import pytest

from noise_search.bench.prompt_presets import PRESETS, apply_preset
from noise_search.bench.prompt_workflow import (
    WorkflowError,
    fill,
    load_workflow,
    picture_node,
    placeholders,
    search_behind,
    with_reports,
    with_settings,
    workflow_hash,
)

FLUX = {
    "1": {"class_type": "CLIPTextEncode", "inputs": {"text": "A photo of %prompt%.", "clip": ["0", 0]}},
    "2": {"class_type": "FluxGuidance", "inputs": {"conditioning": ["1", 0], "guidance": 2.0}},
    "3": {"class_type": "BasicScheduler", "inputs": {"steps": ["9", 0], "scheduler": "simple"}},
    "4": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "dpmpp_2m"}},
    "5": {"class_type": "RandomNoise", "inputs": {"noise_seed": "%seed%"}},
    "6": {"class_type": "NSSearchSamplerAdvanced", "inputs": {"budget": 8, "sampler": ["4", 0], "noise": ["5", 0]}},
    "7": {"class_type": "ImageScale", "inputs": {"image": ["6", 0]}},
    "8": {"class_type": "SaveImage", "inputs": {"images": ["7", 0], "filename_prefix": "x_%seed%"}},
    "10": {"class_type": "PreviewImage", "inputs": {"images": ["6", 8]}},
}


def test_placeholders():
    assert placeholders(FLUX) == {"prompt", "seed"}
    filled = fill(FLUX, {"prompt": 'a "%seed%" \\1', "seed": 7})
    assert filled["1"]["inputs"]["text"] == 'A photo of a "%seed%" \\1.'  # a prompt is not read again
    assert filled["5"]["inputs"]["noise_seed"] == 7  # a number, not a text
    assert filled["8"]["inputs"]["filename_prefix"] == "x_7"
    assert FLUX["5"]["inputs"]["noise_seed"] == "%seed%"


def test_settings():
    changed = with_settings(FLUX, ["6.budget=3", "8.filename_prefix=a=b.c", '3.steps=["4", 0]', "5.noise_seed=%seed%"])
    assert changed["6"]["inputs"]["budget"] == 3
    assert changed["8"]["inputs"]["filename_prefix"] == "a=b.c"
    assert changed["3"]["inputs"]["steps"] == ["4", 0]
    assert FLUX["6"]["inputs"]["budget"] == 8
    mistakes = {"6.budget": "expected NODE.INPUT=VALUE", "66.budget=1": "no node '66'", "6.budgt=1": "no input 'budgt'"}
    for wrong, said in mistakes.items():
        with pytest.raises(WorkflowError, match=said):
            with_settings(FLUX, [wrong])


def test_reports_and_pictures():
    workflow, reports = with_reports(FLUX)
    assert reports == {"bench_report_6": "6"}
    assert workflow["bench_report_6"] == {"class_type": "PreviewAny", "inputs": {"source": ["6", 7]}}
    assert workflow["6"]["inputs"] == {**FLUX["6"]["inputs"], "resume": "off"}  # the seconds are those of a search
    assert {key: node for key, node in workflow.items() if key in FLUX and key != "6"} == {k: FLUX[k] for k in FLUX if k != "6"}
    assert picture_node(FLUX) == "8"
    assert picture_node(FLUX, "10") == "10"
    assert search_behind(FLUX, "8") == "6"  # through the scaling
    assert search_behind(FLUX, "2") is None
    assert picture_node({"1": {"class_type": "SaveSomething", "inputs": {}}}) is None
    with pytest.raises(WorkflowError, match="several SaveImage nodes \\(8, 11\\)"):
        picture_node({**FLUX, "11": FLUX["8"]})
    with pytest.raises(WorkflowError, match="no such node"):
        picture_node(FLUX, "99")


def test_the_hash_is_of_what_is_run():
    assert workflow_hash(FLUX) == workflow_hash(dict(reversed(FLUX.items())))
    assert workflow_hash(FLUX) != workflow_hash(with_settings(FLUX, ["6.budget=9"]))
    assert workflow_hash(FLUX) != workflow_hash(FLUX, {"verifier": "fid"})


def test_loading(tmp_path):
    path = tmp_path / "w.json"
    path.write_text(json.dumps({"1": {**FLUX["4"], "_meta": {"title": "My title"}}}))
    assert load_workflow(path) == {"1": FLUX["4"]}
    for text, said in ((json.dumps({"nodes": [], "links": []}), "Export \\(API\\)"), ("{", "not JSON"), ("[]", "JSON object"),
                       ('{"1": {"inputs": {}}}', "node '1' lacks")):  # fmt: skip
        path.write_text(text)
        with pytest.raises(WorkflowError, match=said):
            load_workflow(path)


def test_flux_presets_are_the_papers():
    for name, budget, calls, repeats in (("flux-drawbench", 96, 2880, 1), ("flux-compbench", 64, 1920, 2)):
        changed, said = apply_preset(FLUX, PRESETS[name])
        assert changed["2"]["inputs"]["guidance"] == 3.5
        assert changed["3"]["inputs"]["steps"] == 30
        assert changed["4"]["inputs"]["sampler_name"] == "euler"
        assert changed["6"]["inputs"]["budget"] == budget and 30 * budget == calls
        method = changed["6"]["inputs"]["method"][0]
        assert changed[method] == {"class_type": "NSRandomSearch", "inputs": {"draft_steps": 0}}
        assert PRESETS[name].repeats == repeats
        assert said == ["3.steps: what node 9 gave -> 30", "4.sampler_name: dpmpp_2m -> euler", "2.guidance: 2.0 -> 3.5",
                        f"6.budget: 8 -> {budget}", "6.method: random search, which had none"]  # fmt: skip
    assert FLUX["6"]["inputs"] == {"budget": 8, "sampler": ["4", 0], "noise": ["5", 0]}


def test_other_presets_and_what_has_no_place():
    sdxl = {"1": {"class_type": "NSSearchSampler", "inputs": {"steps": 20, "cfg": 7.0, "sampler_name": "euler", "budget": 4,
                                                             "method": ["2", 0]}}}  # fmt: skip
    changed, said = apply_preset(sdxl, PRESETS["sdxl-drawbench"])
    assert changed["1"]["inputs"] == {"steps": 40, "cfg": 7.0, "sampler_name": "euler", "budget": 32, "method": ["2", 0]}
    assert said[-1] == "1.method: kept as connected" and 40 * 32 == 1280
    pixart, _ = apply_preset(sdxl, PRESETS["pixart-drawbench"])
    assert pixart["1"]["inputs"] == {"steps": 30, "cfg": 4.5, "sampler_name": "ddim", "budget": 4, "method": ["2", 0]}
    with pytest.raises(WorkflowError, match="sets guidance to 3.5, but the workflow holds no FluxGuidance node"):
        apply_preset(sdxl, PRESETS["flux-drawbench"])
