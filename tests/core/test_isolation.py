"""Foreign samplers, each breaking one assumption: every candidate is still the stock run, and nothing leaks."""

from __future__ import annotations

import contextlib
import contextvars
import gc
import random
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.comfy

from inprocess import boot, run_node

boot()

import comfy.samplers
import greenlet
import torch
from sessions import relative, session_for

import toynets
from noise_search.search.lockstep.shared_check import is_check_call
from noise_search.search.noise.recipe import BranchPoint, Recipe
from toys import cond, empty_latent, guider, mask, sigmas_for, stock, toy_model

SEEDS = (5, 11, 42, 8)
EXACT = 1e-5  # relative difference to the stock run; the smallest leak tested here makes more than 1e-3


class Plain:
    """A SAMPLER with nothing but `sample`: Euler steps from an EPS model's noise, and hooks for a test."""

    def __init__(self, call: Callable | None = None, begin: Callable | None = None, after: Callable | None = None):
        self.call, self.begin, self.after = call or self.just_call, begin, after

    @staticmethod
    def just_call(model, x, level, extra_args, i):
        return model(x, level, **extra_args)

    def sample(self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None,
               disable_pbar=False):  # fmt: skip
        x = noise * sigmas[0] + latent_image
        if self.begin is not None:
            self.begin(model_wrap, extra_args)
        for i in range(len(sigmas) - 1):
            level = sigmas[i] * x.new_ones([x.shape[0]])
            denoised = self.call(model_wrap, x, level, extra_args, i)
            x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
            if self.after is not None:
                x = self.after(x, sigmas[i + 1], denoised)
        return x


def ksampler(function: Callable) -> comfy.samplers.KSAMPLER:
    """A foreign sampler function around the k-diffusion protocol: function(model, x, i, sigmas, extra_args)."""

    def sample(model, x, sigmas, extra_args=None, callback=None, disable=None):
        for i in range(len(sigmas) - 1):
            denoised = function(model, x, i, sigmas, extra_args)
            x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
        return x

    return comfy.samplers.KSAMPLER(sample)


def step_noise(x, sigma, denoised):
    return x + 0.3 * sigma * torch.randn_like(x)


def levels(x, sigma):
    return sigma * x.new_ones([x.shape[0]])


@contextlib.contextmanager
def guided_calls() -> Iterator[list[int]]:
    """Latent rows of every call of CFGGuider.predict_noise: also those that skip the wrappers."""
    rows, cls = [], comfy.samplers.CFGGuider
    original = cls.predict_noise

    def predict_noise(self, x, *args, **kwargs):
        if not is_check_call():
            rows.append(x.shape[0])
        return original(self, x, *args, **kwargs)

    cls.predict_noise = predict_noise
    try:
        yield rows
    finally:
        cls.predict_noise = original


def eps_guider():
    return guider(toy_model("eps"))


def check(smp, *, make: Callable[[], Any] = eps_guider, latent=None, shared=True):
    """Lockstep and suspended, pruned and resumed runs equal the stock runs; returns the session's guider.

    In stock, what a sampler writes to its guider stays there: every stock run gets a new one.
    """
    g, latent = make(), empty_latent("eps") if latent is None else latent
    sigmas = sigmas_for(g.model_patcher, steps=6)
    with guided_calls() as alone:
        want = [stock(make(), seed, smp, sigmas, latent) for seed in SEEDS]

    session = session_for(g, smp, sigmas, latent)
    assert session.why_alone == []
    runs = [session.start(Recipe(seed, seed)) for seed in SEEDS]
    before = torch.get_rng_state()
    with guided_calls() as calls:
        session.advance(runs)
    assert torch.equal(torch.get_rng_state(), before)
    for run, expected in zip(runs, want, strict=True):
        assert relative(run.latent, expected) < EXACT
    assert sum(calls) == sum(alone) == session.budget.nfe == sum(run.nfe for run in runs)
    if shared:
        assert len(calls) * len(SEEDS) == len(alone)

    session = session_for(g, smp, sigmas, latent)
    runs = [session.start(Recipe(seed, seed)) for seed in SEEDS]
    session.advance(runs, float(sigmas[2]))
    assert not any(run.finished for run in runs)
    torch.rand(3)  # what a decode or a verifier may do in between
    before = torch.get_rng_state()
    runs[1].close()
    session.advance([runs[0], runs[2]])
    assert torch.equal(torch.get_rng_state(), before)
    assert relative(runs[0].latent, want[0]) < EXACT
    assert relative(runs[2].latent, want[2]) < EXACT
    return g


