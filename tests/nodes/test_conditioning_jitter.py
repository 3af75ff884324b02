"""Conditioning jitter on toys: a jittered candidate is what stock nodes give for the jittered CONDITIONING."""

from __future__ import annotations

import copy
import json

import pytest

from inprocess import boot
from node_api import node_class

pytestmark = pytest.mark.comfy

boot()

import comfy.samplers
import comfy_extras.nodes_custom_sampler as stock_nodes
import torch
from searching import FarFrom, decoded, noise_of, parts, render, search_with, stock_with
from sessions import relative, session_for

from noise_search.nodes.adapter.conditioning import MAX_KEPT
from noise_search.nodes.definitions.conditioning import NSJitterConditioning
from noise_search.search.core.replay import replay
from noise_search.search.methods.halving import HalvingSearch
from noise_search.search.methods.path_search import PathSearch
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.methods.zero_order import ZeroOrderSearch
from noise_search.search.noise.jitter import Jitter, jitter_embedding
from noise_search.search.noise.proposals import JitterProposal, NeighborProposal
from noise_search.search.noise.recipe import BranchPoint, Recipe, derived_seed
from toys import cond, counted, empty_latent, guider, run_node, sampler, sigmas_for, stock, tiny_unet, toy_model

JITTER = Jitter(77, 0.6)
RECIPE = Recipe(5, 5, jitter=JITTER)
THREE = (Recipe(5, 5), RECIPE, Recipe(5, 5, jitter=Jitter(78, 0.6)))
ONLY_TEXT = JitterProposal(cosine=0.6, same_noise=True)


def jittered(positive, recipe):
    return run_node(NSJitterConditioning, conditioning=positive, recipe=recipe)[0]


def with_positive(graph, positive, kind=None):
    """The graph with a stock guider whose positive conditioning is another."""
    return {**graph, "guider": guider(graph["guider"].model_patcher, positive=positive)}


def far(graph, seed=3):
    return FarFrom(decoded(graph, stock_with(graph, seed)))


def frozen(g):
    """What must not change of a guider."""
    tensors = [v.clone() for conds in g.original_conds.values() for c in conds for v in c.values() if isinstance(v, torch.Tensor)]
    return tensors, {k: [dict(c) for c in conds] for k, conds in g.original_conds.items()}, dict(vars(g))


def assert_untouched(g, before):
    tensors, conds, attributes = frozen(g)
    assert all(torch.equal(a, b) for a, b in zip(tensors, before[0], strict=True))
    assert all(
        x.keys() == y.keys() and all(x[k] is y[k] for k in x) for n in conds for x, y in zip(conds[n], before[1][n], strict=True)
    )
    assert attributes.keys() == before[2].keys() and all(attributes[k] is before[2][k] for k in attributes)


# What stock nodes give


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", ["euler", "euler_ancestral", "euler_cfg_pp", "dpmpp_2m_sde"])
@pytest.mark.parametrize("kind", ["eps", "flow"])
def test_the_winner_in_stock_nodes_and_in_render_candidate(kind, name, masked):
    graph = parts(kind, name, masked=masked)
    positive = cond(graph["guider"].model_patcher, 1)
    before = frozen(graph["guider"])
    for proposal in (ONLY_TEXT, JitterProposal(NeighborProposal(0.8), 0.6)):
        with counted() as calls:
            got = search_with(graph, 3, budget=4, method=RandomSearch(proposal), verifier=far(graph))
        calls_before = stock_calls(graph)
        assert got.report["best"]["index"] > 0 and "jitter" in json.loads(got.recipe)
        assert got.report["model_calls"] == 4 * calls_before == calls.rows - calls_before  # less the verifier's own run
        again = with_positive(graph, jittered(positive, got.recipe))
        assert relative(got.latents["samples"], stock_with(again, got.noise)) < 1e-4
        assert relative(got.latents["samples"], stock_with(again, noise_of(got.recipe))) < 1e-4
        image, latent = render(graph, 3, got.recipe)
        assert relative(latent["samples"], got.latents["samples"]) < 1e-4 and relative(image, got.images) < 1e-4
        assert relative(stock_with(graph, got.noise), got.latents["samples"]) > 1e-3  # and the test can tell
        assert any("Jitter Conditioning" in note for note in got.report["notes"])
        assert_untouched(graph["guider"], before)


def stock_calls(graph):
    with counted() as calls:
        stock_with(graph, 3)
    return calls.rows


