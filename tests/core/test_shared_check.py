"""Shared model calls are checked: what differs goes one by one, what does not is not called again, and no picture changes."""

from __future__ import annotations

import gc
import inspect
import weakref

import pytest

pytestmark = pytest.mark.comfy

from inprocess import boot, run_node

boot()

import comfy.model_management as mm
import comfy.model_patcher
import comfy.samplers
import comfy.supported_models
import torch
from comfy.ldm.hunyuan3dv2_1.hunyuandit import HunYuanDiTPlain
from coupled import CoupledNet, PickyNet, UnsteadyNet, ace_step, hunyuan3d, toy_with, without_memory
from sessions import relative, session_for

from noise_search.nodes.adapter import sharing_verdicts
from noise_search.search.lockstep.shared_check import SharedCallsDiffer
from noise_search.search.noise.recipe import Recipe
from toys import CONTEXT, cond, counted, empty_latent, guider, sampler, sigmas_for, stock, tiny_unet, toy_model

SEEDS = (5, 11, 42, 7)
STEPS = 6
one_row = pytest.mark.skipif(
    "swap_cfg_halves" not in inspect.getsource(HunYuanDiTPlain), reason="this core's Hunyuan3D 2.1 fails on one row"
)
DIFFERS = "candidates get other answers than alone"


def started(g, latent, name="euler", *, steps=STEPS, seeds=SEEDS, **more):
    """A session, and its unstarted runs."""
    session = session_for(g, sampler(name), sigmas_for(g.model_patcher, steps=steps), latent, **more)
    return session, [session.start(Recipe(seed, seed)) for seed in seeds]


def check_stock(session, runs, within=0.0):
    graph = session.graph
    for run in runs:
        want = stock(graph.guider, run.seed, graph.sampler, graph.sigmas, graph.latent)
        assert relative(run.latent, want) <= within


def guided(patcher, cfg=3.0, **extra):
    """A CFGGuider between two conditionings of random text and lyrics."""
    made = comfy.samplers.CFGGuider(patcher)
    generator = torch.Generator().manual_seed(1)
    texts = [torch.randn(1, 5, CONTEXT, generator=generator) for _ in range(2)]
    made.set_conds(*[[[text, {"conditioning_lyrics": text[:, :4], **extra}]] for text in texts])
    made.set_cfg(cfg)
    return made


def sound(length):
    return {"samples": torch.zeros(1, 64, length)}


# What is checked, and when


@pytest.mark.parametrize("name", ["euler", "euler_ancestral", "euler_cfg_pp", "heun", "dpmpp_2m"])
def test_three_pairs_of_calls_and_none_when_queued_again(name):
    """Of copies of the last row, and of that row alone: at the first call, in the middle, and in the last step."""
    g, latent = guider(toy_model("eps")), empty_latent("eps")
    session, runs = started(g, latent, name)
    with counted() as calls:
        session.advance(runs)
    assert calls.checks == [4, 1] * 3
    assert session.check_calls == 15 and session.budget.nfe == calls.rows == sum(run.nfe for run in runs)
    assert session.why_one_by_one == []
    again, others = started(g, latent, name, seeds=(1, 2, 3))
    with counted() as calls:
        again.advance(others)
    assert calls.checks == [] and again.check_calls == 0


