"""Entries of the table that were hard to get right: each against stock runs at every noise level, and what limits it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.comfy

from inprocess import boot, has_node, run_node

boot()

import comfy.hooks
import folder_paths
import torch
from sessions import check_alone, check_every_level, relative, session_for

from noise_search.nodes.adapter import batching_policy, memory, tested_patches
from noise_search.search.noise.recipe import GIVEN, Recipe
from toys import cond, counted, empty_latent, guider, sampler, sigmas_for, stock, tiny_mmdit, tiny_unet, toy_model

NAMES = ("euler_ancestral", "dpm_2")  # one call a step; two, of which one lies between the user's noise levels
STEPS = 4


def levels(model):
    return sigmas_for(model, steps=STEPS)


def does_something(g, plain, latent, name="euler_ancestral"):
    sigmas = levels(g.model_patcher)
    assert relative(stock(g, 5, name, sigmas, latent), stock(plain, 5, name, sigmas, latent)) > 1e-3


# Self-attention guidance.


def with_sag(model, **more):
    (patched,) = run_node("SelfAttentionGuidance", model=model, scale=0.5, blur_sigma=2.0)
    return guider(patched, **more)


@pytest.mark.parametrize("name", NAMES)
def test_self_attention_guidance(name):
    model, latent = tiny_unet(), empty_latent("eps", size=16)
    check_every_level(with_sag(model), name, levels(model), latent)
    does_something(with_sag(model), guider(model), latent)


def test_self_attention_guidance_remembers_where_a_prompt_has_a_time_range():
    """Where the negative prompt takes no part it takes the attention of an earlier call: of however many rows that had."""
    model, latent = tiny_unet(), empty_latent("eps", size=16)
    (early,) = run_node("ConditioningSetTimestepRange", conditioning=cond(model, 2), start=0.0, end=0.5)
    g, sigmas = with_sag(model, negative=early), levels(model)
    check_alone(g, "euler", sigmas, latent, because="time ranges")
    session = session_for(g, sampler("euler"), sigmas, latent, batching="on")
    runs = [session.start(Recipe(seed, seed)) for seed in (5, 11, 42, 7)]
    session.advance(runs, float(sigmas[1]))
    session.advance([session.start(Recipe(3, 3))])
    with pytest.raises(RuntimeError):  # one row's attention for four
        session.advance(runs)


# Hypernetworks.


def hypernetwork(model, tmp_path, **settings):
    width, generator = 32, torch.Generator().manual_seed(3)
    layer = {"0.weight": (2 * width, width), "0.bias": (2 * width,), "1.weight": (width, 2 * width), "1.bias": (width,)}
    make = lambda: {key: 0.2 * torch.randn(shape, generator=generator) for key, shape in layer.items()}  # noqa: E731
    file = f"{tmp_path.name}.pt"
    torch.save({width: [make(), make()], "activation_func": "relu", **settings}, tmp_path / file)
    folder_paths.add_model_folder_path("hypernetworks", str(tmp_path))
    (patched,) = run_node("HypernetworkLoader", model=model, hypernetwork_name=file, strength=0.8)
    return guider(patched)


@pytest.mark.parametrize("name", NAMES)
def test_hypernetworks(name, tmp_path):
    model, latent = tiny_unet(), empty_latent("eps")
    g = hypernetwork(model, tmp_path)
    check_every_level(g, name, levels(model), latent)
    does_something(g, guider(model), latent)


def test_hypernetworks_with_dropout_draw_random_numbers(tmp_path):
    model, latent = tiny_unet(), empty_latent("eps")
    g = hypernetwork(model, tmp_path, use_dropout=True, last_layer_dropout=True)
    assert any("(dropout)" in why for why in batching_policy.why_alone(g))
    sigmas = levels(model)
    check_alone(g, "euler", sigmas, latent, because="dropout")


# Context windows.


def windowed(schedule="standard_static", model=None, **more):
    model = model or toy_model("flow5d")
    if NEW_WINDOWS:
        more = {"freenoise": False, **more}
    (patched,) = run_node(
        "ContextWindowsManual", model=model, context_length=4, context_overlap=1, context_stride=1, closed_loop=False,
        fuse_method="pyramid", context_schedule=schedule, **{"dim": 2, **more},
    )  # fmt: skip
    return guider(patched)


NEW_WINDOWS = has_node("LTXVContextWindows")  # of the newer core: FreeNoise, and calls between the user's noise levels
VIDEO = {"samples": torch.zeros(1, 16, 9, 8, 8)}


@pytest.mark.parametrize("name", NAMES if NEW_WINDOWS else NAMES[:1])
@pytest.mark.parametrize("schedule", ["standard_static", "batched"])
def test_context_windows_go_one_a_call(schedule, name):
    model = toy_model("flow5d")
    g = windowed(schedule, model)
    check_every_level(g, name, levels(model), VIDEO, one_a_call="IndexListContextHandler")
    does_something(g, guider(model), VIDEO)


def test_context_windows_fail_on_more_than_one_row():
    g = windowed()
    session = session_for(g, sampler("euler"), levels(g.model_patcher), VIDEO, batching="on")
    session.advance([session.start(Recipe(seed, seed)) for seed in (5, 11)])
    assert any("Error" in why for why in session.why_one_by_one), session.why_one_by_one


@pytest.mark.skipif(not NEW_WINDOWS, reason="this core's context windows refuse samplers with calls between the noise levels")
def test_uniform_context_windows_remember_the_step():
    """A call between the user's noise levels has the windows of the last one at such a level, whosever that was."""
    g, seeds = windowed("standard_uniform"), (5, 11)
    sigmas = sigmas_for(g.model_patcher, steps=6)
    check_alone(g, "dpm_2", sigmas, VIDEO, because="step of an earlier call")
    session = session_for(g, sampler("dpm_2"), sigmas, VIDEO, batching="on", max_rows=1)
    runs = [session.start(Recipe(seed, seed)) for seed in seeds]
    session.advance(runs, float(sigmas[4]))
    session.advance(runs[1:])
    session.advance(runs[:1])
    assert relative(runs[0].latent, stock(g, 5, "dpm_2", sigmas, VIDEO)) > 1e-3


