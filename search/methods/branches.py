"""What methods that branch have in common: where a run can be left, and what becomes of one that cannot branch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..base.candidate import Candidate
from ..core.search import Round, Search
from ..noise.proposals import NoiseProposal
from .random_search import RandomSearch

ALL_NOISE = 0.999  # noise share from which nothing of the picture is left


def lowest_noise(shares: Sequence[float]) -> int:
    """Return the first of descending noise shares (S + 1,) at which something of the picture is left."""
    return sum(share >= ALL_NOISE for share in shares)


def has_record(candidate: Candidate, level: float) -> bool:
    """Whether a candidate's ended run can be left at a noise level."""
    return candidate.can_branch_at(level)


def one_by_one(parents: Sequence[Candidate], each: int, branch: Callable[[Candidate], Candidate]) -> Callable[[], Candidate]:
    """Return what starts one branch at a time: `each` of the first parent, then of the second, and so on."""
    following = (parent for parent in parents for _ in range(each))
    return lambda: branch(next(following))


def why_not_left(search: Search, levels: Sequence[float]) -> str:
    """Say why runs cannot be left at some levels, as candidate 0's ended run showed; empty if they can."""
    missing = missing_levels(search, levels)
    there = f"the sampler makes no model call at the noise level {missing[0]:g} of the sigmas" if missing else ""
    return search.planner.why_no_branches or there


def missing_levels(search: Search, levels: Sequence[float]) -> list[float]:
    """Return the levels at which candidate 0's run, once ended, made no model call."""
    return [level for level in levels if not search.planner.calls(level * (1 + 3e-5), level)]


def fall_back_to_random(search: Search, name: str, proposal: NoiseProposal | None, why: str) -> Iterator[Round]:
    """Go on as random search, for the reason `why`; nothing branches any more."""
    search.fall_back(f"{name} became random search at the same cost: {why}")
    yield from RandomSearch(proposal).run(search)
    _say_what_is_left(search)


def end_branching(search: Search) -> None:
    """End a method that branched."""
    release_all_but_the_best(search)
    _say_what_is_left(search)


def release_all_but_the_best(search: Search) -> None:
    """Free what branches would start from, but for those of the best so far."""
    best = search.best[0]
    search.release_records(but=[best])


def _say_what_is_left(search: Search) -> None:
    """Say so if limits beside the number of images left a run unpaid."""
    if search.budget.runs_left and not search.budget.affordable(search.budget.run_cost, 1) and not search.stopped:
        search.stop(search.budget.why_short())
