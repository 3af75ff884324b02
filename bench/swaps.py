"""Model swaps of every method on a card that holds one model at a time, in small and in large rounds, and what large ones lose.

A swap is a load of a model: the denoiser for a round of sampling, the decoder and the verifier for its pictures; what is
there already is not loaded again. They are counted on the analytic session, whose runs make the model calls of real ones.
The gain is that of the best candidate over the user's own seed, in units of the deviation of independent candidates: on
the analytic session (a quadratic in 48 numbers), or with --demo on the demo model, by the CLIP that guides there and, as
a share of pictures that are right, by the held-out oracle. Both kinds of rounds search with the same seeds, so that
differences are paired.

python bench/swaps.py                                      all methods, 16 images: minutes
python bench/swaps.py --demo --seeds 64 --methods default  on the demo model: so many prompts
"""

from __future__ import annotations

import argparse
import csv
import importlib
import math
import sys
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "demo"), str(HERE.parent / "tests")]

from bootstrap import load_pack  # noqa: E402

load_pack()

import torch  # noqa: E402
from contenders import CONTENDERS, REFINEMENT, STOCHASTIC, Contender  # noqa: E402
from swapping import Card, on_card  # noqa: E402

from noise_search.search.methods.auto_search import choose_for  # noqa: E402
from noise_search.search.run import run_search  # noqa: E402

METHODS = {**CONTENDERS, "refinement": Contender(REFINEMENT)}
SPREAD_OF = 500  # independent candidates, whose deviation is the unit of a gain
SMALL, LARGE = "small", "large"
COLUMNS = ("method", "swaps small", "large", "gain small", "large", "lost", "+- 95 %", "truth small", "large", "lost", "+- 95 %")


class Found(NamedTuple):
    """What a search found.

    Attributes:
        swaps: loads of models; NaN where they are not counted.
        gain: of the best over the user's own seed, in units of the deviation of independent candidates.
        truth: likewise by what did not choose; NaN without it.
    """

    swaps: float
    gain: float
    truth: float = math.nan


class Analytic:
    """Searches of the analytic session."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Measure the unit of gains."""
        self._args = args
        self._units = {kind: spread(kind) for kind in (False, True)}

    def search(self, contender: Contender, number: int, rounds: str) -> Found:
        """Search once, with a seed and an optimum of their own for each number."""
        card, stochastic = Card(), contender.sampler == STOCHASTIC
        search = on_card(card, self._args.images, large_rounds=rounds == LARGE, seed=number, wanted=50_000 + number,
                         steps=self._args.steps, stochastic=stochastic)  # fmt: skip
        for _ in run_search(search, contender.make() or choose_for(search, self._args.images)[0]):
            pass
        search.close()
        return Found(card.swaps, (search.ranked[0][1] - search.baseline.score) / self._units[stochastic])


class Demo:
    """Searches of the demo model."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Load it."""
        self._args, self._guides = args, importlib.import_module("guides")
        self._studio = self._guides.Studio()
        importlib.import_module("comfy.utils").PROGRESS_BAR_ENABLED = False

    def search(self, contender: Contender, number: int, rounds: str) -> Found:
        """Search once, for a prompt of its own for each number."""
        guides = self._guides
        prompt = guides.prompt_of(guides.REPORTED[number])
        made = guides.guides_of(self._studio, prompt)
        with torch.inference_mode():
            _, report = self._studio.search(
                prompt, 1000 + number, self._args.images, 1, made["clip"], contender.make(), held_out=made[guides.TRUTH],
                sampler=contender.sampler, steps=self._args.steps, rounds=rounds,
            )  # fmt: skip
        truth = report["held_out"]["scores"]
        return Found(math.nan, report["gain"] / guides.SPREAD["clip"], truth[str(report["best"]["index"])] - truth["0"])


def spread(stochastic: bool) -> float:
    """Return the deviation of independent candidates' scores."""
    search = on_card(Card(), SPREAD_OF, large_rounds=False, wanted=50_000, steps=4, stochastic=stochastic)
    for _ in run_search(search, CONTENDERS["random"].make()):
        pass
    return stdev(candidate.score for candidate in search.candidates)


def compare(name: str, place: Any, seeds: int) -> list[Any]:
    """Return a row of the table, but for what is the same in all."""
    small, large = ([place.search(METHODS[name], number, rounds) for number in range(seeds)] for rounds in (SMALL, LARGE))
    row: list[Any] = [name, *(round(fmean(found.swaps for found in kind), 1) for kind in (small, large))]
    for what in ("gain", "truth"):
        pairs = [(getattr(a, what), getattr(b, what)) for a, b in zip(small, large, strict=True)]
        lost = [a - b for a, b in pairs]
        known = len(lost) > 1 and all(map(math.isfinite, lost))
        half = 1.96 * stdev(lost) / math.sqrt(len(lost)) if known else math.nan
        row += [round(value, 3) for value in (*map(fmean, zip(*pairs, strict=True)), fmean(lost), half)]
    return row


def main() -> None:
    """Measure, and write bench/output/swaps.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=100, help="or prompts")
    parser.add_argument("--demo", action="store_true", help="the demo model in place of the analytic session")
    args = parser.parse_args()
    (HERE / "output").mkdir(exist_ok=True)
    place = (Demo if args.demo else Analytic)(args)
    print(" ".join([f"{COLUMNS[0]:<38}", *(f"{name:>11}" for name in COLUMNS[1:])]), flush=True)
    with open(HERE / "output" / f"swaps{'-demo' * args.demo}.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for name in args.methods:
            row = compare(name, place, args.seeds)
            writer.writerow(row)
            file.flush()
            print(" ".join([f"{name:<38}", *(f"{value:>11}" for value in row[1:])]), flush=True)


if __name__ == "__main__":
    main()
