"""The guidance gap on toys: what it measures, whatever shares calls; what it refuses; CFG-Rejection without a picture."""

from __future__ import annotations

import contextlib
import json
import math

import pytest

from inprocess import boot

pytestmark = pytest.mark.comfy

boot()

import comfy.samplers
import torch
from comfy.patcher_extension import WrappersMP
from searching import FarFrom, decoded, parts, search_with, stock_with
from sessions import relative, session_for

from noise_search.nodes.adapter import memory
from noise_search.nodes.definitions.verifiers.basic import NSGuidanceGap
from noise_search.search.methods.halving import HalvingSearch
from noise_search.search.methods.path_search import PathSearch
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.noise.proposals import JitterProposal
from noise_search.search.noise.recipe import BranchPoint, Recipe
from noise_search.search.scoring.scorer import VerifierError
from noise_search.verifiers.composite.ensemble import Ensemble
from noise_search.verifiers.measures.guidance_gap import GuidanceGap
from toys import ToyVerifier, cond, counted, empty_latent, guider, run_node, sampler, sigmas_for, toy_model

ALL = GuidanceGap(0)


@contextlib.contextmanager
def outputs_of(net):
    """What the network put out in every call, conditional and unconditional rows together."""
    seen = []
    hook = net.register_forward_hook(lambda module, args, out: seen.append(out.clone()))
    try:
        yield seen
    finally:
        hook.remove()


def by_hand(graph, seed, kind="eps"):
    """The gaps of a stock run, from the raw outputs of the network: eps or velocity; v gives eps by its scaling."""
    with counted() as calls, outputs_of(graph["guider"].model_patcher.model.diffusion_model) as seen:
        stock_with(graph, seed)
    assert len(seen) == calls.calls and all(out.shape[0] == 2 for out in seen)
    scale = [1.0 / (sigma**2 + 1.0) if kind == "v" else 1.0 for sigma in calls.sigmas]
    return [float((out[0] - out[1]).double().square().mean()) * factor for out, factor in zip(seen, scale, strict=True)]


def seed_of(candidate):
    return int(json.loads(candidate["recipe"])["seed"])


def finished(report):
    return [c for c in report["candidates"] if c["status"] == "finished"]


@pytest.mark.parametrize("name", ["euler", "heun", "euler_ancestral", "euler_cfg_pp"])
@pytest.mark.parametrize("kind", ["eps", "flow", "v"])
def test_it_is_the_squared_difference_of_both_predictions(kind, name):
    graph = parts(kind, name)
    for steps, prefer in ((0, "high"), (3, "low")):
        got = search_with(graph, 3, budget=4, method=RandomSearch(), verifier=GuidanceGap(steps, prefer))
        sums = []
        for candidate in finished(got.report):
            gaps = by_hand(graph, seed_of(candidate), kind)
            sums.append(math.fsum(gaps[: steps or None]))
            assert abs(candidate["score"]) == pytest.approx(sums[-1], rel=1e-4)
            assert (candidate["score"] > 0) == (prefer == "high")
        assert len(set(sums)) == 4
        want = (max if prefer == "high" else min)(sums)
        assert abs(got.score) == pytest.approx(want, rel=1e-4)


@pytest.mark.parametrize("masked", [False, True])
def test_neither_the_size_of_calls_nor_sharing_matters(masked, monkeypatch):
    graph, scores = parts("flow", "euler_ancestral", masked=masked), {}
    for rows in (1, 2, 8):
        monkeypatch.setattr(memory, "MAX_ROWS", rows)
        scores[rows] = [
            c["score"] for c in search_with(graph, 3, budget=8, method=RandomSearch(), verifier=ALL).report["candidates"]
        ]
    scores["off"] = [
        c["score"]
        for c in search_with(graph, 3, budget=8, method=RandomSearch(), verifier=ALL, batching="off").report["candidates"]
    ]
    assert len(set(scores[1])) == 8
    for other in scores.values():
        assert other == pytest.approx(scores[1], rel=1e-4)


def test_halving_by_it_is_cfg_rejection_and_decodes_nothing():
    graph = parts("eps", steps=8)
    with counted() as calls:
        got = search_with(graph, 3, budget=8, method=HalvingSearch(), verifier=GuidanceGap(2), keep=2)
    report = got.report
    assert report["model_calls"] == calls.rows == 8 * 8 and len(report["candidates"]) == 16
    assert report["decodes"] == 2 and report["verifier_calls"] == 0  # the two pictures that are returned
    dropped = [c for c in report["candidates"] if c["status"] == "pruned" and len(c["looks"]) == 1]
    others = [c for c in report["candidates"][1:] if len(c["looks"]) == 2]
    assert len(dropped) == 8 and others
    assert max(c["looks"][0]["score"] for c in dropped) <= min(c["looks"][0]["score"] for c in others)
    for candidate in dropped[:2]:
        gaps = by_hand(graph, seed_of(candidate))
        assert candidate["looks"][0]["score"] == pytest.approx(sum(gaps[:2]), rel=1e-4)
    assert torch.equal(got.images[:1], decoded(graph, got.latents["samples"][:1]).clamp(0, 1))