@pytest.mark.parametrize("dim", [0, 2])
def test_context_windows_of_the_batch_run_alone(dim):
    assert any("windows are of the batch" in why for why in batching_policy.why_alone(windowed(dim=dim))) == (dim == 0)


@pytest.mark.skipif(not NEW_WINDOWS, reason="this core has no FreeNoise")
def test_free_noise_runs_alone_and_leaves_the_users_noise_as_it_is():
    g = windowed(freenoise=True)
    sigmas = levels(g.model_patcher)
    check_alone(g, "euler_ancestral", sigmas, VIDEO, because="FreeNoise")
    session = session_for(g, sampler("euler"), sigmas, VIDEO)
    before = session.graph.given.clone()
    session.advance([session.start(Recipe(GIVEN, 0))])
    assert torch.equal(session.graph.given, before)


def foreign_noise_wrapper(executor, guider, sigmas, extra_args, callback, noise, *args, **kwargs):
    """Hands the sampler other noise than it was given, and other noise levels."""
    return executor(guider, sigmas * 0.9, extra_args, callback, noise.flip(-1) * 1.1, *args, **kwargs)


def test_what_is_handed_to_the_sampler_counts_where_candidates_run_alone():
    model, latent = toy_model("eps"), empty_latent("eps")
    model.add_wrapper("sampler_sample", foreign_noise_wrapper)
    check_alone(guider(model), "euler_ancestral", levels(model), latent, because="foreign_noise_wrapper")