@pytest.mark.parametrize("method", [HalvingSearch(proposal=JitterProposal(cosine=0.6)), HalvingSearch(proposal=ONLY_TEXT)])
@pytest.mark.parametrize(("kind", "name"), [("eps", "euler"), ("flow", "euler_ancestral"), ("eps", "euler_cfg_pp")])
def test_suspended_runs_keep_theirs(kind, name, method):
    graph = parts(kind, name, steps=8)
    positive, verifier = cond(graph["guider"].model_patcher, 1), far(graph)
    with counted() as calls:
        got = search_with(graph, 3, budget=8, method=method, verifier=verifier, keep=4)
    assert got.report["model_calls"] == calls.rows == 8 * 8
    assert {c["status"] for c in got.report["candidates"]} == {"finished", "pruned"}
    for row, index in enumerate(got.report["kept"]):
        recipe = got.report["candidates"][index]["recipe"]
        again = with_positive(graph, jittered(positive, recipe))
        assert relative(got.latents["samples"][row : row + 1], stock_with(again, noise_of(recipe))) < 1e-4
    assert 0 in got.report["order"] and "jitter" not in got.report["candidates"][0]["recipe"]


def test_more_candidates_than_guiders_are_kept():
    """Those that were dropped are made again when their runs are resumed."""
    graph = parts("eps", steps=8)
    got = search_with(graph, 3, budget=12, method=HalvingSearch(proposal=ONLY_TEXT), verifier=far(graph), keep=6)
    assert len(got.report["candidates"]) == 24 > MAX_KEPT
    positive = cond(graph["guider"].model_patcher, 1)
    for row, index in enumerate(got.report["kept"]):
        again = with_positive(graph, jittered(positive, got.report["candidates"][index]["recipe"]))
        assert relative(got.latents["samples"][row : row + 1], stock_with(again, 3)) < 1e-4


@pytest.mark.parametrize("method", [
    ZeroOrderSearch(neighbors=2, proposal=JitterProposal(NeighborProposal(0.9), 0.8)), RandomSearch(ONLY_TEXT, draft_steps=2),
])  # fmt: skip
def test_local_search_and_drafts(method):
    graph = parts("flow")
    got = search_with(graph, 3, budget=6, method=method, verifier=far(graph))
    again = with_positive(graph, jittered(cond(graph["guider"].model_patcher, 1), got.recipe))
    assert "jitter" in json.loads(got.recipe)
    assert relative(got.latents["samples"], stock_with(again, got.noise)) < 1e-4


def test_a_winner_that_branched():
    """What stock nodes need is the segment's noise and sigmas, and the text of the run it left."""
    graph = parts("eps", steps=10)
    verifier = far(graph)
    method = PathSearch(survivors=2, branches=2, proposal=JitterProposal(cosine=0.3))
    for seed in (3, 4, 5, 6):
        got = search_with(graph, seed, budget=8, method=method, verifier=verifier)
        if "jitter" in got.recipe:
            break
    assert {"jitter", "cuts"} <= json.loads(got.recipe).keys()
    again = with_positive(graph, jittered(cond(graph["guider"].model_patcher, 1), got.recipe))
    assert relative(got.latents["samples"], stock_with(again, got.noise, got.sigmas)) < 1e-4
    assert relative(render(graph, seed, got.recipe)[1]["samples"], got.latents["samples"]) < 1e-4


def test_a_proposal_without_jitter_keeps_that_of_its_pivot():
    graph = parts("eps")
    first = RandomSearch(ONLY_TEXT)
    (method,) = run_node_chain(first, ZeroOrderSearch(neighbors=2))
    got = search_with(graph, 3, budget=8, method=method, verifier=far(graph))
    later = [json.loads(c["recipe"]) for c in got.report["candidates"] if '"moves"' in c["recipe"]]
    assert later and len({recipe["jitter"]["seed"] for recipe in later}) == 1
    again = with_positive(graph, jittered(cond(graph["guider"].model_patcher, 1), got.recipe))
    assert relative(got.latents["samples"], stock_with(again, got.noise)) < 1e-4


def run_node_chain(first, then):
    from noise_search.search.methods.chain import Chain

    return (Chain(first, then, 0.5),)


# The session