# Global random numbers


@pytest.mark.parametrize("masked", [False, True], ids=["", "mask"])
def test_step_noise_from_the_global_generator(masked):
    latent = empty_latent("eps")
    if masked:
        latent["noise_mask"] = mask(latent)
    check(Plain(after=step_noise), latent=latent)


@pytest.mark.parametrize("name", ["euler", "heun", "dpm_2"])
def test_s_churn(name):
    churned = comfy.samplers.ksampler(name, {"s_churn": 3.0, "s_noise": 1.01})
    sigmas = sigmas_for(toy_model("eps"), steps=6)
    g, latent = guider(toy_model("eps")), empty_latent("eps")
    plain = stock(g, 5, comfy.samplers.ksampler(name), sigmas, latent)
    assert relative(stock(g, 5, churned, sigmas, latent), plain) > 1e-2
    check(churned)


def test_a_sampler_that_seeds_the_global_generator():
    def begin(model, extra_args):
        torch.manual_seed(extra_args["seed"] + 1)

    check(Plain(begin=begin, after=step_noise))


def test_the_end_of_a_run_leaves_the_global_generator_alone():
    """What a closed sampler does as it unwinds stays its own too."""

    def call(model, x, level, extra_args, i):
        try:
            return model(x, level, **extra_args)
        except greenlet.GreenletExit:
            torch.manual_seed(1)
            raise

    session, runs, sigmas = started(Plain(call))
    session.advance(runs, float(sigmas[2]))
    before = torch.get_rng_state()
    for run in runs:
        run.close()
    assert torch.equal(torch.get_rng_state(), before)


# Callbacks, tensors changed in place


def test_a_sampler_that_never_calls_back():
    check(ksampler(lambda model, x, i, sigmas, extra_args: model(x, levels(x, sigmas[i]), **extra_args)))


@pytest.mark.parametrize("masked", [False, True], ids=["", "mask"])
def test_tensors_changed_in_place(masked):
    """The sampler scribbles on x and on the answer; the suspended run's prediction is the model's all the same."""

    def sample(model, x, sigmas, extra_args=None, callback=None, disable=None):
        for i in range(len(sigmas) - 1):
            denoised = model(x, levels(x, sigmas[i]), **extra_args)
            x.sub_(denoised).mul_(sigmas[i + 1] / sigmas[i]).add_(denoised)
            denoised.fill_(torch.inf)
        return x

    smp, latent = comfy.samplers.KSAMPLER(sample), empty_latent("eps")
    if masked:
        latent["noise_mask"] = mask(latent)
    g = check(smp, latent=latent)
    wanted, got = [], []
    for one, out in ((smp, got), (comfy.samplers.ksampler("euler"), wanted)):
        session = session_for(g, one, sigmas_for(g.model_patcher, steps=6), latent)
        runs = [session.start(Recipe(seed, seed), keep_records=True) for seed in SEEDS]
        session.advance(runs, 1.0)
        out += [run.latent for run in runs] + [run.records[-1].denoised for run in runs]
        out += [run.records[0].x for run in runs]
    for a, b in zip(got, wanted, strict=True):
        assert relative(a, b) < EXACT


# The guider


def test_writes_to_the_guider_are_the_runs_own():
    """Half of the candidates change cfg in the middle of their run: they do not share calls with the others then."""

    def call(model, x, level, extra_args, i):
        if i == 2 and extra_args["seed"] % 2:
            model.cfg = 9.0
            assert model.cfg == 9.0
        return model(x, level, **extra_args)

    assert check(Plain(call), shared=False).cfg == 3.0


def test_writes_through_a_method_of_the_guider():
    def call(model, x, level, extra_args, i):
        model.set_cfg(2.0 + i + extra_args["seed"] % 7)
        return model(x, level, **extra_args)

    assert check(Plain(call), shared=False).cfg == 3.0


def test_new_attributes_on_the_guider_are_gone_afterwards():
    def begin(model, extra_args):
        model.my_sampler_was_here = extra_args["seed"] % 2

    g = check(Plain(begin=begin), shared=False)
    assert not hasattr(g, "my_sampler_was_here")


