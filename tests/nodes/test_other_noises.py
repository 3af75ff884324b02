"""NOISE objects that draw other noise than RandomNoise: the other candidates' is theirs too, at seeds of its own."""

from __future__ import annotations

import json

import pytest

from inprocess import boot

pytestmark = pytest.mark.comfy

boot()

import comfy.model_management as mm
import comfy.samplers
import torch
from remembered import keep_journals, remembered
from searching import FarFrom, decoded, noise_of, parts, render, search_with, stock_with
from sessions import flat, relative

from noise_search.nodes.adapter.noise import pack, row_latent, unpack_like
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.methods.zero_order import ZeroOrderSearch
from noise_search.search.noise.proposals import (
    AntitheticProposal,
    JitterProposal,
    LowFrequencyProposal,
    NeighborProposal,
    OrthogonalProposal,
)
from noise_search.search.noise.recipe import derived_seed
from toys import counted, empty_latent

MIXED, ALONE = "is Gaussian, whatever NOISE is connected", "makes the noise of candidate 0 only"


class Signs:
    """A NOISE of +1 and -1, drawn from its seed."""

    def __init__(self, seed: int, scale: float = 1.0) -> None:
        self.seed, self.scale = seed, scale

    def generate_noise(self, input_latent):
        samples = input_latent["samples"]
        drawn = torch.randn(pack(samples).shape, generator=torch.Generator().manual_seed(self.seed % 2**63))
        return unpack_like(self.scale * drawn.sign(), samples)


class Stirring(Signs):
    """One that leaves the global random state its own way, as stock ones do theirs."""

    def generate_noise(self, input_latent):
        out = super().generate_noise(input_latent)
        torch.manual_seed(self.seed + 1)
        return out


class OneSeed(Signs):
    """Its seed cannot be set."""

    seed = property(lambda self: 3)

    def __init__(self, seed: int) -> None:
        self.scale = 1.0


class Deaf(Signs):
    """The seed that counts is another one."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.own = Signs(seed)

    def generate_noise(self, input_latent):
        return self.own.generate_noise(input_latent)


class Global(Signs):
    """Its noise comes from the global random state, which it does not set."""

    def generate_noise(self, input_latent):
        return torch.randn(input_latent["samples"].shape).sign()


class Going(Signs):
    """Its generator goes on and on."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.generator = torch.Generator().manual_seed(seed)

    def generate_noise(self, input_latent):
        return torch.randn(input_latent["samples"].shape, generator=self.generator).sign() + self.seed % 7


class OnlyOne(Signs):
    """It fails at any other seed."""

    def generate_noise(self, input_latent):
        if self.seed != 3:
            raise RuntimeError(f"no noise for {self.seed}")
        return super().generate_noise(input_latent)


UNSEEDED = {
    OneSeed: "cannot be set", Deaf: "it is the same at all of them", Global: "not the same each time",
    Going: "not the same each time", OnlyOne: "RuntimeError: no noise for",
}  # fmt: skip


def far(graph, noise) -> FarFrom:
    """A verifier that never chooses candidate 0."""
    return FarFrom(decoded(graph, stock_with(graph, noise)))


@pytest.mark.parametrize(("kind", "sampler"), [("eps", "euler"), ("eps", "euler_ancestral"), ("nested", "dpmpp_2m_sde")])
def test_others_have_the_objects_noise_at_their_seeds(kind, sampler):
    graph, noise = parts(kind, sampler, steps=4), Signs(3)
    got = search_with(graph, noise, budget=4, method=RandomSearch(), verifier=far(graph, noise), keep=4)
    recipes = [json.loads(c["recipe"]) for c in got.report["candidates"]]
    seeds = [derived_seed(3, index) for index in (1, 2, 3)]
    assert recipes[0] == {"noise_search": 1, "noise": "given", "seed": "3"}
    assert recipes[1:] == [{"noise_search": 1, "noise": f"given@{seed}", "seed": str(seed)} for seed in seeds]
    want = [stock_with(graph, Signs(seed)) for seed in (3, *seeds)]
    for candidate in got.report["candidates"]:
        _, latent = render(graph, noise, candidate["recipe"])
        assert relative(latent["samples"], want[candidate["index"]]) < 1e-4
    best = got.report["best"]["index"]
    assert best > 0 and not [said for said in got.report["notes"] if said.startswith("noise:")]
    assert relative(stock_with(graph, got.noise), want[best]) < 1e-4
    kept = got.latents["samples"]
    kept = torch.cat([part[0].flatten() for part in kept.unbind()]) if kept.is_nested else kept[0].flatten()
    assert relative(kept, flat(want[best])) < 1e-4


