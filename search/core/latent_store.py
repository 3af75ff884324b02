"""What finished candidates hold in memory: latents, and what branches start from. Only what is likely to be asked for stays."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from ..base.candidate import Candidate
from ..base.pool import Pool

SPARE = 8  # held beyond what is wanted: the order of candidates may change


class LatentStore:
    """The tensors of one search's finished candidates."""

    def __init__(self) -> None:
        """Start without any."""
        self._holders: dict[int, Candidate] = {}
        self._leavable: dict[int, Candidate] = {}

    def take(self, candidate: Candidate, run: Any) -> None:
        """Let a candidate hold what its ended run left behind; see `session.Run`."""
        candidate.hold(run)
        self._holders[candidate.index] = candidate
        if candidate.levels:
            self._leavable[candidate.index] = candidate

    def branchable_at(self, level: float, pool: Pool) -> list[Candidate]:
        """Return the candidates whose runs can be left at a noise level, best first."""
        able = [candidate for candidate in self._leavable.values() if candidate.can_branch_at(level)]
        return [candidate for candidate, _ in pool.in_order_of(able)]

    def release_records(self, candidates: Iterable[Candidate] | None, but: Collection[Candidate]) -> None:
        """Have candidates, all for None, never left again, but for some."""
        spared = {candidate.index for candidate in but}
        for candidate in list(self._leavable.values()) if candidates is None else candidates:
            if candidate.index not in spared:
                candidate.release_records()
                self._leavable.pop(candidate.index, None)

    def shed(self, pool: Pool, latents: float, parents: float, always: Collection[Candidate]) -> None:
        """Drop tensors of all but the best candidates; they can be made again, see `Runs.restore`.

        Args:
            pool: says who is best.
            latents: of so many the latent is wanted.
            parents: of so many of those that can be left, what branches start from.
            always: keep all.
        """
        kept = {candidate.index for candidate in always}
        others = [candidate for candidate, _ in pool.in_order_of(self._holders.values()) if candidate.index not in kept]
        leavable = [candidate for candidate in others if candidate.records]
        for place, candidate in enumerate(others):
            if place >= latents + SPARE:
                candidate.drop_latent()
        for place, candidate in enumerate(leavable):
            if place >= parents + SPARE:
                candidate.drop_records()
        self._holders = {i: c for i, c in self._holders.items() if i in kept or c.latent is not None or c.records}
