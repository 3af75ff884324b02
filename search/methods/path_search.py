"""Search over paths: survivors are renoised into branches, denoised a little further than before, and compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, NamedTuple

from ..base.candidate import Candidate
from ..base.pool import Pool
from ..core.search import Round, Search
from ..spec import Node, Range, Tooltip, check_least
from .branches import end_branching, fall_back_to_random, has_record, lowest_noise, one_by_one, why_not_left
from .random_search import RandomSearch
from .settings import GaussianByDefault

LOOPS = 2  # at most, in large rounds


class Loop(NamedTuple):
    """A way up and down again, as indices into the sigmas: left at `cut`, renoised to `up`, denoised to `down`."""

    cut: int
    up: int
    down: int


@dataclass(frozen=True)
class PathSearch:
    """Paths-N: N starts are denoised to sigma_0; then M branches of each go up by Delta f and down by Delta b.

    Of the N M branches of a loop the N best survive, by the decoded x0 prediction, until they are at 0. All levels are
    shares of noise in [0, 1] (sigma of a flow model, sigma / (1 + sigma) of an EPS model): each of sigma_0, sigma_0 +
    Delta f - Delta b, ... and what is Delta f above is taken to the nearest of the user's sigmas. A loop that would not
    end at a lower step than it began goes to the end. Candidate 0 is rendered in full first and is one of the starts. In large
    rounds there are at most two loops: one goes down as far as several would.

    With T the NFE of a full run, R the latent rows, c(u, l) the model calls below u down to and with l, a start costs
    a = c(inf, L_0) and a branch of loop j costs b_j = R + c(U_j, L_j+1). The search costs
    NFE = T + (W - 1) a + N M sum_j b_j. M is the largest that fits into the budget, at least 2 (one branch alone is no
    choice), if need be with fewer survivors; what is left over pays for W - N more starts, of which the best N go on.
    A winner of a method before it (in a chain) is one of the starts, without T, if it was left at L_0; else all are new.

    Attributes:
        survivors: N, how many go on after each loop.
        branches: M of each survivor; 0 for as many as the budget pays for.
        start: sigma_0, the noise share to which starts are denoised.
        forward: Delta f, how far up; 0 renoises nothing: all that is paid for are starts, which is random search.
        backward: Delta b, how far down; above `forward`.
        proposal: how starts are drawn; None for independent Gaussian noise.

    References:
        Inference-Time Scaling for Diffusion Models beyond Scaling Denoising Steps (Ma et al., 2025), arXiv 2501.09732
    """

    node = Node(
        node_id="NSPathSearch",
        display_name="Path Search",
        description="Takes a few nearly finished pictures back up into the noise, branches there, "
        "comes down a little further than before and keeps the best, until they are "
        "finished (Ma et al. 2025, arXiv 2501.09732). For budgets from about 8.",
        search_aliases=("search over paths", "renoise", "paths"),
    )

    survivors: Annotated[
        int,
        Range(1, 256),
        Tooltip("How many go on after each loop (the paper's N). Few for small budgets. Usual: 2 to 4."),
    ] = 2
    branches: Annotated[
        int,
        Range(0, 256),
        Tooltip("Branches of each survivor in each loop (the paper's M). 0: as many as the budget pays for. Usual: 2 to 8."),
    ] = 0
    start: Annotated[
        float,
        Range(0.01, 0.99, 0.01),
        Tooltip(
            "Noise level to which the first pictures are denoised, as a share of noise: 1 is all "
            "noise, 0 the picture. Paper: 0.11; useful: 0.05 to 0.6."
        ),
    ] = 0.11
    forward: Annotated[
        float,
        Range(0.0, 0.99, 0.01),
        Tooltip(
            "How far up a loop goes, as a share of noise: 1 is all noise, 0 the picture. Paper: "
            "0.78, which redraws nearly all of the picture; useful: 0.2 to 0.8. 0: no loops, "
            "which is random search. Start and forward together: at most 1."
        ),
    ] = 0.78
    backward: Annotated[
        float,
        Range(0.01, 1.0, 0.01),
        Tooltip(
            "How far down it comes again, as a share of noise: 1 is all noise, 0 the picture. "
            "More than forward; the smaller the difference, the more loops. Paper: 0.81."
        ),
    ] = 0.81
    proposal: GaussianByDefault = None
    name = "path search"

    def __post_init__(self) -> None:
        check_least(self, "survivors")
        if self.branches < 0:
            raise ValueError(f"'branches' must be 0 (as many as the budget pays for) or more, not {self.branches}")
        start, forward, backward = self.start, self.forward, self.backward
        if not (0.0 < start < 1.0 and forward >= 0.0 and start + forward <= 1.0 + 1e-9):
            raise ValueError(f"paths need 0 < start < 1 and start + forward <= 1, not start {start:g} and forward {forward:g}")
        if forward > 0.0 and not forward < backward <= 1.0:
            raise ValueError(f"'backward' must exceed 'forward' and be at most 1, not {backward:g} with forward {forward:g}")

    def run(self, search: Search) -> Iterator[Round]:
        if self.forward == 0.0:
            yield from RandomSearch(self.proposal).run(search)
            return
        loops = [
            Loop(merged[0].cut, merged[0].up, merged[-1].down)
            for merged in search.planner.merged(self.loops(search.session.noise_shares.tolist()), LOOPS)
        ]
        why = search.planner.why_no_branches or (
            "" if loops else f"the sigmas have no steps around a noise share of {self.start:g}"
        )
        why = why or ("" if search.planner.images > 1 else "the budget does not pay for a loop")
        if not why:
            walk = _Walk(self, search, loops)
            with search.branching([walk.legs[0][0]]):
                yield from walk.begin()
                why = walk.why_not
                if not (why or search.stopped):
                    yield from walk.go()
        if why:
            yield from fall_back_to_random(search, self.name, self.proposal, why)
        else:
            end_branching(search)

    def loops(self, shares: Sequence[float]) -> list[Loop]:
        """Return the loops over sigmas with these noise shares (S + 1,); none where the levels are missing."""
        end, top = len(shares) - 1, lowest_noise(shares)
        if end - 1 <= top:
            return []
        cut = _nearest(shares, self.start, top + 1, end - 1)
        if shares[cut] > self.start + self.forward / 2:
            return []
        level, found = self.start, []
        while cut < end:
            up = _nearest(shares, level + self.forward, top, cut - 1)
            level += self.forward - self.backward
            down = end if level < 1e-6 else _nearest(shares, level, 0, end)
            down = down if down > cut else end
            found.append(Loop(cut, up, down))
            cut = down
        return found


class _Walk:
    """A path search under way.

    Attributes:
        why_not: why there is none, in words.
    """

    def __init__(self, method: PathSearch, search: Search, loops: Sequence[Loop]) -> None:
        sigmas = [float(sigma) for sigma in search.session.sigmas[:-1]] + [0.0]
        self.method, self.search, self.why_not = method, search, ""
        self.legs = [(sigmas[loop.cut], sigmas[loop.up], sigmas[loop.down]) for loop in loops]
        self.pool: Pool | None = None
        self.survivors = self.branches = 0
        self.fewest = 1 if method.branches == 1 else 2  # one branch alone is no choice

    def begin(self) -> Iterator[Round]:
        """Render candidate 0, looked at on its way, and plan the rest."""
        search, method = self.search, self.method
        if search.start_candidate.status != "finished":
            self.pool = search.preview([search.start_candidate], self.legs[0][0])
            yield from search.render([search.start_candidate], later=True)
            if search.should_stop():
                return
        self.why_not = why_not_left(search, [cut for cut, _, _ in self.legs])
        if self.why_not:
            return
        self.joins = has_record(search.start_candidate, self.legs[0][0])
        self.start = search.planner.calls(float("inf"), self.legs[0][0])
        self.costs = [search.planner.rows + search.planner.calls(up, down) for _, up, down in self.legs]
        self._plan()
        if not self.survivors:
            self.why_not = "the budget does not pay for a loop"
        elif self.survivors < method.survivors or self.branches < method.branches:
            wanted = f"{method.survivors} survivors" + (f" of {method.branches} branches each" if method.branches else "")
            search.note(f"{wanted} are more than the budget pays for: {self.survivors} of {self.branches} branches each")

    def go(self) -> Iterator[Round]:
        """Start, loop, and finish."""
        search, field = self.search, self._starts()
        for number, (cut, up, down) in enumerate(self.legs):
            rest = len(field) * sum(self.costs[number:])
            branches = search.budget.affordable(rest, self.branches)
            if branches < self.fewest:  # calls take longer than they did
                yield from search.render(field)
                search.stop("the rest of the time is too short for another loop")
                break
            count, draw = len(field) * branches, one_by_one(field, branches, partial(search.branch, sigma=cut, renoise_to=up))
            with search.branching([down or self.legs[0][0]]):  # a winner may be branched on by paths after these
                if down > 0.0:
                    children = [draw() for _ in range(count)]
                    self._end(field)
                    field = self._best(search.preview(children, down), self.survivors)
                    continue
                try:
                    yield from search.render([], count, draw=draw, cost=self.costs[number])
                finally:
                    self._end(field)

    def _end(self, parents: Sequence[Candidate]) -> None:
        """End the runs of candidates that have branched."""
        self.search.prune(parents)
        self.search.release_records(parents)

    def _plan(self) -> None:
        """Choose survivors and branches: as asked for, or the most that the budget pays for."""
        for survivors in range(self.method.survivors, 0, -1):
            left = self._left() - (survivors - self.joins) * self.start
            branches = left // (survivors * sum(self.costs))
            branches = min(branches, self.method.branches or branches)
            if branches >= self.fewest:
                self.survivors, self.branches = survivors, branches
                return

    def _left(self) -> int:
        budget = self.search.budget
        return budget.affordable(1, budget.images * budget.run_cost)

    def _starts(self) -> list[Candidate]:
        """Denoise the other starts; return the best N. One that was not looked at, a chain's, keeps its place."""
        search = self.search
        kept = [search.start_candidate] if self.joins and self.pool is None else []
        fresh = (self._left() - self.survivors * self.branches * sum(self.costs)) // self.start
        if len(kept) == self.survivors:
            fresh = 0
            search.note("the winner of the method before is the one survivor: there is no place for another start")
        others = [search.propose(self.method.proposal) for _ in range(fresh)]
        pool = search.preview(others, self.legs[0][0], self.pool) if others else self.pool or search.evaluator.pool()
        field = [*kept, *self._best(pool, self.survivors - len(kept))]
        search.release_records(but=field)
        return field

    def _best(self, pool: Pool, count: int) -> list[Candidate]:
        """Return the best of a look; end the others."""
        ranked = [candidate for candidate, _ in pool.ranked()]
        self.search.prune(ranked[count:])
        return ranked[:count]


def _nearest(shares: Sequence[float], wanted: float, first: int, last: int) -> int:
    """Return the index in first .. last of the share nearest to `wanted`; of two the noisier."""
    return min(range(first, last + 1), key=lambda k: round(abs(shares[k] - wanted), 6))
