"""Pictures of candidates: decoded, counted, and kept of the best few only, since they are large."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from .candidates import Candidate, varied
from .session import Session


class Gallery:
    """Decodes latents for one search.

    Attributes:
        decodes: latents decoded.
        seconds: time spent on it.
    """

    def __init__(
        self, session: Session, keep: int, on_best: Callable[[Tensor, float], None], clock: Callable[[], float]
    ) -> None:  # fmt: skip
        """Prepare a gallery that keeps the pictures of the best `keep`, at least 1, and tells `on_best` of a new best."""
        self._session, self._room, self._on_best, self._clock = session, max(keep, 1), on_best, clock
        self._kept: dict[int, Tensor] = {}
        self._shown: int | None = None
        self.decodes, self.seconds = 0, 0.0

    def decode(self, latent: Any, preview: bool = False) -> Tensor:
        """Return the pictures (F, H, W, 3) of a latent."""
        started = self._clock()
        images = self._session.decode(latent, preview)
        self.seconds += self._clock() - started
        self.decodes += 1
        return images

    def pictures(self, candidate: Candidate) -> Tensor:
        """Return the pictures of a finished candidate; if they were not kept, decode them anew and keep them."""
        if candidate.index not in self._kept:
            self._kept[candidate.index] = self.decode(candidate.latent)
        return self._kept[candidate.index]

    def add(self, pictures: Mapping[int, Tensor]) -> None:
        """Take in pictures by candidate, until `keep` drops them."""
        self._kept.update(pictures)

    @property
    def at_hand(self) -> list[int]:
        """Candidates whose pictures are kept, by index."""
        return list(self._kept)

    def keep(self, ranked: Sequence[tuple[Candidate, float]]) -> None:
        """Keep the pictures of the best few of `ranked` only, as `varied` chooses; show a new best.

        Args:
            ranked: best first, the best of all and those whose pictures are kept among them.
        """
        best, score = ranked[0]
        if best.index != self._shown:
            self._shown = best.index
            self._on_best(self.pictures(best), score)
        wanted = [candidate.index for candidate in varied(ranked, self._room)]
        self._kept = {index: p for index, p in self._kept.items() if index in wanted}
