"""Recipes: the winner again in another process, from any candidate of a report; and what is no recipe."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from inprocess import boot

pytestmark = pytest.mark.comfy

boot()

import torch
from searching import FarFrom, decoded, noise_of, parts, render, search_with, stock_with
from sessions import flat, relative

from noise_search.nodes.definitions.search import NSSearchSamplerAdvanced
from noise_search.search.methods.evolution import EvolutionSearch
from noise_search.search.methods.halving import HalvingSearch
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.methods.zero_order import ZeroOrderSearch
from noise_search.search.noise.proposals import NeighborProposal
from noise_search.search.reporting.report import read_reports
from toys import ToyVerifier, empty_latent, run_node

OLD = Path(__file__).parents[1] / "report_version_1.json"
GOOD = {"noise_search": 1, "noise": "5", "seed": "7"}
MOVE = {"kind": "neighbor", "seed": "9", "amount": 0.9}
CUT = {"sigma": 1.0, "renoise_to": 2.0, "noise_seed": "3", "seed": "4"}


def test_in_a_second_process(tmp_path):
    methods = [RandomSearch(), ZeroOrderSearch(neighbors=2, cosine=0.9), HalvingSearch()]
    jobs, want = [], []
    for kind, masked in [("eps", True), ("flow", False), ("flow5d", False), ("nested", False)]:
        for sampler in ("euler", "euler_ancestral", "dpmpp_2m_sde"):
            graph = parts(kind, sampler, masked=masked)
            for method in methods:
                verifier = FarFrom(decoded(graph, stock_with(graph, 3)))
                got = search_with(graph, 3, budget=5, method=method, verifier=verifier)
                assert got.report["best"]["index"] > 0
                jobs.append({"kind": kind, "sampler": sampler, "masked": masked, "recipe": got.recipe, "sigmas": got.sigmas})
                want.append(flat(got.latents["samples"]))
    torch.save(jobs, tmp_path / "jobs.pt")
    script = Path(__file__).with_name("second_process.py")
    out = tmp_path / "out.pt"
    ended = subprocess.run([sys.executable, str(script), str(tmp_path / "jobs.pt"), str(out)], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    for job, expected, got in zip(jobs, want, torch.load(out), strict=True):
        assert relative(got, expected) < 1e-4, job
    assert relative(want[0], want[1]) > 1e-2


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m_sde"])
@pytest.mark.parametrize("kind", ["eps", "nested"])
def test_any_candidate_of_a_report_is_rendered_again(kind, sampler):
    graph = parts(kind, sampler)
    got = search_with(graph, 3, budget=3, method=RandomSearch(NeighborProposal(0.8)), keep=3)
    frames = got.images.shape[0] // 3
    for place, index in enumerate(got.report["kept"]):
        recipe = got.report["candidates"][index]["recipe"]
        image, latent = render(graph, 99, recipe)  # the connected noise is not used
        assert relative(image, got.images[place * frames : (place + 1) * frames]) < 1e-5
        assert relative(latent["samples"], stock_with(graph, noise_of(recipe))) < 1e-5


def report_output(graph: dict, **options) -> str:
    """Run a search; return its report output as it is."""
    (noise,) = run_node("RandomNoise", noise_seed=3)
    return run_node(NSSearchSamplerAdvanced, noise=noise, **graph, verifier=ToyVerifier(), keep=1, **options)[7]


def test_a_candidate_is_rendered_from_the_report_and_its_index():
    graph = parts("eps")
    text = report_output(graph, budget=5, method=EvolutionSearch())
    (report,) = read_reports(text)
    branched = max(c["index"] for c in report["candidates"] if "cuts" in c["recipe"])
    for index, wanted in ((branched, branched), (1, 1), (-1, report["kept"][0])):
        image, latent = render(graph, 3, text, candidate=index)
        again, same = render(graph, 3, report["candidates"][wanted]["recipe"])
        assert torch.equal(image, again) and torch.equal(latent["samples"], same["samples"])
    assert not torch.equal(render(graph, 3, text, candidate=0)[0], image)
    with pytest.raises(ValueError, match=rf"candidate: 99 is none of the report's {len(report['candidates'])}: 0 to"):
        render(graph, 3, text, candidate=99)


def test_a_candidate_of_a_report_of_version_1_is_rendered():
    graph, text = parts("eps"), OLD.read_text(encoding="utf-8")
    (report,) = read_reports(text)
    image, _ = render(graph, 3, text, candidate=4)
    assert torch.equal(image, render(graph, 3, report["candidates"][4]["recipe"])[0])


def test_a_batchs_reports_give_every_row_the_candidate_of_its_own_search():
    graph = parts("eps", latent=empty_latent("eps", batch=2))
    text = report_output(graph, budget=2, method=RandomSearch())
    image, _ = render(graph, 3, text, candidate=1)
    recipes = [json.loads(report["candidates"][1]["recipe"]) for report in read_reports(text)]
    assert torch.equal(image, render(graph, 3, json.dumps(recipes))[0]) and recipes[0] != recipes[1]


def test_a_dropped_candidate_is_rendered_in_full():
    graph = parts("eps", steps=8)
    got = search_with(graph, 3, budget=4, method=HalvingSearch())
    dropped = next(c for c in got.report["candidates"] if c["status"] == "pruned")
    image, latent = render(graph, 3, dropped["recipe"])
    seed = int(json.loads(dropped["recipe"])["seed"])
    assert torch.equal(latent["samples"], stock_with(graph, seed))
    assert torch.equal(image, decoded(graph, latent["samples"]).clamp(0, 1))


def test_an_old_recipe_stays_what_it_was():
    """The words of released recipes never change their meaning."""
    noise = noise_of(json.dumps({**GOOD, "moves": [MOVE]}))
    latent = empty_latent("eps")
    got = noise.generate_noise(latent)
    first, fresh = (run_node("RandomNoise", noise_seed=seed)[0].generate_noise(latent) for seed in (5, 9))
    assert noise.seed == 7
    assert float((got * first).sum() / got.norm() / first.norm()) == pytest.approx(0.9, abs=1e-5)
    assert float(got.norm()) == pytest.approx(float(first.norm()), rel=1e-5)
    across = fresh - (fresh * first).sum() / (first * first).sum() * first
    rest = got - 0.9 * first
    assert float((rest * across).sum() / rest.norm() / across.norm()) == pytest.approx(1.0, abs=1e-4)


def text(**changes) -> str:
    return json.dumps({**GOOD, **changes})


HOSTILE = {
    "empty": "", "words": "a red circle", "null": "null", "number": "7", "string": '"7"', "list": "[]",
    "list of nothing": "[null]", "nested lists": "[[{}]]", "deep": "[" * 90_000, "deep objects": '{"a":' * 15_000,
    "long": " " * 100_001, "huge number": "9" * 5000, "not a recipe": "{}", "nan": text(moves=[{**MOVE, "amount": float("nan")}]),
    "infinite": text(moves=[{**MOVE, "amount": float("inf")}]), "version": text(noise_search=2),
    "version list": text(noise_search=[1]), "version true": text(noise_search=True),
    "big seed": text(seed=str(2**64)), "negative": text(seed="-1"), "bare seed": text(seed=7), "float seed": text(seed=7.5),
    "no seed": '{"noise_search": 1, "noise": "5"}', "no noise": '{"noise_search": 1, "seed": "5"}',
    "arabic digits": text(seed="٣"), "long seed": text(seed="0" * 21 + "1"), "noise list": text(noise=["given"]),
    "noise word": text(noise="/etc/passwd"), "moves": text(moves={"kind": "neighbor"}), "move list": text(moves=[1]),
    "moves null": text(moves=None), "unknown move": text(moves=[{**MOVE, "kind": "__class__"}]),
    "move kind": text(moves=[{**MOVE, "kind": []}]), "cosine": text(moves=[{**MOVE, "amount": 1.5}]),
    "no amount": text(moves=[{"kind": "neighbor", "seed": "9"}]), "words for amount": text(moves=[{**MOVE, "amount": "0.9"}]),
    "amount true": text(moves=[{**MOVE, "amount": True}]), "big amount": text(moves=[{**MOVE, "amount": 10**400}]),
    "cut up": text(cuts=[{**CUT, "sigma": 3.0}]), "cut at 0": text(cuts=[{**CUT, "sigma": 0.0}]),
    "cut seed": text(cuts=[{**CUT, "seed": None}]), "cut nan": text(cuts=[{**CUT, "sigma": float("nan")}]),
    "cut huge": text(cuts=[{**CUT, "renoise_to": 10**400}]), "surrogate": text(noise="\ud800"),
    "long word": text(seed="x" * 50_000), "long move": text(moves="x" * 50_000),
    "neighbor of zero": text(noise="zero", moves=[MOVE]),
}  # fmt: skip


@pytest.mark.parametrize("recipe", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_no_recipe_says_so(recipe):
    with pytest.raises(ValueError, match="^recipe: ") as refused:
        noise_of(recipe)
    assert len(str(refused.value)) < 400
    with pytest.raises(ValueError, match="^recipe: "):
        render(parts("eps"), 3, recipe)


def test_recipes_of_other_shape_than_the_batch():
    graph = parts("eps", latent=empty_latent("eps", batch=2))
    with pytest.raises(ValueError, match="^recipe: .*1 recipes.*2 rows"):
        render(graph, 3, text())
    noise = noise_of(f"[{text()}, {text()}, {text()}]")
    with pytest.raises(ValueError, match="^noise: .*batch of 3, not of 2"):
        stock_with(graph, noise)


def test_branched_recipes_are_for_render_candidate():
    with pytest.raises(ValueError, match="^recipe: .*Render Candidate"):
        noise_of(text(cuts=[CUT]))
    graph = parts("eps")
    at = float(graph["sigmas"][3])
    whole = stock_with(graph, 7)
    _, latent = render(graph, 3, json.dumps({
        **GOOD, "noise": "7", "cuts": [{"sigma": at, "renoise_to": at, "noise_seed": "1", "seed": "7"}],
    }))  # fmt: skip
    assert relative(latent["samples"], whole) < 1e-4  # euler has no memory: a cut without noise changes nothing
    _, latent = render(graph, 3, json.dumps({
        **GOOD, "noise": "7", "cuts": [{"sigma": at, "renoise_to": 1.5 * at, "noise_seed": "1", "seed": "7"}],
    }))  # fmt: skip
    assert relative(latent["samples"], whole) > 1e-2
    with pytest.raises(ValueError, match="^recipe: no model call at its cut"):
        render(graph, 3, text(cuts=[CUT]))


def test_a_recipe_from_a_connected_noise_says_what_to_do():
    with pytest.raises(ValueError, match="^recipe: .*NOISE.*Render Candidate"):
        noise_of(text(noise="given"))
