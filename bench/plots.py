"""The plots of docs/evidence.md, from the CSV files of bench/grid.py, bench/ranks.py and bench/axes.py.

python bench/plots.py              writes docs/images/bench-*.png
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from contenders import CONTENDERS
from summary import OUTPUT, Cells, column, load

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
TITLES = {"clip": "tiny CLIP", "oracle": "oracle, soft score", "ensemble": "CLIP + statistics", "statistics": "statistics"}
FIRST = ("random", "draft, then refinement", "draft", "zero-order")  # drawn strong


def compared(cells: Cells) -> list[str]:
    """Return the guides under which more than random search was measured."""
    return [guide for guide in TITLES if any(not name.startswith("random") for name in complete(cells, guide))]


def style(name: str) -> dict[str, object]:
    """Return how a method's line looks."""
    number, strong = list(CONTENDERS).index(name), name in FIRST
    return {"color": f"C{number % 10}", "marker": "osD^vP*X"[number % 8], "ms": 5 if strong else 4,
            "lw": 2 if strong else 1, "ls": "-" if number < 10 else "--", "label": name}  # fmt: skip


def complete(cells: Cells, guide: str) -> dict[str, list[int]]:
    """Return the budgets at which every method was measured on at least half of the prompts of random search."""
    out: dict[str, list[int]] = defaultdict(list)
    least = max((len(cell) for (method, of, _), cell in cells.items() if (method, of) == ("random", guide)), default=0) / 2
    for method, of, budget in sorted(cells):
        if of == guide and len(cells[method, of, budget]) >= least:
            out[method].append(budget)
    return out


def score_plot(cells: Cells, x: str, path: Path) -> None:
    """Draw mean score by the guide against calls or seconds, one panel for each guide."""
    guides = compared(cells)
    figure, panels = plt.subplots(1, len(guides), figsize=(5.6 * len(guides), 4.6), squeeze=False)
    for panel, guide in zip(panels[0], guides, strict=True):
        for method, budgets in complete(cells, guide).items():
            prompts = [sorted(cells[method, guide, b]) for b in budgets]
            xs = [column(cells[method, guide, b], p, x).mean() for b, p in zip(budgets, prompts, strict=True)]
            ys = [column(cells[method, guide, b], p, "score").mean() for b, p in zip(budgets, prompts, strict=True)]
            panel.plot(xs, ys, **style(method))
        panel.set(xscale="log", xlabel={"model_calls": "model calls", "seconds": "seconds"}[x], title=TITLES[guide])
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("mean score of the winner, by the guide")
    legend(panels[0])
    save(figure, path)


def hacking_plot(cells: Cells, path: Path) -> None:
    """Draw held-out accuracy against the guide's score, budgets joined."""
    guides = compared(cells)
    figure, panels = plt.subplots(1, len(guides), figsize=(5.6 * len(guides), 4.6), squeeze=False)
    for panel, guide in zip(panels[0], guides, strict=True):
        for method, budgets in complete(cells, guide).items():
            points = [(column(c, sorted(c), "score").mean(), column(c, sorted(c), "truth").mean())
                      for c in (cells[method, guide, b] for b in budgets)]  # fmt: skip
            panel.plot(*zip(*points, strict=True), **style(method))
        panel.set(xlabel="mean score by the guide", title=f"guide: {TITLES[guide]}")
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("share that shows the prompt (held-out oracle)")
    legend(panels[0])
    save(figure, path)


