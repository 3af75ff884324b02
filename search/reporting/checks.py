"""What a report must hold to be read: fields of the right types, and candidates where others say they are."""

from __future__ import annotations

import reprlib
from collections.abc import Container
from typing import Any

from .recipe_rows import RECIPE_FIELDS
from .rows import LARGEST

VERSION = 2  # of reports; those of version 1 hold every candidate's whole recipe, and its scores by name
VERSIONS = (1, VERSION)
NUMBER, NOTHING = (int, float), (type(None),)
MAYBE = (*NUMBER, *NOTHING)

Kinds = tuple[type, ...]
SUMMARY: dict[str, Kinds] = {"index": (int,), "score": MAYBE, "scores": (dict,)}
WITH_RECIPE: dict[str, Kinds] = {**SUMMARY, "recipe": (str,)}
CANDIDATE: dict[str, Kinds] = {
    **WITH_RECIPE, "parent": (int, *NOTHING), "status": (str,), "looks": (list,), "model_calls": (int,),
}  # fmt: skip
ROW: dict[str, Kinds] = {  # of version 2: a candidate's fields that are not at their default
    "index": (int,), "parent": (int, *NOTHING), "status": (str,), "discarded": (bool,), "score": MAYBE, "scores": (list,),
    "looks": (list,), "model_calls": (int,), **RECIPE_FIELDS,
}  # fmt: skip
ROUND: dict[str, Kinds] = {"candidates": (list,), "model_calls": (int,)}
REPORT: dict[str, Kinds] = {
    "method": (dict,), "seed": (str,), "verifier": (str,), "baseline": (dict,), "best": (dict,), "gain": MAYBE,
    "kept": (list,), "budget": (dict,), "model_calls": (int,), "model_calls_per_image": MAYBE, "seconds": (dict,),
    "sigmas": (list,), "stopped": (str,), "notes": (list,), "problems": (list,), "rounds": (list,), "candidates": (list,),
}  # fmt: skip
WORDS = {dict: "an object", list: "a list", str: "text", int: "a number", float: "a number", type(None): "null"}


def check_report(data: Any) -> int:
    """Check a report that may come from a stranger; return its version.

    Raises:
        ValueError: it is no report; says what is wrong with it.
    """
    version = data.get("noise_search") if isinstance(data, dict) else None
    if type(version) is not int or version not in VERSIONS:
        raise ValueError("report: no report of Noise Search, or one of another version: connect the 'report' output of a search")
    _check_fields(data, SUMMARY if version == VERSION else WITH_RECIPE)
    parts = _parts(data) if version == VERSION else []
    for place, candidate in enumerate(data["candidates"]):
        if version == VERSION:
            _check_row(candidate, place, parts, data["model_calls_per_image"])
        else:
            _check_candidate(candidate, place)
    _check_places(data)
    return version


def _check_fields(report: dict[str, Any], summary: dict[str, Kinds]) -> None:
    _check(report, REPORT, "")
    _check(report["method"], {"name": (str,)}, "method: ")
    _check(report["baseline"], summary, "baseline: ")
    _check(report["best"], summary, "best: ")
    _check(report["budget"], {"images": (int,)}, "budget: ")
    _check(report["seconds"], {"total": NUMBER}, "seconds: ")
    if not all(type(level) in NUMBER for level in report["sigmas"]):
        raise ValueError(f"report: 'sigmas' must be numbers, not {shown(report['sigmas'])}")


def _check_places(report: dict[str, Any]) -> None:
    """Check that candidates are where others say they are."""
    count = len(report["candidates"])
    _check_indices([report["baseline"]["index"], report["best"]["index"]], count, "baseline' or 'best")
    _check_indices(report["kept"], count, "kept")
    if not report["kept"]:
        raise ValueError("report: 'kept' is empty: it says whose pictures come out")
    for told in report["rounds"]:
        _check(told, ROUND, "rounds: ")
        _check_indices(told["candidates"], count, "candidates' of 'rounds")
        if told["model_calls"] < 0:
            raise ValueError(f"report: rounds: {told['model_calls']} model calls cannot have been made")


def _check_candidate(candidate: Any, place: int) -> None:
    where = f"candidate {place}: "
    _check(candidate, CANDIDATE, where)
    _check_place(candidate, place, candidate["model_calls"])
    for name, score in candidate["scores"].items():
        if type(score) not in MAYBE:
            raise ValueError(f"report: {where}its score by {shown(name)} is {shown(score)}, not a number or null")


def _check_row(row: Any, place: int, parts: list[str], usual_calls: Any) -> None:
    where = f"candidate {place}: "
    _check(row, ROW, where, required=("index",))
    calls = row.get("model_calls", usual_calls)
    if type(calls) is not int:
        raise ValueError(f"report: {where}'model_calls' is missing")
    _check_place(row, place, calls)
    _check_scores(row, parts, where)
    for name in ("moves", "cuts"):
        if not all(type(item) is dict for item in row.get(name, ())):
            raise ValueError(f"report: {where}'{name}' must be a list of objects, not {shown(row[name])}")
    for look in row.get("looks", ()):
        _check(look, {"scores": (list,), "score": MAYBE}, f"{where}looks: ")
        _check_scores(look, parts, f"{where}looks: ")


def _check_place(candidate: dict[str, Any], place: int, calls: int) -> None:
    if candidate["index"] != place:
        raise ValueError(f"report: candidate {place}: its 'index' is {candidate['index']}")
    if calls < 0:
        raise ValueError(f"report: candidate {place}: {calls} model calls cannot have been made")
    if candidate.get("parent") is not None:
        _check_indices([candidate["parent"]], place, f"parent' of '{place}")


def _check_scores(data: dict[str, Any], parts: list[str], where: str) -> None:
    scores = data.get("scores")
    if scores is not None and len(scores) != len(parts):
        raise ValueError(f"report: {where}{len(scores)} scores by the {len(parts)} of 'parts'")
    for score in (data.get("score"), *(scores or ())):
        if score is not None and not (type(score) in NUMBER and abs(score) <= LARGEST):
            raise ValueError(f"report: {where}{shown(score)} is no score")


def _parts(report: dict[str, Any]) -> list[str]:
    parts = report.get("parts")
    if not isinstance(parts, list) or not all(isinstance(name, str) for name in parts) or len(set(parts)) < len(parts):
        raise ValueError(f"report: 'parts' must be different names of verifiers, not {shown(parts)}")
    return parts


def _check(data: Any, fields: dict[str, Kinds], where: str, required: Container[str] | None = None) -> None:
    """Check the types of fields; `required`: the names of those that must be there, by default all."""
    if not isinstance(data, dict):
        raise ValueError(f"report: {where}must be an object, not {shown(data)}")
    for name, kinds in fields.items():
        if name not in data and (required is None or name in required):
            raise ValueError(f"report: {where}'{name}' is missing")
        if name in data and type(data[name]) not in kinds:
            wanted = " or ".join(dict.fromkeys(WORDS[kind] for kind in kinds))
            raise ValueError(f"report: {where}'{name}' must be {wanted}, not {shown(data[name])}")


def _check_indices(values: list, count: int, name: str) -> None:
    for value in values:
        if type(value) is not int or not 0 <= value < count:
            raise ValueError(f"report: '{name}' names candidate {shown(value)}, which is none of the {count} before it")


def shown(value: Any) -> str:
    """Return a value as an error message shows it: it may be anything, of any length."""
    text = reprlib.repr(value)  # not deeper than it is long: a value may be nested to the limit
    return text if len(text) <= 60 else f"{text[:60]}..."
