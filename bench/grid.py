"""All methods at equal model calls on the demo model: one CSV row for each method, guide, budget, prompt and seed.

Resumable: rows that are in the CSV already are not run again, so that a run can be cut and goes on. Rows hold the
winner's score by the guide that chose it and by the held-out truth, and what the search cost.

python bench/grid.py                          everything; hours
python bench/grid.py --quick                  a look: some methods, 2 prompts, 8 images, guided by the CLIP
python bench/grid.py --methods draft --guides clip --budgets 16 21 32 --prompts 64 --seeds 5
"""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from contenders import CONTENDERS
from guides import GUIDES, REPORTED, TRUTH, TUNING, guides_of, prompt_of
from rig import MODELS, OUTPUT, Studio

BUDGETS = (4, 8, 16, 32, 64)
MAIN = ("default", "random", "zero-order", "halving", "draft", "paths", "evolution")
OF_RANDOM = (1, 2, 3, 4, 6, 8, 11, 16, 21, 32, 45, 64)  # one run gives them all
FIELDS = (
    "method", "guide", "budget", "prompt", "seed", "score", "truth", "own_score", "own_truth", "model_calls",
    "model_calls_per_image", "verifier_calls", "decodes", "seconds", "chosen_by",
)  # fmt: skip
KEY = FIELDS[:5]
Row = dict[str, Any]


class Table:
    """A CSV that is appended to, and knows what it holds."""

    def __init__(self, path: Path) -> None:
        """Open a table; a last line that a crash cut short is dropped."""
        path.parent.mkdir(parents=True, exist_ok=True)
        rows: list[Row] = []
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                rows = [row for row in csv.DictReader(file) if None not in row.values() and None not in row]
        self.done = {tuple(row[name] for name in KEY) for row in rows}
        self._file = path.open("w", newline="", encoding="utf-8")
        self._writer = csv.DictWriter(self._file, FIELDS)
        self._writer.writeheader()
        self.add(rows)

    def has(self, *key: Any) -> bool:
        """Whether the row with this (method, guide, budget, prompt, seed) is there."""
        return tuple(str(part) for part in key) in self.done

    def add(self, rows: list[Row]) -> None:
        """Append rows, at once on the disk."""
        for row in rows:
            self._writer.writerow(row)
            self.done.add(tuple(str(row[name]) for name in KEY))
        self._file.flush()


def search(studio: Studio, name: str, budget: int, prompt: str, seed: int, verifier: Any, held_out: Any) -> Row:
    """Run the pack's sampler node with a method; return its report, and under "cpu" the seconds it computed.

    With one thread these are the seconds of a quiet machine, whatever else runs on it.
    """
    contender, began = CONTENDERS[name], time.process_time()
    _, report = studio.search(prompt, seed, budget, 1, verifier, contender.make(), held_out=held_out, sampler=contender.sampler)
    return {**report, "cpu": time.process_time() - began}


def one_row(studio: Studio, name: str, guide: str, budget: int, number: int, seed: int) -> list[Row]:
    """Run one cell for one prompt and seed."""
    prompt = prompt_of(number)
    guides = guides_of(studio, prompt)
    report = search(studio, name, budget, prompt, 1000 * seed + number % 1000, guides[guide], guides[TRUTH])
    truth = report["held_out"]["scores"]
    return [{
        "method": name, "guide": guide, "budget": budget, "prompt": number, "seed": seed,
        "score": report["best"]["score"], "truth": truth[str(report["best"]["index"])],
        "own_score": report["baseline"]["score"], "own_truth": truth["0"],
        "model_calls": report["model_calls"], "model_calls_per_image": report["model_calls_per_image"],
        "verifier_calls": report["verifier_calls"], "decodes": report["decodes"],
        "seconds": round(report["cpu"] - guides[TRUTH].seconds, 4),
        "chosen_by": report["method"]["name"],
    }]  # fmt: skip


