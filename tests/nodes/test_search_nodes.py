"""What the search nodes put out: the stock image for budget 1, winners that stock nodes make again, the report."""

from __future__ import annotations

import json

import pytest

from inprocess import boot

pytestmark = pytest.mark.comfy

boot()

import comfy.samplers
import torch
from searching import FarFrom, decoded, noise_of, parts, search, search_with, simple_search, stock_with, without_seconds
from sessions import relative

from noise_search.nodes.adapter import memory
from noise_search.search.methods.halving import HalvingSearch
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.methods.zero_order import ZeroOrderSearch
from noise_search.search.noise.proposals import NeighborProposal
from toys import ToyVerifier, cond, counted, empty_latent, run_node, sampler, toy_model, toy_vae

METHODS = {
    "random": RandomSearch(),
    "random neighbors": RandomSearch(NeighborProposal(0.8)),
    "random drafts": RandomSearch(draft_steps=2),
    "zero order": ZeroOrderSearch(neighbors=2, cosine=0.9),
    "zero order, restart": ZeroOrderSearch(neighbors=2, cosine=0.9, on_stall="restart"),
    "zero order drafts": ZeroOrderSearch(neighbors=2, cosine=0.9, draft_steps=2),
    "halving": HalvingSearch(),
}
SAMPLERS = ["euler", "euler_ancestral", "dpmpp_2m_sde"]
CASES = [("eps", False), ("eps", True), ("flow", False), ("flow", True), ("flow5d", False), ("nested", False)]
CASE_IDS = [f"{kind}{'-mask' if masked else ''}" for kind, masked in CASES]


def far(graph: dict, seed: int) -> FarFrom:
    """A verifier for which candidate 0 is the worst possible."""
    return FarFrom(decoded(graph, stock_with(graph, seed)))


@pytest.mark.parametrize(("kind", "sampler_name", "cfg", "denoise"), [
    ("eps", "euler", 3.0, 1.0), ("flow", "euler_ancestral", 1.0, 1.0), ("flow5d", "dpmpp_2m_sde", 3.0, 1.0),
    ("nested", "dpmpp_2m", 3.0, 1.0), ("v", "uni_pc", 3.0, 0.5), ("eps", "dpm_adaptive", 3.0, 1.0),
    ("eps", "dpm_2", 3.0, 1.0),
])  # fmt: skip
def test_budget_1_is_ksampler(kind, sampler_name, cfg, denoise):
    """Also with KSampler's own ways: sigmas of samplers that discard one, a 4-channel latent, denoise below 1."""
    model, latent, vae = toy_model(kind), empty_latent(kind), toy_vae(kind)
    graph = {"seed": 11, "steps": 6, "cfg": cfg, "sampler_name": sampler_name, "scheduler": "normal", "denoise": denoise}
    conds = {"positive": cond(model, 1), "negative": cond(model, 2)}
    want = run_node("KSampler", model=model, latent_image=latent, **conds, **graph)[0]["samples"]
    got = simple_search(model, latent, vae, budget=1, **conds, **graph)
    if want.is_nested:
        assert all(torch.equal(a, b) for a, b in zip(got.latents["samples"].unbind(), want.unbind(), strict=True))
    else:
        assert torch.equal(got.latents["samples"], want)
    assert torch.equal(got.images, decoded({"vae": vae}, want))
    assert got.seed == 11 and json.loads(got.recipe) == {"noise_search": 1, "noise": "11", "seed": "11"}
    assert got.report["gain"] == 0.0 and len(got.report["candidates"]) == 1


@pytest.mark.parametrize("sampler_name", SAMPLERS)
@pytest.mark.parametrize(("kind", "masked"), CASES, ids=CASE_IDS)
@pytest.mark.parametrize("method", METHODS)
def test_stock_nodes_make_the_winner_again(method, kind, masked, sampler_name):
    graph = parts(kind, sampler_name, masked=masked)
    got = search_with(graph, 3, method=METHODS[method], budget=5, verifier=far(graph, 3))
    report = got.report
    assert report["best"]["index"] > 0 and got.score > 1e-3  # another than candidate 0, which has score 0
    assert torch.equal(got.sigmas, graph["sigmas"])
    assert got.seed == got.noise.seed == int(json.loads(got.recipe)["seed"])
    again = stock_with(graph, got.noise, got.sigmas)
    assert relative(got.latents["samples"], again) < 1e-4
    assert relative(got.images, decoded(graph, again)) < 1e-4
    by_recipe = stock_with(graph, noise_of(got.recipe), got.sigmas)
    assert relative(by_recipe, again) == 0.0
    assert relative(stock_with(graph, 3), again) > 1e-3  # and the test can tell