def test_a_recipe_is_made_again_with_the_same_kind_of_noise():
    """Whatever seed it has; without it there is nothing to make it from."""
    graph = parts("eps", "euler_ancestral", steps=4)
    got = search_with(graph, Signs(3), budget=4, method=RandomSearch(), verifier=far(graph, Signs(3)))
    want = got.latents["samples"]
    for other in (Signs(3), Signs(77)):
        assert relative(render(graph, other, got.recipe)[1]["samples"], want) < 1e-4
        assert relative(stock_with(graph, noise_of(got.recipe, other)), want) < 1e-4
    assert relative(render(graph, Signs(3, scale=0.5), got.recipe)[1]["samples"], want) > 1e-2
    assert noise_of(got.recipe, Signs(77)).seed == got.seed
    with pytest.raises(ValueError, match=r"^recipe: .*'Noise from Recipe' or 'Render Candidate'"):
        noise_of(got.recipe)
    with pytest.raises(ValueError, match=r"^noise: the seed of OneSeed cannot be set"):
        render(graph, OneSeed(3), got.recipe)


def test_the_users_own_noise_from_its_recipe():
    graph, noise = parts("eps", "euler", steps=4), Signs(3)
    got = search_with(graph, noise, budget=1)
    assert json.loads(got.recipe)["noise"] == "given"
    assert torch.equal(stock_with(graph, noise_of(got.recipe, noise)), stock_with(graph, noise))
    moved = search_with(graph, noise, budget=3, method=RandomSearch(NeighborProposal(0.8)), verifier=far(graph, noise))
    assert relative(stock_with(graph, noise_of(moved.recipe, noise)), moved.latents["samples"]) < 1e-4


def test_the_global_random_state_is_where_the_object_leaves_it():
    def drawing(model, x, sigmas, extra_args=None, callback=None, disable=None):
        for sigma, below in zip(sigmas[:-1], sigmas[1:], strict=True):
            x = model(x, sigma * x.new_ones(len(x)), **extra_args) + below * torch.randn(x.shape)
        return x

    graph, noise = parts("eps", comfy.samplers.KSAMPLER(drawing)), Stirring(3)
    got = search_with(graph, noise, budget=3, method=RandomSearch(), verifier=far(graph, noise))
    seed = int(json.loads(got.recipe)["seed"])
    want = stock_with(graph, Stirring(seed))
    for samples in (
        got.latents["samples"], stock_with(graph, got.noise), stock_with(graph, noise_of(got.recipe, noise)),
        render(graph, noise, got.recipe)[1]["samples"],
    ):  # fmt: skip
        assert relative(samples, want) < 1e-4
    torch.manual_seed(0)
    assert relative(stock_with(graph, Signs(seed)), want) > 1e-3  # the state counts


@pytest.mark.parametrize("source", UNSEEDED, ids=lambda source: source.__name__)
def test_objects_without_noise_at_other_seeds_are_named_and_the_others_are_gaussian(source):
    graph, noise = parts("eps", steps=4), source(3)
    torch.manual_seed(5)
    own = noise.generate_noise(graph["latent_image"])
    torch.manual_seed(5)
    got = search_with(graph, source(3), budget=3, method=RandomSearch())
    (said,) = [said for said in got.report["notes"] if said.startswith("noise:")]
    assert f"{source.__name__} {ALONE}" in said and "Gaussian" in said and UNSEEDED[source] in said
    recipes = [json.loads(c["recipe"]) for c in got.report["candidates"]]
    assert [r["noise"] for r in recipes] == ["given", *(str(derived_seed(3, index)) for index in (1, 2))]
    for candidate in got.report["candidates"][1:]:
        seed = int(json.loads(candidate["recipe"])["seed"])
        assert relative(render(graph, 3, candidate["recipe"])[1]["samples"], stock_with(graph, seed)) < 1e-4
    assert own.unique().numel() < own.numel()  # it is not Gaussian itself


def test_cancel_while_the_noise_is_tried():
    class Cancelled(Signs):
        def generate_noise(self, input_latent):
            if self.seed != 3:
                raise mm.InterruptProcessingException
            return super().generate_noise(input_latent)

    with pytest.raises(mm.InterruptProcessingException):
        search_with(parts("eps", steps=4), Cancelled(3), budget=2)


def test_random_noise_stays_what_it_is():
    """Recipes, names in journals, notes: nothing is said of a connected noise that is the stock one."""
    graph = parts("eps", steps=4)
    for batch in (1, 2):
        latent = empty_latent("eps", batch=batch)
        got = search_with({**graph, "latent_image": latent}, 3, budget=3, method=RandomSearch())
        for report in [got.report] if batch == 1 else got.report:
            assert not [said for said in report["notes"] if said.startswith("noise:")]
            recipes = [json.loads(c["recipe"]) for c in report["candidates"]]
            assert not [r for r in recipes if r["noise"].startswith("given@")]
            assert all(r["noise"] == r["seed"] for r in recipes[1:])


