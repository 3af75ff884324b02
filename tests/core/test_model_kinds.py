"""Kinds of models, latents, masks, sigmas and conditioning: in all of them a candidate equals its stock run."""

from __future__ import annotations

import inspect

import pytest

pytestmark = pytest.mark.comfy

from inprocess import boot, run_node

boot()

import comfy.hooks
import comfy.samplers
import comfy.utils
import torch
from comfy.nested_tensor import NestedTensor
from sessions import check_alone, check_lockstep, relative, samples_of, session_for

from noise_search.nodes.adapter import session as session_module
from noise_search.search.noise.recipe import Recipe
from toys import (
    FRAMES,
    cond,
    counted,
    empty_latent,
    guider,
    mask,
    sampler,
    sigmas_for,
    stock,
    tiny_controlnet,
    tiny_mmdit,
    tiny_unet,
    toy_model,
)

NAMES = ("euler_ancestral", "dpmpp_2m")


def model_of(kind: str):
    return {"unet": tiny_unet, "mmdit": tiny_mmdit}.get(kind, lambda: toy_model(kind))()


def latent_of(kind: str) -> dict:
    return empty_latent({"unet": "eps", "mmdit": "mmdit"}.get(kind, kind))


def picture(model, kind: str, seed: int = 7) -> dict:
    """A latent that is not empty, with the channels of the model."""
    generator = torch.Generator().manual_seed(seed)
    samples = latent_of(kind)["samples"]
    if samples.is_nested:
        return {"samples": NestedTensor([torch.randn(part.shape, generator=generator) for part in samples.unbind()])}
    shape = (samples.shape[0], model.model.latent_format.latent_channels, *samples.shape[2:])
    return {"samples": torch.randn(shape, generator=generator)}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("masked", [False, True], ids=["", "mask"])
@pytest.mark.parametrize("kind", ["v", "flow", "flow5d", "unet", "mmdit"])
def test_kinds_in_lockstep(kind, masked, name):
    """The empty latent of "flow" has 4 channels, the model 16: it is repaired before noise is drawn."""
    model = model_of(kind)
    latent = picture(model, kind) if masked else latent_of(kind)
    if masked:
        latent["noise_mask"] = mask(latent)
    want = check_lockstep(guider(model), name, sigmas_for(model, steps=6), latent)
    if kind == "flow":
        assert want[0].shape[1] == 16


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("masked", [False, True], ids=["", "mask"])
def test_nested_latents_in_lockstep(masked, name):
    """Packed by the guider; results are nested again, halfway too. (The toy's class is not core's: alone by rule.)"""
    model = toy_model("nested")
    latent = picture(model, "nested") if masked else latent_of("nested")
    if masked:
        latent["noise_mask"] = mask_of_nested(latent)
    g, sigmas = guider(model), sigmas_for(model, steps=6)
    check_alone(g, name, sigmas, latent, because="AVModel")
    check_lockstep(g, name, sigmas, latent, batching="on")

    session = session_for(g, sampler(name), sigmas, latent, batching="on")
    runs = [session.start(Recipe(seed, seed)) for seed in (5, 11)]
    session.advance(runs, float(sigmas[2]))
    parts = [part.shape for part in latent["samples"].unbind()]
    assert [part.shape for part in runs[1].latent.unbind()] == parts


NESTED_MASKS = "denoise_mask.is_nested" in inspect.getsource(comfy.samplers.CFGGuider.sample)


