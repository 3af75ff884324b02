"""Searches in processes of their own that are killed, as `kill -9` does, at random moments, and begun again until they end.

python killed.py FOLDER KILLS SEED

Prints JSON: one entry for each search. Importing is the dear part of a process, so it is done once: the searches run in forks.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import conftest  # noqa: F401 - registers the pack
import torch
from journaling import METHODS, finished_lines, go, prepare, said

IMAGES = 8
TRIED = ("random", "zero-order with drafts", "halving", "chain", "branching", "path", "evolution", "backtracking")
LONGEST = 0.25  # seconds until a kill


def search(folder: Path, name: str, tell: int) -> None:
    """Run a search to its end and write down its report; every run is told once it is in the journal."""
    one = prepare(folder, IMAGES, stochastic=True, on_call=lambda: time.sleep(0.0005))
    journal = one.session.ledger.journal
    add = journal.add_run

    def add_run(name: str, *line: Any) -> None:
        add(name, *line)
        os.write(tell, f"{name}\n".encode())

    journal.add_run = add_run
    go(one, METHODS[name])
    (folder / "report.json").write_text(json.dumps({"said": said(one), "lines": finished_lines(one)}))


def attempt(folder: Path, name: str, delay: float) -> tuple[bool, list[str]]:
    """Begin a search in a fork and kill it after `delay` seconds; return whether it ended before, and the runs it told."""
    heard, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(heard)
        search(folder, name, tell)
        os._exit(0)
    os.close(tell)
    ended, deadline = 0, time.monotonic() + delay
    while not ended and time.monotonic() < deadline:
        time.sleep(0.001)
        ended, status = os.waitpid(child, os.WNOHANG)
    if not ended:
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    with os.fdopen(heard) as lines:
        told = lines.read().split()
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
        raise RuntimeError(f"{name}: the search failed")
    return os.WIFEXITED(status), told


def known(folder: Path) -> list[str]:
    """Names of the runs in the whole lines of a journal's file."""
    data = (folder / "journal.jsonl").read_bytes() if (folder / "journal.jsonl").exists() else b""
    entries = [json.loads(line) for line in data.split(b"\n")[:-1]]
    return [entry["name"] for entry in entries if entry.get("kind") == "run"]


def main(base: Path, kills: int, chance: random.Random) -> None:
    torch.set_num_threads(1)
    done, out = 0, []
    while done < kills:
        name = TRIED[len(out) % len(TRIED)]
        folder, ended, mine, lost = base / str(len(out)), False, 0, []
        while not ended:
            ended, told = attempt(folder, name, chance.uniform(0.0, LONGEST) if done < kills else 60.0)
            lost += set(told) - set(known(folder))
            mine += not ended
            done += not ended
        report = json.loads((folder / "report.json").read_text())
        out.append({"method": name, "kills": mine, "lost": lost, **report})
    sys.stdout.write(json.dumps(out))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3])))
