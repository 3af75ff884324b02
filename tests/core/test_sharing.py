"""Which candidates may share a model call: what is on the table shares and equals stock runs, all else runs alone."""

from __future__ import annotations

import types

import pytest

pytestmark = pytest.mark.comfy

from inprocess import boot, run_node

boot()

import comfy.controlnet
import comfy.hooks
import comfy.model_patcher
import comfy.samplers
import torch
from comfy.patcher_extension import CallbacksMP, WrappersMP
from comfy_api.torch_helpers import set_torch_compile_wrapper
from sessions import check_alone, check_lockstep, relative, session_for

from noise_search.nodes.adapter import batching_policy
from noise_search.search.noise.recipe import Recipe
from toys import (
    cond,
    counted,
    empty_latent,
    guider,
    sampler,
    sigmas_for,
    stock,
    tiny_controlnet,
    tiny_mmdit,
    tiny_unet,
    toy_model,
)


def model_and_latent(kind: str):
    if kind == "unet":
        return tiny_unet(), empty_latent("eps")
    if kind == "mmdit":
        return tiny_mmdit(), empty_latent("mmdit")
    return toy_model(kind), empty_latent(kind)


# A node of core, the model it is put on, its inputs.
ROW_WISE = {
    "RescaleCFG": ("v", {"multiplier": 0.7}),
    "TCFG": ("eps", {}),
    "FreSca": ("eps", {"scale_low": 0.8, "scale_high": 1.5, "freq_cutoff": 2}),
    "Epsilon Scaling": ("eps", {"scaling_factor": 1.1}),
    "PerturbedAttentionGuidance": ("unet", {"scale": 3.0}),
    "SkipLayerGuidanceDiT": ("mmdit", {
        "double_layers": "1", "single_layers": "", "scale": 3.0, "start_percent": 0.0, "end_percent": 0.7,
    }),
    "SkipLayerGuidanceDiTSimple": ("mmdit", {
        "double_layers": "1", "single_layers": "", "start_percent": 0.0, "end_percent": 0.7,
    }),
    "SkipLayerGuidanceSD3": ("mmdit", {"layers": "1", "scale": 3.0, "start_percent": 0.0, "end_percent": 0.7}),
    "FreeU": ("unet", {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2}),
    "FreeU_V2": ("unet", {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2}),
    "CFGZeroStar": ("flow", {}),
    "CFGNorm": ("flow", {"strength": 0.9}),
    "PatchModelAddDownscale": ("unet", {
        "block_number": 1, "downscale_factor": 2.0, "start_percent": 0.0, "end_percent": 0.6,
        "downscale_after_skip": True, "downscale_method": "bicubic", "upscale_method": "bicubic",
    }),
}  # fmt: skip
# These change numbers and weights, not code: no entry of the table.
SETTINGS = {
    "ModelSamplingDiscrete": ("eps", {"sampling": "v_prediction", "zsnr": False}),
    "ModelSamplingDiscrete lcm": ("eps", {"sampling": "lcm", "zsnr": False}),
    "ModelSamplingContinuousEDM": ("eps", {"sampling": "edm_playground_v2.5", "sigma_max": 60.0, "sigma_min": 0.002}),
    "ModelSamplingSD3": ("flow", {"shift": 5.0}),
    "ModelSamplingFlux": ("flow", {"max_shift": 1.15, "base_shift": 0.5, "width": 1024, "height": 512}),
    "UNetSelfAttentionMultiply": ("unet", {"q": 1.2, "k": 1.0, "v": 0.8, "out": 1.0}),
}


@pytest.mark.parametrize("name", ["euler_ancestral", "dpmpp_2m"])
@pytest.mark.parametrize("node", [*ROW_WISE, *SETTINGS])
def test_known_patches_share_calls_and_equal_stock_runs(node, name):
    kind, inputs = {**ROW_WISE, **SETTINGS}[node]
    plain, latent = model_and_latent(kind)
    (model,) = run_node(node.removesuffix(" lcm"), model=plain, **inputs)
    want = check_lockstep(guider(model), name, sigmas_for(model, steps=6), latent)
    without = stock(guider(plain), 5, name, sigmas_for(plain, steps=6), latent)
    assert relative(without, want[0]) > 1e-3  # the node does something


