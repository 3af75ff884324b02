"""Put small faults into the product code, one at a time, and see whether the tests that run the line notice.

    python tools/mutate.py --count 20 --seed 1 -- --pure         20 faults, with the tests of the pure ring
    python tools/mutate.py --count 200 --seed 1                  with all that run in this process: ComfyUI is needed
    python tools/mutate.py --count 200 --seed 1 --list           only where they go: one JSON object a line
    python tools/mutate.py --places drawn.jsonl                  the places of such a file, also after their functions moved

What comes after `--` goes to pytest. The faults are put into a copy of the checkout, a git worktree of what is committed and of
changes to tracked files; the checkout itself is never written to. Which tests run a line is measured once, in a run of all of
them with coverage; `--map FILE` keeps that for further runs on the same content.

A line for every fault says what became of it: "caught" (a test fails), "timeout" (the tests do not end: they notice, too),
"survived" (they all pass), "uncovered" (no test runs the line) or "gone" (a place of --places is not in the source any more).
`--results FILE` writes the same as JSON lines, which `--places` reads again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mutation.places import Found, Place, all_places, draw, find
from source import ROOT, product_code

NOT_HERE = ["-m", "not server and not browser and not matrix"]  # other processes run the code, or it takes too long
CAUGHT, TIMEOUT, SURVIVED, UNCOVERED, GONE = "caught", "timeout", "survived", "uncovered", "gone"
Lines = dict[str, dict[str, list[str]]]  # tests by file and line


def git(*words: str | Path) -> str:
    """Run git in the checkout and return what it says."""
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def copy_of(commit: str) -> Iterator[Path]:
    """Give a worktree of a commit in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="noise-search-mutants-") as folder:
        copy = Path(folder).resolve() / "copy"
        git("worktree", "add", "--quiet", "--detach", copy, commit)
        try:
            yield copy
        finally:
            git("worktree", "remove", "--force", copy)


def run_tests(copy: Path, words: Sequence[str], timeout: float | None = None, **more: str) -> int | None:
    """Run pytest in a copy and return its exit status; None if that takes longer than `timeout` seconds."""
    comfyui = os.environ.get("COMFYUI_PATH") or str(ROOT / ".comfyui" / "ComfyUI")
    told = {
        **os.environ,
        "COMFYUI_PATH": comfyui,
        "PYTHONPATH": str(Path(__file__).resolve().parent),
        "PYTHONDONTWRITEBYTECODE": "1",
        **more,
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *words]
    try:
        return subprocess.run(
            command, cwd=copy, env=told, timeout=timeout, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ).returncode
    except subprocess.TimeoutExpired:
        return None


def lines_of(copy: Path, commit: str, words: Sequence[str], kept: Path | None) -> Lines:
    """Return which tests run which lines: from a file of an earlier run, or by running all of them.

    Raises:
        ValueError: the file is of another content or other tests.
    """
    key = {"content": git("rev-parse", f"{commit}^{{tree}}"), "tests": list(words)}
    if kept is not None and kept.exists():
        known = json.loads(kept.read_text(encoding="utf-8"))
        if known["key"] != key:
            raise ValueError(f"{kept} was measured for {known['key']}, this is {key}: name another file, or delete it")
        return known["lines"]
    target = copy.parent / "lines.json"
    status = run_tests(copy, ["-p", "mutation.covering", *words], NOISE_SEARCH_COVERING=str(target))
    if not target.exists():
        raise RuntimeError(f"pytest ended with {status} and measured nothing: run `pytest {' '.join(words)}` to see why")
    lines: Lines = json.loads(target.read_text(encoding="utf-8"))
    if kept is not None:
        kept.write_text(json.dumps({"key": key, "lines": lines}), encoding="utf-8")
    return lines


def outcome(copy: Path, found: Found, lines: Lines, timeout: float) -> str:
    """Put a fault into the copy, run the tests of its line, take it out again, and say what became of it."""
    tests = lines.get(str(found.module.path), {}).get(str(found.line), [])
    if not tests:
        return UNCOVERED
    chosen, path = copy.parent / "tests.txt", copy / found.module.path
    chosen.write_text("\n".join(tests) + "\n", encoding="utf-8")
    path.write_text(found.wrong, encoding="utf-8")
    try:
        status = run_tests(copy, ["-x", "-m", "", f"@{chosen}"], timeout)
    finally:
        path.write_text(found.module.text, encoding="utf-8")
    if status is None:
        return TIMEOUT
    return SURVIVED if status == 0 else CAUGHT


def chosen_places(args: argparse.Namespace, places: Sequence[Found]) -> list[tuple[Place, Found | None]]:
    """Return the places that were asked for, and where they are."""
    if args.places is None:
        return [(found.place, found) for found in draw(places, args.count, args.seed)]
    told = [json.loads(line) for line in args.places.read_text(encoding="utf-8").splitlines() if line]
    wanted = [Place(one["function"], one["kind"], one["index"], one["text"]) for one in told]
    return [(place, find(places, place)) for place in wanted]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20, help="how many faults; 20")
    parser.add_argument("--seed", type=int, default=0, help="which; 0")
    parser.add_argument("--places", type=Path, help="a file of places, as --list and --results write them")
    parser.add_argument("--list", action="store_true", help="print the places and do nothing")
    parser.add_argument("--map", type=Path, help="a file that keeps which tests run which lines")
    parser.add_argument("--results", type=Path, help="a file for what became of each fault")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for the tests of one fault; 300")
    parser.add_argument("tests", nargs="*", help="what pytest is given, after --", default=NOT_HERE)
    return parser.parse_args()


def main() -> None:
    args = options()
    if args.list:
        for place, _ in chosen_places(args, all_places(product_code())):
            sys.stdout.write(json.dumps(place.as_dict()) + "\n")
        return
    commit = git("stash", "create") or git("rev-parse", "HEAD")
    results = []
    with copy_of(commit) as copy:
        chosen = chosen_places(args, all_places(product_code(copy)))
        lines = lines_of(copy, commit, args.tests, args.map)
        for place, found in chosen:
            end = GONE if found is None else outcome(copy, found, lines, args.timeout)
            where = "" if found is None else f"{found.module.path}:{found.line}: "
            fault = "" if found is None else f" -> {found.fault}"
            sys.stdout.write(f"{end:10} {where}{place.function}: {place.kind} {place.index}: {place.text}{fault}\n")
            sys.stdout.flush()
            results.append({**place.as_dict(), "outcome": end})
    if args.results is not None:
        args.results.write_text("".join(json.dumps(one) + "\n" for one in results), encoding="utf-8")
    counts = Counter(one["outcome"] for one in results)
    sys.stdout.write(", ".join(f"{count} {end}" for end, count in counts.most_common()) + "\n")


if __name__ == "__main__":
    main()
