"""What a search thinks of its candidates: pictures are decoded, scored, and compared in pools."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..base.budget import Budget
from ..base.candidate import Candidate
from ..base.pool import Look, Pool
from ..scoring import image_cache
from ..scoring.image_cache import ImageCache
from ..scoring.scorer import Scorer, Shown
from . import status_text

Told = Callable[[Sequence[Candidate], Tensor], None]
MORE = 2  # times as many bytes of pictures in large rounds: decoder and verifier are swapped for every group of them


def _nothing(*what: Any) -> None:
    return None


@dataclass(frozen=True)
class EvaluatorHooks:
    """What an evaluator asks of the search that it serves.

    Attributes:
        checkpoint: called before a picture is decoded; may wait, and raises if the user cancelled.
        say: told what the search is about to do, in words.
        restore: makes what a finished candidate no longer holds again.
        shown: told of pictures (F, H, W, 3) that were decoded to be scored; see `SearchObserver.shown`.
    """

    checkpoint: Callable[[], None]
    say: Callable[[str], None]
    restore: Callable[[Candidate], None]
    shown: Callable[[Sequence[Candidate], Sequence[Tensor], Mapping[str, Any]], None]


class Evaluator:
    """Decodes, scores and compares the candidates of one search.

    Attributes:
        finished: the pool of fully rendered candidates.
        finalists: those that the expensive scorer of a cascade scored, when the search has ended; else None.
        image_cache: pictures of the finished.
        scored: candidates as they were scored: finished, looked at or drafted.
        waiting: finished candidates whose pictures are scored with those that follow.
        discards: how many candidates the user discarded.
    """

    def __init__(
        self, scorer: Scorer, budget: Budget, image_cache: ImageCache, candidates: Sequence[Candidate], hooks: EvaluatorHooks,
        large_rounds: bool = False,
    ) -> None:  # fmt: skip
        """Start with empty pools.

        Args:
            scorer: scores candidates.
            budget: whose time does not count while people are waited for.
            image_cache: decodes and keeps pictures.
            candidates: those of the search, by index; read only.
            hooks: see there.
            large_rounds: more pictures are decoded before they are scored.
        """
        self._scorer, self._budget, self.image_cache, self._candidates = scorer, budget, image_cache, candidates
        self._hooks, self._more = hooks, MORE if large_rounds else 1
        self.discards = 0
        self.finished = self.pool()
        self.finalists: Pool | None = None
        self.scored: list[Candidate] = []
        self.waiting: list[Candidate] = []

    # What is known of candidates.

    def pool(self) -> Pool:
        """Return an empty pool of candidates that are compared by this search's verifier."""
        return self._scorer.pool(lambda: self.discards)

    @property
    def best(self) -> tuple[Candidate, float] | None:
        """The first of `ranked`; None before any candidate finished."""
        pool = self.finalists if self.finalists is not None and self.finalists.members else self.finished
        return next(iter(pool.best()), None)

    @property
    def ranked(self) -> list[tuple[Candidate, float]]:
        """Finished candidates with their scores, best first; finalists, once there are any, before the others."""
        ranked = self.finished.ranked()
        if self.finalists is None:
            return ranked
        chosen = set(map(id, self.finalists.members))
        return self.finalists.ranked() + [(c, score) for c, score in ranked if id(c) not in chosen]

    @property
    def decodes(self) -> int:
        """Latents decoded so far."""
        return self.image_cache.decodes

    def discard(self, candidate: Candidate) -> None:
        """Take a candidate's score, since the user drops it."""
        candidate.discard()
        self.discards += 1

    def set_finalists(self, pool: Pool) -> None:
        """Let a pool of finalists lead from now on."""
        self.finalists = pool

    # Pictures.

    def pictures(self, candidate: Candidate) -> Tensor:
        """Return the pictures (F, H, W, 3) of a finished candidate, decoded anew if they were not kept."""
        if candidate.index not in self.image_cache.at_hand:
            self._hooks.restore(candidate)
        return self.image_cache.pictures(candidate)

    def shown_again(self, index: int) -> Tensor | None:
        """Return the pictures (F, H, W, 3) of an earlier candidate for a person to compare with; None if it is not to be seen."""
        candidate = self._candidates[index]
        return None if candidate.discarded or candidate.latent is None else self.pictures(candidate)

    # Scores.

    def wait_for_score(self, candidates: Sequence[Candidate]) -> None:
        """Let finished candidates wait to be scored with those that follow."""
        self.waiting += candidates

    def score(self, shown: Sequence[Shown], on_scored: Callable[[Sequence[Candidate], bool], None]) -> Tensor:
        """Return the raw scores (n, V) of looks or drafts; finished candidates that wait are scored before them.

        Args:
            shown: the looks or drafts, without pictures; see `to_show`.
            on_scored: told of the finished candidates that were scored, and whether these are all: a failure comes before the
                others, and raises afterwards.
        """
        done, self.waiting = self.waiting, []
        entered: list[Candidate] = []

        def told(group: Sequence[Shown], raw: Tensor) -> None:
            some = group[: len(done) - len(entered)]
            if some:
                self._take_scores(some, raw[: len(some)])
                entered.extend(one.candidate for one in some)

        try:
            raw = self._scored([*self.to_show(done, [c.latent for c in done], {}), *shown], told)
        except BaseException:
            others = {one.candidate.index for one in shown}
            entered += self._enter_answered([c for c in done[len(entered) :] if c.index not in others])
            self.scored += entered
            if entered:
                on_scored(entered, False)
            raise
        if done:
            self.scored += done
            on_scored(done, True)
        return raw[len(done) :]

    def enter_looks(self, pool: Pool, candidates: Sequence[Candidate], what: Mapping[str, Any], raw: Tensor) -> None:
        """Enter candidates that were looked at or drafted into a pool with their raw scores (n, V); `what` it was: see `Look`."""
        for candidate, standing in zip(candidates, pool.add(candidates, raw), strict=True):
            candidate.looks.append(Look(what, standing))
        self.scored += candidates

    def to_show(self, candidates: Sequence[Candidate], latents: Sequence[Any], what: Mapping[str, Any]) -> list[Shown]:
        """Return what the scorer is to be shown of candidates, without pictures yet."""
        pairs = zip(candidates, latents, strict=True)
        return [Shown(c, None, latent, {}, what, self._scorer.known(c, what)) for c, latent in pairs]

    def scored_by(self, scorer: Scorer, candidates: Sequence[Candidate], told: Told = _nothing) -> Tensor:
        """Return the raw scores (n, V) of finished candidates by another scorer; what it said of them before is taken.

        `told` hears of every group of them and its raw scores.
        """

        def see(one: Shown) -> Shown:
            self._hooks.restore(one.candidate)
            pictures = self.pictures(one.candidate) if scorer.needs_pictures else None
            return one._replace(images=pictures, latent=one.candidate.latent)

        shown = [Shown(c, None, c.latent, {}, {}, scorer.known(c, {})) for c in candidates]
        return self._entered(scorer, shown, see, told=lambda group, raw: told([one.candidate for one in group], raw))

    def promised(self, candidates: Sequence[Candidate], scorer: Scorer) -> list[dict[float, Tensor]]:
        """Return the pictures (F, H, W, 3) of the predictions a scorer wants of each candidate, by noise level."""
        levels = set(scorer.needs_predictions.values())
        return [
            {level: self.image_cache.decode(latent, False) for level, latent in c.predictions.items() if level in levels}
            for c in candidates
        ]

    def in_groups(
        self, scorer: Scorer, shown: Sequence[Shown], see: Callable[[Shown], Shown], score: Callable[[Sequence[Shown]], Tensor]
    ) -> Tensor:
        """Return raw scores (n, V), asked for in groups whose pictures fit into `PICTURE_BYTES`, of one candidate at least.

        Args:
            scorer: is asked.
            shown: without pictures.
            see: adds the pictures, of those that the scorer has to be asked about.
            score: gives the raw scores (m, V) of a group.
        """
        raws: list[Tensor] = []
        left = list(shown)
        while left:
            raws.append(self._of_next_group(scorer, left, see, score))
            del left[: len(raws[-1])]
        return torch.cat(raws) if raws else torch.empty(0, len(scorer.names))

    def ask(self, scorer: Scorer, shown: Sequence[Shown]) -> Tensor:
        """Return a scorer's raw scores (n, V); time it waits for a person does not count."""
        waited = scorer.waited
        try:
            return scorer.ask(shown)
        finally:
            self._budget.exclude_wait(scorer.waited - waited)

    # Inside.

    def _take_scores(self, some: Sequence[Shown], raw: Tensor) -> None:
        """Let finished candidates have their scores, and keep the pictures of the best."""
        self._enter([one.candidate for one in some], raw)
        if self._scorer.needs_pictures:
            self.image_cache.add({one.candidate.index: one.images for one in some if one.images is not None})
            indices = {*self.image_cache.at_hand, self.best[0].index}
            self.image_cache.keep(self.finished.in_order_of(self._candidates[index] for index in indices))

    def _enter(self, done: Sequence[Candidate], raw: Tensor) -> None:
        for candidate, standing in zip(done, self.finished.add(done, raw), strict=True):
            candidate.place_among_finished(standing)
        self._scorer.revise(self.finished)

    def _enter_answered(self, others: Sequence[Candidate]) -> list[Candidate]:
        """After a failure or a cancel, count and return those that every part had scored before it."""
        answers = self._scorer.answered
        answered = [c for c in others if not self._scorer.asks_about(answers.get(c.index, {}))]
        if answered:
            raw = torch.tensor([[answers[c.index][name] for name in self._scorer.names] for c in answered])
            self._scorer.enter(answered, raw)
            self._enter(answered, raw)
        return answered

    def _scored(self, shown: Sequence[Shown], told: Callable[[Sequence[Shown], Tensor], None]) -> Tensor:
        """Return raw scores (n, V); `told` hears of every group that was decoded and scored, with its pictures and raw scores.

        What is known from before is neither decoded nor scored again.
        """
        self._hooks.checkpoint()
        self._scorer.forget_answers()

        def see(one: Shown) -> Shown:
            self._hooks.checkpoint()
            pictures = self.image_cache.decode(one.latent, preview="sigma" in one.what)  # a look half-way
            self._hooks.shown([one.candidate], [pictures], one.what)
            return one._replace(images=pictures)

        def announce(group: Sequence[Shown], words: Callable[[int], str]) -> None:
            if count := sum(self._scorer.asks_about(one.known) for one in group):
                self._hooks.say(words(count))

        looks_at = self._scorer.needs_pictures
        if looks_at:
            announce(shown, status_text.decoding)
        asking = partial(announce, words=status_text.scoring)
        return self._entered(self._scorer, shown, see if looks_at else lambda one: one, asking, told)

    def _entered(
        self, scorer: Scorer, shown: Sequence[Shown], see: Callable[[Shown], Shown],
        asking: Callable[[Sequence[Shown]], None] = _nothing, told: Callable[[Sequence[Shown], Tensor], None] = _nothing,
    ) -> Tensor:  # fmt: skip
        """Return raw scores (n, V) of candidates that are counted among those a scorer scored.

        Args:
            scorer: is asked, in groups.
            shown: without pictures.
            see: adds the pictures.
            asking: called with every group before the scorer is asked about it.
            told: called with every group, with its pictures, and its raw scores.
        """

        def seen(one: Shown) -> Shown:
            one = see(one)
            return one._replace(predictions=self.promised([one.candidate], scorer)[0])

        def score(group: Sequence[Shown]) -> Tensor:
            asking(group)
            raw = self.ask(scorer, group)
            scorer.enter([one.candidate for one in group], raw)
            told(group, raw)
            return raw

        return self.in_groups(scorer, shown, seen, score)

    def _of_next_group(
        self, scorer: Scorer, shown: Sequence[Shown], see: Callable[[Shown], Shown], score: Callable[[Sequence[Shown]], Tensor]
    ) -> Tensor:
        """Return the raw scores (m, V) of the first of `shown`: first all their pictures are decoded, then all are scored."""
        group: list[Shown] = []
        room = math.inf
        for one in shown:
            if scorer.asks_about(one.known):
                if room <= 0:
                    break
                one = see(one)
                room = min(room, _room(scorer, one, image_cache.PICTURE_BYTES * self._more)) - 1
            group.append(one)
        return score(group)


def _room(scorer: Scorer, one: Shown, most: int) -> float:
    """Return how many candidates with pictures like those of one, of at most so many bytes, are decoded before a scorer is asked.

    Whole batches of what a verifier answers at once, where there is room for one; a whole set, where people are asked.
    """
    if one.images is None or not one.nbytes:
        return math.inf
    room = max(1, most // one.nbytes)
    batch = max(1, scorer.batch_size // len(one.images))
    return max(room - room % batch or room, scorer.set_size - 1)