def both(g, name="euler", *, latent=None, steps=6, recipes=THREE):
    """A session's runs of some recipes, suspended and resumed, with the calls they took."""
    latent, sigmas = latent or empty_latent("eps"), sigmas_for(g.model_patcher, steps=steps)
    session = session_for(g, sampler(name), sigmas, latent)
    runs = [session.start(recipe) for recipe in recipes]
    with counted() as calls:
        session.advance(runs, float(sigmas[2]))
        session.advance(runs)
    return session, runs, calls, sigmas, latent


def test_runs_share_calls_with_those_of_the_same_text_only():
    g = guider(toy_model("eps"))
    recipes = [Recipe(5, 5), Recipe(6, 6), RECIPE, Recipe(6, 6, jitter=JITTER), Recipe(6, 6, jitter=Jitter(78, 0.6))]
    session, runs, calls, sigmas, latent = both(g, recipes=recipes)
    assert session.why_alone == [] and session.budget.nfe == calls.rows == 5 * 6
    assert sorted(calls.rows_of) == 6 * [1] + 12 * [2]
    for run, recipe in zip(runs, recipes, strict=True):
        text = jittered(cond(g.model_patcher, 1), recipe.to_json())
        want = stock(guider(g.model_patcher, positive=text), recipe.seed, "euler", sigmas, latent)
        assert relative(run.latent, want) < 1e-5
    plain = stock(g, 5, "euler", sigmas, latent)
    assert all(relative(run.latent, plain) > 1e-3 for run in runs[1:])


def test_branches_keep_it():
    g, latent = guider(toy_model("eps")), empty_latent("eps")
    sigmas = sigmas_for(g.model_patcher, steps=6)
    session = session_for(g, sampler("euler"), sigmas, latent)
    at = float(sigmas[3])
    run = session.start(RECIPE, keep_records=[at])
    session.advance([run])
    (record,) = run.records
    twin = session.branch(record, BranchPoint(at, at, 1, 5))
    other = session.branch(record, BranchPoint(at, 2 * at, 1, 5))
    session.advance([twin, other])
    assert twin.jitter == other.jitter == JITTER and twin.nfe == 2
    assert relative(twin.latent, run.latent) < 1e-4
    again = guider(g.model_patcher, positive=jittered(cond(g.model_patcher, 1), RECIPE.to_json()))
    cut = Recipe(5, 5, cuts=(BranchPoint(at, 2 * at, 1, 5),))
    want = replay(session_for(again, sampler("euler"), sigmas, latent), cut).latent
    assert relative(other.latent, want) < 1e-5
    assert relative(replay(session, Recipe(5, 5, cuts=cut.cuts, jitter=JITTER)).latent, want) < 1e-5
    assert relative(replay(session, cut).latent, want) > 1e-3


def test_alone_runs():
    """With a patch that is not known every candidate has a sampling of its own."""
    model = toy_model("eps")
    model.set_model_sampler_post_cfg_function(lambda args: args["denoised"] * 0.9)
    session, runs, calls, sigmas, latent = both(guider(model), "euler_ancestral")
    assert session.why_alone
    again = guider(model, positive=jittered(cond(model, 1), RECIPE.to_json()))
    assert torch.equal(runs[0].latent, stock(guider(model), 5, "euler_ancestral", sigmas, latent))
    assert relative(runs[1].latent, stock(again, 5, "euler_ancestral", sigmas, latent)) < 1e-6


def basic(model, positive):
    return run_node("BasicGuider", model=model, conditioning=positive)[0]


def dual(model, positive):
    return run_node("DualCFGGuider", model=model, cond1=positive, cond2=cond(model, 3), negative=cond(model, 2), cfg_conds=3.0,
                    cfg_cond2_negative=2.0, style="regular")[0]  # fmt: skip


def perp_neg(model, positive):
    return run_node("PerpNegGuider", model=model, positive=positive, negative=cond(model, 2), empty_conditioning=cond(model, 3),
                    cfg=3.0, neg_scale=1.0)[0]  # fmt: skip


@pytest.mark.parametrize("make", [basic, dual, perp_neg])
def test_other_guiders(make):
    model = toy_model("eps")
    g = make(model, cond(model, 1))
    before = frozen(g)
    _, runs, _, sigmas, latent = both(g)
    assert relative(runs[0].latent, stock(g, 5, "euler", sigmas, latent)) < 1e-5
    want = stock(make(model, jittered(cond(model, 1), RECIPE.to_json())), 5, "euler", sigmas, latent)
    assert relative(runs[1].latent, want) < 1e-5
    assert relative(runs[1].latent, runs[0].latent) > 1e-3
    assert_untouched(g, before)


