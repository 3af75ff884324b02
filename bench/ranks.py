"""How well an early look at a candidate tells its final rank: previews of suspended runs, and short drafts.

Every candidate of every prompt is rendered in full, looked at after some of its steps (its denoised prediction), and
drafted with fewer steps; all pictures are scored by every guide. One CSV row for each picture; bench/pruning.py
says what they are worth.

python bench/ranks.py --prompts 32 --candidates 64 --threads 1
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

import torch
from guides import TUNING, guides_of, prompt_of
from rig import CFG, OUTPUT, SCHEDULER, STEPS, Studio, comfy
from torch import Tensor

PREVIEWS = (1, 2, 3, 4, 5, 6, 8, 10, 12)
DRAFTS = (2, 3, 4, 5, 6, 8)
BATCH = 32


def sample(studio: Studio, prompt: str, noise: Tensor, steps: int, sampler_name: str) -> tuple[Tensor, list[Tensor]]:
    """Sample one batch; return the latents (B, C, H, W) and the denoised predictions after every step."""
    (positive,) = studio.nodes.CLIPTextEncode().encode(studio.clip, prompt)
    latent, seen = torch.zeros_like(noise), []
    out = comfy.sample.sample(
        studio.model, noise, steps, CFG, sampler_name, SCHEDULER, positive, studio.negative, latent, seed=0,
        callback=lambda step, denoised, x, total: seen.append(denoised.clone()), disable_pbar=True,
    )  # fmt: skip
    process = studio.model.model.process_latent_out
    return out, [process(x) for x in seen]


def pictures(studio: Studio, prompt: str, index: int, count: int, drafted_by: str) -> Iterator[tuple[int, str, int, Tensor]]:
    """Yield (candidate, kind, steps, picture (1, H, W, 3)) of a prompt's candidates."""
    for first in range(0, count, BATCH):
        seeds = [1000 * index + n for n in range(first, min(first + BATCH, count))]
        noise = torch.cat([comfy.sample.prepare_noise(torch.zeros(1, 16, 8, 8), seed) for seed in seeds])
        final, seen = sample(studio, prompt, noise, STEPS, "euler")
        groups = [("final", STEPS, final), *(("preview", k, seen[k - 1]) for k in PREVIEWS)]
        groups += [("draft", d, sample(studio, prompt, noise, d, drafted_by)[0]) for d in DRAFTS]
        for kind, steps, latents in groups:
            decoded = studio.vae.decode(latents).clamp(0, 1)
            for row, picture in enumerate(decoded):
                yield first + row, kind, steps, picture[None]


def main() -> None:
    """Score all pictures of all prompts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--candidates", type=int, default=64)
    parser.add_argument("--drafted-by", default="euler", help="sampler of the drafts")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, default=OUTPUT / "ranks.csv")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    studio = Studio()
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with args.output.open("w", newline="", encoding="utf-8") as file, torch.inference_mode():
        writer = None
        for number in range(args.prompts):
            prompt = prompt_of(TUNING[number])
            guides = guides_of(studio, prompt)
            for candidate, kind, steps, picture in pictures(studio, prompt, number, args.candidates, args.drafted_by):
                scores = {name: guide.score(picture).item() for name, guide in guides.items()}
                row = {"prompt": number, "candidate": candidate, "kind": kind, "steps": steps, **scores}
                if writer is None:
                    writer = csv.DictWriter(file, row)
                    writer.writeheader()
                writer.writerow(row)
            file.flush()
            print(f"prompt {number + 1} of {args.prompts}: {prompt}", flush=True)


if __name__ == "__main__":
    main()
