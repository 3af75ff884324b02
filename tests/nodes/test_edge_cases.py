"""What the user gets where something is unusual or goes wrong: batches, noise, sigmas, verifiers, limits, Cancel."""

from __future__ import annotations

import json
import math

import pytest

from inprocess import boot
from node_api import node_class

pytestmark = pytest.mark.comfy

boot()

import comfy.model_management as mm
import comfy.samplers
import comfy.utils
import torch
from comfy.nested_tensor import NestedTensor
from searching import (
    Broken,
    FarFrom,
    at_call,
    decoded,
    interrupt,
    noise_of,
    parts,
    render,
    search,
    search_with,
    simple_search,
    stock_with,
)  # fmt: skip
from sessions import relative

from noise_search.nodes.adapter import memory
from noise_search.nodes.definitions.limits import NSBudget
from noise_search.search.base.budget import StopRules
from noise_search.search.methods.halving import HalvingSearch
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.methods.zero_order import ZeroOrderSearch
from noise_search.search.scoring.scorer import VerifierError
from toys import (
    FRAMES,
    ToyVerifier,
    cond,
    counted,
    empty_latent,
    guider,
    run_node,
    tiny_controlnet,
    tiny_unet,
    toy_model,
    toy_vae,
)  # fmt: skip

TOP = 2**64 - 1


class GivenNoise:
    """A NOISE of another node: no seed gives it."""

    def __init__(self, noise: torch.Tensor, seed: int = 21) -> None:
        self.noise, self.seed = noise, seed

    def generate_noise(self, latent: dict) -> torch.Tensor:
        return self.noise.clone()


def foreign_noise(shape: tuple = (1, 4, 8, 8), seed: int = 21) -> GivenNoise:
    return GivenNoise(torch.randn(shape, generator=torch.Generator().manual_seed(99)), seed)


# A latent batch: row b of everything.


def batch_graph(sampler_name: str = "euler") -> dict:
    """Three rows of latent, mask, conditioning and control hint."""
    model = tiny_unet()
    generator = torch.Generator().manual_seed(3)
    hint = torch.rand(3, 16, 16, 3, generator=generator)
    positive, negative = run_node(
        "ControlNetApplyAdvanced", positive=cond(model, 1, rows=3), negative=cond(model, 2, rows=3),
        control_net=tiny_controlnet(), image=hint, strength=0.8, start_percent=0.0, end_percent=1.0,
    )  # fmt: skip
    latent = {"samples": torch.randn(3, 4, 16, 16, generator=generator)}
    latent["noise_mask"] = (torch.rand(3, 1, 16, 16, generator=generator) > 0.3).float()
    return parts("eps", sampler_name, latent=latent, g=guider(model, 3.0, positive, negative), steps=4)


def test_candidate_0_of_search_b_is_row_b_of_the_batch():
    graph = batch_graph()
    whole = stock_with(graph, 42)
    got = search_with(graph, 42, budget=1)
    assert relative(got.latents["samples"], whole) < 1e-5
    assert relative(got.images, decoded(graph, whole)) < 1e-5
    for wrong in ([1, 0, 2], [0, 0, 0], [2, 1, 0]):  # every row has its own noise, mask, prompt and hint
        assert relative(got.latents["samples"][wrong], whole) > 0.1
    assert relative(stock_with(graph, got.noise), whole) < 1e-5
    assert got.seed == 42 and got.score == pytest.approx(float(ToyVerifier().score(got.images).mean()), abs=1e-6)
    assert torch.equal(got.latents["noise_mask"], graph["latent_image"]["noise_mask"])


def row_graph(row: int) -> dict:
    """Row `row` of `batch_graph`, made by hand."""
    graph = batch_graph()
    model, generator = graph["guider"].model_patcher, torch.Generator().manual_seed(3)
    hint = torch.rand(3, 16, 16, 3, generator=generator)[row : row + 1]
    conds = []
    for seed in (1, 2):
        ((words, extra),) = cond(model, seed, rows=3)
        conds.append([[words[row : row + 1], {"pooled_output": extra["pooled_output"][row : row + 1]}]])
    positive, negative = run_node(
        "ControlNetApplyAdvanced", positive=conds[0], negative=conds[1], control_net=tiny_controlnet(), image=hint,
        strength=0.8, start_percent=0.0, end_percent=1.0,
    )  # fmt: skip
    latent = {key: value[row : row + 1] for key, value in graph["latent_image"].items()}
    return parts("eps", latent=latent, g=guider(model, 3.0, positive, negative), steps=4)