@pytest.mark.parametrize("name", ["euler_ancestral", "dpmpp_2m"])
def test_differential_diffusion_shares_calls(name):
    (model,) = run_node("DifferentialDiffusion", model=toy_model("eps"), strength=0.7)
    latent = {"samples": torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(7))}
    latent["noise_mask"] = torch.linspace(0, 1, 8).expand(1, 1, 8, 8)
    check_lockstep(guider(model), name, sigmas_for(model, steps=6), latent)


@pytest.mark.parametrize("way", ["wrapper", "object patch"])
def test_compiled_models_share_calls_of_few_sizes(way):
    """A compiled model is compiled anew for every batch size: they are powers of two."""
    model = toy_model("eps")
    sigmas, latent, seeds = sigmas_for(model, steps=4), empty_latent("eps"), tuple(range(7))
    if way == "wrapper":
        set_torch_compile_wrapper(model=model, backend="eager")  # what the TorchCompileModel node calls
    else:
        model.add_object_patch("diffusion_model", torch.compile(model.model.diffusion_model, backend="eager"))
    g = guider(model)
    want = [stock(g, seed, "euler_ancestral", sigmas, latent) for seed in seeds]
    session = session_for(g, sampler("euler_ancestral"), sigmas, latent)
    assert session.why_alone == []
    runs = [session.start(Recipe(seed, seed)) for seed in seeds]
    with counted() as calls:
        session.advance(runs)
    assert set(calls.rows_of) == {4, 2, 1}
    for run, expected in zip(runs, want, strict=True):
        assert relative(run.latent, expected) < 1e-4


def test_what_is_compiled_is_seen_wherever_it_is():
    assert not batching_policy.is_compiled(guider(toy_model("eps")))
    part, whole = toy_model("eps"), toy_model("eps")
    part.model.diffusion_model.last = torch.compile(part.model.diffusion_model.last, backend="eager")
    whole.model.diffusion_model.compile(backend="eager")
    (node,) = run_node("TorchCompileModel", model=toy_model("eps"), backend="inductor")
    assert all(batching_policy.is_compiled(guider(model)) for model in (part, whole, node))


def test_core_compile_node_is_known():
    (model,) = run_node("TorchCompileModel", model=toy_model("eps"), backend="inductor")  # compiled when first called
    assert batching_policy.why_alone(guider(model)) == []


ELSEWHERE = {  # tests/core/test_tested_patches.py
    ("comfy_extras/nodes_sag.py", "SelfAttentionGuidance"),
    ("comfy_extras/nodes_custom_sampler.py", "CFGOverride"),
    ("comfy_extras/nodes_hypernetwork.py", "load_hypernetwork_patch"),
    ("comfy_extras/nodes_nag.py", "NAGuidance"),
    ("comfy/context_windows.py", "IndexListContextHandler"),
    ("comfy/context_windows.py", "_prepare_sampling_wrapper"),
}


def test_every_entry_of_the_table_is_one_of_the_tests_above():
    """An entry that none of them reaches has no right to be there."""
    reached = []
    for node, (kind, inputs) in {**ROW_WISE, **SETTINGS}.items():
        reached += run_node(node.removesuffix(" lcm"), model=model_and_latent(kind)[0], **inputs)[:1]
    reached += run_node("DifferentialDiffusion", model=toy_model("eps"), strength=0.7)[:1]
    compiled = toy_model("eps")
    set_torch_compile_wrapper(model=compiled, backend="eager")
    things = [thing for model in reached for thing in batching_policy.callables_in(model.model_options)]
    things += batching_policy.callables_in(compiled.wrappers)
    assert {batching_policy.origin(thing) for thing in things} == batching_policy.CALLABLES - ELSEWHERE


