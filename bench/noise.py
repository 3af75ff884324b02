"""What a candidate's noise costs, from the first neighbor to the fortieth pivot's, and whether a zero-order search slows down.

First, for latents of the sizes of SDXL, Flux and Wan (81 frames): the processor time to prepare the run of a neighbor, in
draws of stock `prepare_noise`, which are measured in between. The pivot moves after every four neighbors. Then that of a
candidate in a zero-order search on the demo model whose every round moves the pivot, decode and verifier left out: the
last fifth of the search against the first.

python bench/noise.py --threads 1
"""

from __future__ import annotations

import argparse
import csv
import importlib
import statistics
import time
from typing import Any

import torch
from rig import OUTPUT, Rig, Studio, comfy

SHAPES = {"SDXL": ((1, 4, 128, 128), 40), "Flux": ((1, 16, 128, 128), 40), "Wan": ((1, 16, 21, 60, 104), 10)}
NEIGHBORS, COSINE = 4, 0.95
COLUMNS = ("case", "first", "last", "last_over_first", "last_ms")


def pack(name: str) -> Any:
    """Return a module of the pack."""
    return importlib.import_module(f"noise_search.{name}")


def graph_of(rig: Rig, latent: dict[str, Any]) -> Any:
    """Return what a search of a latent works on."""
    noise = pack("nodes.adapter.noise").RecipeNoise(pack("search.noise.recipe").Recipe(5, 5))
    return next(pack("nodes.run.runner").graphs(noise, rig.guider, rig.sampler, rig.sigmas, latent, None))


def by_depth(rig: Rig, shape: tuple[int, ...], depth: int) -> list[tuple[float, float]]:
    """Return for each depth the milliseconds of a neighbor's start, and of a stock draw."""
    latent = {"samples": torch.zeros(shape)}
    session = pack("nodes.adapter.session").ComfySession(graph_of(rig, latent), pack("search.base.budget").Budget(1))
    recipes = pack("search.noise.recipe")
    pivot, times = recipes.Recipe(5, 5), []
    for level in range(depth):
        around = [pivot.moved(recipes.Move("neighbor", recipes.derived_seed(5, level, k), COSINE)) for k in range(NEIGHBORS)]
        started = time.process_time()
        for recipe in around:
            session.start(recipe).close()
        between = time.process_time()
        comfy.sample.prepare_noise(latent["samples"], level)
        times.append((1000 * (between - started) / NEIGHBORS, 1000 * (time.process_time() - between)))
        pivot = around[-1]
    return times


def measure_starts(rig: Rig, name: str) -> list[Any]:
    """Return a row of the first table; medians of fifths of the depths."""
    shape, depth = SHAPES[name]
    by_depth(rig, shape, 2)
    times = by_depth(rig, shape, depth)
    draw, few = statistics.median(draw for _, draw in times), max(1, depth // 5)
    first, last = (statistics.median(start for start, _ in part) for part in (times[:few], times[-few:]))
    return [f"{name}, depth {depth}", first / draw, last / draw, last / first, last]


class Rising:
    """A verifier that likes every picture better than all before it, at no cost."""

    name = "rising"
    trusts_previews = True

    def __init__(self) -> None:
        """Start at 0."""
        self.count = 0

    def score(self, images: torch.Tensor, latents: torch.Tensor | None = None) -> torch.Tensor:
        """Return (B,) scores."""
        self.count += len(images)
        return torch.arange(self.count - len(images), self.count, dtype=torch.float32)


def measure_search(rig: Rig, count: int) -> list[Any]:
    """Return the row of a zero-order search."""
    session = pack("nodes.adapter.session").ComfySession(graph_of(rig, rig.latent), pack("search.base.budget").Budget(count))
    session.decode = lambda latent, preview=False: torch.zeros(1, 1, 1, 3)
    recipe = pack("search.noise.recipe").Recipe(5, 5)
    core, scorer = pack("search.core.search"), pack("search.scoring.scorer").Scorer(Rising())
    search = core.Search(session, scorer, session.budget, core.SearchSettings(recipe, 5))
    times, before = [], time.process_time()
    for told in pack("search.methods.zero_order").ZeroOrderSearch(NEIGHBORS, COSINE).run(search):
        now = time.process_time()
        times += [1000 * (now - before) / len(told.candidates)] * len(told.candidates)
        before = now
    search.close()
    depth = max(len(candidate.recipe.moves) for candidate in search.candidates)
    few = len(times) // 5
    first, last = sum(times[1 : few + 1]) / few, sum(times[-few:]) / few  # candidate 0 loads the model
    return [f"zero-order search of {count}, depth {depth}", first, last, last / first, last]


def main() -> None:
    """Measure all of it, and write it to bench/output/noise.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--candidates", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=4, help="of the zero-order search's runs")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    OUTPUT.mkdir(exist_ok=True)
    with torch.inference_mode(), open(OUTPUT / "noise.csv", "w", newline="") as file:
        writer, rig = csv.writer(file), Rig("euler", Studio(), args.steps)
        writer.writerow(COLUMNS)
        for name in SHAPES:
            row = measure_starts(rig, name)
            writer.writerow([row[0], *(round(one, 4) for one in row[1:])])
            print(f"{row[0]:<16} a neighbor takes {row[1]:.2f} stock draws at first, {row[2]:.2f} at last "
                  f"({row[4]:.2f} ms)", flush=True)  # fmt: skip
        rig.searched(8)  # checks of shared calls are made before
        row = measure_search(rig, args.candidates)
        writer.writerow([row[0], *(round(one, 4) for one in row[1:])])
        print(f"{row[0]}: {row[1]:.2f} ms a candidate in the first fifth, {row[2]:.2f} in the last: {row[3]:.2f}")


if __name__ == "__main__":
    main()