class TwoPrompts(comfy.samplers.CFGGuider):
    def set_conds(self, positive, negative):
        self.inner_set_conds({"one": positive, "other": negative})


class Wrapping:
    """A guider around another."""

    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        if name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)


def replaced(model):
    g = guider(model)
    inner = g.predict_noise
    g.predict_noise = lambda *args, **kwargs: inner(*args, **kwargs)
    return g


def without_text(model):
    return guider(model, positive=[[None, {}]])


@pytest.mark.parametrize(("make", "says"), [
    (lambda model: TwoPrompts(model), "TwoPrompts keeps no positive conditioning"),
    (without_text, "of CFGGuider holds no text embedding"),
    (replaced, "CFGGuider.predict_noise is replaced"),
    (lambda model: Wrapping(guider(model)), "Wrapping hands the sampling on to another guider"),
])  # fmt: skip
def test_guiders_that_cannot_be_varied_say_so(make, says):
    model = toy_model("eps")
    g = make(model)
    if isinstance(g, TwoPrompts):
        g.set_conds(cond(model, 1), cond(model, 2))
    with counted() as calls, pytest.raises(ValueError, match=f"^guider: .*{says}"):
        both(g, recipes=[RECIPE] if isinstance(g, Wrapping) else THREE)
    assert calls.calls == 0


def test_a_replaced_method_of_the_guider_itself_goes_along():
    g = guider(toy_model("eps"))
    g.predict_noise = g.predict_noise  # a bound method, as some patches leave it
    _, runs, _, sigmas, latent = both(g, recipes=[RECIPE])
    again = guider(g.model_patcher, positive=jittered(cond(g.model_patcher, 1), RECIPE.to_json()))
    assert relative(runs[0].latent, stock(again, 5, "euler", sigmas, latent)) < 1e-5


# The conditioning


def combined(model):
    """Two prompts, one of them in an area, with areas, masks and strength."""
    positive = run_node("ConditioningSetArea", conditioning=cond(model, 4), width=32, height=64, x=32, y=0, strength=0.8)[0]
    return run_node("ConditioningCombine", conditioning_1=cond(model, 1), conditioning_2=positive)[0]


def test_areas_and_combined_prompts_have_noise_of_their_own():
    model = tiny_unet()
    g = guider(model, positive=combined(model))
    _, runs, _, sigmas, latent = both(g, recipes=[RECIPE], steps=4)
    again = jittered(combined(model), RECIPE.to_json())
    assert relative(runs[0].latent, stock(guider(model, positive=again), 5, "euler", sigmas, latent)) < 1e-4
    assert relative(runs[0].latent, stock(g, 5, "euler", sigmas, latent)) > 1e-3
    assert again[1][1]["area"] == combined(model)[1][1]["area"] and again[1][1]["strength"] == 0.8
    same = run_node("ConditioningCombine", conditioning_1=cond(model, 1), conditioning_2=cond(model, 1))[0]
    one, two = jittered(same, RECIPE.to_json())
    assert torch.equal(one[0], jittered(cond(model, 1), RECIPE.to_json())[0][0]) and not torch.equal(one[0], two[0])


def test_what_it_does_to_a_conditioning():
    model = toy_model("eps")
    plain = cond(model, 1)
    before = copy.deepcopy(plain)
    ((tokens, extra),) = jittered(plain, RECIPE.to_json())
    assert torch.equal(tokens, jitter_embedding(plain[0][0], derived_seed(77, 0, "cross_attn"), 0.6))
    assert torch.equal(
        extra["pooled_output"], jitter_embedding(plain[0][1]["pooled_output"], derived_seed(77, 0, "pooled_output"), 0.6)
    )
    assert torch.equal(plain[0][0], before[0][0]) and torch.equal(plain[0][1]["pooled_output"], before[0][1]["pooled_output"])
    assert extra.keys() == plain[0][1].keys()
    assert jittered(plain, Recipe(1, 2).to_json()) is plain
    llama = [[None, {"conditioning_llama3": torch.randn(1, 2, 3, 8), "other": torch.ones(2), "start_percent": 0.1}]]
    ((nothing, extra),) = jittered(llama, RECIPE.to_json())
    assert nothing is None and not torch.equal(extra["conditioning_llama3"], llama[0][1]["conditioning_llama3"])
    assert extra["other"] is llama[0][1]["other"] and set(extra) == set(llama[0][1])
    with pytest.raises(ValueError, match="^conditioning: it holds no text embedding"):
        jittered([[None, {}]], RECIPE.to_json())
    with pytest.raises(ValueError, match="^recipe: 'jitter' must be"):
        jittered(plain, json.dumps({"noise_search": 1, "noise": "1", "seed": "1", "jitter": 5}))


