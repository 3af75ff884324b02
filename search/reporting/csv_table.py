"""A report's candidates as CSV, for spreadsheets."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

from .report import parts_of

FORMULA = tuple("=+-@＝＋－＠")  # what spreadsheets take for the start of a formula, wide forms too
AFTER_SEMICOLON = re.compile(rf'(;[\s"]*)(?=[{re.escape("".join(FORMULA))}])')  # where spreadsheets of some countries split
MAX_RECIPES = 100_000_000  # characters of all recipes of a table
NO_ROOM = "too long for this table: Render Candidate takes the report and the index"
CONTROL = {code: " " for code in range(32)}


def candidates_csv(reports: list[dict[str, Any]]) -> str:
    """Return one line per candidate under a line of column names; of several reports, with the number of the search first.

    Text that a spreadsheet would run as a formula begins with an apostrophe, also where it follows a semicolon: in many
    languages that is what spreadsheets expect between cells.

    Args:
        reports: as `read_reports` gives them.
    """
    several = len(reports) > 1
    parts = parts_of(*reports)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    names = ["index", "parent", "status", "score", *(f"score: {name}" for name in parts), "model calls", "looks", "recipe"]
    writer.writerow(map(cell, ["search", *names] if several else names))
    room = MAX_RECIPES
    for number, report in enumerate(reports):
        for candidate in report["candidates"]:
            recipe = candidate["recipe"] if room > 0 else NO_ROOM
            room -= len(recipe)
            values = [*_values(candidate, parts), recipe]
            writer.writerow(map(cell, [number, *values] if several else values))
    return table.getvalue()


def cell(value: Any) -> Any:
    """Return a value as it may stand in a spreadsheet: numbers as they are, None as nothing, text without effect."""
    if value is None or isinstance(value, (int, float)):
        return value
    text = AFTER_SEMICOLON.sub(r"\1'", str(value).translate(CONTROL))
    return f"'{text}" if text.lstrip().startswith(FORMULA) else text


def looks_text(candidate: dict[str, Any]) -> str:
    """Return a candidate's half-way scores in words, as in "sigma 3.5: 0.21; sigma 1.2: 0.25"."""
    said = []
    for look in candidate["looks"]:
        if isinstance(look, dict):
            at = [f"{name} {value:g}" for name, value in look.items() if name != "score" and type(value) in (int, float)]
            score = look.get("score")
            said.append(f"{', '.join(at)}: {f'{score:.6g}' if type(score) in (int, float) else 'no score'}")
    return "; ".join(said)


def _values(candidate: dict[str, Any], parts: list[str]) -> list[Any]:
    scores = [candidate["scores"].get(name) for name in parts]
    head = [candidate[name] for name in ("index", "parent", "status", "score")]
    return [*head, *scores, candidate["model_calls"], looks_text(candidate)]