def test_an_error_in_the_model_leaves_the_guider_as_it_was(monkeypatch):
    def begin(model, extra_args):
        model.cfg, model.added = 9.0, 1

    session, runs, _ = started(Plain(begin=begin))
    g = session.graph.guider

    def predict_noise(self, *args, **kwargs):
        assert self.cfg == 9.0 and self.added == 1
        raise RuntimeError("the model broke")

    monkeypatch.setattr(comfy.samplers.CFGGuider, "predict_noise", predict_noise)
    with pytest.raises(RuntimeError, match="the model broke"):
        session.advance(runs)
    assert g.cfg == 3.0 and not hasattr(g, "added")


@pytest.mark.parametrize("method", ["predict_noise", "outer_predict_noise", "__call__"])
def test_every_way_to_call_the_guider_is_counted_and_shared(method):
    def call(model, x, i, sigmas, extra_args):
        ask = getattr(model.inner_model, method)
        return ask(x, levels(x, sigmas[i]), extra_args["model_options"], extra_args["seed"])

    check(ksampler(call))


def test_a_call_without_model_options_has_none():
    """As in stock: what the graph patched in does not apply to it."""

    def make():
        return guider(run_node("RescaleCFG", model=toy_model("eps"), multiplier=1.0)[0], cfg=6.0)

    patched, bare = Plain(), Plain(lambda model, x, level, extra_args, i: model.predict_noise(x, level))
    sigmas, latent = sigmas_for(toy_model("eps"), steps=6), empty_latent("eps")
    assert relative(stock(make(), 5, bare, sigmas, latent), stock(make(), 5, patched, sigmas, latent)) > 1e-2
    check(bare, make=make)
    check(patched, make=make)


def test_the_stand_in_is_a_cfg_guider():
    seen = []

    def call(model, x, i, sigmas, extra_args):
        inner = model.inner_model
        assert isinstance(inner, comfy.samplers.CFGGuider)
        assert isinstance(inner.inner_model.model_sampling, torch.nn.Module)
        assert inner.model_patcher.get_model_object("latent_format") is inner.inner_model.latent_format
        assert "positive" in inner.conds
        seen.append(inner.cfg)
        return model(x, levels(x, sigmas[i]), **extra_args)

    check(ksampler(call))
    assert set(seen) == {3.0}


def test_a_sampler_that_wraps_the_guiders_method():
    """Its wrapper runs inside the shared call, where the run itself cannot be suspended again."""

    def begin(model, extra_args):
        original, strength = model.predict_noise, 1.0 + extra_args["seed"] % 3

        def predict_noise(x, timestep, model_options=None, seed=None):
            return original(x, timestep, model_options, seed) * strength

        model.predict_noise = predict_noise

    assert "predict_noise" not in vars(check(Plain(begin=begin), shared=False))


def test_a_guider_without_a_negative():
    model = toy_model("eps")
    check(Plain(), make=lambda: run_node("BasicGuider", model=model, conditioning=cond(model, 1))[0])


# Model options


@pytest.fixture
def gain(monkeypatch):
    """Make the toy network read what a sampler writes into transformer_options; returns what it read."""
    seen = []

    def hear(options):
        inner = options.get("mine", {})
        seen.append((inner.get("gain"), tuple(inner.get("steps", ()))))
        return inner.get("gain", 1.0)

    monkeypatch.setattr(toynets.ToyNet, "_forward", toynets.listening(hear))
    return seen


def test_transformer_options_changed_in_place(gain):
    """Nested dictionaries and lists, written to between calls; equal values may share a call, others may not."""

    def call(model, x, level, extra_args, i):
        mine = extra_args["model_options"]["transformer_options"].setdefault("mine", {"steps": []})
        if extra_args["seed"] % 2:
            mine["gain"] = 0.8 + 0.1 * i + 0.01 * (extra_args["seed"] % 5)
        mine["steps"].append(i)
        return model(x, level, **extra_args)

    g = check(Plain(call), shared=False)
    assert {steps for _, steps in gain} == {tuple(range(n)) for n in range(1, 7)}
    assert "mine" not in g.model_options.get("transformer_options", {})
    assert "mine" not in g.model_patcher.model_options.get("transformer_options", {})


