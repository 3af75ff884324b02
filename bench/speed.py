"""Time of a search against the same candidates in one plain batch, and against as many single stock runs.

Decode and verifier are left out, and checks of shared calls paid before. Runs are interleaved, and medians of ratios within one
run are reported: machines are noisy. With one thread processor time is counted, which other work on the machine changes less. Two
tables: every number of candidates with euler (bench/output/speed-counts.csv), and every sampler (bench/output/speed.csv).

Every candidate's sampler makes its own steps, where a plain batch makes them once for all rows. `own_steps` is what that alone
comes to: the time that stock runs, one by one, spend beside their model calls, less that of the batch, over the batch's time.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from rig import OUTPUT, SAMPLER_NAMES, Rig, Studio, candidate_seeds

COUNTS = range(2, 34)
MAIN = ("euler", "dpmpp_2m", "euler_ancestral")  # beside single stock runs too


def now() -> float:
    """Return processor time in seconds if there is one thread, else the time of day."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def seconds(work: Callable[[], object]) -> float:
    """Return how long a call took."""
    started = now()
    work()
    return now() - started


class TimedModel:
    """The model that a sampler calls; `seconds` is how long its calls took."""

    def __init__(self, model: Any) -> None:
        self.model, self.seconds = model, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def __call__(self, *args: Any, **more: Any) -> torch.Tensor:
        started = now()
        denoised = self.model(*args, **more)
        self.seconds += now() - started
        return denoised


class TimedSteps:
    """A SAMPLER that runs another; `seconds` is how long that took beside its model calls."""

    def __init__(self, sampler: Any) -> None:
        self.sampler, self.seconds = sampler, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sampler, name)

    def sample(self, model_wrap: Any, *args: Any, **more: Any) -> torch.Tensor:
        """Sample; ComfyUI's SAMPLER protocol."""
        model, started = TimedModel(model_wrap), now()
        samples = self.sampler.sample(model, *args, **more)
        self.seconds += now() - started - model.seconds
        return samples


def step_seconds(rig: Rig, work: Callable[[], object]) -> float:
    """Return how long the sampler's own steps took in stock runs, beside their model calls."""
    sampler = rig.sampler
    rig.sampler = timed = TimedSteps(sampler)
    try:
        work()
    finally:
        rig.sampler = sampler
    return timed.seconds


def measure(rig: Rig, name: str, count: int, runs: int, single: bool = False) -> dict[str, Any]:
    """Return the ratios of one sampler and number of candidates."""
    search = rig.searched(count)  # warm-up; checks of shared calls
    seeds = candidate_seeds(search)
    rig.batch(seeds)
    apart = step_seconds(rig, lambda: rig.single(seeds)) - step_seconds(rig, lambda: rig.batch(seeds))
    rows = []
    for _ in range(runs):
        searched = seconds(lambda: rig.searched(count))
        batch = seconds(lambda: rig.batch(seeds))
        alone = seconds(lambda: rig.single(seeds)) if single else float("nan")
        rows.append((searched / batch, alone / searched, searched, apart / batch))
    ratios = [row[0] for row in rows]
    return {
        "sampler": name, "candidates": count, "runs": runs, "model_calls": search.budget.nfe,
        "search_over_batch": round(statistics.median(ratios), 3), "lowest": round(min(ratios), 3),
        "highest": round(max(ratios), 3), "singles_over_search": round(statistics.median(row[1] for row in rows), 2),
        "search_seconds": round(statistics.median(row[2] for row in rows), 3),
        "own_steps": round(statistics.median(row[3] for row in rows), 3),
    }  # fmt: skip


def by_count(studio: Studio, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield a row for each number of candidates, with euler."""
    rig = Rig("euler", studio)
    for count in args.counts:
        yield measure(rig, "euler", count, args.runs)


def by_sampler(studio: Studio, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield a row for each sampler."""
    for name in args.samplers:
        main = name in MAIN
        yield measure(Rig(name, studio), name, args.candidates, args.runs if main else args.other_runs, single=main)


def written(file_name: str, rows: Iterable[dict[str, Any]]) -> None:
    """Write rows to a CSV as they come, and say what they hold."""
    with open(OUTPUT / file_name, "w", newline="") as file:
        writer = None
        for row in rows:
            if writer is None:
                writer = csv.DictWriter(file, list(row))
                writer.writeheader()
            writer.writerow(row)
            file.flush()
            print(f"{row['sampler']:<32} {row['candidates']:>3} candidates: search / plain batch {row['search_over_batch']:.3f} "
                  f"({row['lowest']:.3f} to {row['highest']:.3f}), own steps {row['own_steps']:.3f}   "
                  f"singles / search {row['singles_over_search']}",
                  flush=True)  # fmt: skip


def main() -> None:
    """Measure both tables, or one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch; 1 on a busy machine")
    parser.add_argument("--table", choices=("both", "counts", "samplers"), default="both")
    parser.add_argument("--runs", type=int, default=5, help="interleaved runs, of every number and of " + ", ".join(MAIN))
    parser.add_argument("--other-runs", type=int, default=3, help="interleaved runs of the other samplers")
    parser.add_argument("--candidates", type=int, default=16, help="of the table of samplers")
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS))
    parser.add_argument("--samplers", nargs="+", choices=SAMPLER_NAMES, default=SAMPLER_NAMES, metavar="SAMPLER")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    OUTPUT.mkdir(exist_ok=True)
    with torch.inference_mode():
        studio = Studio()
        if args.table != "samplers":
            written("speed-counts.csv", by_count(studio, args))
        if args.table != "counts":
            written("speed.csv", by_sampler(studio, args))


if __name__ == "__main__":
    main()
