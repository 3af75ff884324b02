"""Backtracking search: a run that gets no better is taken back a few steps and tried again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import torch

from ..base.candidate import Candidate, rankable
from ..base.pool import Pool
from ..core.search import Round, Search
from ..spec import Advanced, Node, OffAtZero, Range, Tooltip, check_least
from .branches import end_branching, fall_back_to_random, lowest_noise, release_all_but_the_best, why_not_left
from .random_search import RandomSearch
from .settings import GaussianByDefault

CHECKPOINTS = 2  # at most, in large rounds


@dataclass(frozen=True)
class BacktrackingSearch:
    """One run after another; each is looked at on its way, and taken back where it gets no better.

    At every checkpoint the x0 prediction is decoded and scored. Where it did not rise by `min_gain` since the checkpoint
    before (or, with a threshold, is below it), the run is renoised by `back` steps into `retries` branches that come
    down again. The best of them replaces it if it is better; if not, twice as many steps are taken back, and so on up to
    `max_back`. Candidate 0 is rendered in full first, and what begins anew at one of its checkpoints leaves it there. What
    a run is to be ended with is put aside; when it ended, the rest of the budget pays for another start. In large rounds up to
    eight runs go side by side, and there are two checkpoints at most.

    With T the NFE of a full run, R the latent rows and c(u, l) the model calls below u down to and with l, a retry at
    checkpoint l from u costs R + c(u, l), and a run costs T with all its checkpoints:
    NFE = T starts + sum of retries + c(l, 0) if candidate 0 was left at l; at most N T.

    Attributes:
        checkpoints: how many, evenly spread over the steps.
        min_gain: rise in score from one checkpoint to the next below which a run is taken back.
        retries: branches of each attempt.
        back, max_back: steps of the first and the last attempt.
        threshold: take back what scores below this, whatever it gained, as long as that makes it better; None: by gain.
        proposal: how starts are drawn; None for independent Gaussian noise.

    References:
        Ctrl-Z Sampling: Diffusion Sampling with Controlled Random Zigzag Explorations (2025), arXiv 2506.20294
        Inference-time Scaling of Diffusion Models through Classical Search (2025), arXiv 2505.23614: depth-first search
    """

    node = Node(
        node_id="NSBacktrackingSearch",
        display_name="Backtracking Search",
        description="Looks at a picture on its way; where it gets no better, adds noise again, tries a "
        "few other ways down, and keeps what is better (Ctrl-Z sampling, arXiv 2506.20294; "
        "depth-first search of arXiv 2505.23614).",
        search_aliases=("ctrl-z", "zigzag", "depth first", "renoise"),
    )

    checkpoints: Annotated[
        int,
        Range(1, 100),
        Tooltip("How often a picture is looked at on its way, evenly over the steps. Usual: 3 to 8."),
    ] = 4
    min_gain: Annotated[
        float,
        Range(-1e6, 1e6, 0.01, 0.0001),
        Tooltip(
            "How much the score must rise from one look to the next, in the verifier's own "
            "units; else the picture is taken back. 0: it may not fall. Usual: 0 to a tenth of "
            "the spread of your scores."
        ),
    ] = 0.0
    retries: Annotated[
        int,
        Range(1, 64),
        Tooltip("Ways down that are tried each time. Usual: 2 to 4."),
    ] = 2
    back: Annotated[
        int,
        Range(1, 1000),
        Tooltip("Steps that the noise is turned back at first. Usual: a tenth of the steps."),
    ] = 2
    max_back: Annotated[
        int,
        Range(1, 1000),
        Tooltip(
            "If no way is better, twice as many steps are turned back, up to this many. Usual: a quarter to a half of the steps."
        ),
    ] = 8
    threshold: Annotated[
        float | None,
        Range(-1e6, 1e6, 0.01, 0.0001),
        OffAtZero(),
        Advanced(),
        Tooltip(
            "Take back what scores below this instead, whatever it gained, as long as that makes "
            "it better; in the verifier's own units. 0: off (for a threshold of zero give "
            "0.0001). Usual: what a good picture of yours scores."
        ),
    ] = None
    proposal: GaussianByDefault = None
    name = "backtracking search"

    def __post_init__(self) -> None:
        check_least(self, "checkpoints", "retries", "back")
        if self.max_back < self.back:
            raise ValueError(f"'max_back' must be at least 'back' ({self.back} steps), not {self.max_back}")
        for name in ("min_gain", "threshold"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise ValueError(f"'{name}' must be a finite number, not {value}")

    def run(self, search: Search) -> Iterator[Round]:
        if search.planner.images == 1:
            yield from RandomSearch(self.proposal).run(search)
            return
        ladders = self.ladders(search.session.noise_shares.tolist())
        ladders = dict(merged[-1] for merged in search.planner.merged(list(ladders.items()), CHECKPOINTS))
        why = search.planner.why_no_branches or ("" if ladders else "too few steps to go back in")
        if not why:
            descent = _Descent(self, search, ladders)
            with search.branching(descent.levels):
                yield from descent.begin()
                why = why_not_left(search, descent.levels)
                if not why:
                    yield from descent.go()
        if why:
            yield from fall_back_to_random(search, self.name, self.proposal, why)
        else:
            end_branching(search)

    def ladders(self, shares: Sequence[float]) -> dict[int, list[int]]:
        """Return the steps to go back to, in order, by the checkpoint's step, for noise shares (S + 1,)."""
        steps, top = len(shares) - 1, lowest_noise(shares)
        marks = {round(number * steps / (self.checkpoints + 1)) for number in range(1, self.checkpoints + 1)}
        back = [self.back]
        while back[-1] < self.max_back:
            back.append(min(2 * back[-1], self.max_back))
        ahead = [mark for mark in sorted(marks) if top < mark < steps - 1]  # the last call's prediction is the end itself
        return {mark: sorted({max(mark - d, top) for d in back}, reverse=True) for mark in ahead}


