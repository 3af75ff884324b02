"""What the comparison of methods makes of its rows: means, differences at equal cost, and the ratio of calls."""

from __future__ import annotations

import csv
import gzip
import importlib
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
RANDOM = {1: 90.0, 2: 92.0, 4: 94.0, 64: 98.0}  # score by budget, 16 calls and a second for each image


@pytest.fixture(scope="module")
def summary() -> ModuleType:
    sys.path.insert(0, str(BENCH))  # as its scripts are run
    try:
        return importlib.import_module("summary")
    finally:
        sys.path.remove(str(BENCH))


def rows(method: str, scores: dict[int, float], prompts: range = range(8), seeds: range = range(2), seconds: float = 1.0):
    """Rows whose score is the budget's, plus the prompt's number, plus and minus one for the two seeds."""
    for prompt in prompts:
        for seed in seeds:
            for budget, score in scores.items():
                value = score + prompt + (1 if seed else -1)
                yield {
                    "method": method, "guide": "clip", "budget": budget, "prompt": prompt, "seed": seed, "score": value,
                    "truth": prompt % 2, "own_score": 0, "own_truth": 0, "model_calls": 16 * budget,
                    "model_calls_per_image": 16, "verifier_calls": budget, "decodes": budget,
                    "seconds": seconds * budget, "chosen_by": method,
                }  # fmt: skip


def write(path: Path, *tables) -> Path:
    found = [row for table in tables for row in table]
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, found[0])
        writer.writeheader()
        writer.writerows(found)
    return path


@pytest.mark.parametrize("name", ["grid.csv", "grid.csv.gz"])
def test_means_are_over_the_seeds_of_a_prompt(summary: ModuleType, tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, rows("random", RANDOM))
    cell = summary.load(path)["random", "clip", 4]
    assert summary.column(cell, [(3, 0), (3, 1), (5, 1)], "score").tolist() == [97.0, 100.0]
    assert list(summary.load(path, [1])["random", "clip", 4]) == [(prompt, 1) for prompt in range(8)]


def test_seeds_that_only_one_of_them_has_do_not_count(summary: ModuleType, tmp_path: Path) -> None:
    """The method was run with the first seed, whose scores are one lower: +1 like with like."""
    cells = summary.load(write(tmp_path / "grid.csv", rows("random", RANDOM), rows("draft", {4: 95.0}, seeds=range(1))))
    (row,) = (row for row in summary.rows_of(cells) if row["method"] == "draft")
    assert (row["prompts"], row["runs"], row["score_gain_at_equal_calls"]) == (8, 8, 1.0)


def test_differences_at_equal_calls_and_at_equal_seconds(summary: ModuleType, tmp_path: Path) -> None:
    """A method that scores 95 at 4 images and takes half the time: +1 at equal calls, +3 at equal seconds."""
    cells = summary.load(write(tmp_path / "grid.csv", rows("random", RANDOM), rows("draft", {4: 95.0}, seconds=0.5)))
    (row,) = (row for row in summary.rows_of(cells) if row["method"] == "draft")
    assert row["prompts"] == 8 and row["model_calls"] == 64
    assert row["score_gain_at_equal_calls"] == 1.0 and row["score_gain_at_equal_calls_95"] == "1.0000 to 1.0000"
    assert row["score_gain_at_equal_seconds"] == 3.0
    assert row["truth_gain_at_equal_calls"] == 0.0


def test_ancestral_methods_are_compared_with_random_search_on_their_sampler(summary: ModuleType) -> None:
    assert summary.control_of("FK steering") == "random (ancestral)"
    assert summary.control_of("draft") == "random"


def test_ratio_of_calls(summary: ModuleType, tmp_path: Path) -> None:
    """97 at 8 images and 99 at 24 cross 98, random search's at 64, at 16: a quarter of its calls."""
    cells = summary.load(write(tmp_path / "grid.csv", rows("random", RANDOM), rows("draft", {8: 97.0, 24: 99.0})))
    ratio = summary.calls_ratio(cells, "draft", "clip")
    assert (ratio["ratio"], ratio["low"], ratio["high"]) == (0.25, 0.25, 0.25)
    few = rows("draft", {64: 0.0}, prompts=range(3))  # a budget with few runs is left out
    some = summary.load(write(tmp_path / "some.csv", rows("random", RANDOM), rows("draft", {8: 97.0, 24: 99.0}), few))
    assert summary.calls_ratio(some, "draft", "clip") == ratio
    below = summary.load(write(tmp_path / "low.csv", rows("random", RANDOM), rows("draft", {8: 96.0, 24: 97.9})))
    assert math.isinf(summary.calls_ratio(below, "draft", "clip")["ratio"])


def test_a_method_is_compared_on_the_prompts_it_has(summary: ModuleType, tmp_path: Path) -> None:
    half = rows("draft", {4: 95.0}, prompts=range(4))
    cells = summary.load(write(tmp_path / "grid.csv", rows("random", RANDOM), half))
    (row,) = (row for row in summary.rows_of(cells) if row["method"] == "draft")
    assert row["prompts"] == 4 and row["score"] == 95.0 + 1.5
    assert summary.table(cells, "clip", 4, 4)[0] == "4 prompts"
    assert "draft" not in "".join(summary.table(cells, "clip", 4, 5))


def test_bootstrap_interval(summary: ModuleType) -> None:
    """Of the mean of 400 values of deviation 1: 1.96 / 20 to each side."""
    values = np.random.default_rng(1).standard_normal(400)
    low, high = summary.bootstrap(values)
    assert low == pytest.approx(values.mean() - 0.098, abs=0.02)
    assert high == pytest.approx(values.mean() + 0.098, abs=0.02)


def test_value_of_a_curve_before_a_point(summary: ModuleType) -> None:
    xs, ys = np.array([[1.0, 1.0], [2.0, 3.0]]), np.array([[5.0, 6.0], [7.0, 8.0]])
    assert summary.at(xs, ys, np.array([2.0, 2.9])).tolist() == [7.0, 6.0]
    assert summary.at(xs, ys, np.array([0.5, 9.0])).tolist() == [5.0, 8.0]
