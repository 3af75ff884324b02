"""What pruning alone can gain, from bench/ranks.py: independent candidates, looked at early, the best few finished.

For each guide: the share of random search's calls with which its score at 64 images is reached by drafts or previews of k
steps as they are (empty: not by as many candidates), and by an oracle that knows the final rank after k steps (the ceiling
of any early look).

python bench/pruning.py            writes bench/output/pruning.csv
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
from summary import OUTPUT, crossing

GUIDES, STEPS, GOAL = ("oracle", "clip", "statistics"), 16, 64
DRAWS = 20  # of each subset size
FINALS = (1, 2, 3, 4, 6, 8)


def load(path: Path) -> dict[tuple[str, str, int], np.ndarray]:
    """Return scores (P, C) by (guide, kind, steps), for prompts of which all pictures are there."""
    found: dict = defaultdict(dict)
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for guide in GUIDES:
                found[guide, row["kind"], int(row["steps"])][int(row["prompt"]), int(row["candidate"])] = float(row[guide])
    cells = next(iter(found.values())).keys()
    count = 1 + max(candidate for _, candidate in cells)
    prompts = [p for p in sorted({p for p, _ in cells}) if all((p, c) in one for one in found.values() for c in range(count))]
    return {key: np.array([[one[p, c] for c in range(count)] for p in prompts]) for key, one in found.items()}


def reached(early: np.ndarray, final: np.ndarray, looked_at: int, finished: int, rng: np.random.Generator) -> float:
    """Return the mean final score of the best of `finished` of `looked_at` candidates, chosen by `early` (P, C)."""
    total = 0.0
    for _ in range(DRAWS):
        some = np.argsort(rng.random(early.shape), axis=1)[:, :looked_at]
        best = np.argsort(-np.take_along_axis(early, some, 1), axis=1)[:, :finished]
        chosen = np.take_along_axis(some, best, 1)
        total += np.take_along_axis(final, chosen, 1).max(1).mean()
    return total / DRAWS


def ratio(early: np.ndarray, final: np.ndarray, steps: int, resumes: bool) -> tuple[float, int]:
    """Return the least share of random search's calls that reaches its score at `GOAL` images, and with how many finals.

    Args:
        early: scores by which candidates are kept (P, C).
        final: their final scores (P, C).
        steps: calls of an early look.
        resumes: previews go on where they were; drafts are rendered anew.
    """
    rng, goal = np.random.default_rng(0), final.max(1).mean()
    best = (np.inf, 0)
    for finished in FINALS:
        sizes = np.unique(np.geomspace(finished, final.shape[1], 12).astype(int))
        calls = [n * steps + finished * (STEPS - steps * resumes) for n in sizes]
        scores = np.maximum.accumulate([reached(early, final, int(n), finished, rng) for n in sizes])
        best = min(best, (crossing(np.array(calls), scores, goal - 1e-4 * abs(goal)) / (GOAL * STEPS), finished))
    return best


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=Path, default=OUTPUT / "ranks.csv")
    parser.add_argument("--output", type=Path, default=OUTPUT / "pruning.csv")
    args = parser.parse_args()
    scores = load(args.ranks)
    with args.output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["guide", "look", "steps", "calls_over_random", "finals", "ceiling"])
        for (guide, kind, steps), early in sorted(scores.items()):
            if kind == "final":
                continue
            final, resumes = scores[guide, "final", STEPS], kind == "preview"
            share, finals = ratio(early, final, steps, resumes)
            ceiling, _ = ratio(final, final, steps, resumes)
            known = (f"{share:.3f}", finals) if np.isfinite(share) else ("", "")
            row = [guide, kind, steps, *known, f"{ceiling:.3f}"]
            writer.writerow(row)
            print(*row)


if __name__ == "__main__":
    main()
