"""What a search itself costs as it grows, on a model that costs nothing: time a candidate, memory, bytes on disk.

Every method runs on the analytic session of the tests, whose latents are padded to those of SDXL (4x128x128, float32), with one
verifier and with a rank-mean ensemble of three, with and without journal and live feed. Time is processor time outside of
`session.start`, `branch` and `advance`, of decoding, verifiers and the disk; what a candidate of the last fifth took is compared
with one of the first. Independent candidates cost less than neighbors and branches whatever was done before, so that of a method
that begins with some, fifths are of those after the first candidate that has a parent. Memory is what the process holds more
after a search than before, and at most meanwhile; beside it, the most that a search of two waves holds: runs under way and the
latents of the best are as many in a search of any size. Each row is a process of its own.

python bench/growth.py                      all methods at 100, 1,000 and 10,000 candidates: minutes on a quiet machine
python bench/growth.py --quick              three methods at 100 and 1,000 candidates
python bench/growth.py --methods random --sizes 10000 --verifiers ensemble --kept
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import gc
import heapq
import itertools
import json
import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "tests"), str(HERE.parent / "demo")]

from bootstrap import load_pack  # noqa: E402

load_pack()

import torch  # noqa: E402
from analytic import SIZE, AnalyticRun, AnalyticSession, Left, LowFrequency, Quadratic, Stripes, draw  # noqa: E402
from contenders import chain, method  # noqa: E402
from journaling import AnalyticCodec  # noqa: E402

from noise_search.search.base.budget import Budget  # noqa: E402
from noise_search.search.core.search import Search, SearchSettings  # noqa: E402
from noise_search.search.journal import journal as journal_module  # noqa: E402
from noise_search.search.journal.caching_session import CacheContext, CachingSession  # noqa: E402
from noise_search.search.journal.files import JournalFile  # noqa: E402
from noise_search.search.journal.journal import Journal, entry_name  # noqa: E402
from noise_search.search.journal.score_cache import ScoreCache  # noqa: E402
from noise_search.search.noise.bounded_cache import BoundedCache  # noqa: E402
from noise_search.search.noise.recipe import Recipe  # noqa: E402
from noise_search.search.reporting.live_feed import ENDED, LiveFeed  # noqa: E402
from noise_search.search.run import run_search  # noqa: E402
from noise_search.search.scoring.scorer import Scorer  # noqa: E402
from noise_search.verifiers.composite.ensemble import RANK_MEAN, Ensemble  # noqa: E402

PLAIN = JournalFile.append, journal_module.write_whole
PADDING = 4 * 128 * 128 - SIZE  # numbers of a latent beside those that the analytic session has
KEPT_NOISES = 128  # SDXL's in the 32 MiB that a search keeps
STEPS, WAVE = 8, 32
SIZES, QUICK_SIZES = (100, 1000, 10_000), (100, 1000)
RANDOM, DRAFT, REFINEMENT = (
    method("random_search", "RandomSearch"),
    method("draft_search", "DraftSearch", draft_steps=3),
    method("refinement", "RefinementSearch"),
)
METHODS: dict[str, tuple[Callable[[], Any], float]] = {  # and how many candidates a whole image of the budget comes to
    "random": (RANDOM, 1.0),
    "zero-order": (method("zero_order", "ZeroOrderSearch"), 1.0),
    "draft": (DRAFT, 2.2),
    "draft, then refinement": (chain(DRAFT, REFINEMENT, 0.7), 2.3),
    "random, then zero-order": (chain(RANDOM, method("zero_order", "ZeroOrderSearch")), 1.0),
    "refinement": (REFINEMENT, 2.6),
    "evolution": (method("evolution", "EvolutionSearch"), 1.3),
    "spectral": (method("spectral", "SpectralSearch"), 1.0),
    "trust region": (method("trust_region", "TrustRegionSearch"), 1.0),
    "halving": (method("halving", "HalvingSearch"), 2.0),
    "FK steering": (method("fk_steering", "FKSteering", renoise=1), 1.2),
    "paths": (method("path_search", "PathSearch"), 3.0),
    "branching": (method("branching", "BranchingSearch", block=2, renoise=1), 3.0),
    "rollover": (method("rollover", "RolloverSearch", block=2, renoise=1), 3.0),
    "backtracking": (method("backtracking", "BacktrackingSearch"), 1.5),
}
QUICK_METHODS = ("random", "zero-order", "draft, then refinement")
VERIFIERS: dict[str, Callable[[], Any]] = {
    "single": Quadratic,
    "ensemble": lambda: Ensemble((Quadratic("a"), LowFrequency("b"), Stripes("c")), mode=RANK_MEAN),
}
FIELDS = (
    "method", "verifier", "kept", "images", "candidates", "ms_a_candidate", "last_over_first_fifth", "noise_ms_a_candidate",
    "held_kib_a_candidate", "peak_kib_a_candidate", "two_waves_mib", "journal_bytes_a_candidate", "event_bytes_a_candidate",
    "wall_s",
)  # fmt: skip


class Clock:
    """Processor time of the search itself: all of this process, without what others took.

    Attributes:
        samples: (candidates scored, seconds) on the way.
        initial: how many were scored before the first that has a parent; None if none has.
    """

    def __init__(self) -> None:
        """Start now."""
        self.initial: int | None = None
        self.others: dict[str, float] = {}
        self.samples: list[tuple[int, float]] = [(0, 0.0)]
        self._within, self._began = False, time.process_time()

    @property
    def seconds(self) -> float:
        """Of the search, since the start."""
        return time.process_time() - self._began - sum(self.others.values())

    @contextmanager
    def apart(self, name: str) -> Iterator[None]:
        """Count the time of what is done meanwhile under another name."""
        if self._within:
            yield
            return
        self._within, began = True, time.process_time()
        try:
            yield
        finally:
            self._within = False
            self.others[name] = self.others.get(name, 0.0) + time.process_time() - began

    def growth(self) -> float:
        """Return what a candidate of the last fifth of those after the initial ones took, over one of the first fifth."""
        initial = self.initial or 0
        others = self.samples[-1][0] - initial
        began, first, last = (self._at(initial + share * others) for share in (0.0, 0.2, 0.8))
        return (self.samples[-1][1] - last) / max(first - began, 1e-9)

    def _at(self, count: float) -> float:
        """Return the seconds at a number of scored candidates, between samples in proportion."""
        for (few, early), (many, late) in itertools.pairwise(self.samples):
            if many >= count:
                return early + (late - early) * (count - few) / max(many - few, 1)
        return self.samples[-1][1]


class Run(AnalyticRun):
    """A run whose calls cost nothing, and whose latents and records are as large as SDXL's; it promises what it ends in."""

    def call(self) -> None:
        level = self.next_level
        if any(abs(level - wanted) < 1e-6 for wanted in self.keep):
            self.records.append(Left(level, self.known))
            self.records[-1].padding = torch.zeros(PADDING)
        self.promise, self.done, self.nfe = self.known, self.done + 1, self.nfe + 1

    def show(self) -> None:
        super().show()
        if self.finished:
            self.latent = torch.cat([self.latent.flatten(), torch.zeros(PADDING)])[None]