def test_options_that_the_graph_nests(gain):
    """The graph's own nested entries are cloned for every run too."""

    def call(model, x, level, extra_args, i):
        mine = extra_args["model_options"]["transformer_options"]["mine"]
        mine["gain"] *= 1.0 + 0.02 * (extra_args["seed"] % 3)
        mine["steps"].append(i)
        return model(x, level, **extra_args)

    def make():
        model = toy_model("eps")
        model.model_options["transformer_options"]["mine"] = {"gain": 1.0, "steps": []}
        return guider(model)

    g = check(Plain(call), make=make, shared=False)
    assert {steps for _, steps in gain} == {tuple(range(n)) for n in range(1, 7)}
    assert g.model_patcher.model_options["transformer_options"]["mine"] == {"gain": 1.0, "steps": []}


def test_a_sampler_may_write_its_own_sample_sigmas(monkeypatch):
    seen = []

    def hear(options):
        seen.append(tuple(options["sample_sigmas"].tolist()))
        return 1.0

    monkeypatch.setattr(toynets.ToyNet, "_forward", toynets.listening(hear))

    def begin(model, extra_args):
        extra_args["model_options"]["transformer_options"]["sample_sigmas"] = torch.tensor([4.0, 2.0])

    check(Plain(begin=begin), shared=False)
    assert set(seen) == {(4.0, 2.0)}


def test_each_run_sees_the_sigmas_of_its_own_segment():
    seen = {}

    def begin(model, extra_args):
        seen[extra_args["seed"]] = extra_args["model_options"]["transformer_options"]["sample_sigmas"].tolist()

    session, runs, sigmas = started(Plain(begin=begin), keep_records=True)
    session.advance(runs, float(sigmas[2]))
    record = runs[0].records[-1]
    twin = session.branch(record, BranchPoint(record.sigma, record.sigma, 1, 77))
    session.advance([*runs, twin])
    assert seen == {**{seed: sigmas.tolist() for seed in SEEDS}, 77: sigmas[2:].tolist()}


def test_a_record_keeps_what_its_key_was_made_of():
    """Else a new object of a twin, at the address of a dead one of its parent, would be taken for the same."""

    class Mark:
        pass

    marks = []

    def begin(model, extra_args):
        model.mark = Mark()
        marks.append(weakref.ref(model.mark))

    session, (run,), sigmas = started(Plain(begin=begin), seeds=(5,), keep_records=True)
    session.advance([run], float(sigmas[2]))
    record = run.records[-1]
    run.close()
    del run
    gc.collect()
    assert marks[0]() is not None
    twin = session.branch(record, BranchPoint(record.sigma, record.sigma, 1, 5))
    session.advance([twin], float(sigmas[2]))
    assert twin.nfe == 1  # computed: its mark is another object
    twin.close()


# Context, gradients


def test_context_variables():
    var = contextvars.ContextVar("var", default="default")
    seen = {}

    def call(model, x, level, extra_args, i):
        seen.setdefault(extra_args["seed"], []).append(var.get())
        if i == 0:
            var.set(f"of {extra_args['seed']}")
        return model(x, level, **extra_args)

    session, runs, sigmas = started(Plain(call))
    token = var.set("caller")
    session.advance(runs, float(sigmas[2]))
    assert var.get() == "caller"
    var.reset(token)
    session.advance(runs)
    assert var.get() == "default"
    assert seen == {seed: ["caller"] + [f"of {seed}"] * 5 for seed in SEEDS}


def test_no_gradients_inside_and_the_callers_mode_outside():
    """Nodes run in inference mode; a caller that does not still gets no graph, and its own mode back."""
    modes = []

    @torch.no_grad()
    def sample(model, x, sigmas, extra_args=None, callback=None, disable=None):
        for i in range(len(sigmas) - 1):
            with torch.enable_grad() if i % 2 else contextlib.nullcontext():
                denoised = model(x, levels(x, sigmas[i]), **extra_args)
            modes.append(torch.is_grad_enabled())
            x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
        return x

    with torch.inference_mode(False), torch.enable_grad():
        session, runs, sigmas = started(comfy.samplers.KSAMPLER(sample))
        runs += [session.start(Recipe(7, 7))]
        session.advance(runs, float(sigmas[3]))
        assert torch.is_grad_enabled()
        runs[0].close()
        assert torch.is_grad_enabled()
        session.advance(runs[1:])
        assert torch.is_grad_enabled()
        assert not any(run.latent.requires_grad for run in runs)
    assert set(modes) == {False}


# Errors and ends


