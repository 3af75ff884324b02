"""Reads reports of searches, which may come from a stranger's workflow, and sums one up for a picture."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ..base.candidate import calls_of
from ..noise.recipe import Recipe
from .checks import NUMBER, VERSION, check_report, shown
from .rows import read_rows

PACK_VERSION = "0.1.0"  # of this pack, as pictures tell it; a test keeps it that of pyproject.toml
SUMMARY_VERSION = 1  # of what pictures carry
MAX_LENGTH = 200_000_000  # characters: some 200,000 candidates of version 1, and as many more of version 2
MAX_DIGITS = 20  # of a whole number; seeds are strings
MAX_SIZE = 1e100  # of a number: what a plot can still add and subtract
MAX_PARTS = 100  # verifiers: each is a column
MAX_LEVELS = 200  # noise levels that a picture carries: of more steps, none


def read_reports(text: str) -> list[dict[str, Any]]:
    """Return the reports in a search's report output: one, or one for each row of a latent batch.

    Raises:
        ValueError: the text is no report; says what is wrong with it.
    """
    data = _load(text)
    reports = [opened(report) for report in (data if isinstance(data, list) else [data])]
    if not reports:
        raise ValueError("report: an empty list: connect the 'report' output of a search")
    if (count := len(parts_of(*reports))) > MAX_PARTS:
        raise ValueError(f"report: scores by {count} verifiers are more than the {MAX_PARTS} that are read")
    return reports


def holds_candidates(text: Any) -> bool:
    """Say whether a text is a report rather than a recipe, which has no such field."""
    return isinstance(text, str) and '"candidates"' in text


def opened(data: Any) -> dict[str, Any]:
    """Return a report, of any version, as all that read reports know it: with the fields of version 1, whole recipes among them.

    What the pack reads of it has the right type, numbers are finite, and candidates are where others say they are.
    Whatever else a report holds is ignored: no part of it is ever taken for a path.

    Raises:
        ValueError: it is no report; says what is wrong with it.
    """
    if check_report(data) < VERSION:
        return data
    candidates = read_rows(data["candidates"], data["parts"], data["model_calls_per_image"])
    short = {name: {**data[name], "recipe": candidates[data[name]["index"]]["recipe"]} for name in ("baseline", "best")}
    return {**data, **short, "candidates": candidates}


def kept_candidates(reports: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return (report, candidate) of every picture that the search node puts out, in that order."""
    return [(report, report["candidates"][index]) for report in reports for index in report["kept"]]


def summary_of(report: dict[str, Any], candidate: dict[str, Any]) -> dict[str, Any]:
    """Return what a picture carries of its search: JSON values, short whatever the budget was.

    Args:
        report: as `read_reports` gives it.
        candidate: whose picture it is; one of the report's.
    """
    best, baseline = report["best"], report["baseline"]
    return {
        "noise_search": SUMMARY_VERSION,
        "recipe": json.loads(_recipe(candidate)),
        "candidate": candidate["index"],
        "score": score_of(report, candidate),
        "scores": candidate["scores"],
        "sigmas": report["sigmas"] if len(report["sigmas"]) <= MAX_LEVELS else None,
        "search": {
            "pack_version": PACK_VERSION,
            "method": report["method"]["name"],
            "verifier": report["verifier"],
            "seed": report["seed"],
            "budget": report["budget"]["images"],
            "model_calls": report["model_calls"],
            "candidates": len(report["candidates"]),
            "baseline_score": baseline["score"],
            "best_score": best["score"],
            "gain": report["gain"],
        },
    }


def score_of(report: dict[str, Any], candidate: dict[str, Any]) -> float | None:
    """Return the score that a candidate stands in the order by: of a cascade's finalists, the second verifier's."""
    for short in (report["best"], report["baseline"]):
        if candidate["index"] == short["index"] and short["score"] is not None:
            return short["score"]
    cascade = report.get("cascade")
    scores = cascade.get("scores") if isinstance(cascade, dict) else None
    score = scores.get(str(candidate["index"])) if isinstance(scores, dict) else None
    return score if type(score) in NUMBER else candidate["score"]


def winner_summary(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the summary of a search's first picture; for a latent batch, with the recipes of all its rows' winners."""
    winners = [(report, report["candidates"][report["kept"][0]]) for report in reports]
    summary = summary_of(*winners[0])
    return summary if len(winners) == 1 else {**summary, "recipe": [json.loads(_recipe(winner)) for _, winner in winners]}


def carried_summary(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what pictures carry that a node saves without knowing which of a search's pictures they are.

    It is the summary of the first picture, and where candidates beside the best are kept, under "kept" the recipe and the
    scores of every picture, in the order in which they leave the search node.
    """
    pairs, summary = kept_candidates(reports), winner_summary(reports)
    if len(pairs) == len(reports):
        return summary
    each = (summary_of(*pair) for pair in pairs)
    return {**summary, "kept": [{name: one[name] for name in ("candidate", "score", "scores", "recipe")} for one in each]}


def parts_of(*reports: dict[str, Any]) -> list[str]:
    """Return the names of the verifiers that scored the reports' candidates, in order of their first score."""
    return list(dict.fromkeys(name for report in reports for c in report["candidates"] for name in c["scores"]))


def curve_of(report: dict[str, Any]) -> Iterator[tuple[int, float]]:
    """Yield (model calls, score) of the scored candidates in order; those of one round are spread over its calls."""
    for calls, index in calls_of((told["candidates"], told["model_calls"]) for told in report["rounds"]):
        score = report["candidates"][index]["score"]
        if score is not None:
            yield calls, score


def _recipe(candidate: dict[str, Any]) -> str:
    try:
        return Recipe.from_json(candidate["recipe"]).to_json()
    except ValueError as error:
        raise ValueError(f"report: candidate {candidate['index']}: {error}") from error


def _load(text: Any) -> Any:
    if not isinstance(text, str):
        raise ValueError(f"report: must be text, not {type(text).__name__}: connect the 'report' output of a search")
    if len(text) > MAX_LENGTH:
        raise ValueError(f"report: {len(text)} characters are more than the {MAX_LENGTH} that are read")
    try:
        return json.loads(text, parse_float=_float, parse_int=_int, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"report: not JSON ({error}): connect the 'report' output of a search") from error


def _float(text: str) -> float:
    value = float(text)
    if not abs(value) <= MAX_SIZE:
        raise ValueError(f"{shown(text)} is no score and no time")
    return value


def _int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a whole number of {len(text)} digits")
    return int(text)


def _constant(word: str) -> None:
    raise ValueError(f"{word} is no number")
