"""What the pack adds to ComfyUI's start: processor time of its import against all the rest of the same start.

Every run is the real `main.py` with the pack among its custom nodes, on the CPU, until it would serve. The first one, which
may have to compile, does not count.

python bench/startup.py
"""

from __future__ import annotations

import argparse
import csv
import functools
import importlib.machinery
import importlib.util
import os
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).resolve().parent
NAME = "noise-search"
SAID = "STARTED"
FLAGS = ["--cpu", "--quick-test-for-ci", "--disable-api-nodes", "--database-url", "sqlite:///:memory:"]


class Timed(importlib.machinery.SourceFileLoader):
    """Loads ComfyUI's module `nodes`, and has it note the processor time of loading the pack."""

    seconds = 0.0

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, and put a timer around its loading of custom nodes."""
        super().exec_module(module)
        load = module.load_custom_node

        @functools.wraps(load)
        async def timed(path: str, *args: Any, **more: Any) -> Any:
            started = time.process_time()
            try:
                return await load(path, *args, **more)
            finally:
                if Path(path).name == NAME:
                    Timed.seconds += time.process_time() - started

        module.load_custom_node = timed


class Finder:
    """Finds ComfyUI's module `nodes` in its folder."""

    def __init__(self, comfyui: Path) -> None:
        """Look in ComfyUI's folder."""
        self._file = comfyui / "nodes.py"

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """Return how to load `nodes`; None for other modules."""
        if name != "nodes":
            return None
        loader = Timed(name, str(self._file))
        return importlib.util.spec_from_file_location(name, self._file, loader=loader)


def start(comfyui: Path, base: Path) -> None:
    """Start ComfyUI in this process, and say the seconds of processor time of the pack and of all the rest."""
    sys.path.insert(0, str(comfyui))
    sys.meta_path.insert(0, Finder(comfyui))
    sys.argv = [str(comfyui / "main.py"), *FLAGS, "--base-directory", str(base)]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit:
        pass
    finally:
        print(SAID, Timed.seconds, time.process_time() - Timed.seconds, flush=True)


def started(comfyui: Path) -> tuple[float, float]:
    """Start ComfyUI in a process of its own; return what `start` says."""
    with tempfile.TemporaryDirectory() as base:
        nodes = Path(base) / "custom_nodes"
        nodes.mkdir()
        (nodes / NAME).symlink_to(HERE.parent, target_is_directory=True)
        command = [sys.executable, __file__, "--start", str(comfyui), base]
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=kept)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith(SAID))
    own, rest = map(float, line.split()[1:])
    if not own:
        raise RuntimeError(f"ComfyUI did not load the pack:\n{done.stderr[-3000:]}")
    return own, rest


def main() -> None:
    """Measure some starts, and write them to bench/output/startup.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--start", nargs=2, type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.start:
        return start(*args.start)
    sys.path.insert(0, str(HERE.parent / "tests"))
    from inprocess import find_comfyui

    comfyui = find_comfyui()
    started(comfyui)
    runs = [started(comfyui) for _ in range(args.runs)]
    (HERE / "output").mkdir(exist_ok=True)
    with open(HERE / "output" / "startup.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("pack_seconds", "rest_seconds", "ratio"))
        writer.writerows([round(own, 4), round(rest, 4), round(own / rest, 4)] for own, rest in runs)
    ratios = [own / rest for own, rest in runs]
    print(
        f"the pack: {statistics.median(own for own, _ in runs):.3f} s of processor time, the rest of ComfyUI's start "
        f"{statistics.median(rest for _, rest in runs):.3f} s: {100 * statistics.median(ratios):.1f} % "
        f"({100 * min(ratios):.1f} to {100 * max(ratios):.1f} %)"
    )


if __name__ == "__main__":
    main()
