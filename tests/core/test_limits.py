"""What bounds model calls: memory, the user's cancel, the budget; and the exact sequence of calls."""

from __future__ import annotations

import math
import weakref
from types import SimpleNamespace

import pytest

pytestmark = pytest.mark.comfy

from inprocess import boot

boot()

import comfy.controlnet
import comfy.model_management as mm
import comfy.samplers
import torch
from sessions import relative, session_for

from noise_search.nodes.adapter import memory
from noise_search.search.base.budget import StopRules
from noise_search.search.lockstep.lockstep_sampler import CallPolicy
from noise_search.search.lockstep.shared_check import is_check_call
from noise_search.search.noise.recipe import Recipe
from toys import (
    cond,
    counted,
    empty_latent,
    guider,
    mask,
    run_node,
    sampler,
    sigmas_for,
    stock,
    tiny_controlnet,
    tiny_unet,
    toy_model,
)

SEEDS = tuple(range(5))
STEPS = 6


class Faulty:
    """The model call of every CFGGuider, with a fault before or after it: `fault(rows, number of the call)`."""

    def __init__(self, monkeypatch, fault, after=lambda rows, call: None):
        self.calls: list[int] = []
        original = comfy.samplers.CFGGuider.predict_noise

        def predict_noise(this, x, *args, **kwargs):
            if is_check_call():
                return original(this, x, *args, **kwargs)
            self.calls.append(x.shape[0])
            fault(x.shape[0], len(self.calls))
            out = original(this, x, *args, **kwargs)
            after(x.shape[0], len(self.calls))
            return out

        monkeypatch.setattr(comfy.samplers.CFGGuider, "predict_noise", predict_noise)


def started(name="euler", seeds=SEEDS, max_rows=8, kind="eps", **more):
    """A session, its unstarted runs, and its sigmas."""
    g, latent = guider(toy_model(kind)), empty_latent(kind)
    session = session_for(g, sampler(name), sigmas_for(g.model_patcher, steps=STEPS), latent, max_rows=max_rows, **more)
    return session, [session.start(Recipe(seed, seed)) for seed in seeds], session.sigmas


def check_stock(session, runs, bound=1e-4):
    graph = session.graph
    for run in runs:
        assert run.finished
        want = stock(graph.guider, run.seed, graph.sampler, graph.sigmas, graph.latent)
        assert relative(run.latent, want) <= bound


# Micro-batches


@pytest.mark.parametrize(
    "runs,max_rows,sizes",
    [
        (5, 4, [3, 2]), (5, 1, [1] * 5), (7, 8, [7]), (8, 8, [8]), (9, 8, [5, 4]), (5, 6, [5]), (3, 2, [2, 1]), (1, 8, [1]),
        (11, 4, [4, 4, 3]), (13, 4, [4, 3, 3, 3]), (33, 32, [17, 16]),
    ],
)  # fmt: skip
def test_the_sequence_of_calls(runs, max_rows, sizes):
    """As few calls as fit, of nearly equal sizes; all runs at a sigma before the next sigma."""
    session, made, sigmas = started(seeds=range(runs), max_rows=max_rows)
    with counted() as calls:
        session.advance(made)
    assert list(zip(calls.sigmas, calls.rows_of, strict=True)) == [
        (float(sigma), rows) for sigma in sigmas[:-1] for rows in sizes
    ]
    assert session.limits.smaller_calls == 0 and session.max_rows == max_rows


def test_the_largest_sigma_first():
    """Runs that were left at different levels: those behind catch up, then all go on together."""
    session, runs, sigmas = started(max_rows=4)
    session.advance(runs[:3], float(sigmas[2]))
    session.advance(runs[3:4], float(sigmas[0]))
    with counted() as calls:
        session.advance([runs[3], *runs[:3], runs[4]])
    assert list(zip(calls.sigmas, calls.rows_of, strict=True)) == [
        (float(sigmas[0]), 1), (float(sigmas[1]), 2), (float(sigmas[2]), 2),
        *[(float(sigma), rows) for sigma in sigmas[3:-1] for rows in (3, 2)],
    ]  # fmt: skip
    check_stock(session, runs)


