"""Backtracking search: a run that gets no better is taken back a few steps and tried again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from ..candidates import Candidate, Pool, rankable
from ..engine import Round, Search
from ..proposals import NoiseProposal
from .branches import become_random, forget_all_but_the_best, leave, lowest_noise, why_not_left
from .random_search import RandomSearch


@dataclass(frozen=True)
class BacktrackingSearch:
    """One run after another; each is looked at on its way, and taken back where it gets no better.

    At every checkpoint the x0 prediction is decoded and scored. Where it did not rise by `min_gain` since the checkpoint
    before (or, with a threshold, is below it), the run is renoised by `back` steps into `retries` branches that come
    down again. The best of them replaces it if it is better; if not, twice as many steps are taken back, and so on up to
    `max_back`. Candidate 0 is rendered in full first, and what begins anew at one of its checkpoints leaves it there. What
    a run is to be ended with is put aside; when it ended, the rest of the budget pays for another start.

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

    checkpoints: int = 4
    min_gain: float = 0.0
    retries: int = 2
    back: int = 2
    max_back: int = 8
    threshold: float | None = None
    proposal: NoiseProposal | None = None
    name = "backtracking search"

    def __post_init__(self) -> None:
        for name in ("checkpoints", "retries", "back"):
            if getattr(self, name) < 1:
                raise ValueError(f"'{name}' must be at least 1, not {getattr(self, name)}")
        if self.max_back < self.back:
            raise ValueError(f"'max_back' must be at least 'back' ({self.back} steps), not {self.max_back}")
        for name in ("min_gain", "threshold"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise ValueError(f"'{name}' must be a finite number, not {value}")

    def run(self, search: Search) -> Iterator[Round]:
        if search.images == 1:
            yield from RandomSearch(self.proposal).run(search)
            return
        ladders = self.ladders(search.session.noise_shares.tolist())
        why = search.why_no_branches or ("" if ladders else "too few steps to go back in")
        if not why:
            descent = _Descent(self, search, ladders)
            yield from descent.begin()
            why = why_not_left(search, descent.levels)
        if why:
            yield from become_random(search, self.name, self.proposal, why)
            return
        yield from descent.go()
        leave(search)

    def ladders(self, shares: Sequence[float]) -> dict[int, list[int]]:
        """Return the steps to go back to, in order, by the checkpoint's step, for noise shares (S + 1,)."""
        steps, top = len(shares) - 1, lowest_noise(shares)
        marks = {round(number * steps / (self.checkpoints + 1)) for number in range(1, self.checkpoints + 1)}
        back = [self.back]
        while back[-1] < self.max_back:
            back.append(min(2 * back[-1], self.max_back))
        ahead = [mark for mark in sorted(marks) if top < mark < steps - 1]  # the last call's prediction is the end itself
        return {mark: sorted({max(mark - d, top) for d in back}, reverse=True) for mark in ahead}


class _Descent:
    """A backtracking search under way."""

    def __init__(self, method: BacktrackingSearch, search: Search, ladders: dict[int, list[int]]) -> None:
        sigmas = [float(sigma) for sigma in search.session.sigmas]
        self.method, self.search = method, search
        self.levels = [sigmas[mark] for mark in ladders]
        self.ladders = [[sigmas[step] for step in ladder] for ladder in ladders.values()]
        self.looks: list[Pool | None] = [None] * len(self.levels)
        self.seen = Pool(search.judge.combine)  # all looks: scores of different levels can be compared in one pool only
        self.places: list[int] = []  # of candidate 0's looks in it
        search.branch_levels = tuple(self.levels)

    def begin(self) -> Iterator[Round]:
        """Render candidate 0, looked at on its way."""
        if self.search.origin.status != "finished":
            self.places = [self._look([self.search.origin], mark)[0] for mark in range(len(self.levels))]
            yield from self.search.render([self.search.origin])

    def go(self) -> Iterator[Round]:
        """Take candidate 0 back, then one start after another."""
        search = self.search
        if self.places and not search.over():
            yield from self._descend(search.origin)
            forget_all_but_the_best(search)
        while search.budget.affordable(search.budget.run_cost, 1) and not search.over():
            yield from self._descend(search.propose(self.method.proposal))
            forget_all_but_the_best(search)

    def _descend(self, current: Candidate) -> Iterator[Round]:
        """Bring one run to its end, from checkpoint to checkpoint."""
        search, before = self.search, None
        rest = search.budget.run_cost
        for mark, level in enumerate(self.levels):
            if current.status == "finished":
                place = self.places[mark]
            elif self._tries(mark, rest):
                place = self._look([current], mark)[0]
            else:
                break
            if current.discarded and current is not search.baseline:
                break
            current, before = self._improved(current, mark, place, before)
            rest = search.calls(level)
        yield from search.render([current])

    def _improved(self, current: Candidate, mark: int, place: int, before: int | None) -> tuple[Candidate, int]:
        """Take a run back at a checkpoint until it passes; return what goes on from there, and its look's place.

        Args:
            current: the run, left at the checkpoint or, if it is candidate 0, ended.
            mark: number of the checkpoint.
            place: of the run's look there.
            before: place of the look at the checkpoint before; None at the first.
        """
        search, ladder = self.search, list(self.ladders[mark])
        while ladder and not self._passes(place, before):
            children = self._retry(current, mark, ladder[0])
            if not children:
                break
            found = self._look(children, mark)
            best = max(found, key=self._score)
            search.prune([child for child, at in zip(children, found, strict=True) if at != best])
            if self._score(best) > self._score(place):
                search.prune([current])
                current, place = children[found.index(best)], best
                if self.method.threshold is None:
                    break
            else:
                search.prune([children[found.index(best)]])
                ladder.pop(0)
        return current, place

    def _retry(self, parent: Candidate, mark: int, up: float) -> list[Candidate]:
        """Branch, as often as can be paid for beside the way to the end."""
        level = self.levels[mark]
        self.search.budget.reserved = self.search.calls(level)
        count = self.search.budget.affordable(self._cost(mark, up), self.method.retries)
        self.search.budget.reserved = 0
        return [self.search.branch(parent, level, up) for _ in range(count)]

    def _tries(self, mark: int, rest: int) -> bool:
        """Whether a retry can be paid for at a checkpoint, beside `rest` NFE: if not, nor later, and looks are of no use."""
        return self.search.budget.affordable(self._cost(mark, self.ladders[mark][0]) + rest, 1) > 0

    def _cost(self, mark: int, up: float) -> int:
        return self.search.rows + self.search.calls(up, self.levels[mark])

    def _look(self, candidates: Sequence[Candidate], mark: int) -> list[int]:
        """Run candidates to a checkpoint and score what they promise; return the places of their scores in `seen`.

        One that was discarded on its way has no look; nor has it a score in any pool.
        """
        search = self.search
        self.looks[mark] = search.look(candidates, self.levels[mark], self.looks[mark])
        said = [candidate.looks[-1]["scores"] if candidate.looks else {} for candidate in candidates]
        raw = [[scores.get(name, math.nan) for name in search.judge.names] for scores in said]
        self.seen.add(candidates, torch.tensor(raw))
        return list(range(len(self.seen.members) - len(candidates), len(self.seen.members)))

    def _score(self, place: int) -> float:
        """Return the score of a look among all so far; the least of all if there is none."""
        score = float(self.seen.combined()[place])
        return rankable(score)

    def _passes(self, place: int, before: int | None) -> bool:
        score = self._score(place)
        if self.method.threshold is not None:
            return score >= self.method.threshold
        if before is None:
            return True
        return score - self._score(before) >= self.method.min_gain  # NaN, neither has a score, does not pass
