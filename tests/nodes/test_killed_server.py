"""The real server, killed in the middle of a search and started again on the same folders: it goes on where it was."""

from __future__ import annotations

import io
import json
import random
import time

import pytest
from graphs import report_of, workflow

from live import Server

pytestmark = pytest.mark.server

import numpy as np
from PIL import Image

KILLS = 3
BUDGET, STEPS = 32, 12


def search(**changes):
    # Candidates end one after another.
    return workflow(**{"seed": 21, "steps": STEPS, "budget": BUDGET, "batching": "off", **changes})


def saved(server, result):
    return np.asarray(Image.open(io.BytesIO(server.image(result.outputs["save"]["images"][0]))).convert("RGB"))


def names(base):
    """Finished runs in the journals under a base directory, by line."""
    files = list((base / "user" / "__noise_search").glob("*/journal.jsonl"))
    lines = [line for file in files for line in file.read_bytes().split(b"\n")[:-1]]
    entries = [json.loads(line) for line in lines]
    return [entry["name"] for entry in entries if entry.get("kind") == "run" and not entry["what"]]


def killed_in_the_middle(base, chance):
    """Start a server, queue the search, and kill it once some runs are in its journal and before it ends."""
    before = len(names(base))
    with Server(base=base, NOISE_SEARCH_JOURNAL_MB="64") as server:
        prompt_id = server.queue(search())
        deadline = time.monotonic() + 120
        while len(names(base)) <= before and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(chance.uniform(0.0, 0.3))
        server.kill()
        assert not [data for kind, data in server.events if kind == "execution_success" and data["prompt_id"] == prompt_id]
    return names(base)


def test_a_killed_server_goes_on(tmp_path):
    chance, seen = random.Random(3), []
    for _ in range(KILLS):
        after = killed_in_the_middle(tmp_path, chance)
        assert after[: len(seen)] == seen and len(seen) < len(after) < BUDGET
        seen = after
    with Server(base=tmp_path, NOISE_SEARCH_JOURNAL_MB="64") as server:
        result = server.run(search())
        report, picture = report_of(result), saved(server, result)
        assert report["recalled"] == {"model_calls": len(seen) * STEPS, "candidates": len(seen), "redone": 0}
        assert len(names(tmp_path)) == len(set(names(tmp_path))) == BUDGET
        result = server.run(search(resume="off"))
        want = report_of(result)
        assert np.array_equal(picture, saved(server, result))
        assert [c["recipe"] for c in report["candidates"]] == [c["recipe"] for c in want["candidates"]]
        assert report["order"] == want["order"] and report["model_calls"] == want["model_calls"]
        for one, other in zip(report["candidates"], want["candidates"], strict=True):
            assert one["score"] == pytest.approx(other["score"], abs=1e-5)
        more = report_of(server.run(search(budget=BUDGET + 8)))
        assert more["recalled"]["candidates"] == BUDGET and more["model_calls"] == (BUDGET + 8) * STEPS
