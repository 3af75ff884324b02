"""The prompt runner with the demo model: on a real server, and in process, where it finds the same pictures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from noise_search.bench.prompt_server import PromptError, ServerBackend
from noise_search.bench.prompt_workflow import fill
from noise_search.search.reporting.report import opened

pytestmark = pytest.mark.server

ROOT = Path(__file__).resolve().parent.parent.parent
SMALL = ["--set", "10.budget=3", "--set", "10.steps=4"]


def run(prompts: Path, out: Path, *options: str) -> str:
    command = [sys.executable, str(ROOT / "bench" / "prompts.py"), "--workflow", str(ROOT / "bench" / "demo_workflow.json")]
    command += ["--prompts", str(prompts), "--output", str(out), *SMALL, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rows(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def pixels(out: Path, row: dict) -> np.ndarray:
    return np.asarray(Image.open(out / row["files"][0]).convert("RGB")).astype(int)


def test_the_server_and_the_process_give_the_same(server, tmp_path):
    prompts = tmp_path / "two.txt"
    prompts.write_text("a green triangle above a yellow star\na red circle left of a blue square\n")
    served, processed = tmp_path / "served", tmp_path / "processed"
    run(prompts, served, "--server", server.url)
    run(prompts, processed, "--in-process", "--cpu", "--pack", str(ROOT / "demo"), "--threads", "1")
    for one, other in zip(rows(served), rows(processed), strict=True):
        (report,) = one["reports"].values()
        assert report["seed"] == str(one["seed"]) and one["model_calls"] == report["model_calls"] == 3 * 4
        assert one["best"] == report["best"]["scores"] and one["baseline"] == report["baseline"]["scores"]
        assert one["best"]["CLIP score"] >= one["baseline"]["CLIP score"]
        assert one["held_out"]["verifier"] == "oracle" and one["held_out"]["best"] in (0.0, 1.0)
        assert pixels(served, one).shape == (64, 64, 3) and pixels(served, one).std() > 5
        assert one["seed"] == other["seed"] and one["workflow"] == other["workflow"]
        (mirrored,) = other["reports"].values()
        assert opened(report)["best"]["recipe"] == opened(mirrored)["best"]["recipe"]
        assert np.abs(pixels(served, one) - pixels(processed, other)).max() <= 1
    count = len(json.loads(server.get("/history")))
    assert "2 pictures were there already; 0 of 2 failed" in run(prompts, served, "--server", server.url)
    assert len(json.loads(server.get("/history"))) == count  # nothing was queued


def test_a_prompt_that_fails_on_the_server_does_not_end_the_run(server, tmp_path):
    prompts, out = tmp_path / "p.txt", tmp_path / "out"
    prompts.write_text("a green triangle above a yellow star\na dog\n")  # the oracle refuses the second
    command = [sys.executable, str(ROOT / "bench" / "prompts.py"), "--workflow", str(ROOT / "bench" / "demo_workflow.json")]
    command += ["--prompts", str(prompts), "--output", str(out), "--server", server.url, *SMALL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "1 of 2 failed" in done.stdout
    good, bad = rows(out)
    assert good["error"] is None
    assert "(NSDemoOracle): ValueError: prompt 'a dog' is not of the form" in bad["error"]


def demo_job(budget: int) -> dict:
    template = json.loads((ROOT / "bench" / "demo_workflow.json").read_text())
    template["10"]["inputs"]["budget"] = budget
    return fill(template, {"prompt": "a green triangle above a yellow star", "seed": 1})


def wait_until_idle(server) -> None:  # noqa: ANN001
    deadline = time.monotonic() + 10
    while any(json.loads(server.get("/queue")).values()):
        assert time.monotonic() < deadline, "it still runs"
        time.sleep(0.05)


def test_a_prompt_that_takes_too_long_is_cancelled_on_the_server(server):
    with pytest.raises(PromptError, match="not ended after 0.5 s"):
        ServerBackend(server.url, timeout=0.5).run(demo_job(1000))
    wait_until_idle(server)


def test_a_prompt_whose_one_output_is_wrong_does_not_run_in_part(server):
    workflow = {**demo_job(2), "12": {"class_type": "PreviewImage", "inputs": {}}}
    with pytest.raises(PromptError, match=r"refused: node 12 \(PreviewImage\): Required input is missing: images"):
        ServerBackend(server.url).run(workflow)
    wait_until_idle(server)
