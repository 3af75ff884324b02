"""The toy models are what they claim: otherwise nothing built on them proves anything."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.comfy

import torch

from inprocess import run_node
from toys import (
    FRAMES,
    KINDS,
    ToyVerifier,
    cond,
    counted,
    empty_latent,
    guider,
    mask,
    sigmas_for,
    stock,
    tiny_controlnet,
    tiny_mmdit,
    tiny_unet,
    toy_model,
    toy_vae,
)

MODELS = {
    **{kind: (lambda kind=kind: toy_model(kind)) for kind in KINDS},
    "unet": tiny_unet,
    "mmdit": tiny_mmdit,
}
COUPLED = {"frames"}


def flat(samples) -> torch.Tensor:
    """Rows of a latent, nested or not, as (B, N)."""
    streams = samples.unbind() if samples.is_nested else [samples]
    return torch.cat([stream.flatten(1) for stream in streams], dim=1)


def run(model, kind: str, seed: int = 5, batch: int = 1, sampler: str = "euler", **latent) -> torch.Tensor:
    latent = {**empty_latent(kind, batch), **latent}
    return flat(stock(guider(model), seed, sampler, sigmas_for(model), latent))


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("kind", MODELS)
def test_samples_to_finite_values_of_the_size_of_a_latent(kind):
    samples = run(MODELS[kind](), kind)
    assert torch.isfinite(samples).all()
    assert 0.05 < samples.std() < 20
    other = run(MODELS[kind](), kind, seed=6)
    assert difference(samples, other) > 0.1  # the noise matters


class Given:
    """A NOISE of given values and seed."""

    def __init__(self, noise, seed: int) -> None:
        self.noise, self.seed = noise, seed

    def generate_noise(self, latent):
        return self.noise


@pytest.mark.parametrize("kind", [kind for kind in MODELS if kind not in COUPLED])
def test_rows_are_independent(kind):
    model = MODELS[kind]()
    sigmas, latent = sigmas_for(model), empty_latent("mmdit" if kind == "flow" else kind, 3)
    (noise,) = run_node("RandomNoise", noise_seed=5)
    values = noise.generate_noise(latent)
    batch = flat(stock(guider(model), noise, "euler", sigmas, latent))
    for row in range(3):
        alone = {"samples": latent["samples"][row : row + 1]}
        single = flat(stock(guider(model), Given(values[row : row + 1], 5), "euler", sigmas, alone))
        assert difference(single, batch[row : row + 1]) < 1e-5


def test_frames_of_a_video_see_each_other():
    model = toy_model("frames")
    assert empty_latent("frames")["samples"].shape[0] == FRAMES
    one, two = run(model, "frames"), run(model, "frames", batch=2)
    assert difference(two[:FRAMES], one) > 1e-3  # two videos in one batch are taken for one of 2 * FRAMES


@pytest.mark.parametrize("kind", ["seed_eater", "x4_upscaler"])
def test_conditioning_eats_the_seed(kind):
    model, sigmas = toy_model(kind), sigmas_for(toy_model(kind))
    (fixed,) = run_node("RandomNoise", noise_seed=5)
    first = stock(guider(model), fixed, "euler", sigmas, empty_latent(kind))
    same = Given(fixed.generate_noise(empty_latent(kind)), seed=99)
    second = stock(guider(model), same, "euler", sigmas, empty_latent(kind))
    assert difference(second, first) > 1e-4
    plain = toy_model("v")
    a = stock(guider(plain), fixed, "euler", sigmas, empty_latent(kind))
    assert torch.equal(stock(guider(plain), same, "euler", sigmas, empty_latent(kind)), a)


@pytest.mark.parametrize("kind", MODELS)
def test_conditioning_matters(kind):
    model = MODELS[kind]()
    sigmas, latent = sigmas_for(model), empty_latent(kind)
    one = flat(stock(guider(model, 1.0, cond(model, 1)), 5, "euler", sigmas, latent))
    other = flat(stock(guider(model, 1.0, cond(model, 3)), 5, "euler", sigmas, latent))
    guided = flat(stock(guider(model, 4.0, cond(model, 1)), 5, "euler", sigmas, latent))
    assert difference(one, other) > 1e-2
    assert difference(one, guided) > 1e-2


def test_four_channel_latent_is_repaired():
    assert run(toy_model("flow"), "flow").shape == (1, 16 * 8 * 8)


@pytest.mark.parametrize("kind", [kind for kind in MODELS if kind != "nested"])
def test_mask_keeps_what_it_covers(kind):
    model = MODELS[kind]()
    latent = empty_latent("mmdit" if kind == "flow" else kind)
    latent["samples"] = torch.randn(latent["samples"].shape, generator=torch.Generator().manual_seed(9))
    latent["noise_mask"] = mask(latent)
    out = stock(guider(model), 5, "euler", sigmas_for(model), latent)
    kept = out.shape[-1] // 2
    assert torch.allclose(out[..., kept:], latent["samples"][..., kept:], atol=1e-4)
    assert difference(out[..., :kept], latent["samples"][..., :kept]) > 0.1


def test_counts_guided_calls():
    model = toy_model("eps")
    sigmas = sigmas_for(model, steps=6)
    with counted() as calls:
        stock(guider(model), 5, "euler", sigmas, empty_latent("eps", 3))
        stock(guider(model), 5, "heun", sigmas, empty_latent("eps"))
    assert calls.calls == 6 + 11 and calls.rows == 18 + 11
    assert calls.sigmas[:6] == pytest.approx(sigmas[:6].tolist())


@pytest.mark.parametrize(
    ("node", "make", "inputs"),
    [
        ("PerturbedAttentionGuidance", tiny_unet, {"scale": 3.0}),
        ("HyperTile", tiny_unet, {"tile_size": 32, "swap_size": 4, "max_depth": 0, "scale_depth": False}),
        ("RescaleCFG", tiny_unet, {"multiplier": 0.7}),
        ("FreeU_V2", tiny_unet, {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2}),
        (
            "SkipLayerGuidanceDiT",
            tiny_mmdit,
            {"double_layers": "1", "single_layers": "", "scale": 3.0, "start_percent": 0.0,
             "end_percent": 1.0, "rescaling_scale": 0.0},
        ),
    ],
)  # fmt: skip
def test_tiny_models_respond_to_patches(node, make, inputs):
    model = make()
    kind = "mmdit" if make is tiny_mmdit else "eps"
    latent = empty_latent(kind, size=16)
    (patched,) = run_node(node, model=model, **inputs)
    sigmas = sigmas_for(model)
    plain, changed = (stock(guider(m), 5, "euler", sigmas, latent) for m in (model, patched))
    assert torch.isfinite(changed).all()
    assert difference(changed, plain) > 1e-4


def test_controlnet_matters():
    model = tiny_unet()
    hint = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(1))
    inputs = {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0}
    positive, negative = run_node(
        "ControlNetApplyAdvanced", positive=cond(model, 1), negative=cond(model, 2),
        control_net=tiny_controlnet(), image=hint, **inputs,
    )  # fmt: skip
    sigmas, latent = sigmas_for(model), empty_latent("eps")
    plain = stock(guider(model), 5, "euler", sigmas, latent)
    controlled = stock(guider(model, 3.0, positive, negative), 5, "euler", sigmas, latent)
    assert difference(controlled, plain) > 1e-2


@pytest.mark.parametrize("kind", ["eps", "flow", "flow5d", "nested", "frames"])
def test_vae_gives_pictures(kind):
    model = toy_model(kind)
    samples = stock(guider(model), 5, "euler", sigmas_for(model), empty_latent(kind))
    first = samples.unbind()[0] if samples.is_nested else samples
    images = toy_vae(kind).decode(first)
    frames = (first.shape[2],) if first.ndim == 5 else ()
    assert images.shape == (first.shape[0], *frames, 16, 16, 3)
    assert images.min() >= 0 and images.max() <= 1 and images.std() > 0.05


def test_verifier_scores_rows_alone():
    images = torch.rand(3, 8, 8, 3, generator=torch.Generator().manual_seed(1))
    verifier = ToyVerifier()
    alone = torch.cat([verifier.score(image[None]) for image in images])
    assert torch.allclose(verifier.score(images), alone)
    assert verifier.batches == [1, 1, 1, 3]