def test_it_changes_no_candidate():
    for name in ("euler", "euler_cfg_pp", "dpmpp_2m_sde"):
        graph = parts("eps", name)
        got = search_with(graph, 3, budget=3, method=RandomSearch(), verifier=ALL, keep=3)
        for row, index in enumerate(got.report["kept"]):
            want = stock_with(graph, seed_of(got.report["candidates"][index]))
            assert relative(got.latents["samples"][row : row + 1], want) < 1e-5
        assert not graph["guider"].model_options.get("sampler_post_cfg_function")


def test_with_a_picture_verifier():
    graph, toy = parts("eps", steps=8), ToyVerifier()
    got = search_with(graph, 3, budget=8, method=HalvingSearch(), verifier=Ensemble((toy, GuidanceGap(2))))
    for candidate in finished(got.report):
        assert set(candidate["scores"]) == {"toy-redness", "guidance gap"}
        assert candidate["scores"]["guidance gap"] == pytest.approx(sum(by_hand(graph, seed_of(candidate))[:2]), rel=1e-4)
    assert got.report["verifier_calls"] == sum(toy.batches) == got.report["decodes"] > 8


def test_as_held_out():
    graph = parts("eps")
    got = search_with(
        graph, 3, budget=3, method=RandomSearch(), held_out=ALL, verifier=FarFrom(decoded(graph, stock_with(graph, 3)))
    )
    assert got.report["best"]["index"] > 0 and got.report["decodes"] == 3  # candidate 0's picture is not made again
    held = got.report["held_out"]
    assert held["verifier"] == "guidance gap" and held["problems"] == [] and len(held["scores"]) >= 1
    for index, score in held["scores"].items():
        seed = seed_of(got.report["candidates"][int(index)])
        assert score == pytest.approx(sum(by_hand(graph, seed)), rel=1e-4)


@pytest.mark.parametrize("method", [RandomSearch(draft_steps=2), PathSearch(), RandomSearch(JitterProposal(cosine=0.6))])
def test_other_ways_to_search(method):
    graph = parts("eps", steps=10)
    got = search_with(graph, 3, budget=6, method=method, verifier=ALL)
    assert got.report["decodes"] == 1 and got.score > 0
    assert got.report["candidates"][0]["score"] == pytest.approx(sum(by_hand(graph, 3)), rel=1e-4)


def test_drafts_are_judged_by_their_own_gaps():
    graph = parts("eps", steps=8)
    got = search_with(graph, 3, budget=4, method=RandomSearch(draft_steps=4), verifier=ALL)
    short = {**graph, "sigmas": graph["sigmas"][::2]}
    looked = [c for c in got.report["candidates"] if c["looks"]]
    assert looked
    for candidate in looked[:3]:
        assert candidate["looks"][0]["score"] == pytest.approx(sum(by_hand(short, seed_of(candidate))), rel=1e-4)


def test_a_branch_has_those_of_the_calls_before_its_cut():
    graph = parts("eps")
    g, sigmas = graph["guider"], graph["sigmas"]
    want, at = by_hand(graph, 5), float(sigmas[3])
    session = session_for(g, graph["sampler"], sigmas, graph["latent_image"])
    session.gaps_for = "guidance gap"
    run = session.start(Recipe(5, 5), keep_records=[at])
    session.advance([run])
    twin, up = (
        session.branch(run.records[0], BranchPoint(at, at, 1, 5)),
        session.branch(run.records[0], BranchPoint(at, 2.0 * at, 1, 5)),
    )
    session.advance([twin, up])
    assert run.gaps == pytest.approx(want, rel=1e-4)
    assert twin.nfe == 2 and twin.gaps == pytest.approx(want, rel=1e-3)  # its first call is answered from the record
    assert up.gaps[:3] == run.gaps[:3] and len(up.gaps) == 3 + up.nfe and up.gaps[3:] != run.gaps[3:]


def test_runs_are_as_they_were_when_nobody_asks():
    session = session_for(guider(toy_model("eps")), sampler("euler"), sigmas_for(toy_model("eps")), empty_latent("eps"))
    run = session.start(Recipe(5, 5), keep_records=True)
    session.advance([run])
    assert run.gaps == [] and all(record.gaps == () for record in run.records)


# Alone


def remembering(model, functions):
    """A patch that keeps its state in the very options it is given; `functions` gets how many post-CFG functions there are."""

    def post_cfg(args):
        functions.append(len(args["model_options"]["sampler_post_cfg_function"]))
        calls = args["model_options"]["transformer_options"].setdefault("calls", [])
        calls.append(1)
        return args["denoised"] * (1.0 + 0.05 * len(calls))

    model.set_model_sampler_post_cfg_function(post_cfg)
    return model


def test_alone_runs_are_measured_and_keep_their_state():
    functions = []
    graph = parts("eps", g=guider(remembering(toy_model("eps"), functions)))
    got = search_with(graph, 3, budget=3, method=RandomSearch(), verifier=ALL, keep=3)
    assert got.report["one_by_one_because"]
    assert functions == 3 * 6 * [3]  # the patch and what records, which is taken away after every call
    for row, index in enumerate(got.report["kept"]):
        candidate = got.report["candidates"][index]
        assert torch.equal(got.latents["samples"][row : row + 1], stock_with(graph, seed_of(candidate)))
        assert candidate["score"] == pytest.approx(sum(by_hand(graph, seed_of(candidate))), rel=1e-5)


