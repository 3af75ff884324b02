"""Pictures of candidates: decoded, counted, and kept of the best few only, since they are large."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from ..base.candidate import Candidate, select_diverse
from ..base.session import Session

PICTURE_BYTES = 256 << 20  # of decoded pictures, float32, that are held at a time beside those of the best few
LEAST_HELD = 2  # pictures beside those of the best few, however large: two are compared with each other


class ImageCache:
    """Decodes latents for one search.

    Attributes:
        decodes: latents decoded.
        seconds: time spent on it.
    """

    def __init__(
        self, session: Session, keep: int, on_best: Callable[[Tensor, float], None], clock: Callable[[], float]
    ) -> None:  # fmt: skip
        """Prepare a cache that keeps the pictures of the best `keep`, at least 1, and tells `on_best` of a new best."""
        self._session, self._room, self._on_best, self._clock = session, max(keep, 1), on_best, clock
        self._kept: dict[int, Tensor] = {}  # those asked for last come last
        self._wanted: set[int] = set()
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
        """Return the pictures (F, H, W, 3) of a finished candidate; if they were not kept, decode them anew.

        They are kept for a while: of those that `keep` does not want, as many as `PICTURE_BYTES` hold, and at least two.
        """
        index = candidate.index
        pictures = self._kept.pop(index, None)
        if pictures is None:
            self._make_room()
            pictures = self.decode(candidate.latent)
        self._kept[index] = pictures
        return pictures

    def joined(self, candidates: Sequence[Candidate]) -> Tensor:
        """Return the pictures (n F, H, W, 3) of finished candidates, one after another.

        They are kept as parts of what is returned, so that no picture is held twice.
        """
        first = self.pictures(candidates[0])
        if len(candidates) == 1:
            return first
        out = first.new_empty(len(candidates), *first.shape)
        del first
        for place, candidate in enumerate(candidates):
            out[place].copy_(self.pictures(candidate))
            self._kept[candidate.index] = out[place]
            self._wanted.add(candidate.index)
        return out.flatten(0, 1)

    def add(self, pictures: Mapping[int, Tensor]) -> None:
        """Take in pictures by candidate, until `keep` drops them."""
        self._kept.update(pictures)

    @property
    def at_hand(self) -> list[int]:
        """Candidates whose pictures are kept, by index."""
        return list(self._kept)

    def keep(self, ranked: Sequence[tuple[Candidate, float]]) -> None:
        """Keep the pictures of the best few of `ranked` only, as `select_diverse` chooses; show a new best.

        Args:
            ranked: best first, the best of all and those whose pictures are kept among them.
        """
        best, score = ranked[0]
        if best.index != self._shown:
            self._shown = best.index
            self._on_best(self.pictures(best), score)
        self._wanted = {candidate.index for candidate in select_diverse(ranked, self._room)}
        self._kept = {index: pictures for index, pictures in self._kept.items() if index in self._wanted}

    def _make_room(self) -> None:
        """Drop pictures that `keep` does not want, those asked for longest ago first, until there is room for others."""
        spare = [index for index in self._kept if index not in self._wanted]
        largest = max((pictures.nbytes for pictures in self._kept.values()), default=0)
        while len(spare) >= LEAST_HELD and (len(spare) + 1) * largest > PICTURE_BYTES:
            del self._kept[spare.pop(0)]
