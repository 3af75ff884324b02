"""A report as searches write it, small, for tests of what reads reports.

report(candidates=[...], verifier="...")     # one report; arguments replace fields
candidate(3, parent=1, score=0.5)            # one of its candidates
reports_in(text)                             # what a search's report output holds, as nodes read it
"""

from __future__ import annotations

import json
from typing import Any


def reports_in(text: str) -> Any:
    """Return the report of a text, or the list that a latent batch gives."""
    from noise_search.search.reporting.report import read_reports  # what benches take from here needs no pack

    reports = read_reports(text)
    return reports if text.startswith("[") else reports[0]


def recipe(seed: int) -> str:
    return json.dumps({"noise_search": 1, "noise": str(seed), "seed": str(seed)})


def candidate(index: int, *, score: float | None = 0.5, part: str = "redness", **fields: Any) -> dict[str, Any]:
    made = {
        "index": index, "parent": None, "status": "finished", "score": score, "scores": {part: score}, "looks": [],
        "model_calls": 8, "recipe": recipe(100 + index),
    }  # fmt: skip
    return {**made, **fields}


def report(**fields: Any) -> dict[str, Any]:
    candidates = fields.pop("candidates", None) or [
        candidate(0, score=0.25),
        candidate(1, score=0.75),
        candidate(2, score=None, parent=1, status="pruned", looks=[{"sigma": 3.5, "scores": {"redness": 0.1}, "score": 0.1}]),
        candidate(3, score=0.5, parent=1),
    ]
    ranked = sorted((c for c in candidates if c["score"] is not None), key=lambda c: -c["score"]) or candidates
    short = [{name: c[name] for name in ("index", "score", "scores", "recipe")} for c in (candidates[0], ranked[0])]
    made = {
        "noise_search": 1, "method": {"name": "random search", "draft_steps": 0}, "seed": "100", "verifier": "redness",
        "baseline": short[0], "best": short[1], "gain": 0.5, "cascade": None, "held_out": None, "finals": None,
        "kept": [ranked[0]["index"]], "order": [c["index"] for c in ranked],
        "budget": {"images": 4, "max_model_calls": 0, "max_seconds": 0.0, "target_score": None, "patience": 0},
        "model_calls": 32, "model_calls_per_image": 8, "verifier_calls": 4, "decodes": 4, "seconds": {"total": 1.5},
        "sigmas": [1.0, 0.5, 0.0],
        "batch": 4, "one_by_one_because": [], "batch_halved": 0, "stopped": "", "notes": [], "problems": [],
        "rounds": [{"candidates": [c["index"] for c in candidates], "best": ranked[0]["index"], "score": ranked[0]["score"],
                    "model_calls": 32, "seconds": 1.4}],
        "candidates": candidates,
    }  # fmt: skip
    return {**made, **fields}
