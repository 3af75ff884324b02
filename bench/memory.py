"""Growth of memory over the loaded model: a search over many candidates against a plain batch of its batch size.

On a CPU the growth of the process' peak resident memory is measured, each case in a fresh process.
"""

from __future__ import annotations

import csv
import resource
import subprocess
import sys
from pathlib import Path

CASES = {"plain batch of 8": ("batch", 8, 8), "search over 64, batch 8": ("search", 64, 8),
         "plain batch of 32": ("batch", 32, 32), "search over 128, batch 32": ("search", 128, 32)}  # fmt: skip
REPEATS = 3


def measure(kind: str, count: int, rows: int) -> float:
    """Return the growth of peak memory in MiB; runs in a process of its own."""
    import importlib

    import torch
    from rig import Rig, Studio

    importlib.import_module("noise_search.nodes.adapter.memory").MAX_ROWS = rows
    with torch.inference_mode():
        rig = Rig("euler", Studio())
        rig.batch([1])  # loads the model
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        rig.batch(list(range(count))) if kind == "batch" else rig.searched(count)
        return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    """Measure all cases, the median of three processes each."""
    output = Path(__file__).resolve().parent / "output"
    output.mkdir(exist_ok=True)
    with open(output / "memory.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["case", "growth_mib", "lowest", "highest"])
        for name, case in CASES.items():
            grown = sorted(_in_process(case) for _ in range(REPEATS))
            writer.writerow([name, round(grown[REPEATS // 2], 1), round(grown[0], 1), round(grown[-1], 1)])
            print(f"{name:<28} {grown[REPEATS // 2]:8.1f} MiB", flush=True)


def _in_process(case: tuple[str, int, int]) -> float:
    code = f"import memory; print('GROWTH', memory.measure(*{case!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True,
                          check=True)  # fmt: skip
    return float(next(line for line in done.stdout.splitlines() if line.startswith("GROWTH")).split()[1])


if __name__ == "__main__":
    main()