def test_nothing_left_to_do_is_no_call():
    session, runs, sigmas = started()
    session.advance([])
    session.advance(runs)
    with counted() as calls:
        session.advance(runs)
        session.advance(runs, float(sigmas[2]))
    assert calls.calls == 0 and session.budget.nfe == len(runs) * STEPS


@pytest.mark.parametrize("masked", [False, True], ids=["", "mask"])
@pytest.mark.parametrize("kind", ["eps", "flow"])
@pytest.mark.parametrize("name", ["euler", "heun", "dpmpp_2m", "uni_pc", "lms", "deis", "euler_cfg_pp", "ddim"])
def test_calls_of_one_row_are_stock_to_the_bit(name, kind, masked):
    g, latent = guider(toy_model(kind)), empty_latent(kind)
    if masked:
        latent["samples"] = torch.ones(1, g.model_patcher.model.latent_format.latent_channels, 8, 8)
        latent["noise_mask"] = mask(latent)
    session = session_for(g, sampler(name), sigmas_for(g.model_patcher, steps=STEPS), latent, max_rows=1)
    runs = [session.start(Recipe(seed, seed)) for seed in SEEDS[:3]]
    session.advance(runs[:2], float(session.sigmas[2]))
    session.advance(runs)
    check_stock(session, runs, bound=0.0)


@pytest.mark.parametrize("max_rows", [2, 4, 8])
def test_other_sizes_agree(max_rows):
    session, runs, _ = started("dpmpp_2m", max_rows=max_rows)
    session.advance(runs)
    check_stock(session, runs)


# Memory


def out_of_memory_above(rows_that_fit):
    def fault(rows, call):
        if rows > rows_that_fit:
            raise mm.OOM_EXCEPTION(f"no room for {rows} rows")

    return fault


@pytest.mark.parametrize("name", ["euler", "euler_ancestral", "dpmpp_2m", "heun"])
@pytest.mark.parametrize("fits,sizes", [(2, [2, 2, 1]), (1, [1] * 5), (4, [3, 2])])
def test_out_of_memory_halves_the_call_and_loses_no_candidate(monkeypatch, name, fits, sizes):
    session, runs, sigmas = started(name, max_rows=4 if fits == 4 else 8)
    session.limits.on_oom = lambda: emptied.append(session.limits.max_rows)
    emptied = []
    faulty = Faulty(monkeypatch, out_of_memory_above(fits))
    session.advance(runs, float(sigmas[1]))
    assert session.limits.smaller_calls == len(emptied) == {4: 0, 2: 1, 1: 2}[fits]
    assert session.max_rows == session.limits.max_rows == fits
    assert [rows for rows in faulty.calls if rows <= fits][: len(sizes)] == sizes
    assert all(rows <= fits for rows in faulty.calls[len(emptied) :])  # it fails once for each size
    session.advance(runs)
    assert len(emptied) == session.limits.smaller_calls  # the smaller size is kept
    done = sum(rows for rows in faulty.calls if rows <= fits)
    assert session.budget.nfe == done == sum(run.nfe for run in runs)  # calls that failed are not counted
    monkeypatch.undo()
    check_stock(session, runs)


def test_out_of_memory_in_the_middle(monkeypatch):
    """Another program takes the memory in the third call of seven rows."""

    def fault(rows, call):
        if call > 5 and rows > 1:
            raise mm.OOM_EXCEPTION("gone")

    session, runs, _ = started(seeds=range(7))
    Faulty(monkeypatch, fault)
    session.advance(runs)
    assert session.limits.smaller_calls == 2 and session.limits.max_rows == 1
    monkeypatch.undo()
    check_stock(session, runs)


@pytest.mark.parametrize("batching", ["auto", "off"])
def test_out_of_memory_of_one_row_is_the_same_error(monkeypatch, batching):
    error = mm.OOM_EXCEPTION("no room at all")

    def fault(rows, call):
        if call > 4:
            raise error

    session, runs, _ = started(batching=batching, max_rows=8 if batching == "auto" else None)
    faulty = Faulty(monkeypatch, fault)
    with pytest.raises(mm.OOM_EXCEPTION) as raised:
        session.advance(runs)
    assert raised.value is error
    assert faulty.calls[-1] == 1
    for run in runs:
        run.close()


