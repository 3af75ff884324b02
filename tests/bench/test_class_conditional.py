"""Class-conditional runs as commands, on the demo model in process: the numbers agree with one another."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch_fidelity")
pytestmark = pytest.mark.comfy

ROOT = Path(__file__).resolve().parent.parent.parent
TABLE = ("FID (tiny)", "IS (CLIP)", "class probability", "right by CLIP", "right by the oracle")


def run(*options: str, code: int = 0) -> str:
    command = [sys.executable, str(ROOT / "bench" / "class_conditional.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == code, done.stdout + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture
def command(monkeypatch, capsys):  # noqa: ANN201
    """The command in this process, for the parts that start no ComfyUI; `sys.path` is as before afterwards."""
    monkeypatch.setattr(sys, "path", [str(ROOT / "bench"), *sys.path])
    main = importlib.import_module("class_conditional").main

    def call(*options: str) -> str:
        assert main(options) == 0
        return capsys.readouterr().out

    yield call
    for name in ("class_conditional", "prompts", "bootstrap"):
        sys.modules.pop(name, None)


def table_of(said: str) -> dict[str, list[float]]:
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in said.splitlines() if line.startswith("|")]
    return {cells[0]: [float(value) for value in cells[1:]] for cells in lines[2:]}


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def test_the_demo(tmp_path):
    found = table_of(run("demo", "--output", str(tmp_path), "--count", "2", "--repeats", "2", "--budget", "4", "--threads", "1"))
    assert list(found) == ["own seed", "class probability", "greedy FID"]
    by = {name: dict(zip(TABLE, values, strict=True)) for name, values in found.items()}
    for folder, verifier in (("greedy-FID", "greedy FID"), ("class-probability", "class probability")):
        assert all(row["best"][verifier] >= row["baseline"][verifier] for row in rows(tmp_path / folder))
    assert by["class probability"]["class probability"] >= by["own seed"]["class probability"]
    # What the search counted up to is what the library finds in the folder afterwards.
    last = rows(tmp_path / "greedy-FID")[-1]["best"]["greedy FID"]
    assert -last == pytest.approx(by["greedy FID"]["FID (tiny)"], rel=2e-3)
    chosen = [row["best"]["class probability"] for row in rows(tmp_path / "class-probability")]
    assert sum(chosen) / 4 == pytest.approx(by["class probability"]["class probability"], abs=2e-3)  # of 8-bit pictures


def test_statistics_search_and_evaluation_as_commands(tmp_path, command):
    import torch
    from PIL import Image

    from noise_search.demo import shapes

    names = [scene.prompt for scene in shapes.all_scenes()[:3]]
    real, out, statistics = tmp_path / "real", tmp_path / "out", str(tmp_path / "s.npz")
    real.mkdir()
    drawn = shapes.draw([shapes.parse_prompt(name) for name in names * 10], torch.Generator().manual_seed(0))
    for index, picture in enumerate(drawn):
        Image.fromarray((255 * picture).byte().numpy()).save(real / f"{index}.png")
    classes = tmp_path / "classes.jsonl"
    classes.write_text("".join(json.dumps({"prompt": name, "class": name}) + "\n" for name in names))
    assert "16 features of 30 pictures" in run(
        "statistics", "--pictures", str(real), "--output", statistics, "--features", "tiny"
    )
    search = ["search", "--workflow", str(ROOT / "bench" / "demo_workflow.json"), "--classes", str(classes), "--output", str(out)]
    search += ["--set", "10.budget=3", "--set", "10.steps=4", "--cpu", "--pack", str(ROOT / "demo"), "--threads", "1"]
    search += ["--verifier", "fid", "--statistics", statistics, "--features", "tiny", "--held-out", "class-probability"]
    search += ["--clip", str(ROOT / "demo" / "weights" / "noise-search-demo-clip"), "--template", "{}"]
    assert "0 of 3 failed" in run(*search)
    assert [row["held_out"]["verifier"] for row in rows(out)] == ["class probability"] * 3
    said = table_of(command("evaluate", "--pictures", str(out / "images"), str(real), "--statistics", statistics,
                        "--features", "tiny", "--splits", "1", "--output", str(tmp_path / "e.csv")))  # fmt: skip
    assert said[str(out / "images")][:2] == [3, pytest.approx(-rows(out)[-1]["best"]["greedy FID"], rel=2e-3)]
    assert said[str(real)][1] == pytest.approx(0.0, abs=1e-5)  # the statistics are its own
    assert (tmp_path / "e.csv").read_text().startswith("folder,pictures,FID,IS")
