"""Kill -9 at random moments: nothing that was finished is lost or computed again, and no score is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import analytic
import pytest
from journaling import METHODS, said
from killed import IMAGES

KILLS = 50


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")
def test_fifty_kills(tmp_path):
    script = Path(__file__).with_name("killed.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(tmp_path), str(KILLS), "1"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=script.parent)
    assert done.returncode == 0, done.stderr
    searches = json.loads(done.stdout)
    assert sum(search["kills"] for search in searches) == KILLS
    for search in searches:
        want = analytic.prepare(IMAGES, stochastic=True)
        for _ in METHODS[search["method"]].run(want):
            pass
        assert search["said"] == json.loads(json.dumps(said(want)))
        assert search["lost"] == []
        lines, finished = search["lines"], [c for c in want.candidates if c.status == "finished"]
        assert len(lines) == len(set(lines)) == len(finished)