def test_known_guiders_share_calls():
    model, latent = toy_model("eps"), empty_latent("eps")
    sigmas = sigmas_for(model, steps=6)
    conds = [cond(model, seed) for seed in (1, 2, 3)]
    (basic,) = run_node("BasicGuider", model=model, conditioning=conds[0])
    dual = {"model": model, "cond1": conds[0], "cond2": conds[1], "negative": conds[2]}
    (nested,) = run_node("DualCFGGuider", **dual, cfg_conds=4.0, cfg_cond2_negative=2.0, style="nested")
    (regular,) = run_node("DualCFGGuider", **dual, cfg_conds=4.0, cfg_cond2_negative=2.0, style="regular")
    (plain,) = run_node("CFGGuider", model=model, positive=conds[0], negative=conds[1], cfg=7.0)
    guiders = [basic, nested, regular, plain]
    elsewhere = {("comfy_extras/nodes_custom_sampler.py", "Guider_DualModel")}  # tests/core/test_tested_patches.py
    assert {batching_policy.origin(type(g)) for g in guiders} == batching_policy.GUIDERS - elsewhere
    for g in guiders:
        check_lockstep(g, "euler_ancestral", sigmas, latent)
        check_lockstep(g, "euler_cfg_pp", sigmas, latent)


# A node of core that couples rows, remembers, draws or fails on more than one row; inputs; whether it differs
# by more than rounding when calls are shared all the same (else it raises, or differs by chance only).
COUPLING = {
    "APG": ("eps", {"eta": 0.5, "norm_threshold": 5.0, "momentum": -0.5}, False),
    "EasyCache": ("flow", {"reuse_threshold": 0.3, "start_percent": 0.0, "end_percent": 1.0, "verbose": False}, True),
    "LazyCache": ("flow", {"reuse_threshold": 0.3, "start_percent": 0.0, "end_percent": 1.0, "verbose": False}, True),
    "Mahiro": ("eps", {}, True),
    "HyperTile": ("unet", {"tile_size": 1, "swap_size": 3, "max_depth": 0, "scale_depth": False}, True),
    "TomePatchModel": ("unet", {"ratio": 0.5}, True),
    "SkipLayerGuidanceDiT": ("mmdit", {
        "double_layers": "1", "single_layers": "", "scale": 3.0, "start_percent": 0.0, "end_percent": 0.7,
        "rescaling_scale": 0.7,
    }, True),
    "PerpNeg": ("eps", {"empty_conditioning": None, "neg_scale": 1.0}, True),
    "RenormCFG": ("mmdit", {"cfg_trunc": 100.0, "renorm_cfg": 0.9}, None),
    "TemporalScoreRescaling": ("eps", {"tsr_k": 0.9, "tsr_sigma": 1.0}, None),
}  # fmt: skip


@pytest.mark.parametrize("node", COUPLING)
def test_coupling_patches_run_alone(node):
    kind, inputs, differs = COUPLING[node]
    model, latent = model_and_latent(kind)
    if node == "HyperTile":
        latent = empty_latent("eps", size=16)
    if node == "PerpNeg":
        inputs = {**inputs, "empty_conditioning": cond(model, 3)}
    (model,) = run_node(node, model=model, **inputs)
    g, sigmas = guider(model), sigmas_for(model, steps=12 if node.endswith("Cache") else 6)
    named = {"EasyCache": "easycache", "LazyCache": "lazycache"}
    check_alone(g, "euler_ancestral", sigmas, latent, because=named.get(node, node))
    if differs is None:
        with pytest.raises(RuntimeError):
            in_lockstep_all_the_same(g, sigmas, latent)
    elif differs:
        assert in_lockstep_all_the_same(g, sigmas, latent) > 1e-3


def in_lockstep_all_the_same(g, sigmas, latent) -> float:
    """The largest difference from stock runs of candidates that share calls by the user's order."""
    seeds = (5, 11, 42, 7)
    want = [stock(g, seed, "euler_ancestral", sigmas, latent) for seed in seeds]
    session = session_for(g, sampler("euler_ancestral"), sigmas, latent, batching="on")
    runs = [session.start(Recipe(seed, seed)) for seed in seeds]
    session.advance(runs)
    return max(relative(run.latent, expected) for run, expected in zip(runs, want, strict=True))