@dataclass
class _Lane:
    """A run on its way.

    Attributes:
        current: the candidate that it is by now; candidate 0 may have ended.
        place: of its look at the checkpoint.
        before: place of its look at the checkpoint before; None at the first.
        ladder: noise levels to which it can still be taken back, the lowest first.
        left: it goes to its end without further looks.
    """

    current: Candidate
    place: int = 0
    before: int | None = None
    ladder: list[float] = field(default_factory=list)
    left: bool = False

    def see(self, place: int) -> None:
        """Note the place of its look at the checkpoint."""
        self.place = place

    def leave(self) -> None:
        """Look at it no more."""
        self.left = True

    def begin_ladder(self, levels: Sequence[float]) -> None:
        """Let it be taken back to noise levels, the lowest first."""
        self.ladder = list(levels)

    def end_ladder(self) -> None:
        """Take it back no further."""
        self.ladder = []

    def become(self, child: Candidate, place: int) -> None:
        """Go on as a child, whose look has this place."""
        self.current, self.place = child, place

    def pass_checkpoint(self) -> None:
        """Go on to the next checkpoint."""
        self.before = self.place


class _Descent:
    """A backtracking search under way."""

    def __init__(self, method: BacktrackingSearch, search: Search, ladders: dict[int, list[int]]) -> None:
        sigmas = [float(sigma) for sigma in search.session.sigmas]
        self.method, self.search = method, search
        self.levels = [sigmas[mark] for mark in ladders]
        self.ladders = [[sigmas[step] for step in ladder] for ladder in ladders.values()]
        self.looks: list[Pool | None] = [None] * len(self.levels)
        self.seen = search.evaluator.pool()  # all looks: scores of different levels can be compared in one pool only
        self.places: list[int] = []  # of candidate 0's looks in it

    def begin(self) -> Iterator[Round]:
        """Render candidate 0, looked at on its way."""
        if self.search.start_candidate.status != "finished":
            self.places = [self._look([self.search.start_candidate], mark)[0] for mark in range(len(self.levels))]
            yield from self.search.render([self.search.start_candidate], later=True)

    def go(self) -> Iterator[Round]:
        """Take candidate 0 back, then one start after another, or many side by side."""
        search, first = self.search, [self.search.start_candidate] if self.places else []
        size = search.planner.round_size(1, search.budget.affordable(search.budget.run_cost, search.budget.images), least=2)
        while (first or search.budget.affordable(search.budget.run_cost, 1)) and not search.should_stop():
            count = search.budget.affordable(search.budget.run_cost, size - len(first))
            runs = [*first, *(search.propose(self.method.proposal) for _ in range(count))]
            first = []
            yield from self._descend([_Lane(run) for run in runs])
            release_all_but_the_best(search)

    def _descend(self, lanes: Sequence[_Lane]) -> Iterator[Round]:
        """Bring runs to their end, from checkpoint to checkpoint."""
        search, rest = self.search, self.search.budget.run_cost
        for mark, level in enumerate(self.levels):
            going = [lane for lane in lanes if not lane.left]
            new = [lane for lane in going if lane.current.status != "finished"]
            if new and not self._tries(mark, len(lanes) * rest):
                for lane in new:
                    lane.leave()
                new = []
            for lane in going:
                if lane.current.status == "finished":
                    lane.see(self.places[mark])
            if new:
                for lane, place in zip(new, self._look([lane.current for lane in new], mark), strict=True):
                    lane.see(place)
                    if lane.current.discarded and lane.current is not search.baseline:
                        lane.leave()
            self._improve([lane for lane in going if not lane.left], mark, len(lanes))
            rest = search.planner.calls(level)
        yield from search.render([lane.current for lane in lanes])

    def _improve(self, lanes: Sequence[_Lane], mark: int, count: int) -> None:
        """Take runs back at a checkpoint until they pass, or as far as that can be paid for; `count` are to be ended."""
        search = self.search
        for lane in lanes:
            lane.begin_ladder(self.ladders[mark])
        while failed := [lane for lane in lanes if lane.ladder and not self._passes(lane)]:
            tried, planned = [], 0
            for lane in failed:
                children = self._retry(lane, mark, count, planned)
                planned += len(children) * self._cost(mark, lane.ladder[0])
                if children:
                    tried.append((lane, children))
                else:
                    lane.end_ladder()
            places = iter(self._look([child for _, children in tried for child in children], mark) if tried else [])
            for lane, children in tried:
                found = [next(places) for _ in children]
                best = max(found, key=self._score)
                search.prune([child for child, at in zip(children, found, strict=True) if at != best])
                self._replace(lane, children[found.index(best)], best)
        for lane in lanes:
            lane.pass_checkpoint()

    def _replace(self, lane: _Lane, child: Candidate, place: int) -> None:
        """Let a run go on as a child if that is better; else more steps are taken back the next time."""
        if self._score(place) > self._score(lane.place):
            self.search.prune([lane.current])
            lane.become(child, place)
            if self.method.threshold is None:
                lane.end_ladder()
        else:
            self.search.prune([child])
            lane.ladder.pop(0)

    def _retry(self, lane: _Lane, mark: int, count: int, planned: int) -> list[Candidate]:
        """Branch, as often as can be paid for beside the ways of `count` runs to the end, and `planned` NFE."""
        level, up = self.levels[mark], lane.ladder[0]
        with self.search.budget.reserving(count * self.search.planner.calls(level) + planned):
            paid = self.search.budget.affordable(self._cost(mark, up), self.method.retries)
        return [self.search.branch(lane.current, level, up) for _ in range(paid)]

    def _tries(self, mark: int, rest: int) -> bool:
        """Whether a retry can be paid for at a checkpoint, beside `rest` NFE: if not, nor later, and looks are of no use."""
        return self.search.budget.affordable(self._cost(mark, self.ladders[mark][0]) + rest, 1) > 0

    def _cost(self, mark: int, up: float) -> int:
        return self.search.planner.rows + self.search.planner.calls(up, self.levels[mark])

    def _look(self, candidates: Sequence[Candidate], mark: int) -> list[int]:
        """Run candidates to a checkpoint and score what they promise; return the places of their scores in `seen`.

        One that was discarded on its way has no look; nor has it a score in any pool.
        """
        search = self.search
        self.looks[mark] = search.preview(candidates, self.levels[mark], self.looks[mark])
        said = [candidate.looks[-1]["scores"] if candidate.looks else {} for candidate in candidates]
        raw = [[scores.get(name, math.nan) for name in search.scorer.names] for scores in said]
        self.seen.add(candidates, torch.tensor(raw))
        return list(range(len(self.seen.members) - len(candidates), len(self.seen.members)))

    def _score(self, place: int) -> float:
        """Return the score of a look among all so far; the least of all if there is none."""
        return rankable(self.seen.score(place))

    def _passes(self, lane: _Lane) -> bool:
        score = self._score(lane.place)
        if self.method.threshold is not None:
            return score >= self.method.threshold
        if lane.before is None:
            return True
        return score - self._score(lane.before) >= self.method.min_gain  # NaN, neither has a score, does not pass
