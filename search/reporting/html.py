"""A report as one HTML page that needs nothing else: curve, pictures, candidates, lineage, settings.

Reports may come from strangers. Every text is escaped and kept from changing the direction of what is around it, and
the page may load nothing and run nothing but its own few lines, which its content security policy knows by their hash.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Any

from .csv_table import looks_text
from .escape import MAX_TEXT, escaped, said
from .recipe_rows import MAX_TEXT as MAX_RECIPE
from .report import curve_of, parts_of, score_of
from .svg import draw_svg

MAX_ROWS = 1000  # of the table, best first
MAX_NOTES = 50
MAX_LINEAGE = 100

STYLE = """
:root { color-scheme: light dark; --ink: #1d2127; --faint: #5d6672; --line: #d8dde4; --back: #fff; --card: #f5f7fa;
  --best: #1f61a9; --own: #b5451f; --dot: #96b6d6 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --faint: #9aa4b2; --line: #39414d; --back: #16191e;
  --card: #1f242b; --best: #6fb1f5; --own: #f0956f; --dot: #4a6480 } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1rem; max-width: 70rem; background: var(--back); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .5rem; margin: 0 }
.facts div { background: var(--card); border-radius: .5rem; padding: .5rem .75rem }
dt { color: var(--faint); font-size: .85rem } dd { margin: 0; font-weight: 600 }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(16rem, 100%), 1fr)); gap: .75rem }
figure { margin: 0 } img { width: 100%; border-radius: .5rem; display: block } figcaption { color: var(--faint) }
svg { width: 100%; height: auto; display: block; overflow: visible } svg text { fill: var(--faint); font-size: 13px;
  paint-order: stroke; stroke: var(--back); stroke-width: 4px } @media (max-width: 40rem) { svg text { font-size: 22px } }