def test_every_search_of_a_batch_is_one_of_its_row():
    graph = batch_graph()
    got = search_with(graph, 42, budget=3, method=RandomSearch(), keep=2)
    assert got.images.shape[0] == got.latents["samples"].shape[0] == 6 and got.plot.shape[0] == 3
    masks = graph["latent_image"]["noise_mask"]
    assert torch.equal(got.latents["noise_mask"], masks[[0, 0, 1, 1, 2, 2]])
    recipes, reports = json.loads(got.recipe), got.report
    assert len(recipes) == len(reports) == 3
    assert got.score == pytest.approx(sum(r["best"]["score"] for r in reports) / 3)
    seeds = [c["recipe"] for r in reports for c in r["candidates"][1:]]
    assert len(set(seeds)) == 6  # every row draws others
    for row, report in enumerate(reports):
        alone = row_graph(row)
        for place, index in enumerate(report["kept"]):
            if index == 0:
                continue  # its noise is row b of the batch's
            _, latent = render(alone, 42, report["candidates"][index]["recipe"])
            assert relative(got.latents["samples"][2 * row + place], latent["samples"][0]) < 1e-5


def test_a_batchs_noise_and_recipes_go_into_stock_nodes():
    graph = batch_graph()
    whole = stock_with(graph, 42)
    far = FarFrom(decoded(graph, whole).mean(dim=0, keepdim=True))
    got = search_with(graph, 42, budget=4, method=RandomSearch(), verifier=far)
    by_noise = stock_with(graph, got.noise, got.sigmas)
    assert relative(by_noise, got.latents["samples"]) < 1e-5
    image, latent = render(graph, 42, got.recipe)  # candidate 0 of a row starts from the connected noise
    assert relative(latent["samples"], got.latents["samples"]) < 1e-5
    assert relative(image, got.images) < 1e-5
    # Of the other candidates a seed is known.
    others = [report["candidates"][1]["recipe"] for report in got.report]
    by_recipe = stock_with(graph, noise_of(f"[{','.join(others)}]"))
    assert relative(by_recipe, render(graph, 42, f"[{','.join(others)}]")[1]["samples"]) < 1e-5
    assert relative(by_recipe, whole) > 1e-2


def test_a_batch_of_nested_latents():
    graph = parts("nested", latent=empty_latent("nested", batch=2))
    got = search_with(graph, 42, budget=1)
    assert relative(got.latents["samples"], stock_with(graph, 42)) < 1e-5
    assert relative(stock_with(graph, got.noise), got.latents["samples"]) < 1e-5


def test_one_mask_and_one_prompt_serve_all_rows():
    graph = parts("flow", latent=empty_latent("flow", batch=2), masked=True)
    assert graph["latent_image"]["noise_mask"].shape[0] == 1
    got = search_with(graph, 42, budget=1)
    assert relative(got.latents["samples"], stock_with(graph, 42)) < 1e-5
    assert torch.equal(got.latents["noise_mask"], graph["latent_image"]["noise_mask"])


def test_batch_index_of_one_row():
    """LatentFromBatch and friends: the row's noise is the one it has in the batch it was cut from."""
    latent = {**empty_latent("eps"), "batch_index": [2]}
    graph = parts("eps", latent=latent)
    got = search_with(graph, 42, budget=3, keep=3, method=RandomSearch())
    recipe = json.loads(got.report["candidates"][0]["recipe"])
    assert recipe["noise"] == "42"
    again = stock_with(graph, got.noise)
    assert relative(got.latents["samples"][:1], again) < 1e-5
    assert relative(stock_with({**graph, "latent_image": empty_latent("eps")}, got.noise), again) > 1e-2


# Noise.


def test_zero_noise_and_a_deterministic_sampler_are_refused():
    (noise,) = run_node("DisableNoise")
    with pytest.raises(ValueError, match="^noise: .*all zero.*ancestral or SDE"):
        search("eps", "euler", noise)


@pytest.mark.parametrize("method", [None, RandomSearch(), HalvingSearch()])
def test_zero_noise_searches_step_seeds(method):
    (noise,) = run_node("DisableNoise")
    graph = parts("eps", "euler_ancestral", masked=True)
    far = FarFrom(decoded(graph, stock_with(graph, noise)))
    got = search_with(graph, noise, budget=5, method=method, verifier=far)
    recipes = [json.loads(c["recipe"]) for c in got.report["candidates"]]
    assert {r["noise"] for r in recipes} == {"zero"} and len({r["seed"] for r in recipes}) == len(recipes)
    assert got.score > 0.001
    latent = graph["latent_image"]
    assert not got.noise.generate_noise(latent).any() and not noise_of(got.recipe).generate_noise(latent).any()
    assert relative(stock_with(graph, got.noise), got.latents["samples"]) < 1e-4
    assert relative(stock_with(graph, noise_of(got.recipe)), got.latents["samples"]) < 1e-4
    assert relative(render(graph, noise, got.report["baseline"]["recipe"])[1]["samples"], stock_with(graph, noise)) < 1e-4