def test_a_patch_that_remembers_forgets_when_suspended():
    """APG's running average is by row: shared calls are right until a run is suspended beside another's start."""
    (model,) = run_node("APG", model=toy_model("eps"), eta=0.5, norm_threshold=5.0, momentum=-0.5)
    g, sigmas, latent = guider(model), sigmas_for(model, steps=6), empty_latent("eps")
    session = session_for(g, sampler("euler"), sigmas, latent, batching="on")
    runs = [session.start(Recipe(seed, seed)) for seed in (5, 11, 42, 7)]
    session.advance(runs, float(sigmas[2]))
    with pytest.raises(RuntimeError):
        session.advance(runs[:3])  # the average still has four rows


def test_perp_neg_guider_runs_alone():
    model, latent = toy_model("eps"), empty_latent("eps")
    conds = {"positive": cond(model, 1), "negative": cond(model, 2), "empty_conditioning": cond(model, 3)}
    (g,) = run_node("PerpNegGuider", model=model, **conds, cfg=5.0, neg_scale=1.0)
    sigmas = sigmas_for(model, steps=6)
    check_alone(g, "euler_ancestral", sigmas, latent, because="Guider_PerpNeg")
    assert in_lockstep_all_the_same(g, sigmas, latent) > 1e-3


class ForeignGuider(comfy.samplers.CFGGuider):
    def predict_noise(self, x, timestep, model_options=None, seed=None):
        out = super().predict_noise(x, timestep, model_options or {}, seed)
        return out + 0.1 * out.mean()


class ForeignPatcher(comfy.model_patcher.ModelPatcher):
    pass


class ForeignModule(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x) + 0.1 * torch.rand(())


class ForeignHook(comfy.hooks.WeightHook):
    pass


class ForeignControl(comfy.controlnet.ControlNet):
    pass


def foreign_post_cfg(args):
    return args["denoised"] + 0.1 * args["denoised"].mean()


def foreign_wrapper(executor, *args, **kwargs):
    out = executor(*args, **kwargs)
    return out + 0.1 * out.mean()


def foreign_callback(patcher):
    torch.rand(3)


def unknown_guider(model):
    g = ForeignGuider(model)
    g.set_conds(cond(model, 1), cond(model, 2))
    g.set_cfg(3.0)
    return g


def unknown_post_cfg(model):
    model.set_model_sampler_post_cfg_function(foreign_post_cfg)
    return guider(model)


def unknown_option_of_guider(model):
    g = guider(model)
    g.model_options = {**model.model_options, "sampler_post_cfg_function": [foreign_post_cfg]}
    return g


def unknown_wrapper(model):
    model.add_wrapper(WrappersMP.PREDICT_NOISE, foreign_wrapper)
    return guider(model)


def unknown_callback(model):
    model.add_callback(CallbacksMP.ON_PRE_RUN, foreign_callback)
    return guider(model)


def unknown_object_patch(model):
    model.add_object_patch("diffusion_model.last", ForeignModule(model.model.diffusion_model.last))
    return guider(model)


def unknown_compiled_object(model):
    foreign = ForeignModule(model.model.diffusion_model.last)
    model.add_object_patch("diffusion_model.last", torch.compile(foreign, backend="eager"))
    return guider(model)


def unknown_patcher(model):
    return guider(ForeignPatcher(model.model, load_device=model.load_device, offload_device=model.offload_device))


def unknown_method(model):
    net, forward = model.model.diffusion_model, model.model.diffusion_model._forward
    net._forward = types.MethodType(lambda self, *args, **kwargs: forward(*args, **kwargs) + torch.rand(()), net)
    return guider(model)


def unknown_method_of_guider(model):
    g = guider(model)
    inner = g.predict_noise
    g.predict_noise = lambda *args, **kwargs: foreign_wrapper(inner, *args, **kwargs)
    return g


def hooked(model, hook):
    group = comfy.hooks.HookGroup()
    group.add(hook)
    return guider(model, positive=comfy.hooks.set_hooks_for_conditioning(cond(model, 1), group))


def unknown_hook(model):
    hook = ForeignHook()
    hook.weights = {}
    return hooked(model, hook)