line, path { fill: none; stroke: var(--line) } .best { stroke: var(--best); stroke-width: 3 } .dot { fill: var(--dot) }
.baseline { stroke: var(--own); stroke-dasharray: 7 6; stroke-width: 2 } .budget { stroke: var(--faint); stroke-dasharray: 2 4 }
.scroll { overflow-x: auto } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top }
th button { all: unset; cursor: pointer; font-weight: 600; white-space: nowrap }
th button:focus-visible, summary:focus-visible, a:focus-visible { outline: 2px solid var(--best) }
th[aria-sort=ascending] button::after { content: " \\2191" } th[aria-sort=descending] button::after { content: " \\2193" }
tr.kept td { background: var(--card) } tr:target td { outline: 2px solid var(--best) }
a { color: var(--best) } code { font-size: .85rem; user-select: all } .pruned { color: var(--faint) }
"""
SCRIPT = """
for (const button of document.querySelectorAll("th button")) {
  button.onclick = () => {
    const head = button.parentElement, table = head.closest("table"), rising = head.ariaSort !== "ascending";
    for (const other of head.parentElement.children) other.ariaSort = null;
    head.ariaSort = rising ? "ascending" : "descending";
    const key = (row) => row.cells[head.cellIndex].dataset.value ?? "";
    const numbers = table.tBodies[0].rows.length && head.dataset.kind === "number";
    const order = (a, b) => numbers ? a - b : a.localeCompare(b);
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => (key(a) === "") - (key(b) === "") || (rising ? 1 : -1) * order(key(a), key(b)));
    table.tBodies[0].append(...rows);
  };
}
"""


def report_page(reports: Sequence[dict[str, Any]], pictures: Sequence[Sequence[str]]) -> str:
    """Return the page.

    Args:
        reports: as `read_reports` gives them.
        pictures: data: URIs of each report's kept candidates, in order; may be fewer.
    """
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
    policy += "base-uri 'none'; form-action 'none'"
    searches = [_search(report, shown, number) for number, (report, shown) in enumerate(zip(reports, pictures, strict=True))]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="referrer" content="no-referrer">\n'
        f"<title>Noise Search: {escaped(reports[0]['method']['name'])}</title><style>{STYLE}</style></head>\n"
        f"<body><h1>Noise Search</h1>\n{''.join(searches)}<script>{SCRIPT}</script></body></html>\n"
    )


def _search(report: dict[str, Any], pictures: Sequence[str], number: int) -> str:
    cost = report["model_calls_per_image"]
    budget = cost and report["budget"]["images"] * cost
    own = report["candidates"][report["baseline"]["index"]]["score"]  # on the curve's scale: a cascade's first verifier's
    curve = draw_svg(list(curve_of(report)), own, budget or None, report["verifier"])
    winner = report["candidates"][report["kept"][0]]
    return (
        f"<section><h2>{said(report['method']['name'])}</h2>{_facts(report)}\n"
        f"<h2>Best score by {said(report['verifier'])}</h2>{curve}\n"
        f'<h2>Kept pictures</h2><div class="pictures">{_pictures(report, pictures)}</div>\n'
        f"<h2>Recipe of the winner</h2><p><code>{said(winner['recipe'], MAX_RECIPE)}</code></p>"
        f"<p>Lineage: {' ← '.join(_link(index, number) for index in lineage(report, winner['index']))}</p>\n"
        f"<h2>Candidates</h2>{_table(report, number)}\n<h2>Settings</h2>{_settings(report)}</section>\n"
    )


def lineage(report: dict[str, Any], index: int) -> list[int]:
    """Return a candidate's index, its parent's, and so on; the nearest `MAX_LINEAGE` of them."""
    line = [index]
    while len(line) < MAX_LINEAGE and (parent := report["candidates"][line[-1]]["parent"]) is not None:
        line.append(parent)
    return line


def _facts(report: dict[str, Any]) -> str:
    held_out = report.get("held_out")
    facts = {
        "Best score": report["best"]["score"],
        "Your seed's score": report["baseline"]["score"],
        "Gain": report["gain"],
        "Model calls": report["model_calls"],
        "Budget, images": report["budget"]["images"],
        "Candidates": len(report["candidates"]),
        "Seconds": report["seconds"]["total"],
        "Held out": held_out.get("verifier") if isinstance(held_out, dict) else None,
    }
    return _list({name: value for name, value in facts.items() if value is not None})


def _pictures(report: dict[str, Any], pictures: Sequence[str]) -> str:
    shown = []
    for index, uri in zip(report["kept"], pictures):  # noqa: B905 - fewer pictures than kept ones may be shown
        score = said(score_of(report, report["candidates"][index]))
        alt = f"candidate {index}"
        shown.append(f'<figure><img src="{uri}" alt="{alt}"><figcaption>{alt}, score {score}</figcaption></figure>')
    return "".join(shown) or "<p>None was given.</p>"


def _table(report: dict[str, Any], number: int) -> str:
    parts = parts_of(report)
    heads = [("candidate", "number"), ("from", "number"), ("status", "text"), ("score", "number")]
    heads += [(name, "number") for name in parts] if len(parts) > 1 else []
    heads += [("model calls", "number"), ("looks", "text"), ("recipe", "text")]
    row = "".join(f'<th data-kind="{kind}"><button type="button">{said(name)}</button></th>' for name, kind in heads)
    best_first = sorted(report["candidates"], key=lambda c: (c["score"] is None, -(c["score"] or 0.0), c["index"]))
    rows = [_row(candidate, parts, set(report["kept"]), number) for candidate in best_first[:MAX_ROWS]]
    left_out = len(best_first) - len(rows)
    note = f"<p>The best {len(rows)}; {left_out} more are in the JSON and CSV files.</p>" if left_out else ""
    return f'<div class="scroll"><table><thead><tr>{row}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>{note}'


def _row(candidate: dict[str, Any], parts: list[str], kept: set[int], number: int) -> str:
    index, parent = candidate["index"], candidate["parent"]
    cells = [_cell(index), _cell(parent, "–" if parent is None else _link(parent, number)), _cell(candidate["status"])]
    cells.append(_cell(candidate["score"]))
    cells += [_cell(candidate["scores"].get(name)) for name in parts] if len(parts) > 1 else []
    cells += [_cell(candidate["model_calls"]), _cell(looks_text(candidate))]
    cells.append(_cell("", _recipe(candidate)))
    kind = "kept" if index in kept else "" if candidate["status"] == "finished" else "pruned"
    return f'<tr id="c{number}-{index}" class="{kind}">{"".join(cells)}</tr>'


def _recipe(candidate: dict[str, Any]) -> str:
    recipe = candidate["recipe"]
    if len(recipe) > MAX_TEXT:
        return f"{len(recipe)} characters: in the CSV file"
    return f"<details><summary>show</summary><code>{said(recipe)}</code></details>"


def _cell(value: Any, shown: str | None = None) -> str:
    key = "" if value is None else escaped(str(value))
    return f'<td data-value="{key}">{said(value) if shown is None else shown}</td>'


def _link(index: int, number: int) -> str:
    return f'<a href="#c{number}-{index}">{index}</a>'


def _settings(report: dict[str, Any]) -> str:
    method = {f"{name}": value for name, value in report["method"].items() if name != "name"}
    facts = {"seed": report["seed"], **method, **{f"budget: {name}": value for name, value in report["budget"].items()}}
    plain = {name: value for name, value in facts.items() if isinstance(value, (str, int, float))}
    notes = [report["stopped"], *report["notes"], *report["problems"]]
    texts = [f"<li>{said(note)}</li>" for note in notes[:MAX_NOTES] if isinstance(note, str) and note]
    return _list(plain) + (f"<h2>Notes</h2><ul>{''.join(texts)}</ul>" if texts else "")


def _list(facts: dict[str, Any]) -> str:
    shown = "".join(f"<div><dt>{said(name)}</dt><dd>{said(value)}</dd></div>" for name, value in facts.items())
    return f'<dl class="facts">{shown}</dl>'
