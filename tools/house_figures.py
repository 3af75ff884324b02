"""The figures of the pack's architecture, of this checkout or another: run it on two commits to compare them.

    python tools/house_figures.py                           this checkout
    python tools/house_figures.py --root ../old             another one, such as `git worktree add ../old <commit>` makes
    python tools/house_figures.py --places "frames"         also what each figure counts whose name contains this word
    python tools/house_figures.py --no-run --no-types       without ComfyUI, without a type checker

`--json` prints an object in the place of lines. What a figure counts:

arrows: distinct pairs of files, or of folders, of which one imports the other; imports inside of functions are among them,
    those under `if TYPE_CHECKING` are not, unless it says so.
cycles: groups of files or folders that all reach one another along arrows.
members of Search: names that the class and its bases of ours define or assign to `self`, double underscores aside; public
    are those without an underscore in front.
frames: functions of ours on the stack when the model is called, in a small search on the toy model, from the node's `execute`.
assignments to others' attributes: `x.attr = ...`, `+=`, and unpacking, where x is neither `self` nor `cls` nor a local object
    that the same function made; a place is a function and what it assigns to.
parameters: all but `self` and `cls`; a node's `execute` is counted apart: ComfyUI gives it one for each input.
lines of a function: from `def` to its last line, docstring included.
type errors: what basedpyright says in its standard mode, if it is installed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from figures.arrows import cycles, file_arrows, package_arrows
from figures.assignments import foreign_assignments
from figures.frames import frames_to_model_calls
from figures.members import members_of
from figures.types_checked import type_errors
from source import LAYERS, ROOT, Module, functions, parameters, product_code

MOST_PARAMETERS, MOST_LINES, MOST_FILE_LINES = 6, 40, 300


class Figure(NamedTuple):
    """A count, and what it counts."""

    name: str
    count: int
    places: list[str]


def folders(modules: list[Module]) -> list[Figure]:
    """Count the files directly in each folder."""
    found: dict[str, list[str]] = {}
    for module in modules:
        found.setdefault(module.package.replace(".", "/"), []).append(module.path.name)
    return [Figure(f"files at the top of {folder}/", len(files), files) for folder, files in sorted(found.items())]


def arrow_figures(modules: list[Module]) -> list[Figure]:
    """Count arrows and cycles, of files and of folders."""
    run, typed = file_arrows(modules, typing_too=False), file_arrows(modules, typing_too=True)
    run_folders, typed_folders = package_arrows(modules, run), package_arrows(modules, typed)
    inside = {layer: [pair for pair in run if all(name.split(".")[0] == layer for name in pair)] for layer in LAYERS}
    inner = {layer: [pair for pair in run_folders if all(name.split(".")[0] == layer for name in pair)] for layer in LAYERS}
    pairs = [
        ("arrows between files", run),
        *((f"arrows between files of {layer}/", arrows) for layer, arrows in inside.items()),
        ("arrows between folders", run_folders),
        *((f"arrows between folders of {layer}/", arrows) for layer, arrows in inner.items()),
    ]
    groups = [
        ("cycles of files", run), ("cycles of files, with TYPE_CHECKING", typed),
        ("cycles of folders", run_folders), ("cycles of folders, with TYPE_CHECKING", typed_folders),
    ]  # fmt: skip
    return [
        *(Figure(name, len(arrows), [" -> ".join(pair) for pair in sorted(arrows)]) for name, arrows in pairs),
        *(Figure(name, len(found := cycles(arrows)), [" <-> ".join(group) for group in found]) for name, arrows in groups),
    ]


def function_figures(modules: list[Module]) -> list[Figure]:
    """Count functions with many parameters or lines."""
    wide, executes, long = [], [], []
    for module in modules:
        for name, node, method in functions(module.tree):
            place, count = f"{module.path}: {name}", len(parameters(node, method))
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if count > MOST_PARAMETERS:
                (executes if method and node.name == "execute" else wide).append(f"{place}: {count}")
            if lines > MOST_LINES:
                long.append(f"{place}: {lines}")
    return [
        Figure(f"functions over {MOST_PARAMETERS} parameters", len(wide), wide),
        Figure(f"nodes' execute over {MOST_PARAMETERS} parameters", len(executes), executes),
        Figure(f"functions over {MOST_LINES} lines", len(long), long),
    ]


def member_figures(modules: list[Module]) -> list[Figure]:
    """Count the members of `Search`."""
    members = members_of("Search", modules, "search")
    public = [name for name in members if not name.startswith("_")]
    return [Figure("members of Search", len(members), members), Figure("public members of Search", len(public), public)]


def assignment_figures(modules: list[Module]) -> list[Figure]:
    """Count the places that assign to an attribute of another object."""
    places = [f"{module.path}: {place}" for module in modules for place in foreign_assignments(module.tree)]
    inside = {layer: [place for place in places if place.startswith(f"{layer}/")] for layer in LAYERS}
    return [
        Figure("assignments to others' attributes", len(places), places),
        *(Figure(f"assignments to others' attributes in {layer}/", len(part), part) for layer, part in inside.items()),
    ]


def size_figures(root: Path, modules: list[Module]) -> list[Figure]:
    """Count lines and large files."""
    large = [f"{module.path}: {module.lines}" for module in modules if module.lines > MOST_FILE_LINES]
    return [
        Figure(f"files over {MOST_FILE_LINES} lines", len(large), large),
        Figure("lines of product code", sum(module.lines for module in modules), []),
        Figure("lines of web/js", _lines(root / "web" / "js", "*.js"), []),
        Figure("lines of tests", _lines(root / "tests", "*.py"), []),
    ]


def _lines(folder: Path, pattern: str) -> int:
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in folder.rglob(pattern))


def frame_figures(root: Path) -> list[Figure]:
    """Count frames of ours at the model calls of a small search: the deepest and the shallowest stack."""
    calls = sorted(frames_to_model_calls(root), key=len)
    return [
        Figure("frames from node to model call, most", len(calls[-1]), calls[-1]),
        Figure("frames from node to model call, fewest", len(calls[0]), calls[0]),
    ]


def type_figures(root: Path) -> list[Figure]:
    """Count type errors, in all and of each folder; none where no checker is installed."""
    errors = type_errors(root)
    if errors is None:
        return []
    by_folder = Counter(str(Path(error.split(":")[0]).parent) for error in errors)
    parts = [
        Figure(f"type errors of {folder}/", count, [error for error in errors if str(Path(error.split(":")[0]).parent) == folder])
        for folder, count in sorted(by_folder.items())
    ]
    return [Figure("type errors", len(errors), errors), *parts]


def figures(root: Path, *, run: bool, types: bool) -> list[Figure]:
    """Count everything of a checkout.

    Args:
        root: its folder.
        run: also count frames, in this process: ComfyUI and torch are needed.
        types: also count type errors, where a checker is installed.
    """
    modules = product_code(root)
    return [
        *folders(modules),
        *arrow_figures(modules),
        *member_figures(modules),
        *(frame_figures(root) if run else []),
        *assignment_figures(modules),
        *function_figures(modules),
        *size_figures(root, modules),
        *(type_figures(root) if types else []),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout; by default this one")
    parser.add_argument("--no-run", action="store_true", help="count no frames: that runs a search, which needs ComfyUI")
    parser.add_argument("--no-types", action="store_true", help="do not run the type checker")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--places", default=None, metavar="WORD", help="also print what the figures with this word count")
    args = parser.parse_args()
    found = figures(args.root.resolve(), run=not args.no_run, types=not args.no_types)
    if args.json:
        sys.stdout.write(json.dumps({figure.name: figure.count for figure in found}, indent=1) + "\n")
        return
    for figure in found:
        sys.stdout.write(f"{figure.count:6}  {figure.name}\n")
        if args.places is not None and args.places in figure.name:
            sys.stdout.writelines(f"            {place}\n" for place in figure.places)


if __name__ == "__main__":
    main()