def mask_of_nested(latent: dict):
    """A mask as this core takes it: one for each part or, on older cores, one along the packed latent."""
    parts = [torch.ones(part.shape) for part in latent["samples"].unbind()]
    parts[0][..., : parts[0].shape[-1] // 2] = 0.0
    return NestedTensor(parts) if NESTED_MASKS else comfy.utils.pack_latents(parts)[0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "kind, because",
    [("frames", "frames of one video"), ("seed_eater", "draws from the seed"), ("x4_upscaler", "draws from the seed")],
)
def test_kinds_that_run_alone(kind, because, name):
    model = toy_model(kind)
    g, sigmas, latent = guider(model), sigmas_for(model, steps=5), latent_of(kind)
    check_alone(g, name, sigmas, latent, because=because)
    if kind == "frames":
        session = session_for(g, sampler(name), sigmas, latent)
        run = session.start(Recipe(5, 5))
        session.advance([run])
        assert run.latent.shape[0] == FRAMES == run.nfe / 5


def test_frames_need_a_candidate_of_their_own():
    """Order to share calls, and the frames of a video still are not mixed with another's."""
    model = toy_model("frames")
    g, sigmas, latent = guider(model), sigmas_for(model, steps=4), latent_of("frames")
    session = session_for(g, sampler("euler"), sigmas, latent, batching="on")
    runs = [session.start(Recipe(seed, seed)) for seed in (5, 11)]
    session.advance(runs)
    for run, seed in zip(runs, (5, 11), strict=True):
        assert relative(run.latent, stock(g, seed, "euler", sigmas, latent)) < 1e-4


def test_conditioning_that_draws_from_the_seed_cannot_be_shared():
    model = toy_model("seed_eater")
    g, sigmas, latent = guider(model), sigmas_for(model, steps=4), latent_of("seed_eater")
    session = session_for(g, sampler("euler"), sigmas, latent, batching="on")
    runs = [session.start(Recipe(seed, seed)) for seed in (5, 11)]
    session.advance(runs)
    assert relative(runs[1].latent, stock(g, 11, "euler", sigmas, latent)) > 1e-3


SIGMAS = {
    "img2img": lambda model: sigmas_for(model, steps=6, denoise=0.6),
    "first stage": lambda model: run_node("SplitSigmas", sigmas=sigmas_for(model, steps=8), step=5)[0],
    "last stage": lambda model: run_node("SplitSigmas", sigmas=sigmas_for(model, steps=8), step=3)[1],
    "middle stage": lambda model: sigmas_for(model, steps=10)[3:8],
}


@pytest.mark.parametrize("masked", [False, True], ids=["", "mask"])
@pytest.mark.parametrize("which", SIGMAS)
@pytest.mark.parametrize("kind", ["eps", "flow"])
def test_parts_of_the_sigmas(kind, which, masked):
    """img2img, sigmas that begin below the model's largest, and such that do not end in 0: leftover noise."""
    model = toy_model(kind)
    latent = picture(model, kind)
    if masked:
        latent["noise_mask"] = mask(latent)
    for name in NAMES:
        check_lockstep(guider(model), name, SIGMAS[which](model), latent)


@pytest.mark.parametrize("kind", ["eps", "flow", "flow5d"])
@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (1, 8, 8), (8, 8), (1, 1, 13, 20), (1, 64, 64)], ids=str)
def test_shapes_of_masks(shape, kind):
    model = toy_model(kind)
    latent = picture(model, kind)
    latent["noise_mask"] = torch.linspace(0, 1, shape[-1]).expand(shape).clone()
    check_lockstep(guider(model), "euler_ancestral", sigmas_for(model, steps=6), latent)


@pytest.mark.parametrize("cfg", [1.0, 7.0])
@pytest.mark.parametrize("name", NAMES)
def test_cfg(cfg, name):
    model = toy_model("eps")
    check_lockstep(guider(model, cfg=cfg), name, sigmas_for(model, steps=6), latent_of("eps"))


def areas(model):
    (left,) = run_node("ConditioningSetArea", conditioning=cond(model, 1), width=64, height=64, x=64, y=0, strength=0.8)
    (both,) = run_node("ConditioningCombine", conditioning_1=left, conditioning_2=cond(model, 3))
    return both, None


def masks(model):
    region = torch.zeros(1, 128, 128)
    region[:, :, :64] = 1.0
    (left,) = run_node("ConditioningSetMask", conditioning=cond(model, 1), mask=region, strength=0.9, set_cond_area="mask bounds")
    (right,) = run_node(
        "ConditioningSetMask", conditioning=cond(model, 3), mask=1 - region, strength=1.0, set_cond_area="default"
    )
    return run_node("ConditioningCombine", conditioning_1=left, conditioning_2=right)[0], None


def ranges(model):
    (early,) = run_node("ConditioningSetTimestepRange", conditioning=cond(model, 1), start=0.0, end=0.4)
    (late,) = run_node("ConditioningSetTimestepRange", conditioning=cond(model, 3, tokens=7), start=0.4, end=1.0)
    return run_node("ConditioningCombine", conditioning_1=early, conditioning_2=late)[0], None