def test_zero_noise_has_no_neighbors():
    (noise,) = run_node("DisableNoise")
    with pytest.raises(ValueError, match="neighbors of all-zero noise"):
        search("eps", "euler_ancestral", noise, method=ZeroOrderSearch())


def test_zero_noise_and_budget_1_is_the_stock_run():
    """Nothing is compared, so that nothing has to differ."""
    (noise,) = run_node("DisableNoise")
    graph = parts("eps", "euler", masked=True)
    with counted() as calls:
        got = search_with(graph, noise, budget=1)
    assert torch.equal(got.latents["samples"], stock_with(graph, noise)) and calls.rows == 6


@pytest.mark.parametrize("sampler_name", ["euler", "euler_ancestral"])
def test_noise_of_another_node(sampler_name):
    noise, graph = foreign_noise(), parts("eps", sampler_name)
    flip = FarFrom(decoded(graph, stock_with(graph, noise)))
    flip.score = lambda images, latents=None: -FarFrom.score(flip, images)
    got = search_with(graph, noise, budget=3, method=RandomSearch(), verifier=flip)
    assert got.report["best"]["index"] == 0
    assert json.loads(got.recipe) == {"noise_search": 1, "noise": "given", "seed": "21"}
    assert relative(got.latents["samples"], stock_with(graph, noise)) < 1e-4
    assert relative(stock_with(graph, got.noise), got.latents["samples"]) < 1e-4
    with pytest.raises(ValueError, match="^recipe: .*Render Candidate"):
        noise_of(got.recipe)
    assert relative(render(graph, noise, got.recipe)[1]["samples"], got.latents["samples"]) < 1e-4


def test_neighbors_of_a_noise_of_another_node():
    noise, graph = foreign_noise(), parts("eps", "dpmpp_2m_sde")
    far = FarFrom(decoded(graph, stock_with(graph, noise)))
    got = search_with(graph, noise, budget=5, method=ZeroOrderSearch(neighbors=2, cosine=0.8), verifier=far)
    assert json.loads(got.recipe)["noise"] == "given" and json.loads(got.recipe)["moves"]
    assert relative(stock_with(graph, got.noise), got.latents["samples"]) < 1e-4
    assert relative(render(graph, noise, got.recipe)[1]["samples"], got.latents["samples"]) < 1e-4
    with pytest.raises(ValueError, match=r"noise: .*\(1, 4, 8, 8\).*\(1, 4, 12, 12\)"):
        stock_with({**graph, "latent_image": empty_latent("eps", size=12)}, got.noise)


def test_noise_of_another_size_than_the_latent():
    with pytest.raises(ValueError, match=r"^noise: .*\(1, 4, 12, 12\).*\(1, 4, 8, 8\)"):
        search("eps", noise=foreign_noise((1, 4, 12, 12)))


def test_a_seeds_noise_fits_any_latent():
    """A recipe of seeds holds for a latent of another size: it is other noise, as a seed's is."""
    got = search("eps", budget=3)
    noise = noise_of(got.recipe).generate_noise(empty_latent("eps", size=12))
    assert noise.shape == (1, 4, 12, 12)


@pytest.mark.parametrize("method", [RandomSearch(), ZeroOrderSearch(neighbors=2), HalvingSearch()])
def test_the_largest_seed(method):
    graph = parts("eps", "euler", steps=8)
    got = search_with(graph, TOP, budget=4, method=method, keep=4)
    assert relative(got.latents["samples"][got.report["order"].index(0)][None], stock_with(graph, TOP)) < 1e-4
    assert json.loads(got.report["baseline"]["recipe"])["seed"] == got.report["seed"] == str(TOP)
    seeds = [int(json.loads(c["recipe"])["noise"]) for c in got.report["candidates"][1:]]
    assert all(seed < 2**50 or seed == TOP for seed in seeds)


def test_the_largest_seed_where_a_sampler_adds_one():
    """As stock samplers of newer cores do."""

    def step_noise(model, x, sigmas, extra_args=None, **kwargs):
        torch.Generator().manual_seed(extra_args["seed"] + 1)
        return x

    with pytest.raises(ValueError, match=f"^seed: .*{TOP}.*smaller seed"):
        search("eps", comfy.samplers.KSAMPLER(step_noise), TOP)


