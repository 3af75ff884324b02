"""What bench/grid.py measured, as a table: means, differences to random search with bootstrap intervals, and ratios.

A method is compared with random search on the prompts and seeds that both were run on. Prompts are resampled, all seeds of
one together, methods and random search in the same resample.

python bench/summary.py            writes bench/output/summary.csv and prints the ratios of model calls
python bench/summary.py --grid bench/results/grid.csv.gz --seeds 0 --table clip 16      the table of methods
"""

from __future__ import annotations

import argparse
import csv
import gzip
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
from contenders import CONTENDERS

HERE = Path(__file__).resolve().parent
OUTPUT = HERE / "output"
RESAMPLES = 2000
NUMBERS = ("score", "truth", "own_score", "own_truth", "model_calls", "verifier_calls", "decodes", "seconds")
Unit = tuple[int, int]  # prompt, seed
Cells = dict[tuple[str, str, int], dict[Unit, dict[str, float]]]  # of a (method, guide, budget)


def load(path: Path, seeds: list[int] | None = None) -> Cells:
    """Read the table, as it is or packed; return its rows of all seeds, or of these."""
    cells: Cells = defaultdict(dict)
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if seeds is not None and int(row["seed"]) not in seeds:
                continue
            key = (row["method"], row["guide"], int(row["budget"]))
            cells[key][int(row["prompt"]), int(row["seed"])] = {name: float(row[name]) for name in NUMBERS}
    return dict(cells)


def column(cell: dict[Unit, dict[str, float]], units: list[Unit], name: str) -> np.ndarray:
    """Return one number of every prompt (P,): the mean over its seeds among the units."""
    found: dict[int, list[float]] = defaultdict(list)
    for prompt, seed in units:
        found[prompt].append(cell[prompt, seed][name])
    return np.array([np.mean(found[prompt]) for prompt in sorted(found)])


def count(units: list[Unit]) -> int:
    """Return how many prompts there are."""
    return len({prompt for prompt, _ in units})


