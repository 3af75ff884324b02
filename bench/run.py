"""`make bench`: measure what the README claims, on the demo model. Each part writes a CSV under bench/output/.

python bench/run.py                   all parts
python bench/run.py speed memory      some of them
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PARTS = ("speed", "memory")


def main() -> None:
    """Run the parts, each in its own process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=PARTS, help=f"of {', '.join(PARTS)}; default: all")
    for part in parser.parse_args().parts:
        subprocess.run([sys.executable, str(HERE / f"{part}.py")], check=True)


if __name__ == "__main__":
    main()