# What has no gap


class Silent(comfy.samplers.CFGGuider):
    """A guider that calls no post-CFG function."""

    def predict_noise(self, x, timestep, model_options=None, seed=None):
        conds = [self.conds["positive"], self.conds["negative"]]
        cond, uncond = comfy.samplers.calc_cond_batch(self.inner_model, conds, x, timestep, model_options)
        return uncond + (cond - uncond) * self.cfg


class Late(comfy.samplers.CFGGuider):
    """A guider without guidance above a noise level."""

    def predict_noise(self, x, timestep, model_options=None, seed=None):
        before, self.cfg = self.cfg, self.cfg if float(timestep[0]) < 3.0 else 1.0
        try:
            return super().predict_noise(x, timestep, model_options, seed)
        finally:
            self.cfg = before


def of_class(cls, cfg=3.0):
    model = toy_model("eps")
    g = cls(model)
    g.set_conds(cond(model, 1), cond(model, 2))
    g.set_cfg(cfg)
    return g


def basic():
    model = toy_model("eps")
    return run_node("BasicGuider", model=model, conditioning=cond(model, 1))[0]


@pytest.mark.parametrize("skip", ["stop", "skip"])
@pytest.mark.parametrize("role", ["verifier", "part", "held_out"])
@pytest.mark.parametrize("make", [basic, lambda: guider(toy_model("eps"), cfg=1.0)], ids=["basic", "cfg 1"])
def test_without_guidance_the_search_ends_at_its_first_call(make, role, skip):
    graph = parts("eps", g=make())
    given = {"verifier": ALL, "part": Ensemble((ToyVerifier(), ALL)), "held_out": ALL}[role]
    options = {"held_out" if role == "held_out" else "verifier": given}
    says = (
        "^verifier 'guidance gap': no unconditional prediction was made.*CFG must be above 1.*guidance-distilled.*"
        "another verifier"
    )
    with counted() as calls, pytest.raises(ValueError, match=says):
        search_with(graph, 3, budget=4, on_verifier_error=skip, **options)
    assert calls.calls == 1


def test_a_sampler_that_needs_the_unconditional_prediction_brings_it():
    """At CFG 1 too."""
    graph = parts("eps", "euler_cfg_pp", g=guider(toy_model("eps"), cfg=1.0))
    got = search_with(graph, 3, budget=3, method=RandomSearch(), verifier=ALL)
    assert got.score > 0


def test_guiders_that_show_nothing_are_named_with_what_to_do():
    graph = parts("eps", g=of_class(Silent))
    with pytest.raises(VerifierError, match="'guidance gap' failed on candidate 0: .*another verifier.*post-CFG functions"):
        search_with(graph, 3, budget=3, method=RandomSearch(), verifier=ALL)
    got = search_with(graph, 3, budget=3, method=RandomSearch(), verifier=ALL, on_verifier_error="skip")
    assert got.report["best"]["index"] == 0 and got.report["problems"]


def late_by_a_patch():
    """Core's guider with a patch that takes the guidance from it above a noise level, as CFGOverride does."""

    def override(executor, x, timestep, *args, **kwargs):
        guider, saved = executor.class_obj, executor.class_obj.cfg
        guider.cfg = saved if float(timestep[0]) < 3.0 else 1.0
        try:
            return executor(x, timestep, *args, **kwargs)
        finally:
            guider.cfg = saved

    model = toy_model("eps")
    model.add_wrapper(WrappersMP.PREDICT_NOISE, override)
    return guider(model)


@pytest.mark.parametrize("make", [lambda: of_class(Late), late_by_a_patch], ids=["guider", "patch"])
def test_guidance_that_begins_later_is_measured_from_then_on(make):
    graph = parts("eps", g=make(), steps=8)
    got = search_with(graph, 3, budget=3, method=RandomSearch(), verifier=ALL)
    late = [gap for gap, sigma in zip(by_hand_late(graph), graph["sigmas"][:-1].tolist(), strict=True) if sigma < 3.0]
    assert 0 < len(late) < 8
    assert got.report["candidates"][0]["score"] == pytest.approx(sum(late), rel=1e-4)


def by_hand_late(graph):
    with outputs_of(graph["guider"].model_patcher.model.diffusion_model) as seen:
        stock_with(graph, 3)
    return [float((out[0] - out[1]).square().mean()) if out.shape[0] == 2 else 0.0 for out in seen]


def test_the_node():
    assert run_node(NSGuidanceGap, first_steps=5, prefer="low") == (GuidanceGap(5, "low"),)


def test_score_images_says_that_it_cannot():
    from noise_search.nodes.definitions.scoring import NSScoreImages

    with pytest.raises(ValueError, match="^guidance gap: it measures a search's model calls"):
        run_node(NSScoreImages, images=torch.rand(2, 8, 8, 3), verifier=ALL)