def started(smp, seeds=SEEDS, keep_records=False, **more):
    """A session on an EPS model with one run per seed, not yet advanced."""
    g, latent = guider(toy_model("eps")), empty_latent("eps")
    sigmas = sigmas_for(g.model_patcher, steps=6)
    session = session_for(g, smp, sigmas, latent, **more)
    return session, [session.start(Recipe(seed, seed), keep_records=keep_records) for seed in seeds], sigmas


class Odd(Exception):
    pass


@pytest.mark.parametrize("at", [0, 2, 5])
def test_an_error_in_one_sampler_surfaces_as_itself(at):
    ended = []

    def call(model, x, level, extra_args, i):
        try:
            denoised = model(x, level, **extra_args)
        except greenlet.GreenletExit:
            ended.append(extra_args["seed"])
            raise
        if extra_args["seed"] == 11 and i == at:
            raise Odd("mine")
        return denoised

    session, runs, _ = started(Plain(call))
    with pytest.raises(Odd, match="mine"):
        session.advance(runs)
    assert not runs[1].alive and not runs[1].finished and runs[1].pending is None
    others = [run for run in runs if run.alive]
    for run in others:
        run.close()
    assert sorted(ended) == sorted(run.seed for run in others)
    assert not any(run.alive for run in runs if not run.finished)

    session.advance([again := session.start(Recipe(5, 5))])  # the guider is as good as new
    assert again.finished


def test_the_others_go_on_after_an_error():
    def call(model, x, level, extra_args, i):
        denoised = model(x, level, **extra_args)
        if extra_args["seed"] == 11 and i == 2:
            raise Odd("mine")
        return denoised

    smp = Plain(call)
    session, runs, sigmas = started(smp)
    with pytest.raises(Odd):
        session.advance(runs)
    session.advance([runs[0], runs[2]])
    for run in (runs[0], runs[2]):
        want = stock(session.graph.guider, run.seed, smp, sigmas, empty_latent("eps"))
        assert relative(run.latent, want) < EXACT


def test_closing_unwinds_the_sampler():
    left = []

    def call(model, x, level, extra_args, i):
        try:
            return model(x, level, **extra_args)
        except BaseException as error:
            left.append((extra_args["seed"], type(error)))
            raise
        finally:
            if i == 3:
                left.append(extra_args["seed"])

    session, runs, sigmas = started(Plain(call))
    runs[0].close()  # before its start
    session.advance(runs[1:], float(sigmas[2]))
    assert left == []
    for _ in range(2):  # the second is harmless
        for run in runs:
            run.close()
    assert left == [entry for seed in (11, 42, 8) for entry in ((seed, greenlet.GreenletExit), seed)]
    assert not any(run.alive or run.finished for run in runs)
    nfe = session.budget.nfe
    session.advance(runs)  # closed runs stay closed
    assert session.budget.nfe == nfe and not any(run.finished for run in runs)


def test_closing_a_sampler_that_holds_on():
    """It catches everything and calls the model again: the run ends all the same."""

    def call(model, x, level, extra_args, i):
        for _ in range(3):
            with contextlib.suppress(BaseException):
                return model(x, level, **extra_args)
        gave_up.append(extra_args["seed"])
        raise Odd("gave up")

    gave_up = []

    session, runs, sigmas = started(Plain(call))
    session.advance(runs, float(sigmas[2]))
    nfe = session.budget.nfe
    for run in runs:
        run.close()
        assert not run.alive and run.pending is None
    assert gave_up == list(SEEDS)
    session.advance(runs)
    assert session.budget.nfe == nfe


def test_a_finished_run_may_be_closed():
    session, runs, _ = started(Plain())
    session.advance(runs)
    latents = [run.latent for run in runs]
    for run in runs:
        run.close()
    assert all(run.finished for run in runs)
    assert [run.latent for run in runs] == latents


def test_runs_interleaved_at_random_equal_stock_runs():
    """Any schedule of advancing, in any groups, gives the same candidates."""
    smp, rng = Plain(after=step_noise), random.Random(3)
    session, runs, sigmas = started(smp, seeds=tuple(range(5)))
    open_runs = list(runs)
    while open_runs:
        some = rng.sample(open_runs, rng.randint(1, len(open_runs)))
        session.advance(some, float(sigmas[rng.randint(0, len(sigmas) - 1)]))
        open_runs = [run for run in runs if not run.finished]
    for run in runs:
        want = stock(session.graph.guider, run.seed, smp, sigmas, empty_latent("eps"))
        assert relative(run.latent, want) < EXACT
    assert session.budget.nfe == 5 * (len(sigmas) - 1)