def test_the_tables_say_something_of_entries_only():
    """What else of the table is reached by the makers of this file."""
    made = [with_sag(tiny_unet()), windowed()]
    if has_node("NAGuidance"):
        made.append(guider(run_node("NAGuidance", model=tiny_unet(), nag_scale=5.0, nag_alpha=0.5, nag_tau=1.5)[0]))
    patched = [[g.model_patcher.model_options, g.model_patcher.wrappers] for g in made]
    things = [thing for options in patched for thing in batching_policy.callables_in(options)]
    assert {batching_policy.origin(thing) for thing in things} <= tested_patches.CALLABLES
    assert set(tested_patches.ONE_A_CALL) | set(tested_patches.LIMITED) <= tested_patches.CALLABLES


# Two models, guidance by the noise level, normalized attention guidance: of the newer core.


@pytest.mark.skipif(not has_node("DualModelGuider"), reason="this core has no DualModelGuider")
class TestDualModelGuider:
    @staticmethod
    def made(cfg=4.0, other=None, negative=None):
        model, second = toy_model("eps"), other or toy_model("eps")
        with torch.no_grad():
            for parameter in second.model.diffusion_model.parameters():
                parameter.mul_(0.8)
        inputs = {"positive": cond(model, 1), "negative": negative or cond(model, 2), "cfg": cfg}
        (g,) = run_node("DualModelGuider", model=model, model_negative=second, **inputs)
        return g

    @pytest.mark.parametrize("cfg", [4.0, 1.0])
    @pytest.mark.parametrize("name", NAMES)
    def test_shares_calls(self, name, cfg):
        g, latent = self.made(cfg), empty_latent("eps")
        check_every_level(g, name, levels(g.model_patcher), latent)
        if cfg != 1.0:
            does_something(g, guider(g.model_patcher, cfg=cfg), latent)

    def test_what_is_on_the_second_model_counts(self):
        second = toy_model("eps")
        second.set_model_sampler_post_cfg_function(lambda args: args["denoised"] + args["denoised"].mean())
        g = self.made(other=second)
        assert any("test_tested_patches.py" in why for why in batching_policy.why_alone(g))
        second = toy_model("eps")
        inner = second.model.diffusion_model._forward
        second.model.diffusion_model._forward = lambda *args, **kwargs: inner(*args, **kwargs)
        assert any("_forward" in why for why in batching_policy.why_alone(self.made(other=second)))

    def test_hooks_are_not_tested(self):
        group = comfy.hooks.HookGroup()
        group.add(hook := comfy.hooks.WeightHook())
        hook.weights = {}
        g = self.made(negative=comfy.hooks.set_hooks_for_conditioning(cond(toy_model("eps"), 2), group))
        assert any("two models" in why for why in batching_policy.why_alone(g))

    def test_both_models_need_memory(self, monkeypatch):
        g = self.made()
        sizes = [patcher.model_size() for patcher in batching_policy.patchers_of(g)]
        monkeypatch.setattr(memory.mm, "is_device_cpu", lambda device: False)
        monkeypatch.setattr(memory.mm, "extra_reserved_memory", lambda: 0)
        for patcher in batching_policy.patchers_of(g):
            monkeypatch.setattr(patcher.model, "memory_required", lambda shape, cond_shapes: 1000.0 * shape[0])
        monkeypatch.setattr(memory.mm, "current_loaded_models", [])
        for extra, rows in ((16_001.0, 8), (15_999.0, 4)):
            monkeypatch.setattr(memory.mm, "get_free_memory", lambda device, extra=extra: (sum(sizes) + extra) / memory.HEADROOM)
            assert memory.Room(g, sampler("euler"), (1, 4, 8, 8), 0).rows() == rows


@pytest.mark.skipif(not has_node("CFGOverride"), reason="this core has no CFGOverride")
@pytest.mark.parametrize("name", NAMES)
def test_cfg_override(name):
    model, latent = toy_model("eps"), empty_latent("eps")
    (patched,) = run_node("CFGOverride", model=model, cfg=1.0, start_percent=0.3, end_percent=0.7)
    (patched,) = run_node("CFGOverride", model=patched, cfg=9.0, start_percent=0.6, end_percent=1.0)
    check_every_level(guider(patched), name, levels(model), latent)
    does_something(guider(patched), guider(model), latent)


