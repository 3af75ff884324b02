"""What many searches leave in the memory of one server: its resident memory after each tenth, all with journals.

ComfyUI itself keeps of every prompt what its nodes showed (the history), so that some growth is its own: as many prompts of
one candidate, without a journal, are measured beside it.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from graphs import node, workflow  # noqa: E402

from live import Server  # noqa: E402

WARM_UP, CANDIDATES, STEPS = 30, 16, 4
COLUMNS = ("case", "searches", "candidates", "steps", "first_mib", "last_mib", "growth_mib")


def resident(server: Server) -> float:
    """Return the resident memory of a server's process, MiB."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def searched(seed: int) -> dict:
    """Return a prompt that searches."""
    return workflow(seed=seed, steps=STEPS, budget=CANDIDATES) | {"method": node("NSRandomSearch", draft_steps=0)}


def plain(seed: int) -> dict:
    """Return a prompt whose search is of one candidate and keeps no journal."""
    return workflow(seed=seed, steps=STEPS, budget=1, resume="off")


def main() -> None:
    """Measure, and write bench/output/searches.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--searches", type=int, default=170, help=f"after the first {WARM_UP}")
    args = parser.parse_args()
    (HERE / "output").mkdir(exist_ok=True)
    with open(HERE / "output" / "searches.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for case, prompt in {"searches": searched, "one candidate, no journal": plain}.items():
            with Server(NOISE_SEARCH_JOURNAL_MB="4000") as server:
                for seed in range(WARM_UP):
                    server.run(prompt(seed))
                first = resident(server)
                for seed in range(WARM_UP, WARM_UP + args.searches):
                    server.run(prompt(seed))
                last = resident(server)
            row = [case, args.searches, CANDIDATES, STEPS, *(round(value, 1) for value in (first, last, last - first))]
            writer.writerow(row)
            file.flush()
            print(f"{case:<26} {first:.1f} MiB after {WARM_UP}, {last - first:+.1f} MiB after {args.searches} more", flush=True)


if __name__ == "__main__":
    main()
