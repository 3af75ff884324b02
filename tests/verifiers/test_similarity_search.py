"""Self similarity in real searches: what it is given is what stock runs' callbacks tell, at no model call."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from inprocess import boot, run_node

pytestmark = pytest.mark.comfy

boot()

from searching import decoded, noise_of, parts, search, search_with, stock_with  # noqa: E402

from noise_search.nodes.run.runner import repaired  # noqa: E402
from noise_search.search.methods.fk_steering import FKSteering  # noqa: E402
from noise_search.search.methods.halving import HalvingSearch  # noqa: E402
from noise_search.search.methods.path_search import PathSearch  # noqa: E402
from noise_search.search.methods.zero_order import ZeroOrderSearch  # noqa: E402
from noise_search.verifiers.common.features import image_features  # noqa: E402
from noise_search.verifiers.measures.self_similarity import SelfSimilarity  # noqa: E402
from toys import ToyVerifier, counted  # noqa: E402


class Colors:
    """An image encoder whose embedding is the mean color of each quarter."""

    patcher = None

    def encode_image(self, images: Tensor, crop: bool) -> dict[str, Tensor]:
        pixels = torch.nn.functional.adaptive_avg_pool2d(images.movedim(-1, 1), 2)
        return {"image_embeds": pixels.flatten(1) - 0.5}


@dataclass
class Kept:
    """Keeps the pictures and predictions it is given, by candidate in the order of its index."""

    needs_prediction: float
    name: str = "kept"
    score_range: tuple[float, float] = (-1.0, 1.0)
    needs_prompt: bool = False
    prompt: str = ""
    trusts_previews: bool = False
    given: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def score_pairs(self, images: Tensor, predictions: Tensor) -> Tensor:
        self.given.append((images, predictions))
        return -(images - predictions).abs().mean((1, 2, 3))

    def score(self, images: Tensor, latents: Tensor | None = None) -> Tensor:
        raise ValueError


def predicted(graph: dict[str, Any], noise: Any, level: float) -> Tensor:
    """Return the decoded prediction of a stock run at a level, by the callback of its guider."""
    guider, steps = graph["guider"], []
    latent = repaired(guider, graph["latent_image"])
    levels = graph["sigmas"].tolist()
    guider.sample(
        noise.generate_noise(latent), latent["samples"], graph["sampler"], graph["sigmas"], latent.get("noise_mask"),
        lambda step, x0, x, total: steps.append((levels[step], x0.clone())), True, noise.seed,
    )  # fmt: skip
    x0 = [x0 for sigma, x0 in steps if sigma >= level * (1 - 1e-5)][-1]
    return decoded(graph, guider.model_patcher.model.process_latent_out(x0.cpu().float()))


def middle(graph: dict[str, Any]) -> float:
    """A level between the second and the third call of a run."""
    return float((graph["sigmas"][1] + graph["sigmas"][2]) / 2)


GRAPHS = [
    ("eps", "euler", {}), ("eps", "dpmpp_2m", {}), ("eps", "euler_ancestral", {}), ("v", "heun", {}), ("flow", "euler", {}),
    ("flow", "dpmpp_2m_sde", {}), ("eps", "euler", {"masked": True}), ("flow", "euler_ancestral", {"masked": True}),
    ("flow5d", "euler", {}), ("frames", "euler", {}), ("seed_eater", "euler", {}), ("eps", "euler_cfg_pp", {}),
]  # fmt: skip


@pytest.mark.parametrize("batching", ["auto", "off"])
@pytest.mark.parametrize(("kind", "sampler_name", "more"), GRAPHS, ids=lambda value: str(value))
def test_the_prediction_is_that_of_the_stock_run(kind: str, sampler_name: str, more: dict, batching: str) -> None:
    graph = parts(kind, sampler_name, **more)
    kept = Kept(middle(graph))
    with counted() as calls:
        found = search_with(graph, 5, verifier=kept, budget=3, batching=batching)
    with counted() as plain:
        search_with(parts(kind, sampler_name, **more), 5, budget=3, batching=batching)
    assert calls.rows == plain.rows and found.report["decodes"] == 6
    recipes = [candidate["recipe"] for candidate in found.report["candidates"]]
    predictions = torch.cat([predictions for _, predictions in kept.given])
    frames = len(predictions) // 3
    for index, recipe in enumerate(recipes):
        want = predicted(graph, noise_of(recipe), kept.needs_prediction)
        got = predictions[index * frames : (index + 1) * frames]
        torch.testing.assert_close(got, want.reshape(got.shape).clamp(0, 1), rtol=1e-4, atol=1e-4)
    ends = torch.cat([images for images, _ in kept.given])
    assert (ends - predictions).abs().max() > 1e-3


def test_nested_latents_and_leftover_noise() -> None:
    """Of nested ones the picture's stream is decoded; where noise is left, the last prediction is the picture."""
    graph = parts("nested")
    found = search_with(graph, 1, verifier=Kept(middle(graph)), budget=2)
    assert found.report["decodes"] == 4
    graph = parts("eps")
    levels = graph["sigmas"][:-1]
    kept = Kept(middle(graph))
    search_with(graph | {"sigmas": levels}, 1, verifier=kept, budget=2)
    predictions = torch.cat([predictions for _, predictions in kept.given])
    (noise,) = run_node("RandomNoise", noise_seed=1)  # candidate 0's
    want = predicted(graph | {"sigmas": levels}, noise, kept.needs_prediction)
    torch.testing.assert_close(predictions[:1], want.clamp(0, 1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", [ZeroOrderSearch(), HalvingSearch()], ids=lambda method: method.name)
def test_methods_on_a_real_session(method: Any) -> None:
    graph = parts("eps", "euler")
    verifier = SelfSimilarity(Colors(), middle(graph))
    found = search_with(graph, 3, verifier=verifier, budget=5, method=method)
    scores = [candidate["score"] for candidate in found.report["candidates"] if candidate["status"] == "finished"]
    assert len(scores) == 5 and max(scores) == found.score and all(-1 <= score <= 1 for score in scores)


@pytest.mark.parametrize("method", [PathSearch(), FKSteering()], ids=lambda method: method.name)
def test_as_held_out_it_judges_branched_winners_too(method: Any) -> None:
    graph = parts("eps", "euler_ancestral", steps=12)
    held_out = SelfSimilarity(Colors(), float(graph["sigmas"][6]))
    found = search_with(graph, 3, verifier=ToyVerifier(), budget=6, keep=3, method=method, held_out=held_out)
    shown = found.report["held_out"]
    assert shown["problems"] == [] and len(shown["scores"]) >= 3
    assert all(value is not None and -1 <= value <= 1 for value in shown["scores"].values())
    assert any(candidate["parent"] is not None for candidate in found.report["candidates"])


def test_levels_that_cannot_be_are_refused_before_a_model_call() -> None:
    graph = parts("eps")
    for sigma in (100.0, 0.001):
        with counted() as calls, pytest.raises(ValueError, match=f"verifier 'self similarity': its 'sigma' is {sigma:g}"):
            search_with(graph, 3, verifier=SelfSimilarity(Colors(), sigma))
        assert calls.calls == 0
    with pytest.raises(ValueError, match="raise denoise"):
        search("eps", held_out=SelfSimilarity(Colors(), 100.0))


def test_on_the_demo_model_it_is_the_cosine_by_hand() -> None:
    studio_of = importlib.import_module("noise_search.demo.studio")
    studio = studio_of.Studio(studio_of.MODELS["small"])
    (verifier,) = studio.node("NSSelfSimilarity", clip_vision=studio.vision, sigma=0.4)
    prompt, steps = "a green triangle above a yellow star", 8
    _, report = studio.search(prompt, 11, 3, 1, verifier, None, steps=steps)

    nodes = studio.nodes
    (positive,) = nodes.CLIPTextEncode().encode(studio.clip, prompt)
    (guider,) = run_node("CFGGuider", model=studio.model, positive=positive, negative=studio.negative, cfg=studio_of.CFG)
    (sigmas,) = run_node("BasicScheduler", model=studio.model, scheduler=studio_of.SCHEDULER, steps=steps, denoise=1.0)
    (sampler,) = run_node("KSamplerSelect", sampler_name=studio_of.SAMPLER)
    (latent,) = nodes.EmptyLatentImage().generate(64, 64, 1)
    graph = {"guider": guider, "sampler": sampler, "sigmas": sigmas, "latent_image": latent, "vae": studio.vae}
    assert len(report["candidates"]) == 3 and report["model_calls"] == 3 * steps
    for candidate in report["candidates"]:
        noise = noise_of(candidate["recipe"])
        ends = decoded(graph, stock_with(graph, noise))
        pictures = torch.cat([ends, predicted(graph, noise, 0.4)]).clamp(0, 1)
        end, promise = image_features(studio.vision, pictures)
        assert candidate["score"] == pytest.approx((end @ promise).item(), abs=1e-4)