def test_the_places_of_the_checks():
    g, latent = guider(toy_model("flow")), empty_latent("flow")
    session, runs = started(g, latent)
    checked = []
    inner = session.limits.shared.verdicts.prove
    session.limits.shared.verdicts.prove = lambda forwards, rows, place: (checked.append(place), inner(forwards, rows, place))
    session.advance(runs)
    levels = session.sigmas.tolist()
    assert [place.sigma for place in checked] == pytest.approx([levels[0], levels[STEPS // 2], levels[STEPS - 1]])
    assert [(place.second_half, place.last_step) for place in checked] == [(False, False), (True, False), (True, True)]


def test_a_lower_last_step_and_more_rows_are_checked_again():
    """A draft's last step is far above a full run's; of fewer rows nothing is asked."""
    model, latent = toy_model("flow"), empty_latent("flow")
    for steps, seeds, checks in ((3, SEEDS, 2), (12, SEEDS[:2], 1), (12, SEEDS[:2], 0), (12, range(8), 3)):
        session = session_for(guider(model), sampler("euler"), sigmas_for(model, "simple", steps), latent)
        with counted() as calls:
            session.advance([session.start(Recipe(seed, seed)) for seed in seeds])
        assert len(calls.checks) == 2 * checks


def test_a_lora_changes_no_verdict_and_another_patch_does():
    model, latent = toy_model("eps"), empty_latent("eps")
    session, runs = started(guider(model), latent)
    session.advance(runs)
    lora = model.clone()
    key = "diffusion_model.first.weight"
    assert lora.add_patches({key: ("diff", (torch.ones_like(model.model.diffusion_model.first.weight),))}, 0.1) == [key]
    (patched,) = run_node("RescaleCFG", model=model, multiplier=0.7)
    for other, checks in ((lora, 0), (patched, 6)):
        session, runs = started(guider(other), latent)
        with counted() as calls:
            session.advance(runs)
        assert len(calls.checks) == checks


def test_verdicts_go_with_the_model():
    g = guider(toy_model("eps"))
    session, runs = started(g, empty_latent("eps"))
    session.advance(runs)
    model, known = weakref.ref(g.model_patcher.model), weakref.ref(sharing_verdicts._KNOWN[g.model_patcher.model])
    del g, session, runs
    gc.collect()
    assert model() is None and known() is None


@pytest.mark.parametrize("kind", ["eps", "flow", "flow5d"])
@pytest.mark.parametrize("name", ["euler_ancestral", "euler_cfg_pp", "dpmpp_2m_sde"])
def test_pictures_are_those_without_the_check_to_the_bit(name, kind):
    g, latent = guider(toy_model(kind)), empty_latent(kind)
    pictures, states = [], []
    for compares in (True, False):
        session, runs = started(g, latent, name)
        session.limits.shared.compares = compares
        torch.manual_seed(3)
        with counted() as calls:
            session.advance(runs, float(session.sigmas[2]))
            session.advance(runs)
        assert bool(calls.checks) == compares
        pictures.append(torch.cat([session.start(Recipe(0, 0)).noise, *[run.result for run in runs]]))
        states.append(torch.get_rng_state())
    assert torch.equal(*pictures) and torch.equal(*states)


# What differs


@pytest.mark.parametrize("cfg", [1.0, 3.0])
@pytest.mark.skipif(not hasattr(comfy.supported_models, "ACEStep15"), reason="this core has no ACE-Step 1.5")
def test_ace_step_goes_one_by_one(cfg):
    session, runs = started(guided(ace_step(), cfg), sound(20))
    assert session.why_one_by_one == []
    session.advance(runs[:2], float(session.sigmas[2]))
    session.advance(runs)
    check_stock(session, runs)
    assert DIFFERS in session.why_one_by_one[0] and session.looks_halfway and session.max_rows == 1
    again, _ = started(session.graph.guider, sound(20))
    assert again.why_one_by_one == session.why_one_by_one and again.max_rows == 1


@one_row
@pytest.mark.parametrize("cfg, apart, differs", [(1.0, False, True), (3.0, False, False), (3.0, True, True)])
def test_hunyuan3d_goes_one_by_one_where_its_rows_are_exchanged(monkeypatch, cfg, apart, differs):
    session, runs = started(guided(hunyuan3d(), cfg), sound(6))
    if apart:
        without_memory(monkeypatch)
    session.advance(runs)
    check_stock(session, runs, within=0.0 if differs else 1e-5)
    assert bool(session.why_one_by_one) == differs


@one_row
def test_other_forwards_than_those_proven_are_checked(monkeypatch):
    """cond and uncond apart from call 4 on: answers were used before, so that the search begins anew."""
    session, runs = started(guided(hunyuan3d()), sound(6))
    without_memory(monkeypatch, after=5)  # the first call is checked by two more
    with pytest.raises(SharedCallsDiffer, match=DIFFERS):
        session.advance(runs)
    assert session.budget.nfe == 3 * len(runs)


def with_own_functions(change):
    """A SAMPLER of Euler steps whose runs add a post-CFG function of their own; returns it and the batch sizes that were seen."""
    seen = []

    def post_cfg(args):
        seen.append(args["denoised"].shape[0])
        return change(args["denoised"])

    def sample(model, x, sigmas, extra_args=None, callback=None, disable=None):
        options = comfy.model_patcher.set_model_options_post_cfg_function(extra_args["model_options"], post_cfg)
        for sigma, following in zip(sigmas, sigmas[1:], strict=False):
            denoised = model(x, sigma * x.new_ones([x.shape[0]]), **{**extra_args, "model_options": options})
            x = x + (x - denoised) / sigma * (following - sigma)
        return x

    return comfy.samplers.KSAMPLER(sample), seen


@pytest.mark.parametrize("share", [0.0, 0.1])
@pytest.mark.parametrize("change", [lambda denoised: denoised, lambda denoised: 0.9 * denoised], ids=["look", "change"])
def test_post_cfg_functions_of_runs_are_not_called_for_the_check(change, share):
    smp, seen = with_own_functions(change)
    g = guider(toy_with(CoupledNet, share=share))
    session = session_for(g, smp, sigmas_for(g.model_patcher, steps=STEPS), empty_latent("flow"))
    runs = [session.start(Recipe(seed, seed)) for seed in SEEDS]
    session.advance(runs)
    given_up = len(SEEDS) if share else 0
    assert seen == [1] * (len(SEEDS) * STEPS + given_up) and bool(session.why_one_by_one) == bool(share)
    check_stock(session, runs, within=1e-5)


def test_a_mean_of_one_percent_in_bfloat16():
    session, runs = started(guider(toy_with(CoupledNet, dtype=torch.bfloat16, share=0.01)), empty_latent("flow"))
    session.advance(runs)
    check_stock(session, runs)
    assert DIFFERS in session.why_one_by_one[0]


def test_bfloat16_that_only_rounds_is_shared():
    session, runs = started(guider(toy_with(CoupledNet, dtype=torch.bfloat16, share=0.0)), empty_latent("flow"))
    session.advance(runs)
    check_stock(session, runs, within=3e-2)
    assert session.why_one_by_one == []


def test_a_coupling_of_low_noise_levels_is_found_in_the_last_step():
    session, runs = started(guider(toy_with(CoupledNet, below=400)), empty_latent("flow"))
    assert float(session.sigmas[STEPS // 2]) > 0.4 > float(session.sigmas[STEPS - 1])
    with pytest.raises(SharedCallsDiffer):
        session.advance(runs)


def test_kernels_that_are_not_deterministic_are_no_difference():
    session, runs = started(guider(toy_with(UnsteadyNet)), empty_latent("flow"))
    with counted() as calls:
        session.advance(runs)
    assert session.why_one_by_one == [] and calls.checks == [4, 1, 4] * 3


def test_coupled_rows_are_found_behind_kernels_that_are_not_deterministic():
    class Both(CoupledNet, UnsteadyNet):
        share, below = 1e-5, float("inf")

        def _forward(self, *args, **kwargs):
            out = super()._forward(*args, **kwargs)
            return out + 0.1 * out.mean(0, keepdim=True)

    session, runs = started(guider(toy_with(Both)), empty_latent("flow"))
    session.advance(runs)
    check_stock(session, runs, within=1e-3)
    assert DIFFERS in session.why_one_by_one[0]


def test_the_user_may_insist():
    g, latent = guider(toy_with(CoupledNet)), empty_latent("flow")
    session, runs = started(g, latent, batching="on")
    with counted() as calls:
        session.advance(runs)
    assert calls.checks == [] and calls.rows_of == [4] * STEPS
    want = stock(g, SEEDS[0], session.graph.sampler, session.sigmas, session.graph.latent)
    assert relative(runs[0].latent, want) > 1e-2


# Foreign code on modules


def test_a_counting_hook_is_not_called_to_find_out():
    model, seen = tiny_unet(), []
    handle = model.model.diffusion_model.middle_block[0].register_forward_hook(lambda *args: seen.append(len(seen)))
    session, runs = started(guider(model), empty_latent("eps"), seeds=SEEDS[:2])
    session.advance(runs)
    assert len(seen) == len(runs) * STEPS
    assert "a forward hook on ResBlock" in session.why_alone[0] and not session.looks_halfway
    handle.remove()
    assert started(guider(model), empty_latent("eps"))[0].why_alone == []


def coupled(forward):
    def replaced(*args, **kwargs):
        out = forward(*args, **kwargs)
        return out + 0.1 * out.mean(0, keepdim=True)

    return replaced


def replaced_forward(model, monkeypatch):
    block = model.model.diffusion_model.middle_block[0]
    monkeypatch.setattr(block, "forward", coupled(block.forward))


def replaced_method_of_a_class(model, monkeypatch):
    cls = type(model.model.diffusion_model.middle_block[0])
    monkeypatch.setattr(cls, "_forward", coupled(cls._forward))


def forward_hook(model, monkeypatch):
    block = model.model.diffusion_model.middle_block[0]
    block.register_forward_hook(lambda module, args, out: out + 0.1 * out.mean(0, keepdim=True))


@pytest.mark.parametrize("put", [replaced_forward, replaced_method_of_a_class, forward_hook], ids=lambda put: put.__name__)
def test_foreign_code_below_the_model_runs_alone(monkeypatch, put):
    model = tiny_unet()
    put(model, monkeypatch)
    session, runs = started(guider(model), empty_latent("eps"))
    assert "ResBlock" in "".join(session.why_alone)
    session.advance(runs)
    check_stock(session, runs)


def test_a_model_of_transformers_in_the_process_changes_nothing():
    """It adds a method to torch's Module, by which verifiers' models are initialized and none is run."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    with torch.inference_mode(False):
        CLIPVisionModel(CLIPVisionConfig(**small, image_size=8, patch_size=4))
    session, _ = started(guider(tiny_unet()), empty_latent("eps"))
    assert session.why_alone == []


# What the model refuses


@pytest.mark.parametrize("fails_in", ["first call", "resumed"])
def test_a_call_that_the_model_refuses_is_made_one_by_one(fails_in):
    """The mask is that of cond and uncond of one row: the method goes on, and nothing is computed again."""
    model = toy_with(PickyNet, most=2 if fails_in == "first call" else 8)
    session, runs = started(guider(model), empty_latent("flow"))
    session.advance(runs, float(session.sigmas[2]))
    model.model.diffusion_model.most = 2
    with counted() as calls:
        session.advance(runs)
    check_stock(session, runs, within=1e-5)
    assert session.why_one_by_one == ["the model fails with several candidates in one call (RuntimeError: the mask has 2 rows)"]
    assert session.budget.nfe == len(runs) * STEPS and set(calls.rows_of[1:]) == {1}
    assert started(session.graph.guider, empty_latent("flow"))[0].why_one_by_one == session.why_one_by_one


def test_what_fails_alone_too_raises_its_error_from_the_first():
    session, runs = started(guider(toy_with(PickyNet, never=True)), empty_latent("flow"))
    with pytest.raises(RuntimeError, match="the batch 2") as raised:
        session.advance(runs)
    assert "the batch 8" in str(raised.value.__cause__)
    assert session.why_one_by_one == []


def test_a_cancel_inside_a_shared_call_is_one(monkeypatch):
    session, runs = started(guider(toy_model("eps")), empty_latent("eps"))
    tried = []

    def predict_noise(self, x, *args, **kwargs):
        tried.append(x.shape[0])
        raise mm.InterruptProcessingException

    monkeypatch.setattr(comfy.samplers.CFGGuider, "predict_noise", predict_noise)
    with pytest.raises(mm.InterruptProcessingException):
        session.advance(runs)
    assert tried == [4] and session.why_one_by_one == []


def test_conditioning_that_fails_for_several_candidates(monkeypatch):
    """What a model makes of the conditioning, before any call, may fail on more than one row of noise."""
    model = toy_model("flow")
    extra_conds = type(model.model).extra_conds

    def picky(self, **kwargs):
        if kwargs["noise"].shape[0] > 1:
            raise RuntimeError("one row only")
        return extra_conds(self, **kwargs)

    session, runs = started(guider(model), empty_latent("flow"))
    monkeypatch.setattr(type(model.model), "extra_conds", picky)
    session.advance(runs)
    check_stock(session, runs)
    assert "RuntimeError: one row only" in session.why_one_by_one[0]


def test_conditioning_is_told_apart():
    """A refusal holds for conditioning of the same kind: a text of another length may be what the model takes."""
    model = toy_with(PickyNet)
    session, runs = started(guider(model), empty_latent("flow"))
    session.advance(runs)
    assert session.why_one_by_one
    other = guider(model, positive=cond(model, 1, tokens=7))
    assert started(other, empty_latent("flow"))[0].why_one_by_one == []
