"""Halving search: start twice as many seeds as the budget pays for, drop the worse half-way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..candidates import Candidate, Pool
from ..engine import Round, Search
from ..proposals import NoiseProposal
from .random_search import RandomSearch


@dataclass(frozen=True)
class HalvingSearch:
    """2N seeds to 25 % of the steps, N to 50 %, N / 2 to the end: at most the calls of N full runs.

    The denoised prediction of every suspended run is decoded and scored at the cuts, and the worse are dropped.
    Candidate 0 keeps one slot at every cut. The cost is exactly N runs where the cuts fall on whole steps:
    2N k1 + N (k2 - k1) + N/2 (T - k2) = N T for k1 = T/4, k2 = T/2. Verifier calls: 3.5 N.

    Attributes:
        first_cut, second_cut: where candidates are dropped.
        cut_by: "steps": a share of the steps in (0, 1); "sigma": a noise level in model units, descending.
        proposal: how candidates are drawn; None for independent Gaussian noise.

    References:
        Progressive seed pruning (Guimaraes and Perona, 2026), arXiv 2607.21591
    """

    first_cut: float = 0.25
    second_cut: float = 0.5
    cut_by: str = "steps"
    proposal: NoiseProposal | None = None
    name = "halving search"

    def __post_init__(self) -> None:
        if self.cut_by not in ("steps", "sigma"):
            raise ValueError(f"'cut_by' must be 'steps' or 'sigma', not {self.cut_by!r}")
        first, second = self.first_cut, self.second_cut
        if self.cut_by == "steps" and not 0.0 < first <= second < 1.0:
            raise ValueError(f"cuts by steps need 0 < first_cut <= second_cut < 1, not {first:g} and {second:g}")
        if self.cut_by == "sigma" and not 0.0 < second <= first:
            raise ValueError(f"cuts by sigma need first_cut >= second_cut > 0, not {first:g} and {second:g}")

    def run(self, search: Search) -> Iterator[Round]:
        if not self._can_look(search):
            yield from RandomSearch(self.proposal).run(search)
            return
        steps = self._cut_steps([float(s) for s in search.session.sigmas])
        cuts = [float(search.session.sigmas[k - 1]) for k in steps]
        if search.baseline_first:  # what a run costs has to be known: candidate 0 goes first, looked at on its way
            looks = [search.look([search.baseline], cut) for cut in cuts]
            yield from search.render([search.baseline])
        widths = self.widths(search.images, len(search.session.sigmas) - 1, *steps)
        field = [search.baseline, *(search.propose(self.proposal) for _ in range(widths[0] - 1))]
        for level, cut in enumerate(cuts):
            if search.baseline_first:
                pool = looks[level]
                pool.absorb(search.look(field[1:], cut))
            else:
                pool = search.look(field, cut)
            field = self._survivors(search, pool, widths[level + 1])
        yield from search.render(field)

    @staticmethod
    def widths(images: int, steps: int, first: int, second: int) -> tuple[int, int, int]:
        """Return how many candidates run to the first cut, to the second and to the end.

        Candidate 0 keeps a slot, so that at least one other is rendered beside it; the first width is what is left
        of images * steps calls, at most 2 images.
        """
        if images == 1:
            return 1, 1, 1
        last = max(2, (images + 1) // 2)
        middle = max(last, images)
        paid = (images * steps - middle * (second - first) - last * (steps - second)) // first
        return max(middle, min(2 * images, paid)), middle, last

    def _cut_steps(self, sigmas: Sequence[float]) -> tuple[int, int]:
        """Return after how many steps candidates are dropped: shares rounded down, noise levels to the step above."""
        total = len(sigmas) - 1
        if self.cut_by == "steps":
            steps = [int(share * total + 1e-9) for share in (self.first_cut, self.second_cut)]
        else:
            steps = [sum(s >= cut for s in sigmas[:-1]) for cut in (self.first_cut, self.second_cut)]
        first = min(max(steps[0], 1), total)
        return first, min(max(steps[1], first), total)

    def _survivors(self, search: Search, pool: Pool, width: int) -> list[Candidate]:
        """Keep candidate 0 and the best others, in order of their index; end the rest."""
        others = [c for c, _ in pool.ranked() if c is not search.baseline]
        kept = sorted(others[: width - 1], key=lambda c: c.index)
        search.prune(others[width - 1 :])
        return [search.baseline, *kept]

    def _can_look(self, search: Search) -> bool:
        steps = len(search.session.sigmas) - 1
        if not search.session.looks_halfway:
            why = "; ".join(search.session.why_alone) or "its runs cannot be suspended"
        elif not search.judge.trusts_previews:
            why = "the verifier cannot be trusted on half-denoised pictures"
        elif steps < 2:
            why = f"a run of {steps} step has no half-way"
        else:
            return True
        # Rendering survivors anew at equal cost would look at 4/3 N candidates half-way instead of N in full.
        search.notes.append(f"halving search became random search at the same cost: {why}")
        return False
