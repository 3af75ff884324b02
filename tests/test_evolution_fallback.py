"""Evolutionary search where a run cannot be left half-way: what it does instead, and that it says so."""

from __future__ import annotations

import pytest
from analytic import Quadratic, prepare, run

from noise_search.search.methods.evolution import ONLY_FIRST, EvolutionSearch
from noise_search.search.noise.recipe import ZERO, Recipe

BEST = EvolutionSearch(tournament=1.0)  # the best has all the children


def start_of(candidate, steps=20):
    """After how many steps a candidate leaves its parent; 0 for a neighbor, None for one of its own."""
    if candidate.recipe.cuts:
        return round((1 - candidate.recipe.cuts[-1].renoise_to) * steps)
    return 0 if candidate.recipe.moves else None


def generations(search, steps=20):
    """Candidates by where they start, in order."""
    found = {}
    for candidate in search.candidates:
        found.setdefault(start_of(candidate, steps), []).append(candidate)
    return found


@pytest.mark.parametrize(
    ("session", "why"),
    [
        ({"looks_halfway": False, "why_alone": ["the rows are frames"]}, "the rows are frames"),
        ({"looks_halfway": False}, "its runs cannot be suspended"),
        ({"fixed_steps": False}, "the sampler chooses its own steps"),
    ],
)
def test_without_branches_the_first_noise_evolves(session, why):
    search = run(EvolutionSearch(), 16, **session)
    assert search.budget.nfe == 320 and search.session.branches == []
    assert search.notes == [f"{ONLY_FIRST}: {why}"]
    assert {start_of(c) for c in search.candidates[8:]} == {0} and len(search.candidates) == 16
    assert len({c.parent for c in run(BEST, 16, **session).candidates[8:]}) > 1  # it goes on from what is better


def test_a_sampler_without_calls_at_the_levels():
    search = run(EvolutionSearch(), 16, calls=lambda seed: 7)
    assert search.notes == [f"{ONLY_FIRST}: the sampler makes no model call at the noise levels of its steps"]
    assert search.budget.nfe == 16 * 7 and {start_of(c) for c in search.candidates[8:]} == {0}


def test_pictures_are_scored_at_their_end_only():
    """So that a verifier which cannot be trusted on half-denoised ones is no hindrance."""
    search = run(EvolutionSearch(), 16, Quadratic(trusts_previews=False))
    assert search.notes == [] and generations(search)[16]
    assert all(not c.looks for c in search.candidates)


def test_noise_of_zeros_branches_only():
    search = prepare(16, stochastic=True)
    search.baseline.recipe = Recipe(ZERO, 5)
    list(EvolutionSearch().run(search))
    assert set(generations(search)) == {None, 8, 12, 16}
    assert 320 - 4 < search.budget.nfe <= 320
    search = prepare(16, stochastic=True, looks_halfway=False)
    search.baseline.recipe = Recipe(ZERO, 5)
    with pytest.raises(ValueError, match="neighbors of all-zero noise do not exist"):
        list(EvolutionSearch().run(search))