# Sigmas.


def test_empty_sigmas():
    for sigmas in (torch.empty(0), torch.tensor([1.0])):
        with pytest.raises(ValueError, match="^sigmas: "):
            search("eps", sigmas=sigmas)
        with pytest.raises(ValueError, match="^sigmas: "):
            render(parts("eps", sigmas=sigmas), 3, '{"noise_search": 1, "noise": "5", "seed": "7"}')
    model = toy_model("eps")
    with pytest.raises(ValueError, match="^sigmas: .*denoise"):
        simple_search(model, empty_latent("eps"), toy_vae("eps"), cond(model, 1), cond(model, 2), denoise=0.0)


@pytest.mark.parametrize("kind", ["eps", "flow", "nested"])
@pytest.mark.parametrize("method", [RandomSearch(), HalvingSearch()])
def test_leftover_noise_goes_to_the_next_stage(kind, method):
    """The latents output is the noisy one; pictures and scores are those of the denoised prediction."""
    graph = parts(kind, "euler", steps=12)
    whole = graph["sigmas"]
    graph["sigmas"] = whole[:9]
    assert float(graph["sigmas"][-1]) > 0
    got = search_with(graph, 3, budget=5, method=method)
    noisy, denoised = run_node("SamplerCustomAdvanced", noise=got.noise, **{k: v for k, v in graph.items() if k != "vae"})
    assert relative(got.latents["samples"], noisy["samples"]) < 1e-4
    denoised = denoised["samples"]
    if kind == "nested" and not denoised.is_nested:  # older cores forget to unpack this output
        shapes = [part.shape for part in noisy["samples"].unbind()]
        denoised = NestedTensor(comfy.utils.unpack_latents(denoised, shapes))
    pictures = decoded(graph, denoised).clamp(0, 1)
    assert relative(got.images, pictures) < 1e-4
    assert relative(decoded(graph, noisy["samples"]).clamp(0, 1), pictures) > 1e-2
    assert got.score == pytest.approx(float(ToyVerifier().score(pictures).mean()), abs=1e-4)
    image, latent = render(graph, 3, got.recipe)
    assert relative(latent["samples"], noisy["samples"]) < 1e-4 and relative(image, pictures) < 1e-4


def test_a_later_stage_with_leftover_noise():
    """DisableNoise on a noisy latent: an ancestral sampler goes on from it with other step seeds."""
    whole = parts("eps", "euler_ancestral", steps=12)
    first = stock_with(whole, 3, whole["sigmas"][:7])
    graph = parts("eps", "euler_ancestral", latent={"samples": first}, sigmas=whole["sigmas"][6:])
    (noise,) = run_node("DisableNoise")
    got = search_with(graph, noise, budget=4, method=RandomSearch(), keep=4)
    rows = got.latents["samples"]
    assert relative(rows[got.report["order"].index(0)][None], stock_with(graph, noise)) < 1e-4
    assert all(relative(rows[a], rows[b]) > 1e-2 for a in range(4) for b in range(a))


# Numbers out of range, reachable through the API or other nodes.


@pytest.mark.parametrize(("inputs", "says"), [({"budget": 0}, "^budget: 0"), ({"keep": 0}, "^keep: 0")])
def test_nothing_to_do_is_refused(inputs, says):
    with pytest.raises(ValueError, match=says), counted() as calls:
        search("eps", **inputs)
    assert calls.rows == 0


@pytest.mark.parametrize(("node", "inputs", "says"), [
    ("NSRandomSearch", {"draft_steps": 6}, "'draft_steps' must be from 1 to 5 for a run of 6 steps, not 6"),
    ("NSRandomSearch", {"draft_steps": 60}, "'draft_steps'.* not 60"),
    ("NSZeroOrderSearch", {"neighbors": 4, "cosine": 0.95, "on_stall": "keep", "draft_steps": 6}, "'draft_steps'.* not 6"),
])  # fmt: skip
def test_drafts_must_be_shorter_than_runs(node, inputs, says):
    (method,) = run_node(node_class(node), **inputs)
    with pytest.raises(ValueError, match=says), counted() as calls:
        search("eps", method=method)
    assert calls.rows == 0


@pytest.mark.parametrize("name", ["on_cancel", "on_verifier_error", "batching", "sampler_name", "scheduler"])
def test_an_unknown_choice_is_refused(name):
    """Older cores do not look at the choices of such nodes."""
    model = toy_model("eps")
    with pytest.raises(ValueError, match=f"^{name}: 'no such' is none of "), counted() as calls:
        simple_search(model, empty_latent("eps"), toy_vae("eps"), cond(model, 1), cond(model, 2), **{name: "no such"})
    assert calls.rows == 0


