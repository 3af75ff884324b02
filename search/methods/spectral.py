"""Spectral search: learn, from the best so far, which low band of the noise gives good pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated

from ..core.search import Round, Search
from ..noise.moves import MAX_LINEAGE, Ancestor
from ..noise.proposals import EliteProposal, LowFrequencyProposal, NoiseProposal, check_levels
from ..noise.proposals.base import Levels
from ..noise.recipe import MAX_LENGTH
from ..spec import Advanced, InputId, Node, Range, Tooltip, check_least
from .draft import Trials, check_draft_steps
from .settings import DraftSteps


@dataclass(frozen=True)
class SpectralSearch:
    """The cross-entropy method on the low band of the origin's noise, whose high band stays: runs = budget.

    The first generation draws the band anew; each later one from mean and variance of the best so far, over all
    generations and with the origin among them. Three corrections of the paper's code: the origin is scored and can be
    an elite; the elites' distribution is scaled to unit second moment, so that noise stays noise; its variance has a
    floor, without which the search ends after three generations. The step seed stays the origin's. In large rounds
    generations are larger, and two at least.

    With `draft_steps` d: NFE = 2 T + n d for T steps and n = ((N - 2) T) // d drafts of N images, the origin's included;
    T less if that is the best.

    Attributes:
        population: candidates per generation.
        elites: how many of the best the next generation is drawn from.
        levels: blocks of the low band are 2^levels cells wide; clamped so that 4 remain along the shorter side. 0 is
            the whole noise.
        least_variance: floor of the variance; the paper has none.
        draft_steps: steps of a draft; 0 renders every candidate in full. Paper: 10.

    References:
        Spectral Evolution Search: Efficient Inference-Time Scaling for Reward-Aligned Image Generation (2026),
            arXiv 2602.03208
    """

    node = Node(
        node_id="NSSpectralSearch",
        display_name="Spectral Search",
        description="Learns which low frequencies of the noise give good pictures, and leaves its fine "
        "grain alone (SES, arXiv 2602.03208). For composition, budgets from about 30 "
        "candidates, and deterministic samplers.",
        search_aliases=("ses", "spectral evolution", "cross-entropy method", "cem", "wavelet"),
    )

    population: Annotated[
        int,
        Range(1, 256),
        Tooltip("Candidates per generation. Paper: 10; useful: 6 to 16."),
    ] = 10
    elites: Annotated[
        int,
        Range(2, 32),
        Tooltip(
            "The next generation is drawn from so many of the best so far, your own seed among them. Paper: 5; useful: 3 to 8."
        ),
    ] = 5
    levels: Levels = 4
    least_variance: Annotated[
        float,
        InputId("variance_floor"),
        Range(0.0, 1.0, 0.01, 0.001),
        Advanced(),
        Tooltip(
            "Least variance of what is drawn. The paper has none, and its search ends after some "
            "three generations. Useful: 0.05 to 0.2."
        ),
    ] = 0.1
    draft_steps: DraftSteps = 0
    name = "spectral search"

    def __post_init__(self) -> None:
        check_least(self, "population")
        if not 2 <= self.elites <= 32:
            raise ValueError(f"'elites' must be from 2 (one has no variance) to 32, not {self.elites}")
        if not 0.0 <= self.least_variance <= 1.0:
            raise ValueError(f"'variance_floor' must be in [0, 1], not {self.least_variance:g}; 0.05 to 0.1 is usual")
        check_levels(self.levels)
        check_draft_steps(self.draft_steps)

    def run(self, search: Search) -> Iterator[Round]:
        trials = Trials(search, self.draft_steps)
        yield from trials.begin()
        family: dict[int, Ancestor] = {search.start_candidate.index: Ancestor(0)}  # parents are indices of candidates here
        proposal: NoiseProposal = LowFrequencyProposal(self.levels)
        parents: tuple[int, ...] = ()
        size = search.planner.round_size(self.population, trials.left, least=2)
        while trials.going_on:
            elites = self._elites(trials, family)
            learned = self._distribution(search, family, elites) if len(elites) >= 2 else None
            if learned is not None:
                proposal, parents = learned, elites
            generation = [search.propose(proposal) for _ in range(trials.most(size))]
            yield from trials.score(generation)
            family.update((c.index, Ancestor(c.recipe.moves[-1].seed, parents)) for c in generation)
        yield from trials.end()

    def _elites(self, trials: Trials, family: dict[int, Ancestor]) -> tuple[int, ...]:
        """Return the best of the family, in order of their indices."""
        scored = (c.index for c, score in trials.pool.in_order() if c.index in family and score == score)
        return tuple(sorted(islice(scored, self.elites)))

    def _distribution(self, search: Search, family: dict[int, Ancestor], elites: Sequence[int]) -> EliteProposal | None:
        """Return the elites' distribution; None if a recipe could not hold where they come from."""
        members = sorted(closure(family, elites) - {search.start_candidate.index})
        place = {search.start_candidate.index: 0, **{index: k for k, index in enumerate(members, 1)}}
        lineage = tuple(Ancestor(family[i].seed, tuple(place[p] for p in family[i].parents)) for i in members)
        made = EliteProposal(tuple(place[i] for i in elites), lineage, self.levels, self.least_variance)
        longest = made.propose(search.seed, len(search.candidates) + self.population, search.start_candidate.recipe)
        if len(lineage) < MAX_LINEAGE and len(longest.to_json()) < MAX_LENGTH:
            return made
        search.note("spectral search went on without learning more: a recipe could not hold more ancestors", once=True)
        return None


def closure(family: dict[int, Ancestor], indices: Sequence[int]) -> set[int]:
    """Return some candidates with all that they come from."""
    found: set[int] = set()
    todo = list(indices)
    while todo:
        index = todo.pop()
        if index not in found:
            found.add(index)
            todo += family[index].parents
    return found
