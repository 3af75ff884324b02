"""Render recipes in a process of its own: `python second_process.py JOBS OUT`, both files of torch.save.

A job is {"kind", "sampler", "masked", "recipe", "sigmas", "batch"}; OUT is the list of their latents as vectors, by
NSNoiseFromRecipe and the stock SamplerCustomAdvanced.
"""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS), str(TESTS / "core")]

import conftest  # noqa: F401  registers the pack
import torch
from searching import noise_of, parts, stock_with
from sessions import flat


def main(jobs: str, out: str) -> None:
    latents = []
    with torch.inference_mode():
        for job in torch.load(jobs):
            graph = parts(job["kind"], job["sampler"], masked=job["masked"])
            latents.append(flat(stock_with(graph, noise_of(job["recipe"]), job["sigmas"])))
    torch.save(latents, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