# Models.


def test_a_model_whose_frames_are_rows():
    graph = parts("frames")
    far = FarFrom(decoded(graph, stock_with(graph, 3)))
    with counted() as calls:
        got = search_with(graph, 3, budget=3, keep=3, method=HalvingSearch(), verifier=far)
    report = got.report
    assert len(report["candidates"]) == 3 and report["best"]["index"] > 0
    assert set(calls.rows_of) == {FRAMES} and report["model_calls"] == calls.rows == 3 * 6 * FRAMES
    assert "frames" in " ".join(report["one_by_one_because"]) and "random search" in " ".join(report["notes"])
    assert got.images.shape[0] == got.latents["samples"].shape[0] == 3 * FRAMES
    assert torch.equal(got.latents["samples"][:FRAMES], stock_with(graph, got.noise))
    assert torch.equal(got.latents["samples"][-FRAMES:], stock_with(graph, 3))
    assert torch.equal(render(graph, 3, got.recipe)[1]["samples"], got.latents["samples"][:FRAMES])
    assert report["verifier_calls"] == 3 * FRAMES


def test_a_4_channel_empty_latent_on_a_16_channel_model():
    latent = empty_latent("flow")
    assert latent["samples"].shape[1] == 4
    graph = parts("flow", latent=latent)
    got = search_with(graph, 3, budget=3, keep=3, method=RandomSearch())
    assert got.latents["samples"].shape == (3, 16, 8, 8)
    for place, index in enumerate(got.report["kept"]):
        seed = int(json.loads(got.report["candidates"][index]["recipe"])["seed"])
        assert relative(got.latents["samples"][place][None], stock_with(graph, seed)) < 1e-4
    assert relative(stock_with(graph, got.noise), got.latents["samples"][:1]) < 1e-4


# Verifiers that fail.