def bootstrap(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean of values (P,)."""
    rows = np.random.default_rng(seed).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.quantile(values[rows].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def control_of(method: str) -> str:
    """Return the random search that a method is compared with: the one on its sampler."""
    return "random" if CONTENDERS[method].sampler == "euler" else "random (ancestral)"


def curve(cells: Cells, method: str, guide: str, units: list[Unit], x: str, y: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a method's (B, P) values of `x` and `y` over its budgets, for units that all of them hold."""
    budgets = sorted(b for m, g, b in cells if (m, g) == (method, guide))
    kept = [b for b in budgets if all(p in cells[method, guide, b] for p in units)]
    make = lambda name: np.array([column(cells[method, guide, b], units, name) for b in kept])  # noqa: E731
    return make(x), make(y)


def at(xs: np.ndarray, ys: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return every prompt's value (P,) of the curve (B, P) at `x` (P,): steps, what was reached before x."""
    out = np.empty(len(x))
    for p, value in enumerate(x):
        place = np.searchsorted(xs[:, p], value * (1 + 1e-9), side="right") - 1
        out[p] = ys[max(place, 0), p]
    return out


def rows_of(cells: Cells) -> list[dict[str, object]]:
    """Return one row of the summary for every cell."""
    rows = []
    for (method, guide, budget), cell in sorted(cells.items()):
        control = control_of(method)
        units = sorted(p for p in cell if p in cells.get((control, guide, budget), {}))
        if not units:
            continue
        random = cells[control, guide, budget]
        row: dict[str, object] = {"method": method, "guide": guide, "budget": budget, "prompts": count(units), "runs": len(units)}
        row |= {name: round(float(column(cell, units, name).mean()), 4) for name in NUMBERS}
        for name in ("score", "truth"):
            at_calls = column(cell, units, name) - column(random, units, name)
            xs, ys = curve(cells, control, guide, units, "seconds", name)
            at_seconds = column(cell, units, name) - at(xs, ys, column(cell, units, "seconds"))
            for kind, values in (("calls", at_calls), ("seconds", at_seconds)):
                low, high = bootstrap(values)
                row[f"{name}_gain_at_equal_{kind}"] = round(float(values.mean()), 4)
                row[f"{name}_gain_at_equal_{kind}_95"] = f"{low:.4f} to {high:.4f}"
        rows.append(row)
    return rows


def crossing(xs: np.ndarray, ys: np.ndarray, level: float) -> float:
    """Return the first x at which the mean curve (B,) reaches a level, between budgets on a line; inf if never."""
    above = np.nonzero(ys >= level)[0]
    if not len(above):
        return math.inf
    k = above[0]
    if k == 0:
        return float(xs[0])
    share = (level - ys[k - 1]) / (ys[k] - ys[k - 1])
    return float(xs[k - 1] + share * (xs[k] - xs[k - 1]))


def calls_ratio(cells: Cells, method: str, guide: str, budget: int = 64) -> dict[str, object] | None:
    """Return the share of random search's calls with which a method reaches its mean score at `budget`.

    By its budgets that hold at least half as many runs as the one that holds most, and the runs that all of these hold.
    """
    control = cells.get((control_of(method), guide, budget))
    runs = {b: len(cell) for (m, g, b), cell in cells.items() if (m, g) == (method, guide)}
    mine = [b for b in runs if runs[b] >= max(runs.values()) / 2]
    if control is None or len(mine) < 2:
        return None
    cells = {key: cell for key, cell in cells.items() if key[:2] != (method, guide) or key[2] in mine}
    units = sorted(p for p in control if all(p in cells[method, guide, b] for b in mine))
    if count(units) < 2:
        return None
    xs, ys = curve(cells, method, guide, units, "model_calls", "score")
    level, calls = column(control, units, "score"), column(control, units, "model_calls").mean()
    rng = np.random.default_rng(0)
    ratios = []
    for _ in range(RESAMPLES):
        rows = rng.integers(0, len(level), len(level))
        ratios.append(crossing(xs[:, rows].mean(1), ys[:, rows].mean(1), level[rows].mean()) / calls)
    low, high = np.quantile(ratios, [0.025, 0.975], method="higher")
    ratio = crossing(xs.mean(1), ys.mean(1), level.mean()) / calls
    return {"method": method, "guide": guide, "prompts": count(units), "runs": len(units), "ratio": round(ratio, 4),
            "low": round(float(low), 4), "high": round(float(high), 4)}  # fmt: skip


def table(cells: Cells, guide: str, budget: int, least: int) -> list[str]:
    """Return Markdown rows of the methods measured on `least` prompts or more, over the prompts they share."""
    measured = {m: cell for (m, g, b), cell in cells.items() if (g, b) == (guide, budget) and count(cell) >= least}
    units = sorted(set.intersection(*map(set, measured.values())))
    rows = []
    for method, cell in measured.items():
        gain = column(cell, units, "score") - column(measured[control_of(method)], units, "score")
        said = "{:+.2f} ({:.2f} to {:.2f})".format(gain.mean(), *bootstrap(gain))
        if control_of(method) == method:
            said = f"(score {column(cell, units, 'score').mean():.2f})"
        truth, verifier = (column(cell, units, name).mean() for name in ("truth", "verifier_calls"))
        rows.append((-gain.mean(), f"| {method} | {said} | {truth:.0%} | {verifier:.0f} |"))
    return [f"{count(units)} prompts", *(row for _, row in sorted(rows))]


def main() -> None:
    """Write the summary, or print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", type=Path, default=OUTPUT / "grid.csv")
    parser.add_argument("--output", type=Path, default=OUTPUT / "summary.csv")
    parser.add_argument("--seeds", type=int, nargs="*", help="only these")
    parser.add_argument("--table", nargs=2, metavar=("GUIDE", "BUDGET"), help="print a table of methods, and write nothing")
    parser.add_argument("--least", type=int, default=40, help="prompts a method of the table was measured on")
    args = parser.parse_args()
    cells = load(args.grid, args.seeds)
    if args.table:
        print("\n".join(table(cells, args.table[0], int(args.table[1]), args.least)))
        return
    rows = rows_of(cells)
    with args.output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    for method, guide in sorted({(m, g) for m, g, _ in cells}):
        ratio = calls_ratio(cells, method, guide)
        if ratio is not None:
            print(ratio)


if __name__ == "__main__":
    main()
