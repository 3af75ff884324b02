"""The demo's trainer: a killed run continues as if nothing had happened; the narrow autoencoder fits the
wide one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from noise_search.demo import models, text

TRAIN = Path(__file__).resolve().parents[2] / "demo" / "train.py"
pytestmark = pytest.mark.comfy


def start_training(folder: Path, steps: int, save_seconds: float) -> subprocess.Popen:
    command = [
        sys.executable, str(TRAIN), "--stage", "autoencoder", "--autoencoder-steps", str(steps),
        "--batch", "2", "--threads", "1", "--save-seconds", str(save_seconds), "--runs", str(folder),
        "--weights", str(folder / "weights"),
    ]  # fmt: skip
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def state_of(folder: Path) -> dict:
    return torch.load(folder / "autoencoder.pt", weights_only=True)


def test_a_killed_training_continues_to_the_same_state(tmp_path: Path) -> None:
    whole, cut, steps = tmp_path / "whole", tmp_path / "cut", 24
    runs = [start_training(whole, steps, 1000), start_training(cut, steps, 0)]
    deadline = time.monotonic() + 120
    while not (cut / "autoencoder.pt").exists():
        assert time.monotonic() < deadline, "no checkpoint within two minutes"
        time.sleep(0.01)
    os.kill(runs[1].pid, signal.SIGKILL)
    assert [run.wait(120) for run in runs] == [0, -signal.SIGKILL]
    assert 0 < state_of(cut)["step"] < steps
    assert start_training(cut, steps, 1000).wait(120) == 0
    expected, actual = state_of(whole), state_of(cut)
    assert actual["step"] == expected["step"] == steps
    assert all(torch.equal(actual["model"][name], value) for name, value in expected["model"].items())
    moments = [state["optimizer"]["state"] for state in (expected, actual)]
    assert all(torch.equal(moments[0][n]["exp_avg"], moments[1][n]["exp_avg"]) for n in moments[0])


def test_the_narrow_autoencoder_is_comfyuis_taesd() -> None:
    from comfy.taesd.taesd import TAESD

    torch.manual_seed(0)
    narrow = models.Autoencoder(8)
    wide = TAESD(latent_channels=models.LATENT_CHANNELS)
    stored = models.taesd_state_dict(narrow)
    wide.load_state_dict({name: value.float() for name, value in stored.items()})
    narrow.load_state_dict(models.narrow_state_dict(stored, 8))
    pictures = torch.rand(2, 3, 64, 64)
    z = narrow.encoder(pictures)
    assert torch.allclose((wide.encode(pictures * 2 - 1) - models.SD3_SHIFT) * models.SD3_SCALE, z, atol=1e-5)
    decoded = wide.decode(z / models.SD3_SCALE + models.SD3_SHIFT)
    assert torch.allclose(decoded / 2 + 0.5, narrow.decoder(z), atol=1e-5)


def test_every_word_of_the_grammar_is_one_token() -> None:
    words = ["red", "star", "square", "triangle", "right", "a", "an"]
    merges = text.learn_merges(words)
    assert len(set(merges)) == len(merges)
    assert {a + b for a, b in merges} >= {word + "</w>" for word in words if len(word) > 1}