@pytest.mark.parametrize("rows", [1, 2])
def test_latent_batches(rows):
    """Every row has its own candidates, and the list of recipes gives every row of the batch its own text."""
    model = toy_model("eps")
    positive = cond(model, 1, rows=rows)
    graph = parts("eps", latent=empty_latent("eps", batch=2), g=guider(model, positive=positive))
    verifier = FarFrom(decoded(graph, stock_with(graph, 3))[:1])
    got = search_with(graph, 3, budget=4, method=RandomSearch(ONLY_TEXT), verifier=verifier)
    recipes = json.loads(got.recipe)
    assert len({recipe.get("jitter", {}).get("seed") for recipe in recipes}) == 2
    again = with_positive(graph, jittered(positive, got.recipe))
    assert relative(got.latents["samples"], stock_with(again, got.noise)) < 1e-4
    assert relative(got.latents["samples"], stock_with(graph, got.noise)) > 1e-3
    _, latent = render(graph, 3, got.recipe)
    assert relative(latent["samples"], got.latents["samples"]) < 1e-4


def test_one_recipe_for_a_conditioning_of_many_rows():
    positive = cond(toy_model("eps"), 1, rows=3)
    ((tokens, extra),) = jittered(positive, RECIPE.to_json())
    ((first, _),) = jittered([[positive[0][0][1:2], {}]], RECIPE.to_json())
    assert tokens.shape[0] == extra["pooled_output"].shape[0] == 3 and torch.equal(tokens[1:2], first)


def test_a_connected_noise_and_a_sampler_that_draws_from_the_global_generator():
    """With the user's own noise kept, the noise output is the user's NOISE: its random state goes with it."""

    class Given:
        seed = 3

        def generate_noise(self, latent):
            out = torch.randn(latent["samples"].shape, generator=torch.Generator().manual_seed(21))
            torch.manual_seed(99)
            return out

    def drawing(model, x, sigmas, extra_args=None, callback=None, disable=None):
        for sigma, below in zip(sigmas[:-1], sigmas[1:], strict=True):
            x = model(x, sigma * x.new_ones(len(x)), **extra_args) + below * torch.randn(x.shape)
        return x

    graph = parts("eps", comfy.samplers.KSAMPLER(drawing))
    got = search_with(
        graph, Given(), budget=4, method=RandomSearch(ONLY_TEXT), verifier=FarFrom(decoded(graph, stock_with(graph, Given())))
    )
    assert got.report["best"]["index"] > 0 and json.loads(got.recipe)["noise"] == "given"
    again = with_positive(graph, jittered(cond(graph["guider"].model_patcher, 1), got.recipe))
    assert relative(got.latents["samples"], stock_with(again, got.noise)) < 1e-4
    _, latent = render(graph, Given(), got.recipe)
    assert relative(latent["samples"], got.latents["samples"]) < 1e-4


def test_noise_of_zeros_with_other_text():
    """DisableNoise and a deterministic sampler: candidates differ by their text, so that there is something to search."""
    graph = parts("eps", steps=8)
    noise = stock_nodes.Noise_EmptyNoise()
    with pytest.raises(ValueError, match="^noise: it is all zero"):
        search_with(graph, noise, budget=3, method=RandomSearch())
    verifier = FarFrom(decoded(graph, stock_with(graph, noise)))
    got = search_with(graph, noise, budget=4, method=RandomSearch(ONLY_TEXT), verifier=verifier)
    again = with_positive(graph, jittered(cond(graph["guider"].model_patcher, 1), got.recipe))
    assert relative(got.latents["samples"], stock_with(again, got.noise)) < 1e-4


def test_the_proposal_node():
    node = node_class("NSConditioningJitterProposal")
    (proposal,) = run_node(node, cosine=0.8, same_noise=False, proposal=NeighborProposal(0.5))
    assert proposal == JitterProposal(NeighborProposal(0.5), 0.8)
    (proposal,) = run_node(node, cosine=0.8, same_noise=True)
    assert proposal == JitterProposal(None, 0.8, True)
    with pytest.raises(ValueError, match="'same_noise' keeps the noise"):
        run_node(node, cosine=0.8, same_noise=True, proposal=NeighborProposal(0.5))
