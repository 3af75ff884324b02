"""Time of a search against the same candidates in one plain batch, and against as many single stock runs.

Runs are interleaved and medians of ratios within one run are reported: machines are noisy.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from collections.abc import Callable

import torch
from rig import OUTPUT, SAMPLER_NAMES, Rig, Studio, candidate_seeds

CANDIDATES = 32
MAIN = ("euler", "dpmpp_2m", "euler_ancestral")


def seconds(work: Callable[[], object]) -> float:
    """Return how long a call took."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure(name: str, studio: Studio, runs: int, single: bool) -> dict[str, float | str | int]:
    """Return the ratios of one sampler."""
    rig = Rig(name, studio)
    search = rig.searched(CANDIDATES)
    seeds = candidate_seeds(search)
    rig.batch(seeds)  # warm-up
    rows = []
    for _ in range(runs):
        searched = seconds(lambda: rig.searched(CANDIDATES))
        batch = seconds(lambda: rig.batch(seeds))
        alone = seconds(lambda: rig.single(seeds)) if single else float("nan")
        rows.append((searched / batch, alone / searched, searched))
    return {
        "sampler": name, "runs": runs, "model_calls": search.budget.nfe, "batch": search.session.max_rows,
        "search_over_batch": round(statistics.median(r[0] for r in rows), 3),
        "lowest": round(min(r[0] for r in rows), 3), "highest": round(max(r[0] for r in rows), 3),
        "singles_over_search": round(statistics.median(r[1] for r in rows), 2),
        "search_seconds": round(statistics.median(r[2] for r in rows), 3),
    }  # fmt: skip


def main() -> None:
    """Measure the main samplers and all others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch; 1 on a busy machine")
    parser.add_argument("--runs", type=int, default=5, help="interleaved runs of " + ", ".join(MAIN))
    parser.add_argument("--other-runs", type=int, default=3, help="interleaved runs of the other samplers")
    parser.add_argument("--main-only", action="store_true", help="only " + ", ".join(MAIN))
    parser.add_argument("--others-only", action="store_true", help="all but these")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    others = [name for name in SAMPLER_NAMES if name not in MAIN]
    names = [*([] if args.others_only else MAIN), *([] if args.main_only else others)]
    OUTPUT.mkdir(exist_ok=True)
    target = OUTPUT / ("speed-others.csv" if args.others_only else "speed.csv")
    with torch.inference_mode(), open(target, "w", newline="") as file:
        studio, writer = Studio(), None
        for name in names:
            row = measure(name, studio, args.runs if name in MAIN else args.other_runs, single=name in MAIN)
            writer = writer or csv.DictWriter(file, list(row))
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(row)
            file.flush()
            print(f"{name:<32} search / plain batch {row['search_over_batch']:.3f}   "
                  f"singles / search {row['singles_over_search']}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