def test_memory_is_not_held_while_a_smaller_call_is_tried(monkeypatch):
    """The error's traceback holds the frames of the failed call, and so its tensors."""
    alive, tensors = [], []

    def fault(rows, call):
        if rows > 2:
            activation = torch.zeros(8)
            tensors.append(weakref.ref(activation))
            raise mm.OOM_EXCEPTION("no room")

    session, runs, _ = started()
    session.limits.on_oom = lambda: alive.append(tensors[-1]())
    Faulty(monkeypatch, fault)
    session.advance(runs)
    assert alive == [None]


@pytest.mark.parametrize("error", [ValueError("shape"), RuntimeError("mat1 and mat2"), KeyError("y")])
def test_other_errors_pass_once_one_candidate_alone_fails_too(monkeypatch, error):
    def fault(rows, call):
        if call >= 3:
            raise error

    session, runs, _ = started()
    faulty = Faulty(monkeypatch, fault)
    with pytest.raises(type(error)) as raised:
        session.advance(runs)
    assert raised.value is error
    assert faulty.calls == [5, 5, 5, 1] and session.limits.smaller_calls == 0
    monkeypatch.undo()
    session.advance(runs)  # the runs still wait for the call that failed
    assert all(run.nfe == STEPS for run in runs)
    check_stock(session, runs)


BYTES = 4 * 8 * 8 * 4  # of a latent (1, 4, 8, 8), float32


def room(g, name="euler", shape=(1, 4, 8, 8)):
    return memory.Room(g, sampler(name) if isinstance(name, str) else name, shape, math.prod(shape) * 4)


def test_rows_that_fit(monkeypatch):
    g = guider(toy_model("eps"))
    monkeypatch.setattr(g.model_patcher.model, "memory_required", lambda shape, cond_shapes: 1e6 * shape[0])
    memories, found = (0.0, 1e6, 2.4e6, 5e6, 1e7, 2e7, 4e7, 1e8, 1e12), []
    for free in memories:
        monkeypatch.setattr(mm, "get_free_memory", lambda *args, free=free: free)
        found.append(room(g).rows())
    assert found == sorted(found) and found[0] == 1 and found[-1] == memory.MAX_ROWS
    assert all(rows & (rows - 1) == 0 for rows in found) and len(set(found)) > 3
    for rows, free in zip(found, memories, strict=True):
        assert rows == 1 or 2 * rows * 1e6 <= free  # cond and uncond of each


def test_rows_that_fit_grows_smaller_with_the_latent():
    g = guider(toy_model("eps"))
    found = [room(g, shape=(1, 4, size, size)).rows() for size in (8, 128, 512, 2048, 8192, 32768)]
    assert found == sorted(found, reverse=True) and min(found) >= 1


@pytest.mark.parametrize("name,patched,cfg,passes", [
    ("euler", False, 3.0, 2), ("euler", False, 1.0, 1), ("euler", True, 1.0, 2), ("euler_cfg_pp", False, 1.0, 2),
    (comfy.samplers.KSAMPLER(lambda *args, **more: None), False, 1.0, 2),
], ids=["guided", "cfg 1", "cfg 1, patched", "cfg 1, cfg_pp", "cfg 1, a sampler of another pack"])  # fmt: skip
def test_a_call_at_cfg_1_takes_one_row_a_candidate(monkeypatch, name, patched, cfg, passes):
    """As ComfyUI makes it: what the model is called with is what is counted."""
    patcher = toy_model("eps")
    if patched:
        patcher = patcher.clone()
        patcher.set_model_sampler_post_cfg_function(lambda args: args["denoised"], disable_cfg1_optimization=True)
    g = guider(patcher, cfg=cfg)
    monkeypatch.setattr(patcher.model, "memory_required", lambda shape, cond_shapes: 1e6 * shape[0])
    assert room(g, name).call_bytes(4) == 4e6 * passes
    monkeypatch.setattr(mm, "get_free_memory", lambda *args: (8e6 + 8 * memory.LEAST_HELD * BYTES) / memory.HEADROOM + 1)
    assert room(g, name).rows() == {1: 8, 2: 4}[passes]
    monkeypatch.undo()
    if isinstance(name, str):
        rows, inner = [], patcher.model.apply_model
        monkeypatch.setattr(patcher.model, "apply_model", lambda x, *args, **more: rows.append(len(x)) or inner(x, *args, **more))
        stock(g, 0, sampler(name), sigmas_for(patcher, steps=1), empty_latent("eps"))
        assert sum(rows) == passes