def wrapper_hook(model):
    patches = {"wrappers": {WrappersMP.PREDICT_NOISE: {None: [foreign_wrapper]}}}
    return hooked(model, comfy.hooks.TransformerOptionsHook(patches))


def hook_that_decides(model):
    hook = comfy.hooks.WeightHook()
    hook.weights, hook.custom_should_register = {}, lambda *args: False
    return hooked(model, hook)


def memory_in_the_options(model):
    def remembers(args):
        options = args["model_options"]["transformer_options"]
        options["calls so far"] = options.get("calls so far", 0) + 1
        return args["denoised"] * (1.0 + 0.1 * options["calls so far"])

    model.set_model_sampler_post_cfg_function(remembers)
    return guider(model)


FOREIGN = {
    memory_in_the_options: "remembers",
    unknown_guider: "ForeignGuider", unknown_post_cfg: "foreign_post_cfg", unknown_wrapper: "foreign_wrapper",
    unknown_option_of_guider: "foreign_post_cfg", unknown_callback: "foreign_callback",
    unknown_object_patch: "diffusion_model.last", unknown_compiled_object: "diffusion_model.last",
    unknown_patcher: "ForeignPatcher", unknown_method: "ToyNet._forward",
    unknown_method_of_guider: "guider.predict_noise", unknown_hook: "ForeignHook",
    wrapper_hook: "TransformerOptionsHook", hook_that_decides: "WeightHook",
}  # fmt: skip


@pytest.mark.parametrize("make", FOREIGN, ids=lambda make: make.__name__)
def test_foreign_things_run_alone(make):
    model, latent = toy_model("eps"), empty_latent("eps")
    sigmas = sigmas_for(model, steps=6)
    check_alone(make(model), "euler_ancestral", sigmas, latent, because=FOREIGN[make])


def test_foreign_control_runs_alone():
    model, latent = tiny_unet(), empty_latent("eps")
    image = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(1))
    positive, negative = run_node(
        "ControlNetApplyAdvanced", positive=cond(model, 1), negative=cond(model, 2), image=image,
        control_net=tiny_controlnet(), strength=1.0, start_percent=0.0, end_percent=1.0,
    )  # fmt: skip
    positive[0][1]["control"].__class__ = ForeignControl
    g = guider(model, positive=positive, negative=negative)
    check_alone(g, "euler_ancestral", sigmas_for(model, steps=4), latent, because="ForeignControl")


def test_gligen_runs_alone():
    """No test holds a GLIGEN model: it is not on the table."""
    model = toy_model("eps")
    positive = cond(model, 1)
    positive[0][1]["gligen"] = ("position", None, [])
    assert any("GLIGEN" in reason for reason in batching_policy.why_alone(guider(model, positive=positive)))


@pytest.mark.parametrize("batching", ["off", "on"])
def test_batching_overrides(batching):
    known, unknown = guider(toy_model("eps")), unknown_post_cfg(toy_model("eps"))
    sigmas, latent = sigmas_for(known.model_patcher, steps=4), empty_latent("eps")
    for g in (known, unknown):
        session = session_for(g, sampler("euler"), sigmas, latent, batching=batching)
        runs = [session.start(Recipe(seed, seed)) for seed in (5, 11)]
        with counted() as calls:
            session.advance(runs)
        assert set(calls.rows_of) == ({1} if batching == "off" else {2})


class SelfWilled:
    """A foreign SAMPLER whose runs differ in something that a call depends on, by seed."""

    def __init__(self, act):
        self.act = act

    def sample(self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None,
               disable_pbar=False):  # fmt: skip
        options, seed = extra_args["model_options"], extra_args["seed"]
        x = model_wrap.inner_model.model_sampling.noise_scaling(sigmas[0], noise, latent_image, True)
        self.act(model_wrap, options, seed)
        for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
            denoised = model_wrap(x, sigma.expand(x.shape[0]), model_options=options, seed=seed)
            x = denoised + (x - denoised) * following / sigma
        return x


def write_cfg(guider, options, seed):
    guider.cfg = 1.0 + 3.0 * (seed % 2)


