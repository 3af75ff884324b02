"""The report output: what a search did and found, as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from ...search.base.candidate import Candidate, finite_or_none
from ...search.core.search import Method, Search
from ...search.reporting.checks import VERSION
from ...search.reporting.rows import rows_of, shortest
from ...search.scoring.scorer import Scorer
from ...search.selection.cascade import final_score
from ..adapter.session import ComfySession


def report(
    search: Search, session: ComfySession, method: Method, kept: Sequence[Candidate], held_out: dict[str, Any] | None,
    chosen: Candidate | None = None, recalled: dict[str, int] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return the report of a search as plain JSON values.

    Args:
        search: the ended search.
        session: its session.
        method: what it ran.
        kept: whose pictures come out, best first.
        held_out: scores of a verifier that did not choose, from `score_held_out`.
        chosen: the one that the user chose to come out first; None for the best.
        recalled: what was taken from earlier searches; None if nothing is remembered.
    """
    ranked = search.ranked
    best = ranked[0][0] if ranked else None
    rules = search.budget.rules
    gain = None if best is None else finite_or_none(final_score(search, best) - final_score(search, search.baseline))
    return {
        "noise_search": VERSION,
        "method": {"name": method.name, **_plain(dataclasses.asdict(method))},
        "seed": str(search.seed),
        "verifier": search.scorer.name,
        "parts": search.scorer.names,
        "baseline": _summary(search, search.baseline),
        "best": None if best is None else _summary(search, best),
        "gain": gain,
        "chosen": None if chosen is None else chosen.index,
        "cascade": _cascade(search),
        "held_out": held_out,
        "finals": search.finals,
        "kept": [candidate.index for candidate in kept],
        "order": [candidate.index for candidate, _ in ranked],
        "budget": {"images": search.budget.images, **_plain(dataclasses.asdict(rules))},
        "model_calls": search.budget.nfe,
        "recalled": recalled,
        "model_calls_per_image": search.budget.run_cost,
        "sigmas": session.sigmas.tolist(),
        "verifier_calls": search.scorer.calls,
        "decodes": search.evaluator.decodes,
        "seconds": {
            "total": round(search.budget.seconds, 3),
            "sampling": round(search.runs.seconds, 3),
            "decoding": round(search.evaluator.image_cache.seconds, 3),
            "scoring": round(search.scorer.seconds, 3),
            "waiting": round(search.budget.waited, 3),
        },
        "choices": [choice.as_dict() for sitting in search.scorer.sittings.values() for choice in sitting.choices],
        "batch": session.max_rows,
        "one_by_one_because": [*session.why_one_by_one, *[search.runs.uneven] * bool(search.runs.uneven)],
        "check_calls": session.check_calls,
        "given_up_calls": max(0, search.budget.given_up - search.budget.recalled),
        "batch_halved": session.limits.smaller_calls,
        "in_flight_halved": session.limits.ran_out,
        "repeated_calls": search.budget.repeated,
        "stopped": search.stopped,
        "notes": list(search.notes),
        "problems": list(search.scorer.problems),
        "rounds": [
            {"candidates": list(r.candidates), "best": r.best, "score": shortest(r.score),
             "model_calls": r.nfe, "seconds": round(r.seconds, 3)}
            for r in search.rounds
        ],
        "candidates": rows_of(search.candidates, search.scorer.names, search.budget.run_cost),
    }  # fmt: skip


def report_text(report: dict[str, Any]) -> str:
    """Return a report as JSON: a line for each field, each round and each candidate."""
    fields = [f" {json.dumps(name)}: {_lines(value)}" for name, value in report.items()]
    return "{\n" + ",\n".join(fields) + "\n}"


def _lines(value: Any) -> str:
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return "[\n" + ",\n".join(f"  {_line(item)}" for item in value) + "\n ]"
    return _line(value)


def _line(value: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def score_held_out(search: Search, scorer: Scorer, finalists: list[Candidate]) -> dict[str, Any]:
    """Score the finalists and candidate 0 with a verifier that did not choose them."""
    shown = list(dict.fromkeys([search.baseline.index, *(c.index for c in finalists)]))
    chosen = [search.candidates[index] for index in shown if search.candidates[index].status == "finished"]
    scores = scorer.combine(search.evaluator.scored_by(scorer, chosen)).tolist()
    return {
        "verifier": scorer.verifier.name,
        "scores": {str(c.index): finite_or_none(score) for c, score in zip(chosen, scores, strict=True)},
        "verifier_calls": scorer.calls,
        "problems": list(scorer.problems),
    }


def _cascade(search: Search) -> dict[str, Any] | None:
    """Return what the dear scorer of a cascade said, and how often it was not asked; None without a cascade."""
    scorer, finalists = search.scorer.dear, search.evaluator.finalists
    if scorer is None or finalists is None:
        return None
    return {
        "verifier": scorer.name,
        "scores": {str(c.index): finite_or_none(score) for c, score in finalists.ranked()},
        "verifier_calls": scorer.calls,
        "candidates_scored": scorer.scored,
        "candidates_saved": max(0, search.scorer.scored - scorer.scored),
        "seconds": round(scorer.seconds, 3),
        "problems": list(scorer.problems),
    }


def _summary(search: Search, candidate: Candidate) -> dict[str, Any]:
    """Return the short form of a candidate, with the score that the order goes by where it is."""
    scores = {name: finite_or_none(value) for name, value in candidate.scores.items()}
    return {"index": candidate.index, "score": finite_or_none(final_score(search, candidate)), "scores": scores}


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if isinstance(value, (bool, int, float, str, type(None), dict))}