def test_without_a_negative_prompt_a_call_takes_one_row_a_candidate():
    (g,) = run_node("BasicGuider", model=toy_model("eps"), conditioning=cond(toy_model("eps"), 1))
    assert not memory.calls_uncond(g, sampler("euler_cfg_pp"))


def test_reference_latents_are_part_of_each_row(monkeypatch):
    """A reference of three times the latent: four rows take as much as sixteen without."""
    patcher = toy_model("eps")
    model, reference = patcher.model, torch.zeros(1, 4, 8, 24)
    monkeypatch.setattr(model, "memory_usage_factor_conds", ("ref_latents",))

    def shapes(**entry):
        found = entry.get("reference_latents", ())
        return {"ref_latents": [1, 4, sum(one.numel() for one in found) // 4]} if found else {}

    monkeypatch.setattr(model, "extra_conds_shapes", shapes)
    with_reference = [[c, {**extra, "reference_latents": [reference]}] for c, extra in cond(patcher, 1)]
    plain, both = guider(patcher), guider(patcher, positive=with_reference, negative=with_reference)
    positive = guider(patcher, cfg=1.0, positive=with_reference, negative=with_reference)
    assert room(both).call_bytes(4) == room(plain).call_bytes(16)
    assert room(positive).call_bytes(4) == room(guider(patcher, cfg=1.0)).call_bytes(16)


class Control:
    """What ComfyUI asks a control of."""

    previous_controlnet = None

    def get_models(self):
        return [toy_model("flow")]

    def inference_memory_requirements(self, dtype):
        return 12345.0


@pytest.mark.parametrize("on_card", [True, False])
def test_what_is_free_counts_and_controls_take_their_part(monkeypatch, on_card):
    """Other programs have 3 MB of the card, another model of ComfyUI's 2 MB: that can be evicted, the rest cannot."""
    patcher, total = toy_model("eps"), 10e6
    g, loaded = guider(patcher), 2e6
    g.set_conds([[c, {**extra, "control": Control()}] for c, extra in cond(patcher, 1)], cond(patcher, 2))
    monkeypatch.setattr(mm, "get_total_memory", lambda *args: total)
    monkeypatch.setattr(mm, "get_free_memory", lambda *args: total - 3e6 - loaded)
    monkeypatch.setattr(mm, "is_device_cpu", lambda device: not on_card)
    other = SimpleNamespace(device=patcher.load_device, model=object(), model_loaded_memory=lambda: loaded)
    elsewhere = SimpleNamespace(device=torch.device("meta"), model=object(), model_loaded_memory=lambda: 1e9)
    monkeypatch.setattr(mm, "current_loaded_models", [other, elsewhere])
    weights = patcher.model_size() + toy_model("flow").model_size()
    want = 7e6 * memory.HEADROOM - weights - mm.extra_reserved_memory() if on_card else 5e6 * memory.HEADROOM
    assert memory.usable_bytes(g) == (pytest.approx(want - 12345.0), weights if on_card else 0.0)


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_what_comfyui_asks_for_before_it_samples(monkeypatch, cfg):
    """Two rows a candidate, whatever the guidance, each reference latent once, and what controls need."""
    patcher = tiny_unet()
    conds = run_node(
        "ControlNetApplyAdvanced", positive=cond(patcher, 1), negative=cond(patcher, 2), control_net=tiny_controlnet(),
        image=torch.zeros(1, 64, 64, 3), strength=1.0, start_percent=0.0, end_percent=1.0,
    )  # fmt: skip
    g = guider(patcher, cfg, *conds[:2])
    monkeypatch.setattr(patcher.model, "memory_usage_factor_conds", ("ref_latents",))
    monkeypatch.setattr(patcher.model, "extra_conds_shapes", lambda **entry: {"ref_latents": [1, 4, 192]})
    monkeypatch.setattr(comfy.controlnet.ControlNet, "inference_memory_requirements", lambda control, dtype: 12345.0)
    asked, load = [], mm.load_models_gpu

    def load_models_gpu(models, memory_required=0, **more):
        asked.append((models, memory_required))
        return load(models, memory_required=memory_required, **more)

    monkeypatch.setattr(mm, "load_models_gpu", load_models_gpu)
    latent = {"samples": torch.zeros(3, 4, 8, 8)}
    stock(g, 0, sampler("euler"), sigmas_for(patcher, steps=1), latent)
    ((models, work),) = asked
    assert memory.asked_bytes(g, (3, 4, 8, 8)) == work
    assert work == patcher.model.memory_required([6, 4, 8, 8], cond_shapes={"ref_latents": [[1, 4, 192]] * 2}) + 12345.0
    assert memory.models_and_controls(g) == (models, 12345.0) and len(models) == 2


def test_runs_that_fit_beside_a_call(monkeypatch):
    g = guider(toy_model("eps"))
    monkeypatch.setattr(g.model_patcher.model, "memory_required", lambda shape, cond_shapes: 1e6 * shape[0])
    monkeypatch.setattr(mm, "get_free_memory", lambda *args: (8e6 + 20.5 * memory.LEAST_HELD * BYTES) / memory.HEADROOM)
    found = room(g)
    assert found.call_bytes(4) == 8e6 and found.runs(4) == 20 and found.runs(3) > 200
    assert found.runs(32) == 32  # as many as a call serves
    found.held *= 2
    assert found.runs(4) == 10
    found.held *= 2
    assert found.runs(4) == memory.LEAST_RUNS == 8  # five beside what a call needs, but that is a guess
    found.held *= 50
    assert found.runs(4) == found.runs(2) == int(8.19e6 // found.held) == 4


def test_weights_that_are_offloaded_anyway_make_room(monkeypatch):
    """They fill the card but for nothing: runs take of their part."""
    g = guider(toy_model("eps"))
    weights = g.model_patcher.model_size()
    monkeypatch.setattr(g.model_patcher.model, "memory_required", lambda shape, cond_shapes: 0.2 * weights)
    monkeypatch.setattr(mm, "is_device_cpu", lambda device: False)
    monkeypatch.setattr(mm, "extra_reserved_memory", lambda: 0)
    monkeypatch.setattr(mm, "current_loaded_models", [])
    monkeypatch.setattr(mm, "get_free_memory", lambda *args: weights / memory.HEADROOM)
    found = room(g)
    assert found.usable == pytest.approx(0.0) and found.weights == weights and found.rows() == 1
    assert found.runs(1) == int(0.8 * weights / found.held)


# Cancel


@pytest.fixture
def cancelled():
    """Cancel as the interrupt button does, and leave no cancel behind."""
    yield lambda: mm.interrupt_current_processing(True)
    mm.interrupt_current_processing(False)


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("batching", ["auto", "off"])
@pytest.mark.parametrize("early", [False, True], ids=["at its end", "at its start"])
def test_cancel_within_a_call_stops_before_the_next(monkeypatch, cancelled, early, batching, k):
    """Core looks inside of its model call too: a call that it gives up there is not counted, nor one that is being checked."""
    checked = batching == "auto" and k in (1, 4)  # the first call, and the first of the second half
    session, runs, _ = started(batching=batching)

    def cancel(rows, call):
        if call == k:
            cancelled()

    faulty = Faulty(monkeypatch, cancel) if early else Faulty(monkeypatch, lambda rows, call: None, cancel)
    with pytest.raises(mm.InterruptProcessingException):
        session.advance(runs)
    assert len(faulty.calls) == k
    assert session.budget.nfe == sum(faulty.calls) or ((early or checked) and session.budget.nfe == sum(faulty.calls[:-1]))
    assert session.limits.smaller_calls == 0
    for run in runs:
        run.close()
        assert not run.alive
    session.advance([again := session.start(Recipe(9, 9))])
    monkeypatch.undo()
    check_stock(session, [again])


def test_cancel_before_the_first_call(monkeypatch, cancelled):
    session, runs, _ = started()
    faulty = Faulty(monkeypatch, lambda rows, call: None)
    cancelled()
    with pytest.raises(mm.InterruptProcessingException):
        session.advance(runs)
    assert faulty.calls == [] and session.budget.nfe == 0


def test_what_was_suspended_before_a_cancel_goes_on(monkeypatch, cancelled):
    """A node may keep the best so far, and finish it."""
    session, runs, sigmas = started()
    session.advance(runs, float(sigmas[1]))
    Faulty(monkeypatch, lambda rows, call: cancelled() if call == 2 else None)
    with pytest.raises(mm.InterruptProcessingException):
        session.advance(runs)
    monkeypatch.undo()
    session.advance(runs)
    check_stock(session, runs)


@pytest.mark.parametrize("no_oom_class", [False, True], ids=["", "torch without an out-of-memory error"])
def test_a_cancel_inside_the_model_is_not_out_of_memory(monkeypatch, no_oom_class):
    """A progress hook may raise it there; where torch has no error of its own, core takes `Exception` for it."""
    if no_oom_class:
        monkeypatch.setattr(mm, "OOM_EXCEPTION", Exception)

    def fault(rows, call):
        if call == 3:
            raise mm.InterruptProcessingException()

    session, runs, _ = started()
    faulty = Faulty(monkeypatch, fault)
    with pytest.raises(mm.InterruptProcessingException):
        session.advance(runs)
    assert len(faulty.calls) == 3 and session.limits.smaller_calls == 0


def test_a_cancel_caught_by_a_sampler_comes_back(monkeypatch, cancelled):
    """The scheduler asks before every call: no sampler sees it, so none can swallow it."""
    caught = []

    def sample(model, x, sigmas, extra_args=None, callback=None, disable=None):
        for i in range(len(sigmas) - 1):
            try:
                denoised = model(x, sigmas[i] * x.new_ones([x.shape[0]]), **extra_args)
            except mm.InterruptProcessingException as error:
                caught.append(error)
                return x
            x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
        return x

    session, runs, _ = started()
    session.graph.sampler = comfy.samplers.KSAMPLER(sample)
    runs = [session.start(Recipe(seed, seed)) for seed in SEEDS]
    Faulty(monkeypatch, lambda rows, call: cancelled() if call == 2 else None)
    with pytest.raises(mm.InterruptProcessingException):
        session.advance(runs)
    assert caught == []
    for run in runs:
        run.close()


# Budget


@pytest.mark.parametrize("batching", ["auto", "off"])
@pytest.mark.parametrize("cap", [6, 7, 13, 17, 24, 29])
def test_the_budget_is_never_exceeded(cap, batching):
    session, runs, _ = started(batching=batching, seeds=range(4), max_rows=4 if batching == "auto" else None)
    session.budget.rules = StopRules(max_model_calls=cap)
    session.advance(runs[:1])
    session.budget.run_cost = session.budget.nfe
    first = runs[0].latent
    with counted() as calls:
        session.advance(runs[1:])
    assert session.budget.nfe == STEPS + calls.rows <= cap
    finished = [run for run in runs if run.finished]
    if cap >= 4 * STEPS:
        assert finished == runs
    else:
        assert runs[0] in finished and runs[0].latent is first and runs[3] not in finished
    for run in runs:
        assert (run.latent is None) == (run.nfe == 0)
    check_stock(session, finished)
    with counted() as calls:
        session.advance([run for run in runs if not run.finished])
    assert session.budget.nfe <= cap and (calls.calls == 0 or batching == "off")
    for run in runs:
        run.close()


def test_candidate_0_is_rendered_whatever_the_budget():
    session, runs, _ = started()
    session.budget.rules = StopRules(max_model_calls=1)
    session.advance(runs[:1])
    assert runs[0].finished and session.budget.nfe == STEPS


def test_the_default_limits_are_one_row_and_no_end():
    limits = CallPolicy()
    assert limits.max_rows == 1 and limits.may_call(100) and not limits.is_oom(MemoryError())


def test_listeners_hear_of_every_call():
    heard = []
    session, runs, _ = started(max_rows=4, called=lambda served, rows: heard.append((tuple(served), rows.shape[0])))
    session.advance(runs)
    assert [rows for _, rows in heard] == [3, 2] * STEPS
    assert heard[0] == (tuple(runs[:3]), 3) and heard[1] == (tuple(runs[3:]), 2)
    assert sum(rows for _, rows in heard) == session.budget.nfe