@pytest.mark.parametrize("method", METHODS)
def test_also_with_a_sampler_that_draws_from_the_global_generator(method):
    def drawing(model, x, sigmas, extra_args=None, callback=None, disable=None):
        for sigma, below in zip(sigmas[:-1], sigmas[1:], strict=True):
            denoised = model(x, sigma * x.new_ones(len(x)), **extra_args)
            x = denoised + below * torch.randn(x.shape)
        return x

    graph = parts("eps", comfy.samplers.KSAMPLER(drawing))
    got = search_with(graph, 3, method=METHODS[method], budget=5, verifier=far(graph, 3))
    assert got.report["best"]["index"] > 0
    assert relative(got.latents["samples"], stock_with(graph, got.noise)) < 1e-4
    torch.manual_seed(1)  # whatever was drawn before
    assert relative(got.latents["samples"], stock_with(graph, noise_of(got.recipe))) < 1e-4


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("kind", "sampler_name"), [("eps", "euler"), ("flow", "heun"), ("eps", "dpm_adaptive")])
def test_report_counts_what_happened(method, kind, sampler_name):
    graph, verifier = parts(kind, sampler_name, steps=8), ToyVerifier()
    with counted() as calls:
        got = search_with(graph, 3, method=METHODS[method], budget=4, verifier=verifier)
    report = got.report
    assert report["model_calls"] == calls.rows == sum(c["model_calls"] for c in report["candidates"])
    assert report["model_calls"] <= 4 * report["model_calls_per_image"]
    assert report["verifier_calls"] == sum(verifier.batches)
    # One decode for each scored picture; zero-order drafts score candidate 0 twice, in full and as a draft.
    assert report["decodes"] == report["verifier_calls"]
    assert set(report["seconds"]) == {"total", "sampling", "decoding", "scoring", "waiting"}
    assert all(value >= 0 for value in report["seconds"].values()) and report["seconds"]["total"] > 0
    scored = [c for c in report["candidates"] if c["status"] == "finished"]
    assert scored[0]["index"] == 0 and report["baseline"]["score"] == scored[0]["score"]
    assert report["best"]["score"] == max(c["score"] for c in scored) == pytest.approx(got.score)
    assert report["gain"] == pytest.approx(report["best"]["score"] - report["baseline"]["score"])
    for candidate in report["candidates"]:
        assert json.loads(candidate["recipe"])["noise_search"] == 1 and candidate["model_calls"] >= 0
        if candidate["status"] == "finished":
            assert candidate["scores"] == {"toy-redness": candidate["score"]}
    assert report["best"]["recipe"] == got.recipe
    assert sorted(report["order"]) == sorted(c["index"] for c in scored)


@pytest.mark.parametrize("kind", ["eps", "flow5d", "nested"])
def test_keep_returns_the_best_in_order(kind):
    graph = parts(kind)
    got = search_with(graph, 3, budget=6, keep=3, method=RandomSearch())
    frames = got.images.shape[0] // 3
    scores = ToyVerifier().score(got.images).reshape(3, frames).mean(dim=1)
    assert scores.tolist() == sorted(scores.tolist(), reverse=True) and len(set(scores.tolist())) == 3
    by_index = {c["index"]: c for c in got.report["candidates"]}
    kept = [by_index[index] for index in got.report["kept"]]
    assert [c["score"] for c in kept] == pytest.approx(scores.tolist(), abs=1e-6)
    assert got.score == pytest.approx(max(c["score"] for c in by_index.values()))
    rows = [part.unbind() if part.is_nested else [part] for part in [got.latents["samples"]]][0]
    for row, candidate in enumerate(kept):
        again = stock_with(graph, noise_of(candidate["recipe"]))
        wanted = again.unbind() if again.is_nested else [again]
        for have, want in zip(rows, wanted, strict=True):
            assert relative(have[row : row + 1], want) < 1e-4