@dataclass
class Session(AnalyticSession):
    """The analytic session, with large latents and without a memory of its own."""

    clock: Clock = field(default_factory=Clock)
    kept: BoundedCache = field(default_factory=lambda: BoundedCache(KEPT_NOISES * SIZE * 4))

    def start(self, recipe: Recipe, keep_records: Any = ()) -> Run:
        with self.clock.apart("noise"):
            return self._large(super().start(recipe, keep_records))

    def branch(self, record: Any, cut: Any, keep_records: Any = ()) -> Run:
        with self.clock.apart("noise"):
            return self._large(super().branch(record, cut, keep_records))

    def advance(self, runs: Any, until_sigma: float = 0.0) -> None:
        """Make the calls in the order of the analytic session."""
        with self.clock.apart("model"):
            calls = [(-level, place, run) for place, run in enumerate(runs) for level in run.levels_of_run[run.done :]]
            for level, _, run in sorted(calls, key=lambda call: call[:2]):
                self.checkpoint()
                if -level < until_sigma or not self.budget.allows(1):
                    break
                self.budget.count(1)
                run.call()
            for run in runs:
                run.show()

    def decode(self, latent: torch.Tensor, preview: bool = False) -> torch.Tensor:
        with self.clock.apart("decode"):
            return super().decode(latent[:, :48], preview)

    def _large(self, run: AnalyticRun) -> Run:
        run.__class__ = Run
        for past in (self.started, self.branches, self.runs):
            past.clear()
        draw.cache_clear()
        return run