def raises(images: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("no idea")


BAD = {
    "throws": (raises, "RuntimeError: no idea"),
    "wrong length": (lambda images: torch.zeros(len(images) + 1), "one score for each of"),
    "matrix": (lambda images: torch.zeros(len(images), 1), "one score for each of"),
    "list": (lambda images: [0.0] * len(images), "one score for each of"),
    "none": (lambda images: None, "one score for each of"),
}
NO_NUMBER = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def breaks_on(picture: torch.Tensor):
    """Whether a picture is among the given ones."""

    def found(images: torch.Tensor) -> bool:
        return any(torch.allclose(image, picture, atol=1e-4) for image in images)

    return found


def graph_and_picture(candidate: int) -> tuple[dict, torch.Tensor]:
    graph = parts("eps")
    report = search_with(graph, 3, budget=4, method=RandomSearch()).report
    return graph, render(graph, 3, report["candidates"][candidate]["recipe"])[0][0]


@pytest.mark.parametrize("what", BAD)
def test_a_verifier_that_fails_stops_the_search(what):
    graph, picture = graph_and_picture(2)
    does, says = BAD[what]
    verifier = Broken(does, breaks_on(picture))
    with pytest.raises(VerifierError, match=f"verifier 'the broken one' failed on candidate 2: .*{says}.*on_verifier_error"):
        search_with(graph, 3, budget=4, method=RandomSearch(), verifier=verifier)


@pytest.mark.parametrize("what", BAD)
def test_or_its_candidate_is_skipped(what):
    graph, picture = graph_and_picture(2)
    does, says = BAD[what]
    got = search_with(graph, 3, budget=4, method=RandomSearch(), verifier=Broken(does, breaks_on(picture)),
                      on_verifier_error="skip")  # fmt: skip
    assert got.report["order"][-1] == 2 and got.report["candidates"][2]["score"] is None
    assert [p for p in got.report["problems"] if "candidate 2" in p and says in p]
    assert math.isfinite(got.score) and got.report["model_calls"] == 4 * 6


@pytest.mark.parametrize("on_verifier_error", ["stop", "skip"])
@pytest.mark.parametrize("what", NO_NUMBER)
def test_what_is_no_number_ranks_last_and_is_reported(what, on_verifier_error):
    graph, picture = graph_and_picture(0)
    verifier = Broken(lambda images: torch.where(
        torch.tensor([breaks_on(picture)(image[None]) for image in images]), NO_NUMBER[what], ToyVerifier().score(images)
    ))  # fmt: skip
    got = search_with(graph, 3, budget=4, method=RandomSearch(), verifier=verifier, on_verifier_error=on_verifier_error)
    assert got.report["order"][-1] == 0 and got.report["baseline"]["score"] is None and got.report["gain"] is None
    assert any("the broken one" in p and "candidate 0" in p for p in got.report["problems"])
    assert math.isfinite(got.score)


@pytest.mark.parametrize("method", [RandomSearch(), ZeroOrderSearch(neighbors=2), HalvingSearch(), RandomSearch(draft_steps=2)])
def test_a_verifier_that_knows_nothing_gives_the_users_own_seed(method):
    """With nothing to compare by, candidate 0 wins, and the report says that nobody has a score."""
    graph = parts("eps", steps=8)
    got = search_with(graph, 3, budget=4, method=method, verifier=Broken(raises), on_verifier_error="skip")
    assert got.report["best"]["index"] == 0 and relative(got.latents["samples"], stock_with(graph, 3)) < 1e-4
    assert got.report["best"]["score"] is None and got.report["notes"] and got.plot.shape == (1, 600, 960, 3)


def test_a_part_of_an_ensemble_that_fails_is_named():
    from noise_search.nodes.definitions.verifiers.basic import NSVerifierEnsemble
    from noise_search.verifiers.composite.ensemble import MODES

    for mode in MODES[:3]:
        (verifier,) = run_node(
            NSVerifierEnsemble, mode=mode, gate_threshold=0.0, verifier_1=ToyVerifier(), verifier_2=Broken(raises),
        )  # fmt: skip
        with pytest.raises(VerifierError, match="'the broken one' failed on candidate 0"):
            search("eps", verifier=verifier, method=RandomSearch())


# Limits and the held-out verifier.


def limits(**rules):
    return run_node(NSBudget, **{"max_model_calls": 0, "max_seconds": 0.0, "target_score": 0.0, "patience": 0, **rules})[0]


def test_limits_node():
    assert limits() == StopRules() and limits(target_score=0.5, patience=3) == StopRules(0, 0.0, 0.5, 3)


@pytest.mark.parametrize("method", [RandomSearch(), ZeroOrderSearch(neighbors=2), HalvingSearch(), RandomSearch(draft_steps=2)])
@pytest.mark.parametrize("most", [1, 6, 13, 31])
def test_max_model_calls(method, most):
    """Whatever it is, candidate 0 is rendered; beyond it nothing is started that cannot be paid for."""
    with counted() as calls:
        got = search("eps", budget=100, method=method, limits=limits(max_model_calls=most))
    assert calls.rows == got.report["model_calls"] <= max(most, 6)
    assert got.report["candidates"][0]["status"] == "finished"
    assert got.report["stopped"] or any("fewer drafts" in note for note in got.report["notes"])
    assert got.report["budget"]["max_model_calls"] == most
    assert sum(c["model_calls"] for c in got.report["candidates"] if c["status"] == "cut off") == 0


def test_patience_stops_after_so_many_in_vain():
    graph, flip = parts("eps"), None
    flip = FarFrom(decoded(graph, stock_with(graph, 3)))
    flip.score = lambda images, latents=None: -FarFrom.score(flip, images)
    got = search_with(graph, 3, budget=50, method=RandomSearch(), verifier=flip, limits=limits(patience=5))
    finished = [c for c in got.report["candidates"] if c["status"] == "finished"]
    assert 6 <= len(finished) <= 9 and "patience 5" in got.report["stopped"]


def test_target_score_stops():
    report = search("eps", budget=30, method=RandomSearch()).report
    first = next(c for c in report["candidates"] if c["score"] > report["baseline"]["score"])
    target = first["score"] - 1e-5
    got = search("eps", budget=30, method=RandomSearch(), limits=limits(target_score=target))
    assert got.score >= target and "target score" in got.report["stopped"]
    assert len([c for c in got.report["candidates"] if c["status"] == "finished"]) <= first["index"] + 4


def test_seconds_stop():
    got = search("eps", budget=100_000, method=ZeroOrderSearch(), limits=limits(max_seconds=0.5))
    assert 0.2 < got.report["seconds"]["total"] < 2.0 and got.report["stopped"]
    assert len(got.report["candidates"]) > 1


@pytest.mark.parametrize("method", [RandomSearch(), ZeroOrderSearch(neighbors=2, cosine=0.5), HalvingSearch()])
@pytest.mark.parametrize("images", [1, 2, 4, 7])
def test_an_adaptive_sampler_stays_under_the_budget(method, images):
    with counted() as calls:
        got = search("eps", "dpm_adaptive", budget=images, method=method)
    assert calls.rows == got.report["model_calls"] <= images * got.report["model_calls_per_image"]
    assert len([c for c in got.report["candidates"] if c["status"] == "finished"]) >= min(images, 2) - (images == 2)


def test_held_out_is_reported_and_never_chooses():
    """A contrary held-out verifier changes nothing but its own part of the report."""

    class Contrary(ToyVerifier):
        def score(self, images, latents=None):
            return -super().score(images)

    graph = parts("eps", steps=8)
    for method in (RandomSearch(), ZeroOrderSearch(neighbors=2), HalvingSearch()):
        plain = search_with(graph, 3, budget=6, keep=3, method=method)
        watched = search_with(graph, 3, budget=6, keep=3, method=method, held_out=Contrary(name="contrary"))
        assert watched.recipe == plain.recipe and watched.report["order"] == plain.report["order"]
        assert torch.equal(watched.images, plain.images) and plain.report["held_out"] is None
        held = watched.report["held_out"]
        assert held["verifier"] == "contrary" and held["problems"] == []
        wanted = {0, *watched.report["order"][:3]}
        assert {int(index) for index in held["scores"]} == wanted and held["verifier_calls"] == len(wanted)
        for index, score in held["scores"].items():
            assert score == pytest.approx(-watched.report["candidates"][int(index)]["score"], abs=1e-5)
        assert watched.report["model_calls"] == plain.report["model_calls"]


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_a_held_out_verifier_that_fails_is_named_and_costs_no_winner(policy):
    got = search("eps", held_out=Broken(raises), on_verifier_error=policy)
    assert "the broken one" in got.report["held_out"]["problems"][0]
    assert set(got.report["held_out"]["scores"].values()) == {None}
    assert got.report["best"]["index"] == search("eps").report["best"]["index"]


# Cancel, and memory.


@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
@pytest.mark.parametrize("method", [RandomSearch(), ZeroOrderSearch(neighbors=2), HalvingSearch()])
def test_cancel_stops_at_the_next_call_with_comfyuis_own_exception(method, late, monkeypatch):
    monkeypatch.setattr(memory, "MAX_ROWS", 2)
    with at_call(10, interrupt, late=late) as rows, pytest.raises(mm.InterruptProcessingException):
        search("eps", budget=8, method=method)
    assert len(rows) == 10


@pytest.mark.parametrize("method", [RandomSearch(), ZeroOrderSearch(neighbors=2), RandomSearch(draft_steps=2)])
def test_cancel_may_keep_the_best_so_far(method, monkeypatch):
    monkeypatch.setattr(memory, "MAX_ROWS", 2)
    graph = parts("eps")
    graph_calls = 6 * 4 + 3 + 6
    with at_call(graph_calls, interrupt) as rows:
        got = search_with(graph, 3, budget=40, keep=2, method=method, on_cancel="keep best")
        assert not mm.processing_interrupted()  # the workflow goes on
    assert len(rows) == graph_calls
    assert "cancelled" in got.report["stopped"] and got.report["candidates"][0]["status"] == "finished"
    assert got.report["model_calls"] in (sum(rows), sum(rows[:-1]))  # the model may have noticed Cancel itself
    assert got.report["best"]["index"] == got.report["order"][0]
    assert relative(got.latents["samples"][:1], stock_with(graph, got.noise)) < 1e-4
    assert relative(got.images, decoded(graph, got.latents["samples"])) < 1e-4
    assert got.plot.shape == (1, 600, 960, 3)


def test_cancel_keeps_every_run_that_ended_alone():
    """Runs that share no calls end one after another: those before the cancel are scored."""
    graph = parts("eps")
    with at_call(6 * 3 + 2, interrupt):
        got = search_with(graph, 3, budget=8, method=RandomSearch(), batching="off", on_cancel="keep best")
    assert sorted(got.report["order"]) == [0, 1, 2]


def test_a_failure_while_those_before_the_cancel_are_scored_is_not_what_is_said(monkeypatch):
    graph, decode = parts("eps"), []
    monkeypatch.setattr(graph["vae"], "decode", lambda *args, **kwargs: decode.append(1) or 1 / 0)
    with at_call(6 * 3 + 2, interrupt), pytest.raises(mm.InterruptProcessingException):
        search_with(graph, 3, budget=8, method=RandomSearch(), batching="off", on_cancel="keep best")
    assert decode == [1]


@pytest.mark.parametrize("on_cancel", ["cancel", "keep best"])
def test_cancel_before_anything_was_finished(on_cancel):
    with at_call(3, interrupt) as rows, pytest.raises(mm.InterruptProcessingException):
        search("eps", budget=8, on_cancel=on_cancel)
    assert len(rows) == 3


def test_cancel_in_the_second_row_of_a_batch_keeps_the_first():
    latent = {**empty_latent("eps", batch=3), "noise_mask": torch.rand(3, 1, 8, 8)}
    graph = parts("eps", latent=latent)
    with at_call(6 + 3, interrupt), pytest.raises(mm.InterruptProcessingException):  # in the second search's only run
        search_with(graph, 3, budget=1)
    with at_call(6 + 3, interrupt):
        got = search_with(graph, 3, budget=1, on_cancel="keep best")
        assert not mm.processing_interrupted()
    assert got.images.shape[0] == 1 and got.latents["samples"].shape[0] == 1
    assert torch.equal(got.latents["noise_mask"], latent["noise_mask"][:1])
    with at_call(12 + 2, interrupt):
        got = search_with(graph, 3, budget=1, on_cancel="keep best")
    assert got.images.shape[0] == 2 and len(json.loads(got.recipe)) == 2


@pytest.mark.parametrize("budget", [1, 3])
@pytest.mark.parametrize("where", ["verifier", "decode"])
def test_cancel_inside_a_verifier_or_a_decoder_passes(where, budget, monkeypatch):
    """Also where failures are skipped."""

    def cancelled(*args, **kwargs):
        raise mm.InterruptProcessingException()

    graph = parts("eps")
    options = {"budget": budget, "on_verifier_error": "skip"}
    if where == "verifier":
        options["verifier"] = Broken(cancelled)
    else:
        monkeypatch.setattr(graph["vae"], "decode", cancelled)
    with pytest.raises(mm.InterruptProcessingException):
        search_with(graph, 3, **options)


def test_cancel_pressed_inside_a_verifier_keeps_the_best():
    pressed = []

    def press(images):
        pressed.append(len(images))
        if len(pressed) == 3:
            interrupt()
            mm.throw_exception_if_processing_interrupted()
        return ToyVerifier().score(images)

    try:
        got = search("eps", budget=20, method=ZeroOrderSearch(neighbors=2), verifier=Broken(press), on_cancel="keep best")
    finally:
        mm.interrupt_current_processing(False)
    assert "cancelled" in got.report["stopped"] and len(got.report["order"]) == 2  # a picture an answer: the third has none


def test_after_a_cancel_the_next_search_is_as_ever():
    graph = parts("eps", "dpmpp_2m_sde")
    want = search_with(graph, 3, budget=5, method=HalvingSearch())
    for number in (2, 3, 4):
        with at_call(number, interrupt), pytest.raises(mm.InterruptProcessingException):
            search_with(graph, 3, budget=5, method=HalvingSearch())
    again = search_with(graph, 3, budget=5, method=HalvingSearch())
    assert torch.equal(again.latents["samples"], want.latents["samples"]) and again.score == want.score


def out_of_memory() -> None:
    raise mm.OOM_EXCEPTION("CUDA out of memory")


@pytest.mark.parametrize("method", [RandomSearch(), HalvingSearch()])
def test_out_of_memory_halves_the_batch_and_loses_no_candidate(method):
    graph = parts("eps", steps=8)
    want = search_with(graph, 3, budget=8, method=method).report
    with at_call(2, out_of_memory) as rows:
        got = search_with(graph, 3, budget=8, method=method).report
    assert rows[0] == rows[1] >= 8 and max(rows[2:]) == rows[0] // 2
    assert got["batch_halved"] == 1 and got["batch"] == rows[0] // 2
    assert got["model_calls"] == want["model_calls"] == sum(rows) - rows[1]
    assert [c["status"] for c in got["candidates"]] == [c["status"] for c in want["candidates"]]
    for a, b in zip(want["candidates"], got["candidates"], strict=True):
        assert b["score"] == pytest.approx(a["score"], abs=1e-4)


def test_out_of_memory_at_batch_1_is_comfyuis_own_error():
    with at_call(1, out_of_memory, each=True) as rows, pytest.raises(mm.OOM_EXCEPTION):
        search("eps", budget=8, method=RandomSearch())
    assert rows == [8, 4, 2, 1]


def test_another_error_of_the_model_is_passed_on_once_one_candidate_fails_too():
    def broken() -> None:
        raise RuntimeError("a bug in some patch")

    with at_call(5, broken, each=True) as rows, pytest.raises(RuntimeError, match="a bug in some patch") as raised:
        search("eps", budget=8, method=RandomSearch(), on_cancel="keep best")
    assert rows == [8] * 5 + [1] and isinstance(raised.value.__cause__, RuntimeError)
