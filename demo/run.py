"""`make demo`: search with a real diffusion model inside a real ComfyUI, and show the proof.

For each prompt the pack's sampler node renders 16 seeds; the tiny CLIP chooses one, and the oracle, which knows the
truth, says which are right. Then the node's default search spends the same model calls with the CLIP as its verifier.

Writes demo/output/best.png, grid.png, curve.png and demo.json, and prints how often the user's own seed, and what
the searches made of it, show what the prompt asks for.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import time
from pathlib import Path

from bootstrap import HERE, PACKAGE, load_pack, load_package, start_comfyui

load_package()
SHOWN = 8  # prompts in grid.png
MODULES = ("shapes", "pictures", "studio")


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=24, help="how many prompts (default 24)")
    parser.add_argument("--budget", type=int, default=16, help="whole images for each prompt (default 16)")
    parser.add_argument("--seed", type=int, default=1, help="first seed; prompts and pictures follow from it")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--comfyui", help="ComfyUI's folder (default: COMFYUI_PATH, or demo/setup.py's)")
    parser.add_argument("--output", type=Path, default=HERE / "output")
    return parser.parse_args()


def search_prompt(studio: object, prompt: str, seed: int, budget: int) -> dict:
    """Return what happened for one prompt: pictures, choices, and which of them are right."""
    clip, oracle = studio.verifiers(prompt)
    (both,) = studio.node("NSVerifierEnsemble", verifier_1=clip, weight_1=1.0, verifier_2=oracle, weight_2=0.0,
                          mode="weighted sum", gate_threshold=0.0)  # fmt: skip
    (random,) = studio.node("NSRandomSearch", draft_steps=0)
    images, report = studio.search(prompt, seed, budget, budget, both, random)
    pictures = dict(zip(report["order"], images, strict=True))
    scores = [candidate["scores"] for candidate in report["candidates"]]
    truth = [score["oracle"] for score in scores]
    by_clip = [score[next(name for name in score if name != "oracle")] for score in scores]
    default_images, default_report = studio.search(prompt, seed, budget, 1, clip, None)
    return {
        "prompt": prompt, "seed": seed, "truth": truth, "clip": by_clip, "pictures": pictures,
        "default": {
            "picture": default_images[0], "truth": float(oracle.score(default_images)[0]),
            "method": default_report["method"]["name"], "model_calls": default_report["model_calls"],
        },
        "model_calls": report["model_calls"],
    }  # fmt: skip


def right(score: float) -> bool:
    """Whether a soft oracle score says that every fact of the prompt is right."""
    return score >= importlib.import_module(f"{PACKAGE}.oracle").EXACT_FROM


def best_of(scores: list[float], count: int) -> int:
    """Return which of the first `count` candidates has the best score; the earlier on a tie."""
    return max(range(count), key=lambda index: (scores[index], -index))


def accuracy(results: list[dict], guide: str, count: int) -> float:
    """Return the share of prompts whose best of the first `count` seeds by `guide` is right."""
    return sum(right(r["truth"][best_of(r[guide], count)]) for r in results) / len(results)


def main() -> None:
    """Run the demo."""
    args = parse_args()
    load_pack()
    start_comfyui(args.comfyui, "--cpu", "--disable-api-nodes")
    import torch

    torch.set_num_threads(args.threads)
    shapes, pictures, studio_module = (importlib.import_module(f"{PACKAGE}.{name}") for name in MODULES)
    started = time.perf_counter()
    results = []
    with torch.inference_mode():
        studio = studio_module.Studio()
        for index in range(args.prompts):
            prompt = shapes.random_prompt(args.seed * 1000 + index)
            results.append(search_prompt(studio, prompt, args.seed * 1000 + index, args.budget))
    args.output.mkdir(parents=True, exist_ok=True)
    pictures.save_best(results, args.output / "best.png", best_of)
    pictures.save_grid(results[:SHOWN], args.output / "grid.png", best_of, right)
    counts = list(range(1, args.budget + 1))
    curves = {guide: [accuracy(results, guide, n) for n in counts] for guide in ("truth", "clip")}
    pictures.save_curve(counts, curves, studio_module.STEPS, args.output / "curve.png")
    default = sum(right(r["default"]["truth"]) for r in results) / len(results)
    summary = {
        "prompts": len(results), "budget": args.budget, "steps": studio_module.STEPS,
        "baseline_accuracy": curves["truth"][0], "clip_best_of_n_accuracy": curves["clip"][-1],
        "default_search_accuracy": default, "oracle_best_of_n_accuracy": curves["truth"][-1],
        "default_method": results[0]["default"]["method"], "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip
    (args.output / "demo.json").write_text(json.dumps(summary, indent=1) + "\n")
    print_summary(summary, args.output)


def print_summary(summary: dict, output: Path) -> None:
    """Say what was found."""
    calls = summary["budget"] * summary["steps"]
    print(f"\n{summary['prompts']} prompts; {summary['budget']} images = {calls} model calls for each search; "
          f"{summary['seconds']} s\n")  # fmt: skip
    rows = [
        ("your own seed", "baseline_accuracy"),
        (f"best of {summary['budget']} by the tiny CLIP", "clip_best_of_n_accuracy"),
        ("default search by the tiny CLIP", "default_search_accuracy"),
        (f"best of {summary['budget']} by the oracle", "oracle_best_of_n_accuracy"),
    ]
    for label, key in rows:
        print(f"  {label:<42} {summary[key]:6.1%} right")
    print(f"\nPictures: {output}/best.png, grid.png, curve.png")


if __name__ == "__main__":
    main()
