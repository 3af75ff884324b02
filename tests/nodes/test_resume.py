"""Searches on toys, as ComfyUI runs them, that go on from a journal: nothing is computed twice, nothing differs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from inprocess import boot

pytestmark = pytest.mark.comfy

boot()

import comfy.model_management as mm
import torch
from comfy.nested_tensor import NestedTensor
from remembered import keep_journals, prompt_for, remembered, told
from searching import at_call, interrupt, parts, search_with

from noise_search.nodes.adapter.graph import LeftoverNoise, samples_of
from noise_search.nodes.adapter.noise import rows_of
from noise_search.nodes.server.live import searches
from noise_search.nodes.store.state_codec import StateCodec
from noise_search.search.journal.journal import THUMBS
from noise_search.search.methods.backtracking import BacktrackingSearch
from noise_search.search.methods.branching import BranchingSearch
from noise_search.search.methods.chain import Chain
from noise_search.search.methods.evolution import EvolutionSearch
from noise_search.search.methods.fk_steering import FKSteering
from noise_search.search.methods.halving import HalvingSearch
from noise_search.search.methods.path_search import PathSearch
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.methods.refinement import RefinementSearch
from noise_search.search.methods.zero_order import ZeroOrderSearch
from noise_search.search.noise.proposals import JitterProposal
from noise_search.search.noise.recipe import Recipe
from noise_search.verifiers.measures.guidance_gap import GuidanceGap
from toys import ToyVerifier, counted, empty_latent

REFINED = Chain(RandomSearch(), RefinementSearch(), 0.7)
STEPS, BUDGET = 12, 6
CASES = {
    "random": ("eps", "euler", RandomSearch()), "random, masked": ("eps", "dpmpp_2m", RandomSearch()),
    "jittered": ("eps", "euler", RandomSearch(proposal=JitterProposal())), "video": ("flow5d", "euler", REFINED),
    "nested": ("nested", "euler", REFINED), "frames": ("frames", "euler", RandomSearch()),
    "drafts": ("flow", "dpmpp_2m", ZeroOrderSearch(draft_steps=4)), "halving": ("eps", "euler_ancestral", HalvingSearch()),
    "refined": ("flow", "euler", REFINED), "refined sde": ("eps", "dpmpp_2m_sde", REFINED),
    "refined heun": ("eps", "heun", REFINED), "cfg++": ("eps", "euler_ancestral_cfg_pp", BranchingSearch()),
    "branching": ("eps", "euler_ancestral", BranchingSearch()), "path": ("eps", "euler", PathSearch()),
    "FK": ("eps", "euler_ancestral", FKSteering()), "evolution": ("flow", "euler", EvolutionSearch()),
    "backtracking": ("eps", "euler", BacktrackingSearch()), "adaptive": ("eps", "dpm_adaptive", RandomSearch()),
}  # fmt: skip


def graph_of(name):
    kind, sampler, method = CASES[name]
    return parts(kind, sampler, steps=STEPS, masked="masked" in name), method


@pytest.fixture
def journals(tmp_path, monkeypatch):
    return keep_journals(tmp_path, monkeypatch)


@pytest.mark.parametrize("name", CASES)
def test_a_second_search_makes_no_model_call(name, journals):
    graph, method = graph_of(name)
    want = search_with(graph, 3, method=method, budget=BUDGET, keep=3)
    first = remembered(graph, 3, method=method, budget=BUDGET, keep=3)
    with counted() as calls:
        again = remembered(graph, 3, method=method, budget=BUDGET, keep=3)
    assert calls.rows == 0
    assert told(first.report) == told(again.report) == told(want.report)
    total = want.report["model_calls"]
    finished = sum(c["status"] == "finished" for c in want.report["candidates"])
    assert again.report["recalled"] == {"model_calls": total, "candidates": finished, "redone": 0}
    assert first.report["recalled"] == {"model_calls": 0, "candidates": 0, "redone": 0} and want.report["recalled"] is None
    assert torch.equal(again.images, want.images) and again.recipe == want.recipe and torch.equal(again.sigmas, want.sigmas)
    for one, other in zip(rows(again.latents), rows(want.latents), strict=True):
        assert torch.equal(one, other)
    like = {"samples": rows_of(want.latents["samples"], 0, graph["latent_image"]["samples"].shape[0])}
    made = [noise.generate_noise(like) for noise in (again.noise, want.noise)]
    assert all(map(torch.equal, *map(parts_of, made)))


@pytest.mark.parametrize("name", ["random", "drafts", "halving"])
def test_a_second_search_shows_the_small_pictures_and_looks_of_the_first(name, journals):
    graph, method = graph_of(name)
    for _ in range(2):
        remembered(graph, 3, method=method, budget=BUDGET)
    (place,) = journals.iterdir()
    first, again = (feed.final["candidates"] for feed in searches.at(place.name)[-2:])
    assert again == first
    assert all(row["thumb"] for row in first) and any(row["look"] is not None for row in first) == (name != "random")
    assert {path.stem for path in (place / THUMBS).iterdir()} >= {row["thumb"] for row in first}


def rows(latents):
    return parts_of(latents["samples"])


def parts_of(samples):
    return samples.unbind() if samples.is_nested else [samples]


@pytest.mark.parametrize("name", CASES)
def test_a_cancelled_search_goes_on_from_where_it_was(name, journals):
    graph, method = graph_of(name)
    with counted() as calls:
        want = search_with(graph, 3, method=method, budget=BUDGET)
    for number in (calls.calls // 2, calls.calls - 1):
        with at_call(number, interrupt), pytest.raises(mm.InterruptProcessingException):
            remembered(graph, 3, method=method, budget=BUDGET, prompt=prompt_for(str(number)))
        again = remembered(graph, 3, method=method, budget=BUDGET, prompt=prompt_for(str(number)))
        assert_alike(again.report, want.report)
        assert torch.allclose(again.images, want.images, atol=1e-5)


def assert_alike(report, want):
    """Scores may differ by what sharing a model call with others does: rounding."""
    assert report["model_calls"] == want["model_calls"] and report["order"] == want["order"]
    for one, other in zip(report["candidates"], want["candidates"], strict=True):
        assert {**one, "score": 0, "scores": 0, "looks": 0} == {**other, "score": 0, "scores": 0, "looks": 0}
        if one["score"] != other["score"]:
            assert one["score"] == pytest.approx(other["score"], rel=1e-4, abs=1e-6)


def test_a_larger_budget_pays_for_the_new_ones_only(journals):
    graph = parts("eps")
    remembered(graph, 3, budget=4)
    with counted() as calls:
        more = remembered(graph, 3, budget=7, method=RandomSearch())
    want = search_with(graph, 3, budget=7, method=RandomSearch())
    assert calls.rows == 18 and more.report["recalled"] == {"model_calls": 24, "candidates": 4, "redone": 0}
    assert_alike(more.report, want.report)


def test_fresh_forgets_and_off_reads_and_writes_nothing(journals):
    graph = parts("eps")
    with counted() as calls:
        assert remembered(graph, 3, resume="off").report["recalled"] is None
        assert not journals.exists()
        for resume in ("on", "fresh", "off", "on"):
            remembered(graph, 3, resume=resume)
    assert calls.rows == 4 * 24  # the last alone was spared


def test_fresh_forgets_a_journal_whose_folder_is_a_link(journals, tmp_path):
    """The link goes and a new journal begins; what it led to is not ours to delete."""
    graph = parts("eps")
    remembered(graph, 3)
    (folder,) = journals.iterdir()
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    before = (tmp_path / "elsewhere" / "journal.jsonl").read_bytes()
    with counted() as calls:
        remembered(graph, 3, resume="fresh")
        assert calls.rows == 24 and not folder.is_symlink()
        remembered(graph, 3)
    assert calls.rows == 24
    assert (tmp_path / "elsewhere" / "journal.jsonl").read_bytes() == before


def test_fresh_forgets_once_what_rows_of_a_batch_share(journals):
    """Rows that are alike have one journal: what the first has just written is not what was there before."""
    graph = parts("eps", latent=empty_latent("eps", batch=2))
    remembered(graph, 3, resume="on")
    with counted() as calls:
        remembered(graph, 3, resume="fresh")
    assert calls.rows == 2 * 24 and len(list(journals.iterdir())) == 1
    with counted() as calls:
        remembered(graph, 3)
    assert calls.rows == 0


def test_the_candidates_of_other_seeds_and_given_noise_are_their_own(journals):
    graph = parts("eps")
    noises = [torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(2)]

    class Given:
        def __init__(self, noise):
            self.noise, self.seed = noise, 5

        def generate_noise(self, latent):
            return self.noise

    wanted = [search_with(graph, noise, budget=3) for noise in (1, 2, *map(Given, noises))]
    for _ in range(2):
        for noise, want in zip((1, 2, *map(Given, noises)), wanted, strict=True):
            got = remembered(graph, noise, budget=3)
            assert_alike(got.report, want.report)
            assert torch.allclose(got.images, want.images, atol=1e-5)
    assert got.report["recalled"]["candidates"] == 3 and len(list(journals.iterdir())) == 1


def test_rows_of_a_batch_have_journals_of_their_own(journals):
    graph = parts("eps", latent=empty_latent("eps", batch=2))
    graph["latent_image"]["samples"] = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(7))
    want = search_with(graph, 3, budget=3)
    remembered(graph, 3, budget=3)
    with counted() as calls:
        again = remembered(graph, 3, budget=3)
    assert calls.rows == 0 and torch.equal(again.images, want.images)
    assert [told(r) for r in again.report] == [told(r) for r in want.report]


def test_runs_are_shared_by_verifiers_and_scores_are_not(journals):
    graph = parts("eps")
    one = remembered(graph, 3, method=RandomSearch())
    with counted() as calls:
        other = remembered(graph, 3, method=RandomSearch(), verifier=GuidanceGap(0), prompt=prompt_for(verifier="gap"))
    assert calls.rows == 24  # the first had no guidance gaps noted
    with counted() as calls:
        again = remembered(graph, 3, method=RandomSearch())
        gap = remembered(graph, 3, method=RandomSearch(), verifier=GuidanceGap(0), prompt=prompt_for(verifier="gap"))
    assert calls.rows == 0
    assert told(again.report) == told(one.report) and told(gap.report) == told(other.report)
    assert again.score != gap.score


class Like(ToyVerifier):
    """Scores by the distance from a picture that another node gave it."""

    def __init__(self, value):
        super().__init__()
        self.reference = torch.full((1, 8, 8, 3), value)

    def score(self, images, latents=None):
        return -(images.mean((1, 2, 3)) - self.reference.mean()).abs()


def test_scores_by_another_reference_picture_are_not_taken(journals):
    graph = parts("eps")
    one, other, again = (remembered(graph, 3, method=RandomSearch(), verifier=Like(value)) for value in (0.0, 1.0, 0.0))
    assert other.report["recalled"]["candidates"] == 4 and other.report["verifier_calls"] == 4
    assert told(again.report) == told(one.report) and again.report["verifier_calls"] == 0 and other.score != one.score


def test_leftover_noise_is_kept_too(journals):
    graph = parts("flow", steps=STEPS)
    graph["sigmas"] = graph["sigmas"][:8]
    want = search_with(graph, 3, budget=3)
    remembered(graph, 3, budget=3)
    with counted() as calls:
        again = remembered(graph, 3, budget=3)
    assert calls.rows == 0
    assert torch.equal(again.latents["samples"], want.latents["samples"]) and torch.equal(again.images, want.images)


@pytest.mark.parametrize("kind", ["eps", "nested", "flow"])
def test_latents_are_recalled_to_where_new_ones_are(kind, monkeypatch):
    """With ComfyUI's --gpu-only that is the card, and those of one batch must lie together; here it is no device at all."""
    (latent,) = parts_of(empty_latent(kind)["samples"])[:1]
    whole = {"eps": latent, "nested": NestedTensor((latent, latent)), "flow": LeftoverNoise(latent, latent)}[kind]
    run = SimpleNamespace(latent=whole, records=[], segment_start=None, predictions={0.5: latent})
    codec = StateCodec(torch.device("cpu"))
    data = codec.pack(run)
    monkeypatch.setattr(mm, "intermediate_device", lambda: torch.device("meta"))
    kept = codec.unpack(data, Recipe(1, 1))
    found = [samples_of(kept.latent), getattr(kept.latent, "denoised", latent.to("meta")), kept.predictions[0.5]]
    assert {part.device.type for one in found for part in parts_of(one)} == {"meta"}