def test_the_noise_of_an_earlier_winner_is_as_gaussian_as_the_others():
    graph = parts("eps", steps=4)
    winner = search_with(graph, 3, budget=3, method=RandomSearch(NeighborProposal(0.5)), verifier=far(graph, 3))
    got = search_with(graph, winner.noise, budget=3, method=RandomSearch())
    assert json.loads(got.report["baseline"]["recipe"])["noise"] == "given"
    assert not [said for said in got.report["notes"] if said.startswith("noise:")]


@pytest.mark.parametrize("proposal", [NeighborProposal(0.8), LowFrequencyProposal(1)])
def test_moves_mix_it_with_gaussian_noise_and_say_so(proposal):
    graph, noise = parts("eps", steps=4), Signs(3)
    got = search_with(graph, noise, budget=4, method=ZeroOrderSearch(proposal=proposal), verifier=far(graph, noise))
    assert json.loads(got.recipe)["moves"] and json.loads(got.recipe)["noise"] == "given"
    assert [said for said in got.report["notes"] if MIXED in said]
    assert relative(stock_with(graph, got.noise), got.latents["samples"]) < 1e-4
    assert relative(render(graph, noise, got.recipe)[1]["samples"], got.latents["samples"]) < 1e-4


@pytest.mark.parametrize("proposal", [AntitheticProposal(), JitterProposal()])
def test_what_mixes_nothing_is_not_said_to(proposal):
    graph, noise = parts("eps", steps=4), Signs(3)
    got = search_with(graph, noise, budget=5, method=RandomSearch(proposal), verifier=far(graph, noise))
    recipes = [json.loads(c["recipe"]) for c in got.report["candidates"]]
    assert any(r["noise"].startswith("given@") for r in recipes)
    assert not [said for said in got.report["notes"] if said.startswith("noise:")]
    noises = [noise_of(json.dumps(r), noise).generate_noise(graph["latent_image"]) for r in recipes]
    assert all(made.abs().eq(1.0).all() for made in noises)


def test_moves_from_another_candidate_keep_its_noise():
    """The second group of right angles begins with the object's noise at a seed, and its second is at a right angle to it."""
    graph, noise = parts("eps", steps=4), Signs(3)
    got = search_with(graph, noise, budget=4, method=RandomSearch(OrthogonalProposal(2)), keep=4)
    recipes = [json.loads(c["recipe"]) for c in got.report["candidates"]]
    assert recipes[0]["noise"] == recipes[1]["noise"] == "given"
    assert recipes[3]["noise"] == recipes[2]["noise"] == f"given@{derived_seed(3, 2)}" and recipes[3]["moves"]
    latent = graph["latent_image"]
    first, other = (noise_of(json.dumps(r), noise).generate_noise(latent).flatten() for r in recipes[2:])
    assert torch.equal(first, Signs(derived_seed(3, 2)).generate_noise(latent).flatten())
    assert abs(torch.dot(first, other)) < 1e-3 and [said for said in got.report["notes"] if MIXED in said]


def test_a_batch_of_rows():
    """Row b begins with row b of the batch's noise; its other candidates are the object's at their seeds, of one row."""
    latent = empty_latent("eps", batch=2)
    graph, noise = {**parts("eps", steps=4), "latent_image": latent}, Signs(3)
    first = stock_with({**graph, "latent_image": row_latent(latent, 0)}, noise)
    got = search_with(graph, noise, budget=3, method=RandomSearch(), verifier=FarFrom(decoded(graph, first)))
    recipes = json.loads(got.recipe)
    assert any(r["noise"].startswith("given@") for r in recipes)
    again = render(graph, noise, got.recipe)[1]["samples"]
    assert relative(again, got.latents["samples"]) < 1e-4
    assert relative(stock_with(graph, got.noise), got.latents["samples"]) < 1e-4
    assert relative(stock_with(graph, noise_of(got.recipe, noise)), got.latents["samples"]) < 1e-4
    own = json.dumps([json.loads(report["baseline"]["recipe"]) for report in got.report])
    made = noise_of(own, noise).generate_noise(latent)
    assert torch.equal(made, noise.generate_noise(latent))


def test_journals_tell_objects_apart_by_their_noise(tmp_path, monkeypatch):
    keep_journals(tmp_path, monkeypatch)
    graph, options = parts("eps", steps=4), {"budget": 4, "method": RandomSearch()}
    first = remembered(graph, Signs(3), **options)
    with counted() as calls:
        again = remembered(graph, Signs(3), **options)
    assert calls.rows == 0 and torch.equal(again.images, first.images)
    with counted() as calls:
        other = remembered(graph, Signs(3, scale=0.5), **options)
    assert calls.rows == other.report["model_calls"] > 0 and other.report["recalled"]["candidates"] == 0
    want = search_with(graph, Signs(3, scale=0.5), **options)
    assert torch.equal(other.images, want.images)