class Timed(Scorer):
    """A scorer whose verifiers' time is counted apart.

    Attributes:
        clock: counts it, and notes how many candidates were scored.
    """

    clock: Clock

    def enter(self, candidates: Any, raw: torch.Tensor) -> None:
        if self.clock.initial is None and any(candidate.parent is not None for candidate in candidates):
            self.clock.initial = self.scored
        super().enter(candidates, raw)
        self.clock.samples.append((self.scored, self.clock.seconds))

    def _ask(self, leaf: Any, shown: Any) -> torch.Tensor:
        with self.clock.apart("verifier"):
            return super()._ask(leaf, shown)


class Names:
    """An album that holds no pictures: making them is not measured."""

    place = "0" * 32

    def __init__(self) -> None:
        """Start empty."""
        self._names: set[str] = set()

    def name_of(self, candidate: Any, what: Any) -> str:
        return entry_name(candidate.recipe, what)

    def add(self, name: str, pictures: torch.Tensor) -> None:
        self._names.add(name)

    def has(self, name: str) -> bool:
        return name in self._names

    def keep(self, names: set[str]) -> None:
        self._names &= names

    def forget(self) -> None:
        self._names.clear()

    def end(self) -> None:
        """Nothing to free."""


class Loop(threading.Thread):
    """Does things later, as a server's event loop."""

    def __init__(self) -> None:
        """Start."""
        super().__init__(daemon=True)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._changed, self._count, self._open = threading.Condition(), itertools.count(), True
        self.start()

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something after some seconds."""
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + seconds, next(self._count), action))
            self._changed.notify()

    def run(self) -> None:
        while self._open:
            with self._changed:
                wait = self._due[0][0] - time.monotonic() if self._due else 1.0
                if wait > 0:
                    self._changed.wait(wait)
                    continue
                action = heapq.heappop(self._due)[2]
            action()

    def end(self) -> None:
        """Do nothing more."""
        with self._changed:
            self._open = False
            self._changed.notify()
        self.join()


def held() -> int:
    """Return the bytes of memory that this process holds."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def peak() -> int:
    """Return the most bytes of memory that this process held since `reset_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024


def reset_peak() -> None:
    """Have `peak` begin anew."""
    Path("/proc/self/clear_refs").write_text("5")


def measure(name: str, verifier: str, size: int, kept: bool) -> dict[str, Any]:
    """Run one search and return its row."""
    torch.set_num_threads(1)
    make, each = METHODS[name]
    images = max(2, round(size / each))
    with tempfile.TemporaryDirectory() as folder:
        measure_once(make(), VERIFIERS[verifier](), 2, Path(folder, "warm-up") if kept else None)
        reset_peak()
        before = held()
        measure_once(make(), VERIFIERS[verifier](), 2 * WAVE, Path(folder, "small") if kept else None)
        small = peak() - before
        before, wall = held(), time.perf_counter()
        reset_peak()
        row, search = measure_once(make(), VERIFIERS[verifier](), images, Path(folder, "journal") if kept else None)
        count, wall = len(search.candidates), time.perf_counter() - wall
        most, after = peak() - before, held() - before
    return {
        "method": name, "verifier": verifier, "kept": "journal and feed" if kept else "", "images": images, "candidates": count,
        **row, "held_kib_a_candidate": round(after / count / 1024, 2), "peak_kib_a_candidate": round(most / count / 1024, 2),
        "two_waves_mib": round(small / 2**20, 1), "wall_s": round(wall, 1),
    }  # fmt: skip


def measure_once(made: Any, verifier: Any, images: int, folder: Path | None) -> tuple[dict[str, Any], Search]:
    """Run one search; return what was measured, and the search that ended."""
    clock, budget, sent = Clock(), Budget(images), [0]
    scorer = Timed(verifier)
    scorer.clock = clock
    session: Any = Session(budget, steps=STEPS, wave=WAVE, clock=clock)
    journal = None
    if folder is not None:
        journal = Journal(folder, "a set-up")
        scorer.book = ScoreCache(journal, "verifier", scorer.names)
        session = CachingSession(session, CacheContext(journal, AnalyticCodec(), budget, scorer.book))
    time_disk(clock)
    search = Search(session, scorer, budget, SearchSettings(Recipe(7, 7), 7))
    loop = Loop() if folder is not None else None
    if loop is not None:
        about = {"id": "1d", "node": "1", "workflow": "w", "prompt_id": "p", "row": 0, "rows": 1}
        feed = search.observer = LiveFeed(about, Names(), lambda event: sent.append(len(json.dumps(event))), loop.later)
    for _ in run_search(search, made):
        pass
    search.close()
    if loop is not None:
        feed.end(ENDED)
        loop.end()
        journal.close()
    clock.samples.append((scorer.scored, clock.seconds))
    count = len(search.candidates)
    return {
        "ms_a_candidate": round(clock.seconds * 1000 / count, 3), "last_over_first_fifth": round(clock.growth(), 2),
        "noise_ms_a_candidate": round(clock.others.get("noise", 0.0) * 1000 / count, 3),
        "journal_bytes_a_candidate": 0 if folder is None else round(size_of(folder / "journal.jsonl") / count),
        "event_bytes_a_candidate": round(sum(sent) / count),
    }, search  # fmt: skip


def time_disk(clock: Clock) -> None:
    """Have a clock count what the journal's file takes apart; in this process, for good."""

    def timed(work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            with clock.apart("disk"):
                return work(*args)

        return run

    JournalFile.append, journal_module.write_whole = timed(PLAIN[0]), timed(PLAIN[1])


def size_of(path: Path) -> int:
    """Return the bytes of a file."""
    return path.stat().st_size


def in_process(work: Callable[..., Any], *args: Any) -> Any:
    """Return what a function gives in a process of its own."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(work, args)


def cells(args: argparse.Namespace) -> Iterator[tuple[str, str, int, bool]]:
    """Yield what is to be measured, the small first."""
    for size in args.sizes:
        for kept in (False, True) if args.kept is None else (args.kept,):
            for verifier in args.verifiers:
                for name in args.methods:
                    yield name, verifier, size, kept


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--sizes", nargs="*", type=int, default=list(SIZES), help="candidates, about")
    parser.add_argument("--verifiers", nargs="*", default=list(VERIFIERS), choices=list(VERIFIERS))
    parser.add_argument("--kept", action=argparse.BooleanOptionalAction, help="with journal and live feed only, or without only")
    parser.add_argument("--quick", action="store_true", help="three methods, 100 and 1,000 candidates")
    args = parser.parse_args()
    if args.quick:
        args.methods, args.sizes = list(QUICK_METHODS), list(QUICK_SIZES)
    return args


def main() -> None:
    """Measure, and write bench/output/growth.csv."""
    args = parse_args()
    (HERE / "output").mkdir(exist_ok=True)
    with open(HERE / "output" / "growth.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        for cell in cells(args):
            row = in_process(measure, *cell)
            writer.writerow(row)
            file.flush()
            print(" ".join(f"{row[name]!s:>{max(7, len(name) // 2)}}" for name in FIELDS), flush=True)


if __name__ == "__main__":
    main()