def test_without_a_prompt_it_says_why_only_if_asked(journals):
    graph = parts("eps")
    assert search_with(graph, 3).report["notes"] == search_with(graph, 3, resume="off").report["notes"]
    (note,) = [said for said in search_with(graph, 3, resume="fresh").report["notes"] if said.startswith("resume:")]
    assert note == "resume: this search is not written to disk and cannot be gone on with: the node was called without its prompt"


@pytest.mark.parametrize("search", [search_with, remembered], ids=["plain", "with a journal"])
@pytest.mark.parametrize("what", ["finish", "discard"])
def test_runs_that_go_alone_are_not_begun_once_they_are_dropped(journals, search, what):
    def drop():
        running = list(searches._listed.values())[-1].feed.search
        controls = running.user_requests
        controls.finish() if what == "finish" else [controls.discard(candidate.index) for candidate in running.candidates[1:]]

    graph = parts("eps", steps=STEPS)
    with at_call(1, drop) as rows:
        report = search(graph, 3, batching="off", method=RandomSearch(), budget=4).report
    assert len(rows) == report["model_calls"] == STEPS
    assert [c["model_calls"] for c in report["candidates"]] == [STEPS, 0, 0, 0]


WHEN = {"random": STEPS // 2, "drafts": STEPS + 6, "refined": STEPS // 2}  # shared model calls


@pytest.mark.parametrize("batching", ["auto", "off"])
@pytest.mark.parametrize("name", WHEN)
def test_what_was_steered_is_chosen_from_and_gone_back_to_without_a_model_call(journals, name, batching):
    """More like one and Discard, then another winner, then the best again: as a page queues it."""
    graph, method = graph_of(name)

    def command():
        controls = list(searches._listed.values())[-1].feed.search.user_requests
        controls.discard(2)
        controls.favor(1)

    options = {"method": method, "budget": BUDGET + 2, "keep": 2, "batching": batching}
    with at_call(2 * STEPS + 3 if batching == "off" else WHEN[name], command):
        steered = remembered(graph, 3, **options)
    told_of = "you asked for more like candidate 1: zero-order search went on around it"
    assert told_of in steered.report["notes"] and steered.report["candidates"][2]["discarded"]
    around = [c for c in steered.report["candidates"] if c["parent"] is not None and c["status"] == "finished"]
    other = around[0] if around[0]["index"] != steered.report["best"]["index"] else around[1]
    with counted() as calls:
        chosen = remembered(graph, 3, choose=other["recipe"], **options)
        back = remembered(graph, 3, **options)
    assert calls.rows == 0
    assert (chosen.report["chosen"], chosen.report["kept"][0]) == (other["index"], other["index"])
    assert not any(note.startswith("choose: ") for note in chosen.report["notes"])
    same = ("candidates", "order", "model_calls", "best")
    assert all(chosen.report[name] == steered.report[name] == back.report[name] for name in same)
    assert told(back.report) == told(steered.report) and torch.equal(back.images, steered.images)
