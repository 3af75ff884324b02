"""How many runs hold latents at a time: memory that runs out in a sampler's own step ends one run, and no search."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytestmark = pytest.mark.comfy

from inprocess import boot

boot()

import comfy.model_management as mm
import comfy.samplers
import torch
from searching import FarFrom, at_call, interrupt, parts, search_with, without_seconds
from sessions import relative, session_for

from noise_search.nodes.adapter import memory
from noise_search.search.lockstep.held_memory import held_bytes
from noise_search.search.methods.backtracking import BacktrackingSearch
from noise_search.search.methods.branching import BranchingSearch
from noise_search.search.methods.fk_steering import FKSteering
from noise_search.search.methods.halving import HalvingSearch
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.methods.rollover import RolloverSearch
from noise_search.search.noise.recipe import Recipe
from toys import empty_latent, guider, sampler, sigmas_for, stock, toy_model

STEPS = 8


class Crowded:
    """A sampler, ComfyUI's own otherwise, that runs out of memory where more than `room` of its runs are under way."""

    def __init__(self, name: str, room: float, at_start: bool = True) -> None:
        self.room, self.at_start, self.running, self.most, self.fallen, self.name = room, at_start, 0, 0, 0, name
        self.plain = sampler(name)
        self.sampler = comfy.samplers.KSAMPLER(self.sample, self.plain.extra_options, self.plain.inpaint_options)

    def sample(self, model, x, sigmas, extra_args=None, callback=None, disable=None, **options):
        self.running += 1
        self.most = max(self.most, self.running)

        def told(args):
            self.check()
            if callback is not None:
                callback(args)

        try:
            if self.at_start:
                self.check()
            return self.plain.sampler_function(model, x, sigmas, extra_args=extra_args, callback=told, disable=disable, **options)
        finally:
            self.running -= 1

    def check(self) -> None:
        if self.running > self.room:
            self.fallen += 1
            raise mm.OOM_EXCEPTION("no room for another run")


def started(crowded, runs, kind="eps", **more):
    g = guider(toy_model(kind))
    session = session_for(g, crowded.sampler, sigmas_for(g.model_patcher, steps=STEPS), empty_latent(kind), **more)
    return session, [session.start(Recipe(seed, seed)) for seed in range(runs)]


def check_stock(session, runs, crowded):
    for run in runs:
        want = stock(session.graph.guider, run.seed, crowded.plain, session.graph.sigmas, session.graph.latent)
        assert run.finished and relative(run.latent, want) <= 1e-4


@pytest.mark.parametrize("at_start", [True, False], ids=["at its start", "at its steps"])
@pytest.mark.parametrize("name", ["euler", "euler_ancestral", "dpmpp_2m_sde", "heun"])
def test_runs_that_died_begin_anew_and_are_stock_runs(name, at_start):
    crowded = Crowded(name, 3, at_start)
    session, runs = started(crowded, 5)
    session.advance(runs)
    assert crowded.fallen > 0 and session.limits.ran_out == 1 and session.limits.most_in_flight == 2
    check_stock(session, runs, crowded)
    calls = {"heun": 2 * STEPS - 1}.get(name, STEPS)
    assert [run.nfe for run in runs] == [calls] * 5 and session.budget.nfe == 5 * calls
    assert session.budget.repeated == (0 if at_start else 2)
    assert all(len(run.levels) == calls for run in runs)


def test_with_one_run_under_way_it_is_the_same_error():
    crowded = Crowded("euler", 0, at_start=False)
    session, runs = started(crowded, 1)
    with pytest.raises(mm.OOM_EXCEPTION, match="no room for another run"):
        session.advance(runs)
    assert session.limits.ran_out == 0 and crowded.fallen == 1


def test_with_room_for_none_each_tries_alone_in_the_end():
    crowded = Crowded("euler", 0, at_start=False)
    session, runs = started(crowded, 4)
    with pytest.raises(mm.OOM_EXCEPTION, match="no room for another run"):
        session.advance(runs)
    assert session.limits.most_in_flight == 1


def test_other_errors_of_a_sampler_pass():
    crowded = Crowded("euler", 3)
    crowded.check = lambda: (_ for _ in ()).throw(ValueError("of the sampler's own"))
    session, runs = started(crowded, 4)
    with pytest.raises(ValueError, match="of the sampler's own"):
        session.advance(runs)


@pytest.mark.parametrize("name", ["euler", "euler_ancestral"])
def test_suspended_runs_are_let_go_for_others_and_their_calls_made_again(name):
    """Six looked at with room for four: two in flight from then on. The others' calls are made again, and not counted."""
    crowded = Crowded(name, 4)
    session, runs = started(crowded, 6)
    cut = float(session.sigmas[2])
    session.advance(runs, cut)
    assert all(run.latent is not None and run.nfe == 3 for run in runs) and session.budget.nfe == 18
    assert session.budget.repeated == 0 and crowded.running == 2 == session.limits.most_in_flight
    assert [run.in_flight for run in runs] == [False] * 4 + [True] * 2
    looks = [run.latent.clone() for run in runs]
    session.advance(runs, cut)  # they are there
    assert session.budget.nfe == 18 and session.budget.repeated == 0
    session.advance(runs)
    assert session.budget.nfe == 6 * STEPS and session.budget.repeated == 4 * 3 and crowded.most == 5
    check_stock(session, runs, crowded)
    plain = Crowded(name, 100)
    session, runs = started(plain, 6)
    session.advance(runs, cut)
    assert all(relative(look, run.latent) <= 1e-5 for look, run in zip(looks, runs, strict=True))
    for run in runs:
        run.close()