def random_rows(studio: Studio, name: str, guides: list[str], budgets: list[int], number: int, seed: int) -> list[Row]:
    """Run random search once, at the largest budget: its candidates do not depend on the guide, nor on the budget."""
    prompt, made = prompt_of(number), guides_of(studio, prompt_of(number))
    names = list(made)
    inputs: Row = {}
    for place, part in enumerate(names, 1):
        inputs |= {f"verifier_{place}": made[part], f"weight_{place}": 1.0 if place == 1 else 0.0}
    (all_of_them,) = studio.node("NSVerifierEnsemble", mode="weighted sum", gate_threshold=0.0, **inputs)
    report = search(studio, name, max(budgets), prompt, 1000 * seed + number % 1000, all_of_them, None)
    found = [candidate["scores"] for candidate in report["candidates"]]
    sampling = (report["cpu"] - sum(guide.seconds for guide in made.values())) / len(found)
    rows = []
    for guide in guides:
        per_image = sampling + made[guide].seconds / len(found)
        for budget in sorted({*budgets, *(b for b in OF_RANDOM if b <= max(budgets))}):
            best = max(range(budget), key=lambda k: (found[k][guide], -k))
            rows.append({
                "method": name, "guide": guide, "budget": budget, "prompt": number, "seed": seed,
                "score": found[best][guide], "truth": found[best][TRUTH], "own_score": found[0][guide],
                "own_truth": found[0][TRUTH], "model_calls": budget * report["model_calls_per_image"],
                "model_calls_per_image": report["model_calls_per_image"], "verifier_calls": budget, "decodes": budget,
                "seconds": round(budget * per_image, 4), "chosen_by": report["method"]["name"],
            })  # fmt: skip
    return rows


def todo(args: argparse.Namespace, table: Table) -> Iterator[tuple[Any, ...]]:
    """Yield what is to be run: (name, guide or guides, budget or budgets, prompt, seed), prompt by prompt."""
    for seed in range(args.seeds):
        for number in args.numbers:
            for name in args.methods:
                missing = [(g, b) for g in args.guides for b in args.budgets if not table.has(name, g, b, number, seed)]
                if missing and CONTENDERS[name].nested:
                    yield name, args.guides, args.budgets, number, seed
                else:
                    for guide, budget in missing:
                        yield name, guide, budget, number, seed


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="*", default=list(CONTENDERS), choices=list(CONTENDERS))
    parser.add_argument("--guides", nargs="*", default=list(GUIDES), choices=GUIDES)
    parser.add_argument("--budgets", nargs="*", type=int, default=list(BUDGETS), help="whole images")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--first", type=int, default=0, help="leave out so many prompts: to share the work")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--half", choices=("reported", "tuning"), default="reported", help="of the prompts")
    parser.add_argument("--quick", action="store_true", help="2 prompts, budget 8, guide clip, and unless told the main methods")
    parser.add_argument("--model", choices=list(MODELS), default="large", help="of the demo's two")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, default=OUTPUT / "grid.csv")
    args = parser.parse_args()
    if args.quick:
        args.prompts, args.budgets, args.guides = min(args.prompts, 2), [8], ["clip"]
        args.methods = list(MAIN) if args.methods == list(CONTENDERS) else args.methods
    args.numbers = (REPORTED if args.half == "reported" else TUNING)[args.first : args.prompts]
    return args


def main() -> None:
    """Fill the table."""
    args = parse_args()
    torch.set_num_threads(args.threads)
    importlib.import_module("comfy.utils").PROGRESS_BAR_ENABLED = False
    studio, table = Studio(MODELS[args.model]), Table(args.output)
    work, began = list(todo(args, table)), time.monotonic()
    with torch.inference_mode():
        for count, (name, guide, budget, number, seed) in enumerate(work, 1):
            nested = CONTENDERS[name].nested
            table.add((random_rows if nested else one_row)(studio, name, guide, budget, number, seed))
            if count % 10 == 0 or count == len(work):
                left = (time.monotonic() - began) / count * (len(work) - count)
                print(json.dumps({"done": count, "of": len(work), "minutes_left": round(left / 60, 1)}), flush=True)


if __name__ == "__main__":
    main()
