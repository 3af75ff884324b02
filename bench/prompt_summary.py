"""The summary of a benchmark run: its means, and the paper's tables beside them."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TABLES = Path(__file__).resolve().parent / "paper_tables.json"
OWN, SEARCH = "this run: own seed", "this run: search"
HELD_OUT = "held-out "
COSTS = {"model_calls": "model calls a picture", "seconds": "seconds a picture"}


@dataclass(frozen=True)
class Judge:
    """Which of the run's scores stands in a column of the paper.

    Attributes:
        column: The paper's.
        score: The run's: a verifier's name as in the report, "held-out " before it for the held-out one.
        scale: What the run's is multiplied by, to be on the paper's scale.
    """

    column: str
    score: str
    scale: float = 1.0


def parse_judge(text: str) -> Judge:
    """Read a judge from "COLUMN=SCORE" or "COLUMN=SCORE*SCALE", such as "CLIPScore=CLIP score*0.025".

    Raises:
        ValueError: For another form, or a column that no table of the paper has.
    """
    column, equals, score = text.partition("=")
    scale = re.search(r"\*\s*([0-9.eE+-]+)\s*$", score)
    score = score[: scale.start()] if scale else score
    if not (equals and column.strip() and score.strip()):
        raise ValueError(f"--judge {text!r}: expected COLUMN=SCORE or COLUMN=SCORE*SCALE")
    columns = sorted({column for table in paper_tables().values() for column in table["columns"]})
    if column.strip() not in columns:
        raise ValueError(f"--judge {text!r}: the paper's columns are {', '.join(columns)}")
    return Judge(column.strip(), score.strip(), float(scale[1]) if scale else 1.0)


def paper_tables() -> dict[str, dict[str, Any]]:
    """Return the paper's tables by id: {"title", "columns", "rows": [{"setting", "values"}]}."""
    return {table["id"]: table for table in json.loads(TABLES.read_text(encoding="utf-8"))["tables"]}


def means(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return the mean of every score, of the own seed and of the search's best, and of what they cost.

    Args:
        rows: Of results.jsonl, those without an error. A picture that lacks a score does not count in its mean.

    Returns:
        By `OWN` and `SEARCH`, by column; a column that no row has is left out.
    """
    columns: dict[str, dict[str, list[float | None]]] = {OWN: {}, SEARCH: {}}
    for row in rows:
        held = row.get("held_out")
        for side, key in ((OWN, "baseline"), (SEARCH, "best")):
            values = dict(row.get(key) or {})
            if held is not None:
                values[HELD_OUT + held["verifier"]] = held[key]
            for name, value in values.items():
                columns[side].setdefault(name, []).append(value)
        for name, label in COSTS.items():
            columns[SEARCH].setdefault(label, []).append(row.get(name))
    return {side: {name: mean for name, values in found.items() if (mean := _mean(values)) is not None}
            for side, found in columns.items()}  # fmt: skip


def _mean(values: Iterable[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return math.fsum(there) / len(there) if there else None


def beside_paper(table: dict[str, Any], ours: dict[str, dict[str, float]], judges: Iterable[Judge]) -> dict[str, dict]:
    """Return a table of the paper with the run's rows on top; a column without a judge stays empty there.

    Args:
        table: Of `paper_tables`.
        ours: Of `means`.
        judges: At most one for each column.
    """
    rows: dict[str, dict[str, float]] = {}
    for side, values in ours.items():
        rows[side] = {
            judge.column: judge.scale * values[judge.score]
            for judge in judges
            if judge.column in table["columns"] and judge.score in values
        }
    return {**rows, **{f"paper: {row['setting']}": row["values"] for row in table["rows"]}}


def write_summary(
    folder: Path, rows: Sequence[dict[str, Any]], tables: Sequence[str], judges: Sequence[Judge], said: Sequence[str]
) -> str:
    """Write summary.md and summary.csv (one line for each number) and return the former's text.

    Args:
        folder: Where to.
        rows: The last row of every picture of the run.
        tables: Ids of the paper's tables to show.
        judges: What of the run stands in their columns.
        said: Facts about the run, one line each.
    """
    good = [row for row in rows if row["error"] is None]
    ours = means(good)
    shown = [("This run", ours, None)]
    by_category = {name: [row for row in good if row["category"] == name] for name in {row["category"] for row in good}}
    if len(by_category) > 1:
        split = {f"{name}: {side.removeprefix('this run: ')}": values for name in sorted(by_category)
                 for side, values in means(by_category[name]).items()}  # fmt: skip
        shown.append(("This run by category", split, None))
    every = paper_tables()
    shown += [(every[t]["title"], beside_paper(every[t], ours, judges), every[t]) for t in tables]
    said = [*said, *(f"the paper's column {judge.column}: this run's {judge.score} times {judge.scale:g}" for judge in judges)]
    text = ["# Summary", "", *(f"- {line}" for line in said), f"- pictures: {len(good)}, failed: {len(rows) - len(good)}", ""]
    for title, table, paper in shown:
        text += [f"## {title}", "", *_markdown(table, paper["columns"] if paper else None), ""]
        if paper:
            text += [f"Source: {json.loads(TABLES.read_text(encoding='utf-8'))['source']}. {paper.get('note', '')}".strip(), ""]
    (folder / "summary.md").write_text("\n".join(text), encoding="utf-8")
    with (folder / "summary.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["table", "row", "column", "value"])
        writer.writerows([t, r, c, v] for t, table, _ in shown for r, values in table.items() for c, v in values.items())
    return "\n".join(text)


def _markdown(table: dict[str, dict[str, float]], columns: Sequence[str] | None) -> list[str]:
    columns = columns or list(dict.fromkeys(name for values in table.values() for name in values))
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for row, values in table.items():
        cells = [f"{values[name]:.4g}" if name in values else "" for name in columns]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return lines
