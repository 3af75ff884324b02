"""`make demo` in small: the command runs as a newcomer runs it, and what it prints is what it measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.comfy

DEMO = Path(__file__).resolve().parent.parent.parent / "demo"


def test_the_demo_command_shows_its_proof(tmp_path):
    from PIL import Image

    command = [sys.executable, str(DEMO / "run.py"), "--prompts", "3", "--budget", "6", "--threads", "1"]
    done = subprocess.run([*command, "--output", str(tmp_path)], capture_output=True, text=True, env=os.environ,
                          cwd=tmp_path, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads((tmp_path / "demo.json").read_text())
    assert said["prompts"] == 3 and said["budget"] == 6
    # The oracle picks from the candidates that hold the user's own seed.
    assert said["oracle_best_of_n_accuracy"] >= said["baseline_accuracy"]
    assert said["oracle_best_of_n_accuracy"] >= said["clip_best_of_n_accuracy"]
    assert f"{said['baseline_accuracy']:.1%} right" in done.stdout
    for name in ("best.png", "grid.png", "curve.png"):
        pixels = Image.open(tmp_path / name).convert("L").getextrema()
        assert pixels[1] - pixels[0] > 100, f"{name} is blank"