def test_keep_more_than_there_are_returns_all():
    got = search("eps", budget=2, keep=64)
    assert got.images.shape[0] == got.latents["samples"].shape[0] == 2


def test_latent_keeps_what_else_it_holds():
    latent = {**empty_latent("eps"), "foreign": "kept"}
    graph = parts("eps", latent=latent, masked=True)
    got = search_with(graph, 3)
    assert got.latents["foreign"] == "kept" and torch.equal(got.latents["noise_mask"], latent["noise_mask"])
    assert set(graph["latent_image"]) == {"samples", "noise_mask", "foreign"}


def near(picture: torch.Tensor, colour: tuple[int, int, int]) -> torch.Tensor:
    return (picture - torch.tensor(colour) / 255.0).abs().amax(dim=-1) < 0.02


def test_plot_shows_the_search_and_marks_the_baseline():
    from noise_search.nodes.run.plot import BASE, CURVE

    graph = parts("eps")
    got = search_with(graph, 3, budget=8, method=RandomSearch(), verifier=far(graph, 3))
    assert got.plot.shape == (1, 600, 960, 3) and got.plot.dtype == torch.float32
    assert got.plot.min() >= 0.0 and got.plot.max() <= 1.0
    picture = got.plot[0]
    marks, curve = near(picture, BASE), near(picture, CURVE)
    across = marks.sum(dim=1).max()  # the dashed line of the baseline: half of the width
    assert across > 300 and curve.sum() > 300
    line = int(marks.sum(dim=1).argmax())
    assert curve.nonzero()[:, 0].min() < line - 50  # the best score rose above it
    assert near(picture, (30, 30, 30)).sum() > 200  # words


def test_same_graph_twice_is_the_same():
    graph = parts("flow", "euler_ancestral", steps=8)
    first, second = (search_with(graph, 3, budget=6, method=HalvingSearch()) for _ in range(2))
    assert without_seconds(first.report) == without_seconds(second.report)
    assert first.recipe == second.recipe and first.score == second.score
    assert torch.equal(first.latents["samples"], second.latents["samples"])
    assert torch.equal(first.images, second.images)
    other = search_with(graph, 4, budget=6, method=HalvingSearch())
    assert without_seconds(other.report) != without_seconds(first.report)


@pytest.mark.parametrize("sampler_name", ["euler", "dpmpp_2m_sde"])
@pytest.mark.parametrize("method", ["random", "zero order", "halving"])
def test_micro_batches_change_nothing_that_matters(method, sampler_name, monkeypatch):
    graph, found = parts("flow", sampler_name, steps=8), {}
    for rows in (1, 2, 8):
        monkeypatch.setattr(memory, "MAX_ROWS", rows)
        with counted() as calls:
            found[rows] = search_with(graph, 3, budget=8, method=METHODS[method]).report
        assert found[rows]["batch"] == rows and max(calls.rows_of) <= rows
        assert method == "zero order" or max(calls.rows_of) == rows
    for rows in (2, 8):
        want, got = found[1]["candidates"], found[rows]["candidates"]
        assert [c["status"] for c in got] == [c["status"] for c in want]
        for a, b in zip(want, got, strict=True):
            assert b["score"] == pytest.approx(a["score"], abs=1e-4) and b["recipe"] == a["recipe"]
        if found[1]["best"]["index"] != found[rows]["best"]["index"]:
            top = sorted((c["score"] for c in want if c["score"] is not None), reverse=True)
            assert top[0] - top[1] < 1e-4


@pytest.mark.parametrize("images", [3, 4, 6, 8])
def test_candidate_0_survives_every_rung(images):
    graph = parts("eps", steps=8)
    got = search_with(graph, 3, budget=images, method=HalvingSearch(), verifier=far(graph, 3))
    first = got.report["candidates"][0]
    assert first["status"] == "finished" and first["score"] == pytest.approx(0.0, abs=1e-5)
    assert json.loads(first["recipe"]) == {"noise_search": 1, "noise": "3", "seed": "3"}
    assert len(first["looks"]) == 2 and got.report["order"][-1] == 0
    dropped = [c for c in got.report["candidates"] if c["status"] == "pruned"]
    assert dropped and all(c["looks"][-1]["score"] > 0 for c in dropped)


