"""Searches that go on from a journal: the same decisions, counts and scores as one that was never cut short."""

from __future__ import annotations

import json
import math

import analytic
import pytest
from analytic import Clock, Quadratic
from journaling import KEY, METHODS, Killed, finished_lines, go, killed_at, made, prepare, run, said

IMAGES = 12
NEEDS_STEP_NOISE = ("FK", "branching", "branching lineages", "rollover")
EVERY = [(name, stochastic) for name in METHODS for stochastic in (False, True) if stochastic or name not in NEEDS_STEP_NOISE]


def plain(method, images, verifier=None, **session):
    """The same search without a journal."""
    search = analytic.prepare(images, verifier, **session)
    chosen = method or analytic_choice(search, images)
    for _ in chosen.run(search):
        pass
    search.close()
    return search


def analytic_choice(search, images):
    from noise_search.search.methods.auto_search import choose_for

    return choose_for(search, images)[0]


@pytest.mark.parametrize(("name", "stochastic"), EVERY)
def test_a_second_search_makes_no_model_call(tmp_path, name, stochastic):
    want = plain(METHODS[name], IMAGES, stochastic=stochastic)
    first = run(METHODS[name], IMAGES, tmp_path, stochastic=stochastic)
    assert said(first) == said(want) and (first.budget.recalled, first.budget.redone) == (0, 0)
    verifier = Quadratic()
    again = run(METHODS[name], IMAGES, tmp_path, verifier, stochastic=stochastic)
    assert said(again) == said(want)
    assert made(again) == 0 and again.session.inner.rounds == []
    assert again.budget.recalled == want.budget.nfe > 0
    latents = [c.latent for c in again.candidates if c.status == "finished"]
    assert all(map(analytic.torch.equal, latents, [c.latent for c in want.candidates if c.status == "finished"]))


@pytest.mark.parametrize(("name", "stochastic"), EVERY)
def test_a_search_goes_on_from_where_it_was_cut(tmp_path, name, stochastic):
    want = plain(METHODS[name], IMAGES, stochastic=stochastic)
    total = want.budget.nfe
    for part, call in enumerate((3, total // 3, total // 2, total - 2)):
        folder = tmp_path / str(part)
        cut = prepare(folder, IMAGES, stochastic=stochastic, on_call=killed_at(call))
        with pytest.raises(Killed):
            go(cut, METHODS[name])
        again = run(METHODS[name], IMAGES, folder, stochastic=stochastic)
        assert said(again) == said(want)
        lines = finished_lines(again)
        assert len(lines) == len(set(lines)) == sum(c.status == "finished" for c in want.candidates)


@pytest.mark.parametrize(("name", "stochastic"), EVERY)
def test_a_larger_budget_computes_only_what_is_new(tmp_path, name, stochastic):
    run(METHODS[name], IMAGES, tmp_path, stochastic=stochastic)
    before = set(finished_lines(run(METHODS[name], IMAGES, tmp_path, stochastic=stochastic)))
    more = run(METHODS[name], 2 * IMAGES, tmp_path, stochastic=stochastic)
    assert said(more) == said(plain(METHODS[name], 2 * IMAGES, stochastic=stochastic))
    lines = finished_lines(more)
    assert len(lines) == len(set(lines)) and before <= set(lines)
    assert more.budget.recalled >= 20


def test_the_new_candidates_of_random_search_are_all_that_is_paid(tmp_path):
    run(METHODS["random"], 8, tmp_path)
    more = run(METHODS["random"], 11, tmp_path)
    assert (more.budget.nfe, more.budget.recalled, more.budget.redone) == (220, 160, 0)
    assert len(more.session.inner.started) == 3 and more.session.ledger.candidates == 8
