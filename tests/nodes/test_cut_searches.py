"""A search in ComfyUI that is cancelled, killed or fails at any of its points: nothing is computed or asked twice after it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from inprocess import boot

pytestmark = pytest.mark.comfy

boot()

import comfy.model_management as mm
import comfy.samplers
from cutting import ANSWER, CALL, DECODE, HOWS, WRITE, Cuts
from journaling import Killed
from remembered import keep_journals, remembered
from searching import interrupt, parts

from noise_search.nodes.adapter.session import ComfySession
from noise_search.search.methods.draft_search import DraftSearch
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.scoring.scorer import VerifierError
from toys import ToyVerifier

METHODS = {"random": RandomSearch(), "draft search": DraftSearch(), "default": None}
STEPS, BUDGET, POINTS = 8, 8, 40


def searched(graph, method, cuts):
    """Run a search whose every point is passed through `cuts`; return its report, None if it was cut, and its model calls."""
    made = SimpleNamespace(rows=0, before=0)
    predict, decode, advance = comfy.samplers.CFGGuider.outer_predict_noise, ComfySession.decode, ComfySession.advance

    def predicted(guider, x, *args, **more):
        cuts.point(CALL)
        made.rows += x.shape[0]
        return predict(guider, x, *args, **more)

    def decoded(*args):
        cuts.point(DECODE)
        return decode(*args)

    def advanced(*args):
        made.before = made.rows
        advance(*args)

    verifier = ToyVerifier()
    score = cuts.answering(verifier.score)
    verifier.score = lambda images, latents=None: score(images)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comfy.samplers.CFGGuider, "outer_predict_noise", predicted)
        patch.setattr(ComfySession, "decode", decoded)
        patch.setattr(ComfySession, "advance", advanced)
        cuts.watch_journal(patch)
        try:
            return remembered(graph, 3, method=METHODS[method], budget=BUDGET, verifier=verifier).report, made
        except (mm.InterruptProcessingException, Killed, VerifierError, RuntimeError):
            assert cuts.kind is not None
            return None, made
        finally:
            mm.interrupt_current_processing(False)


def check(tmp_path, monkeypatch, method, how, points):
    """Cut a search at points, of which `points` chooses by the kinds of all, and go on."""
    graph = parts("eps", steps=STEPS)
    for folder in ("checked", "whole"):  # the second time it is known that this model's calls can be shared
        keep_journals(tmp_path / folder, monkeypatch)
        want, all_ = searched(graph, method, whole := Cuts())
    kinds = set()
    for at in points(whole.passed):
        keep_journals(tmp_path / str(at), monkeypatch)
        cuts, rest = Cuts(at, how, interrupt), Cuts()
        _, made = searched(graph, method, cuts)
        again, more = searched(graph, method, rest)
        kinds.add(cuts.kind)
        under_way = made.rows - made.before if cuts.kind == CALL or (how == "killed" and cuts.kind == WRITE) else 0
        assert made.rows + more.rows - all_.rows <= under_way
        being_written = how == "killed" and cuts.kind == WRITE
        assert (cuts.answers + rest.answers).total() - whole.answers.total() <= being_written
        assert again["model_calls"] == want["model_calls"] and again["recalled"]["redone"] == 0
        assert [c["recipe"] for c in again["candidates"]] == [c["recipe"] for c in want["candidates"]]
        for one, other in zip(again["candidates"], want["candidates"], strict=True):
            assert one["score"] == pytest.approx(other["score"], rel=1e-4, abs=1e-6)
    return kinds


@pytest.mark.parametrize("how", HOWS)
def test_drafts_and_answers_are_made_once_wherever_a_search_is_cut(tmp_path, monkeypatch, how):
    def some(passed):
        """Of each kind the second and the last point."""
        places = [[at for at, one in enumerate(passed, 1) if one == kind] for kind in (CALL, DECODE, ANSWER, WRITE)]
        return [found[place] for found in places for place in (1, -1)]

    assert check(tmp_path, monkeypatch, "draft search", how, some) == {CALL, DECODE, ANSWER, WRITE}


@pytest.mark.matrix
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_made_twice_wherever_a_search_is_cut(tmp_path, monkeypatch, method, how):
    assert check(tmp_path, monkeypatch, method, how, lambda passed: range(1, POINTS + 1)) == {CALL, DECODE, ANSWER, WRITE}
