"""What a search thinks of its candidates: pictures are decoded, judged, and compared in pools."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..base.budget import Budget
from ..base.candidate import Candidate
from ..base.pool import Look, Pool
from ..base.session import Session
from ..scoring import image_cache
from ..scoring.image_cache import ImageCache
from ..scoring.scorer import Scorer, Shown
from . import status_text
from .control import FINISHED, SearchControl
from .observer import SearchObserver
from .user_requests import UserRequests

Told = Callable[[Sequence[Candidate], Tensor], None]
MORE = 2  # times as many bytes of pictures in large rounds: decoder and verifier are swapped for every group of them


def _nothing(*what: Any) -> None:
    return None


class Evaluator(SearchControl):
    """The part of a search that sees and compares.

    Attributes:
        finished: the pool of fully rendered candidates.
        finalists: those that the dear scorer of a cascade scored, when the search has ended; else None.
        image_cache: pictures of the finished.
        scored: candidates as they were scored: finished, looked at or drafted.
        watch: told every pool that grew; may set `ended`.
    """

    def __init__(
        self, session: Session, scorer: Scorer, budget: Budget, baseline: Candidate, user_requests: UserRequests | None,
        observer: SearchObserver | None, keep: int, on_best: Callable[[Tensor, float], None],
    ) -> None:  # fmt: skip
        """Start with empty pools; see `engine.Search`."""
        super().__init__(session, scorer, budget, baseline, user_requests, observer)
        self.finished = self.pool()
        self.scored: list[Candidate] = []
        self.finalists: Pool | None = None
        self.image_cache = ImageCache(session, keep, on_best, budget.clock)
        self.watch: Callable[[Pool], None] | None = None
        for sitting in scorer.sittings.values():
            sitting.recall, sitting.finishing = self.shown_again, lambda: self.user_requests.finishing or self.ended == FINISHED

    def pool(self) -> Pool:
        """Return an empty pool of candidates that are compared by this search's verifier."""
        return self.scorer.pool(lambda: self.discards)

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

    def pictures(self, candidate: Candidate) -> Tensor:
        """Return the pictures (F, H, W, 3) of a finished candidate, decoded anew if they were not kept."""
        if candidate.index not in self.image_cache.at_hand:
            self.restore(candidate)
        return self.image_cache.pictures(candidate)

    def restore(self, candidate: Candidate) -> None:
        """Make what a finished candidate no longer holds again."""
        raise NotImplementedError

    def scored_by(self, scorer: Scorer, candidates: Sequence[Candidate], told: Told = _nothing) -> Tensor:
        """Return the raw scores (n, V) of finished candidates by another scorer; what it said of them before is taken.

        `told` hears of every group of them and its raw scores.
        """

        def see(one: Shown) -> Shown:
            candidate = one.candidate
            self.restore(candidate)
            pictures = self.pictures(candidate) if scorer.needs_pictures else None
            return one._replace(images=pictures, latent=candidate.latent, predictions=self.promised([candidate], scorer)[0])

        def score(group: Sequence[Shown]) -> Tensor:
            raw = self.ask(scorer, group)
            scorer.enter([one.candidate for one in group], raw)
            told([one.candidate for one in group], raw)
            return raw

        return self.in_groups(scorer, [Shown(c, None, c.latent, {}, {}, scorer.known(c, {})) for c in candidates], see, score)

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
            self.budget.waited += scorer.waited - waited

    def shown_again(self, index: int) -> Tensor | None:
        """Return the pictures (F, H, W, 3) of an earlier candidate for a person to compare with; None if it is not to be seen."""
        candidate = self.candidates[index]
        return None if candidate.discarded or candidate.latent is None else self.pictures(candidate)

    # Inside.

    def _grown(self, pool: Pool, candidates: Sequence[Candidate]) -> None:
        self.scored += candidates
        self.observer.changed(self)
        if self.watch is not None:
            self.watch(pool)

    def _score_look(
        self, candidates: Sequence[Candidate], latents: Sequence[Any], what: dict[str, Any], pool: Pool | None
    ) -> Pool:
        pool = self.pool() if pool is None else pool
        if not candidates:
            return pool
        shown, size = self._to_show(candidates, latents, what), self.group  # so many pictures at a time: they are large
        raw = torch.cat([self._judged_with_waiting(shown[first : first + size]) for first in range(0, len(shown), size)])
        for candidate, standing in zip(candidates, pool.add(candidates, raw), strict=True):
            candidate.looks.append(Look(what, standing))
        self._grown(pool, candidates)
        return pool

    def _to_show(self, candidates: Sequence[Candidate], latents: Sequence[Any], what: Mapping[str, Any]) -> list[Shown]:
        """Return what the scorer is to be shown of candidates, without pictures yet."""
        pairs = zip(candidates, latents, strict=True)
        return [Shown(c, None, latent, {}, what, self.scorer.known(c, what)) for c, latent in pairs]

    def _judged_with_waiting(self, shown: Sequence[Shown]) -> Tensor:
        """Return the raw scores (n, V) of looks or drafts; finished candidates that wait to be scored are scored with them."""
        raise NotImplementedError

    def _judged(self, shown: Sequence[Shown], told: Callable[[Sequence[Shown], Tensor], None] = _nothing) -> Tensor:
        """Return raw scores (n, V); `told` hears of every group that was decoded and scored, with its pictures and raw scores.

        What is known from before is neither decoded nor scored again.
        """
        self.checkpoint()
        self.scorer.answered = {}
        looks_at = self.scorer.needs_pictures

        def see(one: Shown) -> Shown:
            pictures = None
            if looks_at:
                self.checkpoint()
                pictures = self.image_cache.decode(one.latent, preview="sigma" in one.what)  # a look half-way
                self.observer.shown([one.candidate], [pictures], one.what)
            return one._replace(images=pictures, predictions=self.promised([one.candidate], self.scorer)[0])

        def score(group: Sequence[Shown]) -> Tensor:
            if count := sum(self.scorer.asks_about(one.known) for one in group):
                self.say(status_text.scoring(count))
            raw = self.ask(self.scorer, group)
            self.scorer.enter([one.candidate for one in group], raw)
            told(group, raw)
            return raw

        if looks_at and (count := sum(self.scorer.asks_about(one.known) for one in shown)):
            self.say(status_text.decoding(count))
        return self.in_groups(self.scorer, shown, see, score)

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
                room = min(room, _room(scorer, one, image_cache.PICTURE_BYTES * (MORE if self.large_rounds else 1))) - 1
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