def test_what_died_frees_its_memory_before_the_next_goes_on():
    """The error's traceback holds the frames of the sampler."""
    crowded = Crowded("euler", 3)
    session, runs = started(crowded, 4)
    under_way = []
    session.limits.on_oom = lambda: under_way.append(crowded.running)
    session.advance(runs)
    assert under_way == [3]


METHODS = [
    HalvingSearch(), FKSteering(), BranchingSearch(lineages=2), RolloverSearch(), BacktrackingSearch(), RandomSearch(),
]  # fmt: skip


@pytest.mark.parametrize("room", [12, 5, 2])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_search_finds_the_same_with_less_memory(method, room):
    """A limit of 12 is too small for halving of 8, which looks at 16; the others have fewer on their way."""

    def found(room):
        graph = parts("eps", "euler_ancestral", steps=STEPS)
        crowded = Crowded("euler_ancestral", room)
        graph["sampler"] = crowded.sampler
        result = search_with(graph, 3, budget=8, method=method, verifier=FarFrom(torch.zeros(1, 1, 1, 3)))
        return result, crowded

    want, plain = found(100)
    got, crowded = found(room)
    assert relative(got.latents["samples"], want.latents["samples"]) <= 1e-4
    changed = {"repeated_calls", "in_flight_halved", "notes", "verifier_calls", "decodes"}
    lean, whole = ({k: v for k, v in without_seconds(one.report).items() if k not in changed} for one in (got, want))
    assert [c["recipe"] for c in lean["candidates"]] == [c["recipe"] for c in whole["candidates"]]
    assert [c["status"] for c in lean["candidates"]] == [c["status"] for c in whole["candidates"]]
    assert lean["order"] == whole["order"] and lean["model_calls"] == whole["model_calls"]
    assert want.report["repeated_calls"] == 0 == want.report["in_flight_halved"]
    if plain.most > room:
        assert crowded.fallen > 0 < got.report["in_flight_halved"]
        assert any("in flight" in note or "under way" in note for note in got.report["notes"])


def test_a_search_that_is_ended_makes_no_call_again():
    """Cancel while calls are made again: it is heard before the next."""
    crowded = Crowded("euler", 4)
    session, runs = started(crowded, 6)
    session.advance(runs, float(session.sigmas[2]))
    session.budget.run_cost, session.budget.halted = STEPS, True
    session.advance(runs)
    assert session.budget.repeated == 0 and not any(run.finished for run in runs)
    for run in runs:
        run.close()
    with at_call(1, interrupt), pytest.raises(mm.InterruptProcessingException):
        session, runs = started(Crowded("euler", 4), 6)
        session.advance(runs)


def test_runs_wait_for_what_memory_has_room_for(monkeypatch):
    """Halving of 8 looks at 16; memory has room for the latents of fewer. None of them dies."""

    def found():
        graph = parts("eps", "euler_ancestral", steps=STEPS)
        crowded = Crowded("euler_ancestral", 100)
        graph["sampler"] = crowded.sampler
        monkeypatch.setattr(graph["guider"].model_patcher.model, "memory_required", lambda shape, cond_shapes: 0.0)
        return search_with(graph, 3, budget=8, method=HalvingSearch()), crowded

    want, _ = found()
    latent = want.latents["samples"].nbytes
    monkeypatch.setattr(mm, "get_free_memory", lambda *args: 60 * latent / memory.HEADROOM)
    got, crowded = found()
    assert relative(got.latents["samples"], want.latents["samples"]) <= 1e-4
    assert got.report["order"] == want.report["order"] and got.report["model_calls"] == want.report["model_calls"]
    assert got.report["in_flight_halved"] == crowded.fallen == 0 < got.report["repeated_calls"]
    assert any("memory has room for" in note for note in got.report["notes"]) and want.report["repeated_calls"] == 0


HELD = {
    "euler": (8, 8), "euler_ancestral": (8, 8), "dpmpp_2m": (8, 8), "heun": (12, 12), "lms": (11, 11), "uni_pc": (16, 16),
    "dpmpp_2m_sde": (91, 55),
}  # fmt: skip


@pytest.mark.parametrize("name", HELD)
def test_what_a_suspended_run_holds(name):
    """Latents, after half of the steps: many of a Brownian tree, of the first twice, to compare."""
    session, runs = started(SimpleNamespace(sampler=sampler(name)), 2)
    session.advance(runs, float(session.sigmas[STEPS // 2]))
    found = [held_bytes(run) / runs[0].noise.nbytes for run in runs]
    assert tuple(found) == HELD[name]
    runs[0].let_go()
    assert held_bytes(runs[0]) == 0
    for run in runs:
        run.close()
