"""What the journal costs: the time of a search that writes one, against the same search without; and what it leaves on disk.

On the demo model model calls are as short as can be, so that this is the dearest that writing gets; medians of pairs of
searches, one with and one without, each of another seed.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from graphs import node, workflow  # noqa: E402

from live import Server  # noqa: E402

METHODS = {
    "random search": ("NSRandomSearch", {"draft_steps": 0}),
    "zero-order search": ("NSZeroOrderSearch", {"neighbors": 4, "cosine": 0.9, "on_stall": "keep", "draft_steps": 0}),
    "refinement search": ("NSRefinementSearch", {"start": 0.75, "children": 4}),
}
CANDIDATES, STEPS = 64, 20
COLUMNS = ("method", "candidates", "steps", "pairs", "ratio", "lowest", "highest", "kib_per_candidate")


def seconds(server: Server, method: str, resume: str, seed: int) -> float:
    """Return how long a search takes."""
    kind, inputs = METHODS[method]
    graph = workflow(seed=seed, steps=STEPS, budget=CANDIDATES, resume=resume) | {"method": node(kind, **inputs)}
    started = time.perf_counter()
    server.run(graph)
    return time.perf_counter() - started


def size(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    """Measure all methods, and write them to bench/output/journal.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    args = parser.parse_args()
    (HERE / "output").mkdir(exist_ok=True)
    with (
        open(HERE / "output" / "journal.csv", "w", newline="") as file,
        Server(NOISE_SEARCH_JOURNAL_MB="4000") as server,
    ):  # fmt: skip
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        seconds(server, "random search", "off", 0)  # loads the model
        for number, method in enumerate(METHODS):
            before, ratios = size(server.base / "user"), []
            for pair in range(args.pairs):
                seed = 1 + 2 * (number * args.pairs + pair)
                plain, written = seconds(server, method, "off", seed), seconds(server, method, "on", seed + 1)
                ratios.append(written / plain)
            left = (size(server.base / "user") - before) / (args.pairs * CANDIDATES * 1024)
            row = [round(one, 3) for one in (statistics.median(ratios), min(ratios), max(ratios), left)]
            writer.writerow([method, CANDIDATES, STEPS, args.pairs, *row])
            file.flush()
            print(
                f"{method:<18} {row[0]:.3f} times as long ({row[1]:.3f} to {row[2]:.3f}), {row[3]:.1f} KiB a candidate",
                flush=True,
            )


if __name__ == "__main__":
    main()