def controlled(model, start=0.2, end=0.7):
    hint = torch.rand(1, 128, 128, 3, generator=torch.Generator().manual_seed(1))
    return run_node(
        "ControlNetApplyAdvanced", positive=cond(model, 1), negative=cond(model, 2), control_net=tiny_controlnet(),
        image=hint, strength=0.9, start_percent=start, end_percent=end,
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make", [areas, masks, ranges, controlled], ids=lambda make: make.__name__)
def test_conditioning(make, name):
    model = tiny_unet() if make is controlled else toy_model("eps")
    positive, negative = make(model)
    g = guider(model, positive=positive, negative=negative)
    latent, sigmas = empty_latent("eps", size=16), sigmas_for(model, steps=6)
    want = check_lockstep(g, name, sigmas, latent)
    assert relative(stock(guider(model), 5, name, sigmas, latent), want[0]) > 1e-3  # it does something


def test_chained_controlnets():
    model = tiny_unet()
    positive, negative = controlled(model, 0.0, 0.5)
    positive, negative = run_node(
        "ControlNetApplyAdvanced", positive=positive, negative=negative, control_net=tiny_controlnet(),
        image=torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(2)), strength=0.5,
        start_percent=0.3, end_percent=1.0,
    )  # fmt: skip
    g = guider(model, positive=positive, negative=negative)
    check_lockstep(g, "euler_ancestral", sigmas_for(model, steps=6), empty_latent("eps", size=16))


def hooked_guider(model, guarantee: int = 1):
    """A LoRA of strong changes that is on at first, then off, then reversed."""
    generator = torch.Generator().manual_seed(3)
    weight = model.model.diffusion_model.first.weight
    lora = {"diffusion_model.first.diff": torch.randn(weight.shape, generator=generator) * weight.std()}
    keyframes = None
    for strength, start in ((1.0, 0.0), (0.0, 0.3), (-1.0, 0.6)):
        (keyframes,) = run_node("CreateHookKeyframe", strength_mult=strength, start_percent=start, prev_hook_kf=keyframes)
    for keyframe in keyframes.keyframes:
        keyframe.guarantee_steps = guarantee
    (hooks,) = run_node("SetHookKeyframes", hooks=comfy.hooks.create_hook_lora(lora, 1.0, 0.0), hook_kf=keyframes)
    return guider(model, positive=comfy.hooks.set_hooks_for_conditioning(cond(model, 1), hooks))


@pytest.mark.parametrize("guarantee", [1, 2])
@pytest.mark.parametrize("name", [*NAMES, "heun"])
def test_hooks_with_keyframes(name, guarantee):
    """Keyframes only move forward, and those that guarantee steps count them: a resumed run walks them again."""
    model = toy_model("eps")
    g, sigmas, latent = hooked_guider(model, guarantee), sigmas_for(model, steps=8), empty_latent("eps")
    want = check_lockstep(g, name, sigmas, latent)
    assert relative(stock(guider(model), 5, name, sigmas, latent), want[0]) > 1e-3

    for cut in (0, 1, 3, 5, 6):
        session = session_for(g, sampler(name), sigmas, latent)
        runs = [session.start(Recipe(seed, seed)) for seed in (5, 11)]
        session.advance(runs, float(sigmas[cut]))
        session.advance(runs)
        assert relative(runs[0].latent, want[0]) < 1e-4
        assert relative(runs[1].latent, want[1]) < 1e-4


def test_keyframes_begin_anew_where_another_run_was_left():
    """ComfyUI's reset of keyframes forgets the last noise level, and counts no step when it comes again."""
    model = toy_model("eps")
    g, sigmas, latent = hooked_guider(model, guarantee=2), sigmas_for(model, steps=8), empty_latent("eps")
    want = stock(g, 11, "euler", sigmas, latent)
    session = session_for(g, sampler("euler"), sigmas, latent)
    runs = [session.start(Recipe(seed, seed)) for seed in (5, 11)]
    session.advance(runs[:1], float(sigmas[0]))
    session.advance(runs[1:])
    assert relative(runs[1].latent, want) < 1e-4


