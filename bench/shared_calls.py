"""How far candidates that share model calls are from the same candidates rendered alone, by the type the model computes in.

Whole runs of the demo model; the difference is the relative L2 norm of the final latents, the largest of all candidates. Beside
it, what the check of shared calls costs: latent rows of model calls, once for a model, against those of a search.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import time
from typing import Any

import torch
from rig import OUTPUT, Rig, Studio

# isort: split
import comfy.model_management as mm
import comfy.sd
import folder_paths

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
SAMPLERS = ("euler", "euler_ancestral", "dpmpp_2m", "euler_cfg_pp", "dpmpp_2m_sde")
COLUMNS = (
    "dtype", "sampler", "steps", "candidates", "largest", "median", "one_by_one_because", "check_rows", "search_rows",
    "check_seconds", "again_seconds",
)  # fmt: skip
MODEL = "noise-search-demo-mmdit.safetensors"


def studio_in(dtype: torch.dtype) -> Studio:
    """Return the demo with its model computing in a type, also where ComfyUI would cast for a CPU."""
    studio, cast = Studio(), mm.unet_manual_cast
    mm.unet_manual_cast = lambda *args, **kwargs: None
    try:
        path = folder_paths.get_full_path("diffusion_models", MODEL)
        studio.model = comfy.sd.load_diffusion_model(path, model_options={"dtype": dtype})
    finally:
        mm.unet_manual_cast = cast
    return studio


def session_on(rig: Rig) -> Any:
    """Return a session of the pack on a rig."""
    runner, noise = (importlib.import_module(f"noise_search.nodes.{name}") for name in ("run.runner", "adapter.noise"))
    budget, recipes = (importlib.import_module(f"noise_search.search.{name}") for name in ("base.budget", "noise.recipe"))
    given = noise.RecipeNoise(recipes.Recipe(0, 0))
    (graph,) = runner.graphs(given, rig.guider, rig.sampler, rig.sigmas, rig.latent, None)
    return importlib.import_module("noise_search.nodes.adapter.session").ComfySession(graph, budget.Budget(1000))


def rendered(rig: Rig, seeds: list[int]) -> tuple[list[torch.Tensor], Any, float]:
    """Return candidates' final latents, their session, and how many seconds it took."""
    recipe = importlib.import_module("noise_search.search.noise.recipe").Recipe
    session = session_on(rig)
    runs = [session.start(recipe(seed, seed)) for seed in seeds]
    started = time.perf_counter()
    session.advance(runs)
    return [run.latent for run in runs], session, time.perf_counter() - started


def measure(name: str, sampler: str, studio: Studio, steps: int, count: int) -> dict[str, Any]:
    """Return a row of the table."""
    rig, seeds = Rig(sampler, studio, steps), list(range(1, count + 1))
    rig.batch(seeds[:1])  # loads the model
    shared, session, first = rendered(rig, seeds)
    _, _, again = rendered(rig, seeds)
    apart = []
    for seed, latent in zip(seeds, shared, strict=True):
        alone = rig.batch([seed])
        apart.append(float((latent - alone).double().norm() / alone.double().norm()))
    return dict(zip(COLUMNS, (
        name, sampler, steps, count, max(apart), sorted(apart)[count // 2], "; ".join(session.why_one_by_one),
        session.check_calls, session.budget.nfe, round(first - again, 2), round(again, 2),
    ), strict=True))  # fmt: skip


def main() -> None:
    """Measure all types and samplers, and write them to bench/output/shared-calls.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS))
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--steps", type=int, default=16)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    OUTPUT.mkdir(exist_ok=True)
    with torch.inference_mode(), open(OUTPUT / "shared-calls.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for name in args.dtypes:
            for sampler in args.samplers:
                row = measure(name, sampler, studio_in(DTYPES[name]), args.steps, args.candidates)
                writer.writerow(row)
                file.flush()
                print(
                    f"{name:<9} {sampler:<16} largest difference {row['largest']:.1e}, median {row['median']:.1e}; "
                    f"{row['check_rows']} rows checked, {row['search_rows']} of the search {row['one_by_one_because']}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