def test_a_search_never_returns_less_than_the_users_own_seed():
    graph = parts("eps")
    verifier = far(graph, 3)
    verifier.score = lambda images, latents=None: -FarFrom.score(verifier, images)
    for method in METHODS.values():
        got = search_with(graph, 3, method=method, budget=5, verifier=verifier)
        assert got.report["best"]["index"] == 0 and got.seed == 3
        assert relative(got.latents["samples"], stock_with(graph, 3)) < 1e-5


def test_preview_vae_is_for_looking_only():
    """Half-finished pictures are decoded with it, finished ones with vae."""
    graph = parts("eps", steps=8)
    shown: dict[str, int] = {"vae": 0, "preview": 0}
    for name, vae in (("vae", graph["vae"]), ("preview", toy_vae("eps"))):

        def decode(samples, *args, _name=name, _decode=vae.decode, **kwargs):
            shown[_name] += len(samples)
            return _decode(samples, *args, **kwargs)

        vae.decode = decode
    got = search_with(graph, 3, budget=4, method=HalvingSearch(), preview_vae=vae)
    looks = sum(len(c["looks"]) for c in got.report["candidates"])
    finished = sum(c["status"] == "finished" for c in got.report["candidates"])
    assert shown == {"vae": finished, "preview": looks} and looks > 4


REFINED = "then refinement search"


@pytest.mark.parametrize(
    ("sampler_name", "budget", "steps", "name"),
    [("euler", 8, 12, f"draft search, {REFINED}"), ("dpmpp_2m", 8, 12, f"draft search, {REFINED}"),
     ("euler", 4, 12, f"random search, {REFINED}"),
     ("euler_ancestral", 4, 12, f"random search, {REFINED}"), ("euler", 3, 12, "random search"),
     ("dpmpp_2m_sde", 4, 12, f"random search, {REFINED}"), ("euler", 4, 8, "random search"),
     ("euler_ancestral", 4, 8, "random search"), ("dpm_adaptive", 8, 12, "draft search")],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["eps", "flow"])
def test_without_a_method_it_is_chosen_by_sampler_budget_and_steps(kind, sampler_name, budget, steps, name):
    assert search(kind, sampler_name, budget=budget, steps=steps).report["method"]["name"] == name


@pytest.mark.parametrize("trusts_previews", [True, False])
@pytest.mark.parametrize("sampler_name", ["euler_ancestral", "euler"])
def test_without_a_method_nothing_is_looked_at_half_way(sampler_name, trusts_previews):
    verifier = ToyVerifier(trusts_previews=trusts_previews)
    report = search("eps", sampler_name, budget=8, steps=12, verifier=verifier).report
    assert report["method"]["name"].endswith("refinement search") and report["notes"] == []
    assert not any("sigma" in look for c in report["candidates"] for look in c["looks"])


@pytest.mark.parametrize("sampler_name", ["dpmpp_2m", "heun", "uni_pc", "euler_cfg_pp"])
@pytest.mark.parametrize("kind", ["eps", "flow"])
def test_drafts_of_a_deterministic_sampler_are_made_by_euler(kind, sampler_name):
    """What is decoded of a draft is stock euler's picture over the thinned sigmas; the winner is the user's sampler's."""
    graph = parts(kind, sampler_name, steps=12)
    seen = []

    class Watching(FarFrom):
        def score(self, images, latents=None):
            seen.append(images)
            return super().score(images, latents)

    got = search_with(graph, 3, budget=6, method=RandomSearch(draft_steps=4),
                      verifier=Watching(decoded(graph, stock_with(graph, 3))))  # fmt: skip
    first = next(c for c in got.report["candidates"] if c["looks"])
    thinned = graph["sigmas"][[0, 3, 6, 9, 12]]
    euler = "euler_cfg_pp" if "cfg_pp" in sampler_name else "euler"
    draft = stock_with({**graph, "sampler": sampler(euler)}, noise_of(first["recipe"]), sigmas=thinned)
    assert relative(torch.cat(seen[1:])[:1], decoded(graph, draft)) < 1e-4
    assert got.report["model_calls_per_image"] == sum(c["model_calls"] for c in got.report["candidates"][:1])
    assert relative(got.latents["samples"], stock_with(graph, got.noise)) < 1e-4
