"""What a search thinks of its candidates: pictures are decoded, judged, and compared in pools."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from . import words
from .budget import Budget
from .candidates import Candidate
from .controls import Controls
from .gallery import Gallery
from .helm import FINISHED, Helm
from .judge import Judge, Shown
from .pools import Look, Pool
from .session import Session
from .watcher import Watcher


class Appraisal(Helm):
    """The part of a search that sees and compares.

    Attributes:
        finished: the pool of fully rendered candidates.
        finalists: those that the dear judge of a cascade scored, when the search has ended; else None.
        gallery: pictures of the finished.
        scored: candidates as they were scored: finished, looked at or drafted.
        watch: told every pool that grew; may set `ended`.
    """

    def __init__(
        self, session: Session, judge: Judge, budget: Budget, baseline: Candidate, controls: Controls | None,
        watcher: Watcher | None, keep: int, on_best: Callable[[Tensor, float], None],
    ) -> None:  # fmt: skip
        """Start with empty pools; see `engine.Search`."""
        super().__init__(session, judge, budget, baseline, controls, watcher)
        self.finished = self.pool()
        self.scored: list[Candidate] = []
        self.finalists: Pool | None = None
        self.gallery = Gallery(session, keep, on_best, budget.clock)
        self.watch: Callable[[Pool], None] | None = None
        for sitting in judge.sittings.values():
            sitting.recall, sitting.finishing = self.shown_again, lambda: self.controls.finishing or self.ended == FINISHED

    def pool(self) -> Pool:
        """Return an empty pool of candidates that are compared by this search's verifier."""
        return self.judge.pool(lambda: self.discards)

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
        return self.gallery.decodes

    def pictures(self, candidate: Candidate) -> Tensor:
        """Return the pictures (F, H, W, 3) of a finished candidate, decoded anew if they were not kept."""
        if candidate.index not in self.gallery.at_hand:
            self.restore(candidate)
        return self.gallery.pictures(candidate)

    def restore(self, candidate: Candidate) -> None:
        """Make what a finished candidate no longer holds again."""
        raise NotImplementedError

    def scored_by(self, judge: Judge, candidates: Sequence[Candidate]) -> Tensor:
        """Return the raw scores (n, V) of finished candidates by another judge; what it said of them before is taken."""
        shown = []
        for candidate in candidates:
            known = judge.known(candidate, {})
            asked = judge.asks_about(known)
            if asked:
                self.restore(candidate)
            pictures = self.pictures(candidate) if asked and judge.needs_pictures else None
            shown.append(Shown(candidate, pictures, candidate.latent, {}, {}, known))
        raw = self.ask(judge, shown)
        judge.enter(candidates, raw)
        return raw

    def promised(self, candidates: Sequence[Candidate], judge: Judge) -> list[dict[float, Tensor]]:
        """Return the pictures (F, H, W, 3) of the predictions a judge wants of each candidate, by noise level."""
        levels = set(judge.needs_predictions.values())
        return [
            {level: self.gallery.decode(latent, False) for level, latent in c.predictions.items() if level in levels}
            for c in candidates
        ]

    def ask(self, judge: Judge, shown: Sequence[Shown]) -> Tensor:
        """Return a judge's raw scores (n, V); time it waits for a person does not count."""
        waited = judge.waited
        try:
            return judge.ask([
                one._replace(predictions=self.promised([one.candidate], judge)[0]) if judge.asks_about(one.known) else one
                for one in shown
            ])  # fmt: skip
        finally:
            self.budget.waited += judge.waited - waited

    def shown_again(self, index: int) -> Tensor | None:
        """Return the pictures (F, H, W, 3) of an earlier candidate for a person to compare with; None if it is not to be seen."""
        candidate = self.candidates[index]
        return None if candidate.discarded or candidate.latent is None else self.pictures(candidate)

    # Inside.

    def _grown(self, pool: Pool, candidates: Sequence[Candidate]) -> None:
        self.scored += candidates
        self.watcher.changed(self)
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
        """Return what the judge is to be shown of candidates, without pictures yet."""
        pairs = zip(candidates, latents, strict=True)
        return [Shown(c, None, latent, {}, what, self.judge.known(c, what)) for c, latent in pairs]

    def _judged_with_waiting(self, shown: Sequence[Shown]) -> Tensor:
        """Return the raw scores (n, V) of looks or drafts; finished candidates that wait to be scored are scored with them."""
        raise NotImplementedError

    def _judged(self, shown: Sequence[Shown]) -> tuple[Tensor, list[Tensor | None]]:
        """Return raw scores (n, V), and the pictures that were looked at: first all decoded, then all scored.

        What is known from before is neither decoded nor scored again.
        """
        self.checkpoint()
        asked = [self.judge.asks_about(one.known) for one in shown]
        if self.judge.needs_pictures and any(asked):
            self.say(words.decoding(sum(asked)))
        pictures: list[Tensor | None] = []
        for one, is_asked in zip(shown, asked, strict=True):
            pictures.append(self._decoded(one) if self.judge.needs_pictures and is_asked else None)
        seen = [(one, images) for one, images in zip(shown, pictures, strict=True) if images is not None]
        for what, some in groupby(seen, lambda pair: pair[0].what):
            ones, images = zip(*some, strict=True)
            self.watcher.shown([one.candidate for one in ones], list(images), what)
        if any(asked):
            self.say(words.scoring(sum(asked)))
        raw = self.ask(self.judge, [one._replace(images=images) for one, images in zip(shown, pictures, strict=True)])
        self.judge.enter([one.candidate for one in shown], raw)
        return raw, pictures

    def _decoded(self, one: Shown) -> Tensor:
        self.checkpoint()
        return self.gallery.decode(one.latent, preview="sigma" in one.what)  # a look half-way