def legend(panels: np.ndarray) -> None:
    """Name the methods of all panels beside the last."""
    named = {label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    panels[-1].legend(named.values(), named, fontsize=7, loc="center left", bbox_to_anchor=(1.02, 0.5))


def ranks_of(values: np.ndarray) -> np.ndarray:
    """Return ranks (N,) with ties averaged."""
    order = values[None] < values[:, None]
    equal = values[None] == values[:, None]
    return order.sum(1) + equal.sum(1) / 2


def rank_correlations(path: Path) -> dict[tuple[str, str], dict[int, float]]:
    """Return mean rank correlations with the final score: {(guide, kind): {steps: rho}}."""
    scores: dict = defaultdict(dict)
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for guide in ("oracle", "clip", "statistics"):
                key = (guide, row["kind"], int(row["steps"]), int(row["prompt"]))
                scores[key][int(row["candidate"])] = float(row[guide])
    finals = {(g, p): s for (g, kind, _, p), s in scores.items() if kind == "final"}
    collected: dict = defaultdict(lambda: defaultdict(list))
    for (guide, kind, steps, prompt), early in scores.items():
        final = finals.get((guide, prompt), {})
        if kind == "final" or set(early) != set(final):
            continue
        one = ranks_of(np.array([early[k] for k in sorted(early)]))
        other = ranks_of(np.array([final[k] for k in sorted(final)]))
        if one.std() > 0 and other.std() > 0:
            collected[guide, kind][steps].append(float(np.corrcoef(one, other)[0, 1]))
    return {key: {k: float(np.mean(v)) for k, v in sorted(by.items())} for key, by in collected.items()}


def rank_plot(path_in: Path, path: Path) -> None:
    """Draw how well drafts and previews rank candidates, against the steps they cost."""
    figure, panel = plt.subplots(figsize=(6.4, 4.4))
    colors = {"oracle": "C2", "clip": "C0", "statistics": "C7"}
    for (guide, kind), by in sorted(rank_correlations(path_in).items()):
        panel.plot(
            list(by),
            list(by.values()),
            color=colors[guide],
            ls="-" if kind == "draft" else ":",
            marker="o",
            ms=4,
            label=f"{'draft of so many steps' if kind == 'draft' else 'prediction after so many of 16'}, {guide}",
        )
    panel.set(xlabel="steps spent", ylabel="rank correlation with the final score", ylim=(-0.15, 1.02))
    panel.grid(alpha=0.3)
    panel.legend(fontsize=7)
    save(figure, path)


def axes_plot(path_in: Path, path: Path) -> None:
    """Draw the three compute axes."""
    by: dict = defaultdict(lambda: defaultdict(list))
    with path_in.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            by[row["axis"]][int(row["value"])].append((float(row["calls"]), float(row["score"])))
    figure, panels = plt.subplots(1, 3, figsize=(13, 3.8), sharey=True)
    for panel, (axis, values) in zip(panels, by.items(), strict=True):
        points = [np.mean(values[v], axis=0) for v in sorted(values)]
        panel.plot([p[0] for p in points], [p[1] for p in points], marker="o")
        for value, point in zip(sorted(values), points, strict=True):
            panel.annotate(str(value), point, textcoords="offset points", xytext=(4, -10), fontsize=8)
        panel.set(xlabel="model calls in all", title=f"more {axis}")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("mean score, by the tiny CLIP")
    save(figure, path)


def models_plot(large: Cells, small: Cells, cost: float, path: Path) -> None:
    """Draw a small model with search against the larger one: held-out accuracy and score against compute."""
    figure, panels = plt.subplots(1, 2, figsize=(10, 4.2))
    for panel, name, label in zip(panels, ("score", "truth"), ("mean score by the guide", "held-out accuracy"), strict=True):
        for color, (cells, unit, kind) in enumerate(((large, 1.0, "large model"), (small, cost, "small model"))):
            for method, ls in (("random", "-"), ("draft, then refinement", "--")):
                budgets = sorted(b for m, g, b in cells if (m, g) == (method, "clip"))
                if not budgets:
                    continue
                means = [(unit * column(c, sorted(c), "model_calls").mean() / 16, column(c, sorted(c), name).mean())
                         for c in (cells[method, "clip", b] for b in budgets)]  # fmt: skip
                panel.plot(*zip(*means, strict=True), ls=ls, color=f"C{color}", marker="o", ms=4, label=f"{kind}, {method}")
        panel.set(xscale="log", xlabel="compute (1: one image of the large model)", ylabel=label)
        panel.grid(alpha=0.3)
    panels[1].legend(fontsize=8)
    save(figure, path)


def save(figure: plt.Figure, path: Path) -> None:
    """Write a figure."""
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    print(path)


def main() -> None:
    """Draw what there is data for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=OUTPUT)
    parser.add_argument("--images", type=Path, default=IMAGES)
    parser.add_argument("--small-cost", type=float, default=0.45, help="time of a small model's call over a large one's")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0], help="of the grid; every method has the first")
    args = parser.parse_args()
    args.images.mkdir(parents=True, exist_ok=True)
    cells = load(args.data / "grid.csv", args.seeds)
    score_plot(cells, "model_calls", args.images / "bench-calls.png")
    score_plot(cells, "seconds", args.images / "bench-seconds.png")
    hacking_plot(cells, args.images / "bench-held-out.png")
    if (args.data / "ranks.csv").exists():
        rank_plot(args.data / "ranks.csv", args.images / "bench-ranks.png")
    if (args.data / "axes.csv").exists():
        axes_plot(args.data / "axes.csv", args.images / "bench-axes.png")
    if (args.data / "grid-small.csv").exists():
        models_plot(cells, load(args.data / "grid-small.csv", args.seeds), args.small_cost, args.images / "bench-models.png")


if __name__ == "__main__":
    main()
