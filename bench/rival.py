"""Time of a search against a plain loop of stock sampling, decode and score, one candidate at a time, and against the bound.

The bound is what the same run measures of stock parts: plain batches of the method's own round sizes, and stock decode and score
of every candidate. The search is the whole node, without journal and page; checks of shared calls are paid before. Runs are
interleaved; medians of ratios within one run. The verifier is a cheap one (statistics of the pixels), so that what the search
adds weighs most.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rig import CFG, OUTPUT, SCHEDULER, STEPS, Studio

# isort: split
import comfy.sample
import comfy.samplers
from comfy_extras.nodes_custom_sampler import Noise_RandomNoise
from nodes import VAEDecode
from speed import seconds

METHODS = ("random", "zero-order")
COLUMNS = (
    "model", "threads", "method", "candidates", "runs", "call_ms", "loop_over_search", "loop_over_bound", "share_of_bound",
    "lowest", "highest", "loop_seconds", "search_seconds",
)  # fmt: skip
PROMPT = "a red circle left of a blue square"


@dataclass
class Setting:
    """What stock nodes and the search work with.

    Attributes:
        guider, sigmas, latent, vae: as connected.
        verifier: scores pictures.
    """

    guider: Any
    sigmas: torch.Tensor
    latent: dict[str, torch.Tensor]
    vae: Any
    verifier: Any

    def __post_init__(self) -> None:
        self.sampler = comfy.samplers.sampler_object("euler")

    def sample(self, seeds: list[int]) -> torch.Tensor:
        """One plain batch of stock sampling from these seeds' noises."""
        samples = self.latent["samples"]
        noise = torch.cat([comfy.sample.prepare_noise(samples, seed) for seed in seeds])
        batch = torch.cat([samples] * len(seeds))
        return self.guider.sample(noise, batch, self.sampler, self.sigmas, disable_pbar=True, seed=seeds[0])

    def decode(self, samples: torch.Tensor) -> torch.Tensor:
        """Return the pictures of one latent through the stock node."""
        return VAEDecode().decode(self.vae, {"samples": samples})[0]

    def loop(self, seeds: list[int]) -> None:
        """Sample, decode and score one candidate after another."""
        for seed in seeds:
            self.verifier.score(self.decode(self.sample([seed])), None)

    def bound(self, sizes: list[int], seeds: list[int]) -> None:
        """Sample in plain batches of some sizes; decode one by one, score together."""
        first = 0
        for size in sizes:
            latents = self.sample(seeds[first : first + size])
            first += size
            self.verifier.score(torch.cat([self.decode(latents[i : i + 1]) for i in range(size)]), None)

    def search(self, method: str, count: int) -> dict[str, Any]:
        """Search over candidates with the sampler node's own function; return its report."""
        runner = importlib.import_module("noise_search.nodes.run.runner")
        settings = runner.Settings(self.verifier, count, 1, made(method), resume="off")
        given = (Noise_RandomNoise(0), self.guider, self.sampler, self.sigmas, self.latent, self.vae, None)
        return json.loads(runner.search_graph(*given, settings).args[7])


def made(method: str) -> Any:
    """Return a method with its defaults."""
    methods = "noise_search.search.methods"
    if method == "random":
        return importlib.import_module(f"{methods}.random_search").RandomSearch()
    return importlib.import_module(f"{methods}.zero_order").ZeroOrderSearch()


def demo() -> Setting:
    """Return the demo model, 64x64 pictures."""
    studio = Studio()
    (positive,) = studio.nodes.CLIPTextEncode().encode(studio.clip, PROMPT)
    guider = comfy.samplers.CFGGuider(studio.model)
    guider.set_conds(positive, studio.negative)
    guider.set_cfg(CFG)
    stock = comfy.samplers.KSampler(studio.model, STEPS, studio.model.load_device, "euler", SCHEDULER)
    return Setting(guider, stock.sigmas.cpu(), {"samples": torch.zeros(1, 16, 8, 8)}, studio.vae, statistics_of_pixels())


def toy() -> Setting:
    """Return a toy model whose call takes less than a millisecond, latents of 4x16x16."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    toys = importlib.import_module("toys")
    model = toys.toy_model("eps")
    latent = {"samples": torch.zeros(1, 4, 16, 16)}
    return Setting(toys.guider(model), toys.sigmas_for(model, steps=STEPS), latent, toys.toy_vae("eps"), statistics_of_pixels())


def statistics_of_pixels() -> Any:
    """Return a verifier that costs next to nothing."""
    return importlib.import_module("noise_search.verifiers.measures.statistics").ImageStatistics(1.0, 1.0, 1.0, 1.0)


def rounds(report: dict[str, Any]) -> list[int]:
    """Return how many candidates each round of a search rendered."""
    return [len(told["candidates"]) for told in report["rounds"]]


def measure(setting: Setting, method: str, count: int, runs: int) -> dict[str, Any]:
    """Return a row of the table, but for what the caller knows."""
    report = setting.search(method, count)  # warm-up; checks of shared calls
    sizes, seeds = rounds(report), list(range(1, count + 1))
    works: list[Callable[[], object]] = [
        lambda: setting.loop(seeds), lambda: setting.search(method, count), lambda: setting.bound(sizes, seeds)
    ]  # fmt: skip
    setting.bound(sizes, seeds)
    times = [[seconds(work) for work in works] for _ in range(runs)]
    share = [bound / search for _, search, bound in times]
    single = statistics.median(seconds(lambda: setting.sample([1])) for _ in range(5))
    return {
        "method": method, "candidates": count, "runs": runs, "call_ms": round(single / (len(setting.sigmas) - 1) * 1000, 2),
        "loop_over_search": round(statistics.median(loop / search for loop, search, _ in times), 2),
        "loop_over_bound": round(statistics.median(loop / bound for loop, _, bound in times), 2),
        "share_of_bound": round(statistics.median(share), 3), "lowest": round(min(share), 3), "highest": round(max(share), 3),
        "loop_seconds": round(statistics.median(loop for loop, _, _ in times), 3),
        "search_seconds": round(statistics.median(search for _, search, _ in times), 3),
    }  # fmt: skip


def main() -> None:
    """Measure all, and write them to bench/output/rival.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=("demo", "toy"), default=["demo", "toy"])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of torch, with the demo model; 1 with the toy")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--candidates", type=int, nargs="+", default=[8, 25, 100])
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    OUTPUT.mkdir(exist_ok=True)
    with torch.inference_mode(), open(OUTPUT / "rival.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for model in args.models:
            setting = demo() if model == "demo" else toy()
            for threads in args.threads if model == "demo" else [1]:
                torch.set_num_threads(threads)
                for method in args.methods:
                    for count in args.candidates:
                        row = {"model": model, "threads": threads} | measure(setting, method, count, args.runs)
                        writer.writerow(row)
                        file.flush()
                        print(f"{model} {threads} thread(s), {method:<10} {count:>3}: loop / search {row['loop_over_search']}, "
                              f"loop / bound {row['loop_over_bound']}, {row['share_of_bound']:.0%} of the bound",
                              flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