@pytest.mark.skipif(not has_node("NAGuidance"), reason="this core has no NAGuidance")
@pytest.mark.parametrize("name", NAMES)
def test_normalized_attention_guidance_goes_one_a_call(name):
    model, latent = tiny_unet(), empty_latent("eps")
    (patched,) = run_node("NAGuidance", model=model, nag_scale=5.0, nag_alpha=0.5, nag_tau=1.5)
    check_every_level(guider(patched), name, levels(model), latent, one_a_call="NAGuidance")
    does_something(guider(patched), guider(model), latent)


@pytest.mark.skipif(not has_node("NAGuidance"), reason="this core has no NAGuidance")
def test_normalized_attention_guidance_is_lost_where_both_prompts_do_not_fit_into_a_call(monkeypatch):
    """As many rows as a shared call has may have to go through the model prompt by prompt: it then does nothing."""
    model, latent, seeds = tiny_unet(), empty_latent("eps"), (5, 11, 42, 7)
    (patched,) = run_node("NAGuidance", model=model, nag_scale=5.0, nag_alpha=0.5, nag_tau=1.5)
    g, sigmas = guider(patched), levels(model)
    want = [stock(g, seed, "euler", sigmas, latent) for seed in seeds]
    room = model.model.memory_required([4, 4, 8, 8]) * 1.5 + 1
    monkeypatch.setattr(type(patched), "get_free_memory", lambda self, device: room, raising=True)
    for batching, least in (("on", 1e-3), ("auto", 0.0)):
        session = session_for(g, sampler("euler"), sigmas, latent, batching=batching)
        runs = [session.start(Recipe(seed, seed)) for seed in seeds]
        session.advance(runs)
        off = max(relative(run.latent, expected) for run, expected in zip(runs, want, strict=True))
        assert off > least if least else off < 1e-4


# ComfyUI-GGUF.


def pack():
    """Load the stand-in as ComfyUI loads packs; return its module of nodes."""
    folder = Path(__file__).resolve().parent.parent / "packs" / "ComfyUI-GGUF"
    name = str(folder).replace(".", "_x_")
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, folder / "__init__.py", submodule_search_locations=[str(folder)])
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return importlib.import_module(f"{name}.nodes")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lora", [False, True], ids=["", "lora"])
def test_gguf_models_share_calls(lora, name):
    model, latent = pack().quantize(tiny_mmdit()), empty_latent("mmdit")
    if lora:
        key = "diffusion_model.joint_blocks.0.x_block.attn.qkv.weight"
        weight = torch.randn(576, 192, generator=torch.Generator().manual_seed(3)) * 0.05
        model = model.clone()
        assert model.add_patches({key: ("diff", (weight,))}) == [key]
    assert type(model).__name__ == "GGUFModelPatcher"
    with counted() as calls:
        check_every_level(guider(model), name, levels(model), latent)
    assert calls.calls > 0
    does_something(guider(model), guider(tiny_mmdit()), latent)


@pytest.mark.parametrize("folder", ["ComfyUI-GGUF", "comfyui-gguf", "ComfyUI-GGUF-main", "other-pack"])
def test_packs_are_told_by_their_folder(folder, tmp_path):
    (tmp_path / folder).mkdir()
    code = "import comfy.model_patcher\nclass GGUFModelPatcher(comfy.model_patcher.ModelPatcher):\n    pass\n"
    (tmp_path / folder / "nodes.py").write_text(code)
    spec = importlib.util.spec_from_file_location(f"told_by_{folder}", tmp_path / folder / "nodes.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = toy_model("eps")
    made = module.GGUFModelPatcher(model.model, load_device=model.load_device, offload_device=model.offload_device)
    assert bool(batching_policy.why_alone(guider(made))) == (folder == "other-pack")
