"""Is guidance by scored drafts (LiDAR) worth its calls? It edits predictions; plain draft search only picks noises.

Every prompt's drafts are scored by the guide. Then so many pictures are rendered in full: from the noises of the best
drafts, and from fresh ones, each without guidance and with it, at several strengths. One CSV row for each way.
LiDAR: title of arXiv 2602.03211; in terms of the prediction x0, with drafts y_i of scores r_i (standardized),
x0 += s sum_i (w^r_i - w_i) y_i,  w = softmax(-|x - (1 - sigma) y|^2 / (2 sigma^2)),  w^r = softmax(lambda r + the same).

python bench/lidar.py --prompts 32 --threads 1
"""

from __future__ import annotations

import argparse
import csv
import importlib
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from guides import REPORTED, TRUTH, TUNING, guides_of, prompt_of
from ranks import sample
from rig import OUTPUT, STEPS, Studio, comfy
from summary import bootstrap
from torch import Tensor

DRAFTS, DRAFT_STEPS, FINALS = 44, 4, 5  # 44 x 4 + 5 x 16 model calls = 16 images
SETTINGS = [(sharpness, strength) for sharpness in (1.0, 4.0) for strength in (0.3, 1.0, 3.0)]


def guidance(drafts: Tensor, scores: Tensor, sharpness: float, strength: float) -> Callable[[dict], Tensor]:
    """Return a post-CFG function for a flow model.

    Args:
        drafts: (n, C, H, W), as the model sees latents.
        scores: (n,).
        sharpness: lambda, for scores of unit deviation.
        strength: s.
    """
    rewards = sharpness * (scores - scores.mean()) / scores.std().clamp(min=1e-6)
    flat = drafts.flatten(1)

    def guided(args: dict) -> Tensor:
        sigma, x, denoised = args["sigma"].reshape(-1, 1), args["input"].flatten(1), args["denoised"]
        far = ((x[:, None] - (1.0 - sigma[..., None]) * flat) ** 2).sum(2)
        near = -far / (2.0 * sigma**2)
        moved = strength * (torch.softmax(near + rewards, 1) - torch.softmax(near, 1)) @ flat
        return denoised + moved.reshape(denoised.shape)

    return guided


def measure(studio: Studio, number: int, guide: str) -> list[dict[str, object]]:
    """Return the rows of one prompt."""
    prompt, guides = prompt_of(number), guides_of(studio, prompt_of(number))
    seeds = [200_000 + 64 * (number % 1000) + k for k in range(DRAFTS + FINALS)]
    noise = torch.cat([comfy.sample.prepare_noise(torch.zeros(1, 16, 8, 8), seed) for seed in seeds])
    plain, rows = studio.model, []

    def score(latents: Tensor, name: str) -> Tensor:
        return guides[name].score(studio.vae.decode(latents).clamp(0, 1))

    drafts = sample(studio, prompt, noise[:DRAFTS], DRAFT_STEPS, "euler")[0]
    scores = score(drafts, guide)
    starts = {"best drafts": noise[scores.argsort(descending=True)[:FINALS]], "fresh": noise[DRAFTS:]}
    for start, noises in starts.items():
        for sharpness, strength in [(0.0, 0.0), *SETTINGS]:
            studio.model = plain.clone()
            if strength:
                hook = guidance(plain.model.process_latent_in(drafts), scores, sharpness, strength)
                studio.model.set_model_sampler_post_cfg_function(hook)
            latents = sample(studio, prompt, noises, STEPS, "euler")[0]
            found, truth = score(latents, guide), score(latents, TRUTH)
            best = int(found.argmax())
            setting = {"prompt": number, "start": start, "sharpness": sharpness, "strength": strength}
            of_all = {"mean": found.mean().item(), "mean_truth": truth.mean().item()}
            rows.append({**setting, **of_all, "best": found[best].item(), "truth": truth[best].item()})
    studio.model = plain
    return rows


def say(rows: list[dict[str, object]]) -> None:
    """Print what guidance changes, for each start and setting."""
    by: dict = defaultdict(dict)
    for row in rows:
        by[row["start"], row["sharpness"], row["strength"]][row["prompt"]] = row
    for (start, sharpness, strength), cell in by.items():
        control = by[start, 0.0, 0.0]
        gain = np.array([cell[p]["best"] - control[p]["best"] for p in cell])
        mean = {name: np.mean([row[name] for row in cell.values()]) for name in ("mean", "best", "mean_truth", "truth")}
        said = ", ".join(f"{name} {value:.3f}" for name, value in mean.items())
        low, high = bootstrap(gain)
        print(f"{start}, lambda {sharpness:g}, s {strength:g}: {said}; gain of best {gain.mean():+.3f} ({low:.3f} to {high:.3f})")


def main() -> None:
    """Measure all prompts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--guide", default="clip")
    parser.add_argument("--half", choices=("reported", "tuning"), default="reported", help="of the prompts")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, default=OUTPUT / "lidar.csv")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    importlib.import_module("comfy.utils").PROGRESS_BAR_ENABLED = False
    args.output.parent.mkdir(parents=True, exist_ok=True)
    studio, rows = Studio(), []
    with args.output.open("w", newline="", encoding="utf-8") as file, torch.inference_mode():
        writer = None
        for number in (REPORTED if args.half == "reported" else TUNING)[: args.prompts]:
            found = measure(studio, number, args.guide)
            if writer is None:
                writer = csv.DictWriter(file, found[0])
                writer.writeheader()
            writer.writerows(found)
            file.flush()
            rows += found
    say(rows)


if __name__ == "__main__":
    main()