def test_keyframes_stand_still_outside_the_timestep_range():
    """Keyframes that guarantee steps count those in which their conditioning takes part."""
    model = toy_model("eps")
    g, sigmas, latent = hooked_guider(model, guarantee=2), sigmas_for(model, steps=8), empty_latent("eps")
    (hooked,) = g.original_conds["positive"]
    begin, end = 0.45, 1.0
    plain = guider(model).original_conds["positive"]
    g.original_conds["positive"] = [{**hooked, "start_percent": begin, "end_percent": end}, *plain]
    want = stock(g, 5, "euler", sigmas, latent)
    for cut in (3, 5, 6):
        session = session_for(g, sampler("euler"), sigmas, latent)
        run = session.start(Recipe(5, 5))
        session.advance([run], float(sigmas[cut]))
        session.advance([run])
        assert relative(run.latent, want) < 1e-4


def test_without_the_replay_keyframes_would_be_wrong(monkeypatch):
    monkeypatch.setattr(session_module, "replay_keyframes", lambda guider, options, runs: None)
    model = toy_model("eps")
    g, sigmas, latent = hooked_guider(model, guarantee=2), sigmas_for(model, steps=8), empty_latent("eps")
    session = session_for(g, sampler("euler"), sigmas, latent)
    run = session.start(Recipe(5, 5))
    for cut in (1, 3, 5, 6):
        session.advance([run], float(sigmas[cut]))
    session.advance([run])
    assert relative(run.latent, stock(g, 5, "euler", sigmas, latent)) > 1e-3


def test_runs_at_different_noise_levels_keep_their_own_keyframes():
    """A new run beside one that is resumed: its keyframes start from the first."""
    model = toy_model("eps")
    g, sigmas, latent = hooked_guider(model), sigmas_for(model, steps=8), empty_latent("eps")
    session = session_for(g, sampler("euler_ancestral"), sigmas, latent)
    runs = [session.start(Recipe(seed, seed)) for seed in (5, 11)]
    session.advance(runs[:1], float(sigmas[5]))
    with counted() as calls:
        session.advance(runs)
    assert calls.rows == 8 + 2
    for run, seed in zip(runs, (5, 11), strict=True):
        assert relative(run.latent, stock(g, seed, "euler_ancestral", sigmas, latent)) < 1e-4


def test_leftover_noise_is_what_the_stock_node_hands_on():
    """The result goes on to the next stage; what is decoded is the denoised prediction beside it."""
    model, latent = toy_model("eps"), empty_latent("eps")
    g, sigmas = guider(model), sigmas_for(model, steps=8)[:6]
    session = session_for(g, sampler("euler"), sigmas, latent)
    run = session.start(Recipe(5, 5))
    session.advance([run])
    assert relative(samples_of(run), stock(g, 5, "euler", sigmas, latent)) < 1e-6
    assert relative(run.latent.denoised, samples_of(run)) > 1e-2


def test_adaptive_runs_count_their_own_steps_for_keyframes():
    model = toy_model("eps")
    g, sigmas, latent = hooked_guider(model, guarantee=8), sigmas_for(model, steps=8), empty_latent("eps")
    session = session_for(g, sampler("dpm_adaptive"), sigmas, latent)
    runs = [session.start(Recipe(seed, seed)) for seed in (5, 11)]
    session.advance(runs)
    for run, seed in zip(runs, (5, 11), strict=True):
        assert relative(run.latent, stock(g, seed, "dpm_adaptive", sigmas, latent)) < 1e-4


@pytest.mark.parametrize("name", ["uni_pc", "euler"])
def test_the_users_sigmas_stay_as_they_are(name):
    """uni_pc writes 0.001 over the last of the SIGMAS it is given: no leftover noise, if a stock run did it."""
    model, latent = toy_model("eps"), empty_latent("eps")
    g, sigmas = guider(model), sigmas_for(model, steps=6)
    before = sigmas.clone()
    session = session_for(g, sampler(name), sigmas, latent)
    session.advance([session.start(Recipe(5, 5))])
    assert torch.equal(sigmas, before)

    want = stock(g, 5, name, sigmas, latent)
    session = session_for(g, sampler(name), sigmas, latent)
    run = session.start(Recipe(5, 5))
    session.advance([run])
    assert relative(run.latent, want) < 1e-4
