"""The three ways to spend compute on a search (Ma et al. 2025, section 3): more candidates, more model calls for each,
more for the final picture. One CSV row for each setting, prompt and seed.

python bench/axes.py --prompts 64 --threads 1
"""

from __future__ import annotations

import argparse
import csv
import importlib
from pathlib import Path

import torch
from grid import REPORTED
from guides import TRUTH, guides_of, prompt_of
from ranks import sample
from rig import OUTPUT, Studio, comfy

COUNTS, DRAFTS, FINALS = (1, 2, 4, 8, 16, 32), (2, 3, 4, 5, 6, 8, 16), (4, 8, 16, 32, 64)
COUNT, DRAFT, FINAL = 16, 4, 16  # of the two axes that stand still


def measure(studio: Studio, number: int, seed: int, guide: str) -> list[dict[str, object]]:
    """Return the rows of one prompt: drafts are searched, the best is rendered."""
    prompt, guides = prompt_of(number), guides_of(studio, prompt_of(number))
    seeds = [100_000 * seed + 64 * (number % 1000) + k for k in range(max(COUNTS))]
    noise = torch.cat([comfy.sample.prepare_noise(torch.zeros(1, 16, 8, 8), one) for one in seeds])

    def scores(steps: int, count: int) -> torch.Tensor:
        latents = sample(studio, prompt, noise[:count], steps, "euler")[0]
        return guides[guide].score(studio.vae.decode(latents).clamp(0, 1))

    def final(best: int, steps: int) -> dict[str, float]:
        latent = sample(studio, prompt, noise[best : best + 1], steps, "euler")[0]
        picture = studio.vae.decode(latent).clamp(0, 1)
        return {"score": guides[guide].score(picture).item(), "truth": guides[TRUTH].score(picture).item()}

    drafts = scores(DRAFT, max(COUNTS))
    rows = []
    for count in COUNTS:
        best = int(drafts[:count].argmax())
        rows.append({"axis": "candidates", "value": count, "calls": count * DRAFT + FINAL, **final(best, FINAL)})
    for steps in DRAFTS:
        best = int((drafts[:COUNT] if steps == DRAFT else scores(steps, COUNT)).argmax())
        rows.append({"axis": "calls per candidate", "value": steps, "calls": COUNT * steps + FINAL, **final(best, FINAL)})
    best = int(drafts[:COUNT].argmax())
    for steps in FINALS:
        rows.append({"axis": "calls of the final", "value": steps, "calls": COUNT * DRAFT + steps, **final(best, steps)})
    return [{"prompt": number, "seed": seed, "guide": guide, **row} for row in rows]


def main() -> None:
    """Measure all prompts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--guide", default="clip")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, default=OUTPUT / "axes.csv")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    importlib.import_module("comfy.utils").PROGRESS_BAR_ENABLED = False
    args.output.parent.mkdir(parents=True, exist_ok=True)
    studio = Studio()
    with args.output.open("w", newline="", encoding="utf-8") as file, torch.inference_mode():
        writer = None
        for seed in range(args.seeds):
            for number in REPORTED[: args.prompts]:
                rows = measure(studio, number, seed, args.guide)
                if writer is None:
                    writer = csv.DictWriter(file, rows[0])
                    writer.writeheader()
                writer.writerows(rows)
                file.flush()


if __name__ == "__main__":
    main()
