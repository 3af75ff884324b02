"""A search that is cancelled, killed or fails at any of its points goes on without computing or asking anything twice."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from analytic import AnalyticSession, Quadratic
from cutting import ANSWER, CALL, DECODE, HOWS, WRITE, Cancelled, Cuts
from journaling import METHODS, Killed, go, prepare, said

from noise_search.search.scoring.scorer import VerifierError
from noise_search.verifiers.composite.ensemble import Ensemble

IMAGES, STEPS, WAVE = 6, 8, 3
POINTS = 40
SHORT = ("random", "draft search")
LONG = ("random, jittered", "zero-order with drafts", "halving", "chain", "path", "evolution", "auto", "auto search", "FK")


class Whole(Quadratic):
    """Answers all pictures of a wave at once."""

    batch_size = 64


def begun(folder, cuts, monkeypatch, parts, stochastic=False):
    """A search whose every point is passed through `cuts`, and which has not begun."""
    decode, advance = AnalyticSession.decode, AnalyticSession.advance

    def decoded(session, latent, preview=False):
        cuts.point(DECODE)
        return decode(session, latent, preview)

    def advanced(session, *args):
        cuts.before = session.budget.nfe - session.budget.recalled + session.budget.redone
        advance(session, *args)

    monkeypatch.setattr(AnalyticSession, "decode", decoded)
    monkeypatch.setattr(AnalyticSession, "advance", advanced)
    cuts.watch_journal(monkeypatch)
    verifiers = [Quadratic(name=f"part {number}", seed=number) for number in range(parts)]
    for verifier in verifiers:
        verifier.values = cuts.answering(verifier.values)
    verifier = verifiers[0] if parts == 1 else Ensemble(tuple(verifiers))
    on_call = lambda: cuts.point(CALL)  # noqa: E731
    return prepare(folder, IMAGES, verifier, steps=STEPS, wave=WAVE, on_call=on_call, stochastic=stochastic)


def searched(folder, cuts, method, parts=1):
    """A search that went on until it ended or was cut, and the model calls it made."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        search = begun(folder, cuts, monkeypatch, parts, method == "FK")
        try:
            go(search, METHODS[method])
        except (Cancelled, Killed, VerifierError, RuntimeError):
            assert cuts.kind is not None
    budget = search.budget
    return search, budget.nfe - budget.recalled + budget.redone


@cache
def uncut(method, parts):
    """What a search says that is not cut, its model calls and its points."""
    with TemporaryDirectory() as folder:
        cuts = Cuts()
        search, made = searched(Path(folder), cuts, method, parts)
        return said(search), made, cuts


def check(folder, method, how, at, parts=1):
    """Cut a search at a point and go on; return the kind of the point."""
    want, total, whole = uncut(method, parts)
    cuts, rest = Cuts(at, how), Cuts()
    cut, made = searched(folder / "cut", cuts, method, parts)
    again, more = searched(folder / "cut", rest, method, parts)
    assert said(again) == want
    # Runs that wait half-way cannot be kept on disk: those that go on are brought back.
    waiting = sum(run.nfe for run in cut.session.inner.runs if not run.finished)
    under_way = made - cuts.before if cuts.kind == CALL or (how == "killed" and cuts.kind == WRITE) else 0
    assert made + more - total <= max(waiting, under_way)
    twice = cuts.answers + rest.answers - whole.answers
    assert twice.total() <= (how == "killed" and cuts.kind == WRITE)  # the answer that was being written
    return cuts.kind


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("method", SHORT)
def test_nothing_is_made_twice_wherever_a_search_is_cut(tmp_path, method, how):
    kinds = [check(tmp_path / str(at), method, how, at) for at in range(1, POINTS + 1)]
    assert {CALL, DECODE, ANSWER, WRITE} <= set(kinds)


@pytest.mark.matrix
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize(("method", "parts"), [*((name, 1) for name in LONG), *((name, 3) for name in SHORT)])
def test_nothing_is_made_twice_wherever_any_search_is_cut(tmp_path, method, parts, how):
    points = len(uncut(method, parts)[2].passed)
    tried = sorted({*range(1, POINTS + 1), *range(POINTS, points + 1, 7), points})
    kinds = [check(tmp_path / str(at), method, how, at, parts) for at in tried]
    assert None not in kinds and {CALL, DECODE, ANSWER, WRITE} <= set(kinds)
