"""`make bench`: measure what docs/ claims, on the demo model. Each part writes a CSV under bench/output/.

python bench/run.py                   all parts: many hours; cut it at any time, and it goes on where it was
python bench/run.py --quick           a look at most of them: under ten minutes on two cores
python bench/run.py speed memory      some parts
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SMALL_CSV = str(HERE / "output" / "grid-small.csv")
SMALL = ["--model", "small", "--methods", "random", "draft, then refinement", "--guides", "clip", "--output", SMALL_CSV]
PARTS = {  # name: script, arguments of the full run, arguments of the quick one (None: left out)
    "speed": ("speed", [], None),
    "rival": ("rival", [], ["--models", "toy", "--candidates", "8", "--runs", "1"]),
    "memory": ("memory", [], None),
    "journal": ("journal", [], ["--pairs", "1"]),
    "page": ("page", [], ["--candidates", "100"]),
    "ranks": ("ranks", [], ["--prompts", "2", "--candidates", "16"]),
    "pruning": ("pruning", [], []),
    "growth": ("growth", [], ["--quick"]),
    "grid": ("grid", ["--seeds", "5"], ["--quick"]),
    "models": ("grid", SMALL, [*SMALL, "--quick"]),
    "lidar": ("lidar", [], ["--prompts", "1"]),
    "axes": ("axes", [], ["--prompts", "1"]),
    "summary": ("summary", [], []),
    "plots": ("plots", [], ["--images", str(HERE / "output")]),
}


def main() -> None:
    """Run the parts, each in its own process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    for part in args.parts:
        if part not in PARTS:
            parser.error(f"unknown part {part!r}: one of {', '.join(PARTS)}")
        script, full, quick = PARTS[part]
        more = quick if args.quick else full
        if more is not None:
            subprocess.run([sys.executable, str(HERE / f"{script}.py"), *more], check=True)


if __name__ == "__main__":
    main()