def write_option(guider, options, seed):
    options["sampler_cfg_function"] = HALVES[seed % 2]


def write_nested_option(guider, options, seed):
    options["transformer_options"]["patches_replace"] = {"own": HALVES[seed % 2]}


HALVES = (lambda args: args["cond"] * 0.5, lambda args: args["cond"])


@pytest.mark.parametrize("act", [write_cfg, write_option, write_nested_option], ids=lambda act: act.__name__)
def test_runs_that_differ_do_not_share(act):
    """Seeds 4 and 6 agree, and so do 5 and 7: two calls for each step, as they would be alone."""
    model, latent, seeds = toy_model("eps"), empty_latent("eps"), (4, 5, 6, 7)
    sigmas = sigmas_for(model, steps=4)
    want = [stock(guider(model), seed, SelfWilled(act), sigmas, latent) for seed in seeds]
    session = session_for(guider(model), SelfWilled(act), sigmas, latent)
    runs = [session.start(Recipe(seed, seed)) for seed in seeds]
    with counted() as calls:
        session.advance(runs)
    assert calls.rows_of == [2] * 8
    for run, expected in zip(runs, want, strict=True):
        assert relative(run.latent, expected) < 1e-4
    assert session.graph.guider.cfg == 3.0  # what a sampler writes stays its own


def test_writes_to_the_guider_matter():
    """The test above is worth something: these samplers' seeds give other images by what they write."""
    model, latent, sigmas = toy_model("eps"), empty_latent("eps"), sigmas_for(toy_model("eps"), steps=4)
    plain = stock(guider(model), 4, SelfWilled(lambda *args: None), sigmas, latent)
    for act in (write_cfg, write_option):
        assert relative(stock(guider(model), 4, SelfWilled(act), sigmas, latent), plain) > 1e-2


def test_different_sigmas_do_not_share(monkeypatch):
    """Runs of dpm_adaptive choose their own sigmas: a call has one, and groups are answered in falling order."""
    model, latent, seeds = toy_model("eps"), empty_latent("eps"), (5, 11, 42, 7)
    g, sigmas = guider(model), sigmas_for(model, steps=6)
    session = session_for(g, sampler("dpm_adaptive"), sigmas, latent, max_rows=4)
    seen, inner = [], comfy.samplers.CFGGuider.predict_noise

    def predict_noise(self, x, timestep, *args, **kwargs):
        seen.append((x.shape[0], timestep.unique().tolist()))
        return inner(self, x, timestep, *args, **kwargs)

    monkeypatch.setattr(comfy.samplers.CFGGuider, "predict_noise", predict_noise)
    runs = [session.start(Recipe(seed, seed)) for seed in seeds]
    session.advance(runs)
    assert all(len(levels) == 1 for rows, levels in seen)
    assert {rows for rows, _ in seen} >= {4, 1}  # together at first, then each its own way


def test_runs_of_different_segments_do_not_share():
    """Patches read `sample_sigmas`, the noise levels of the whole run: they are every run's own."""
    model, latent, seen = toy_model("eps"), empty_latent("eps"), []

    def reads_sample_sigmas(args):
        levels = args["model_options"]["transformer_options"]["sample_sigmas"]
        seen.append((args["denoised"].shape[0], len(levels)))
        return args["denoised"] * (1.0 + 0.1 * len(levels))

    model.set_model_sampler_post_cfg_function(reads_sample_sigmas)
    g, sigmas = guider(model), sigmas_for(model, steps=4)
    halves = (sigmas, sigmas[::2])
    want = [stock(g, 5, "euler", s, latent) for s in halves for _ in range(2)]
    del seen[:]
    session = session_for(g, sampler("euler"), sigmas, latent, batching="on")
    other = session_for(g, sampler("euler"), sigmas[::2], latent, batching="on")
    runs = [owner.start(Recipe(5, 5)) for owner in (session, session, other, other)]
    session.advance(runs)
    assert sorted(seen) == [(2, 3)] * 2 + [(2, 5)] * 4
    for run, expected in zip(runs, want, strict=True):
        assert relative(run.latent, expected) < 1e-4
