"""A card that holds the denoiser or a judge, not both: who is loaded when, and that it changes nothing.

The card is the CPU under another name (ComfyUI never evicts from the CPU itself); what is free on it is what the
weights loaded so far leave, as ComfyUI's own book-keeping tells them.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from inprocess import boot

pytestmark = pytest.mark.comfy

boot()

import comfy.model_management as mm  # noqa: E402
from remembered import keep_journals, remembered, told  # noqa: E402
from searching import Found, at_call, interrupt, search_with  # noqa: E402

from noise_search.nodes.adapter import memory  # noqa: E402
from noise_search.nodes.adapter.session import ComfySession  # noqa: E402
from noise_search.nodes.weights.files import HeldModel  # noqa: E402
from noise_search.search.methods.branching import BranchingSearch  # noqa: E402
from noise_search.search.methods.draft_search import DraftSearch  # noqa: E402
from noise_search.search.methods.halving import HalvingSearch  # noqa: E402
from noise_search.search.methods.random_search import RandomSearch  # noqa: E402
from noise_search.search.methods.zero_order import ZeroOrderSearch  # noqa: E402
from noise_search.verifiers.common.preprocess import in_slices  # noqa: E402
from noise_search.verifiers.composite.cascade import Cascade  # noqa: E402
from noise_search.verifiers.composite.ensemble import WEIGHTED_SUM, Ensemble  # noqa: E402
from toys import counted, empty_latent, guider, sampler, sigmas_for, tiny_mmdit, toy_vae  # noqa: E402

CARD = torch.device("cpu", 0)  # equal to no torch.device("cpu")
WAVE = 8


def judging_net(seed: int) -> nn.Module:
    with torch.random.fork_rng(), torch.inference_mode(False):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 1800), nn.ReLU(), nn.Linear(1800, 1800), nn.ReLU(), nn.Linear(1800, 1))


@dataclass(frozen=True, eq=False)
class Held:
    """A verifier whose network ComfyUI holds."""

    model: HeldModel
    name: str = "held"
    score_range: tuple[float, float] = (-100.0, 100.0)
    needs_prompt: bool = False
    prompt: str = ""
    trusts_previews: bool = True
    batch_size: int = 64

    def get_models(self) -> list[Any]:
        return [self.model.patcher]

    def score(self, images: Tensor, latents: Tensor | None = None) -> Tensor:
        def work(part: Tensor) -> Tensor:
            return self.model(lambda module, device: module(part.mean((1, 2)).to(device))[:, 0])

        return in_slices(work, images)


def held(name: str = "held", seed: int = 0) -> Held:
    model = HeldModel(judging_net(seed), torch.float32)
    model.patcher.load_device = CARD
    return Held(model, name)


@dataclass
class Card:
    """A device of `size` bytes.

    Attributes:
        loads, unloads: models by their names, in order; a model that is there already is not loaded.
        peak: the most bytes of weights at a time.
        rounds: how often runs were advanced.
    """

    size: float = 1e18
    names: dict[int, str] = field(default_factory=dict)
    loads: list[str] = field(default_factory=list)
    unloads: list[str] = field(default_factory=list)
    peak: int = 0
    rounds: int = 0

    @property
    def used(self) -> int:
        return sum(loaded.model_loaded_memory() for loaded in mm.current_loaded_models if loaded.device == CARD)

    def free(self, device: Any = None, torch_free_too: bool = False) -> Any:
        free = self.size - self.used
        return (free, 0) if torch_free_too else free

    def name_of(self, loaded: Any) -> str:
        return self.names.get(id(loaded.model.model), "other")

    @property
    def large(self) -> list[str]:
        """What was loaded, but for the decoder, which fits beside the others."""
        return [name for name in self.loads if name != "decoder"]


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[Card]:
    card = Card()
    load, unload, advance = mm.LoadedModel.model_load, mm.LoadedModel.model_unload, ComfySession.advance

    def model_load(loaded: Any, *args: Any, **kwargs: Any) -> Any:
        if loaded.model_loaded_memory() < loaded.model_memory():
            card.loads.append(card.name_of(loaded))
        done = load(loaded, *args, **kwargs)
        others = [other for other in mm.current_loaded_models if other.device == CARD and other is not loaded]
        card.peak = max(card.peak, loaded.model_loaded_memory() + sum(other.model_loaded_memory() for other in others))
        return done

    def model_unload(loaded: Any, *args: Any, **kwargs: Any) -> Any:
        name, gone = card.name_of(loaded), unload(loaded, *args, **kwargs)
        card.unloads += [name] if gone else []
        return gone

    def advanced(session: Any, *args: Any, **kwargs: Any) -> None:
        card.rounds += 1
        advance(session, *args, **kwargs)

    mm.free_memory(1e30, CARD)
    monkeypatch.setattr(mm.LoadedModel, "model_load", model_load)
    monkeypatch.setattr(mm.LoadedModel, "model_unload", model_unload)
    monkeypatch.setattr(ComfySession, "advance", advanced)
    monkeypatch.setattr(mm, "get_free_memory", card.free)
    monkeypatch.setattr(mm, "get_total_memory", lambda *args, **kwargs: card.size)
    monkeypatch.setattr(mm, "minimum_inference_memory", lambda: 0)
    monkeypatch.setattr(mm, "extra_reserved_memory", lambda: 0)
    monkeypatch.setattr(memory, "MAX_ROWS", WAVE)
    yield card
    mm.free_memory(1e30, CARD)


def graph_on(
    card: Card, monkeypatch: pytest.MonkeyPatch, sampler_name: str = "euler_ancestral", steps: int = 8
) -> dict[str, Any]:  # fmt: skip
    """Return the parts of a graph whose models are on the card; only weights take memory there."""
    model, vae = tiny_mmdit(), toy_vae("mmdit")
    model.load_device = vae.patcher.load_device = vae.device = CARD
    monkeypatch.setattr(type(model.model), "memory_required", lambda *args, **kwargs: 0)
    vae.memory_used_decode = lambda *args, **kwargs: 1
    card.names |= {id(model.model): "denoiser", id(vae.first_stage_model): "decoder"}
    return {
        "guider": guider(model), "sampler": sampler(sampler_name), "sigmas": sigmas_for(model, steps=steps),
        "latent_image": empty_latent("mmdit"), "vae": vae,
    }  # fmt: skip


def shrink(card: Card, graph: dict[str, Any], *judges: Held) -> None:
    """Give the card room for the largest model and the decoder, not for two large ones; nothing is on it."""
    mm.free_memory(1e30, CARD)
    for judge in judges:
        card.names[id(judge.model.patcher.model)] = judge.name
    card.loads, card.unloads, card.peak, card.rounds = [], [], 0, 0
    decoder = graph["vae"].patcher.model_size()
    sizes = [graph["guider"].model_patcher.model_size(), *(judge.model.patcher.model_size() for judge in judges)]
    card.size = 1.1 * max(sizes) + 2.2 * decoder + 1
    assert card.size < sum(sorted(sizes)[:2])


def same(found: Found, want: Found) -> bool:
    """Whether two searches are the same but for the rounding of sums."""
    scores = [[c["score"] or 0.0 for c in f.report["candidates"]] for f in (found, want)]
    facts = ("order", "model_calls", "decodes", "verifier_calls", "notes", "problems")
    return scores[0] == pytest.approx(scores[1], abs=1e-5) and all(found.report[k] == want.report[k] for k in facts)


# Method, budget, rounds of sampling, groups of pictures: in halving's first look there are more than one wave.
METHODS = [
    (RandomSearch(), 24, 3, 3), (HalvingSearch(), 12, 3, 5), (DraftSearch(), 12, 6, 6), (RandomSearch(draft_steps=2), 8, 5, 5),
    (ZeroOrderSearch(neighbors=3), 10, 4, 4),
]  # fmt: skip


@pytest.mark.parametrize(("method", "budget", "rounds", "groups"), METHODS, ids=lambda value: getattr(value, "name", str(value)))
def test_denoiser_and_judge_take_turns_once_per_round(card, monkeypatch, method, budget, rounds, groups):
    judge, graph = held(), graph_on(card, monkeypatch)
    want = search_with(graph, 3, verifier=judge, budget=budget, method=method)  # on a card that has room for all
    assert len(card.loads) == 3 and card.unloads == []
    assert want.report["round_size"] == {"rounds": "small", "because": ""}
    shrink(card, graph, judge)
    found = search_with(graph, 3, verifier=judge, budget=budget, method=method, rounds="small")
    assert card.rounds == rounds and card.large == ["denoiser", "held"] * rounds
    assert card.loads.count("decoder") == groups
    assert card.peak <= card.size
    assert same(found, want)


DEFAULT = {"budget": 16, "method": None}  # drafts, then refinement


def test_where_models_do_not_fit_together_rounds_are_large(card, monkeypatch):
    """On a machine with room for all, the same input gives the same search."""
    judge, graph = held(), graph_on(card, monkeypatch, "euler", steps=12)
    small = search_with(graph, 3, verifier=judge, **DEFAULT)
    large = search_with(graph, 3, verifier=judge, **DEFAULT, rounds="large")
    assert [found.report["round_size"]["rounds"] for found in (small, large)] == ["small", "large"]
    shrink(card, graph, judge)
    found = search_with(graph, 3, verifier=judge, **DEFAULT)
    assert found.report["round_size"]["rounds"] == "large" and card.rounds == 5
    assert card.rounds == 5 and card.large == ["denoiser", "held"] * 4 and card.loads.count("decoder") == 4
    (note,) = [note for note in found.report["notes"] if note not in large.report["notes"]]
    assert note.startswith("models are swapped in every round (denoiser 0.0, decoder 0.0, verifier 'held' 0.0 GiB")
    assert note.endswith("GiB for all): the search goes in fewer, larger rounds")
    assert same(found._replace(report={**found.report, "notes": large.report["notes"]}), large)
    assert found.report["model_calls"] <= small.report["model_calls"] == 16 * 12
    again = search_with(graph, 3, verifier=judge, **DEFAULT, rounds="small")
    assert same(again, small) and again.report["notes"] == small.report["notes"]


@pytest.mark.parametrize("room", [0.9, 1.01, 1.02, 1.05, 1.15])
def test_what_is_foretold_of_a_card_is_what_happens(card, monkeypatch, room):
    """Rounds are large exactly where a search in small ones loads a model for the second time."""
    judge, graph = held(), graph_on(card, monkeypatch)
    shrink(card, graph, judge)
    sizes = [graph["guider"].model_patcher.model_size(), judge.model.patcher.model_size(), graph["vae"].patcher.model_size()]
    card.size = sum(sizes) * room
    found = search_with(graph, 3, verifier=judge, budget=24, method=RandomSearch())
    is_large = found.report["round_size"]["rounds"] == "large"
    mm.free_memory(1e30, CARD)
    card.loads.clear()
    search_with(graph, 3, verifier=judge, budget=24, method=RandomSearch(), rounds="small")
    assert is_large == (len(card.loads) > 3)


@pytest.mark.parametrize("rows", [18, 21, 23])
def test_at_cfg_1_with_reference_latents_too(card, monkeypatch, rows):
    """ComfyUI makes room for 22 rows: two for each of 8 candidates, and a reference of three for either prompt."""
    judge, graph = held(), graph_on(card, monkeypatch)
    graph["guider"].set_cfg(1.0)
    model, total = graph["guider"].model_patcher.model, judge.model.patcher.model_size() + graph["vae"].patcher.model_size()
    total += graph["guider"].model_patcher.model_size()
    monkeypatch.setattr(type(model), "extra_conds_shapes", lambda *args, **entry: {"reference": [3]})

    def memory_required(model, shape, cond_shapes=None):
        return total * (shape[0] + sum(size for (size,) in (cond_shapes or {}).get("reference", [])))

    monkeypatch.setattr(type(model), "memory_required", memory_required)
    monkeypatch.setattr(memory.Room, "call_bytes", lambda room, rows: 0.0)  # what shares a call is not the question
    shrink(card, graph, judge)
    card.size = total * (1 + rows)
    options = {"verifier": judge, "budget": 24, "method": RandomSearch(), "batching": "on"}
    found = search_with(graph, 3, **options)
    is_large = found.report["round_size"]["rounds"] == "large"
    assert is_large == (rows < 22)
    mm.free_memory(1e30, CARD)
    card.loads.clear()
    search_with(graph, 3, **options, rounds="small")
    assert is_large == (len(card.loads) > 3)


@pytest.mark.parametrize("flag", ["HIGH_VRAM", "NO_VRAM"])
def test_rounds_are_small_where_no_model_moves(card, monkeypatch, flag):
    judge, graph = held(), graph_on(card, monkeypatch)
    shrink(card, graph, judge)
    monkeypatch.setattr(mm, "vram_state", mm.VRAMState[flag])
    found = search_with(graph, 3, verifier=judge, budget=4, method=RandomSearch())
    assert found.report["round_size"] == {"rounds": "small", "because": ""}


def test_rounds_are_large_where_comfyui_keeps_one_model_at_a_time(card, monkeypatch):
    judge, graph = held(), graph_on(card, monkeypatch)
    monkeypatch.setattr(mm, "DISABLE_SMART_MEMORY", True)
    found = search_with(graph, 3, verifier=judge, budget=4, method=RandomSearch())
    said = {"rounds": "large", "because": "ComfyUI keeps one model at a time on the device (--disable-smart-memory)"}
    assert found.report["round_size"] == said


def test_a_resumed_search_keeps_its_rounds(card, monkeypatch, tmp_path):
    keep_journals(tmp_path, monkeypatch)
    judge, graph = held(), graph_on(card, monkeypatch, "euler", steps=12)
    shrink(card, graph, judge)
    first = remembered(graph, 3, verifier=judge, **DEFAULT)
    card.size = 1e18
    with counted() as calls:
        again = remembered(graph, 3, verifier=judge, **DEFAULT)
    assert calls.rows == 0 and told(again.report) == told(first.report)
    assert again.report["round_size"] == first.report["round_size"] and again.report["round_size"]["rounds"] == "large"
    for rounds in ("small", "large"):
        found = remembered(graph, 3, verifier=judge, **DEFAULT, rounds=rounds)
        assert found.report["round_size"] == {"rounds": rounds, "because": "the input 'rounds' says so"}
        assert found.report["recalled"]["model_calls"] >= 12  # another choice of candidates, of the same set-up
    assert remembered(graph, 3, verifier=judge, **DEFAULT).report["round_size"] == first.report["round_size"]


def test_a_journal_from_before_rounds_were_decided_is_recalled_in_small_ones(card, monkeypatch, tmp_path):
    folder = keep_journals(tmp_path, monkeypatch)
    judge, graph = held(), graph_on(card, monkeypatch, "euler", steps=12)
    first = remembered(graph, 3, verifier=judge, **DEFAULT)
    (journal,) = folder.glob("*/journal.jsonl")
    lines = journal.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if b'"because"' not in line]
    assert len(kept) == len(lines) - 1
    journal.write_bytes(b"".join(kept))
    shrink(card, graph, judge)
    with counted() as calls:
        again = remembered(graph, 3, verifier=judge, **DEFAULT)
    assert calls.rows == 0 and told(again.report) == told(first.report)


def test_cancel_keeps_what_waits_to_be_scored(card, monkeypatch):
    judge, graph = held(), graph_on(card, monkeypatch)
    options = {"verifier": judge, "budget": 16, "method": BranchingSearch(), "rounds": "large", "on_cancel": "keep best"}
    with at_call(10, interrupt):  # candidate 0 takes 8
        found = search_with(graph, 3, **options)
    assert found.report["order"] == [0] and found.report["stopped"] == "cancelled: the best so far is kept"


def test_a_choice_that_there_is_not_is_refused(card, monkeypatch):
    with pytest.raises(ValueError, match="rounds: 'huge' is none of auto, small, large"):
        search_with(graph_on(card, monkeypatch), 3, verifier=held(), rounds="huge")


def test_runs_that_go_alone_take_turns_with_the_judge_in_groups(card, monkeypatch):
    judge, graph = held(), graph_on(card, monkeypatch)
    shrink(card, graph, judge)
    found = search_with(graph, 3, verifier=judge, budget=10, method=RandomSearch(), batching="off", rounds="small")
    assert [len(told["candidates"]) for told in found.report["rounds"]] == [4, 4, 2]
    assert card.large == ["denoiser", "held"] * 3


def test_every_judge_of_an_ensemble_takes_one_turn(card, monkeypatch):
    judges, graph = (held("one", 1), held("two", 2)), graph_on(card, monkeypatch)
    shrink(card, graph, *judges)
    search_with(graph, 3, verifier=Ensemble(judges, mode=WEIGHTED_SUM), budget=16, method=RandomSearch(), rounds="small")
    assert card.large == ["denoiser", "one", "two"] * 2
    assert card.peak <= card.size


def test_the_dear_judge_of_a_cascade_and_the_held_out_one_take_one_turn(card, monkeypatch):
    cheap, dear, other, graph = held("cheap", 1), held("dear", 2), held("other", 3), graph_on(card, monkeypatch)
    shrink(card, graph, cheap, dear, other)
    search_with(graph, 3, verifier=Cascade(cheap, dear, 3), held_out=other, budget=16, method=RandomSearch(), rounds="small")
    assert card.large == [*["denoiser", "cheap"] * 2, "dear", "other"]


def test_a_judge_that_is_evicted_after_every_answer_gives_the_same_scores(card, monkeypatch):
    class Evicted(Held):
        def score(self, images: Tensor, latents: Tensor | None = None) -> Tensor:
            scores = super().score(images)
            mm.free_memory(1e30, CARD)
            return scores

    judge, graph = held(), graph_on(card, monkeypatch)
    want = search_with(graph, 3, verifier=judge, budget=16, method=RandomSearch())
    shrink(card, graph, judge)
    found = search_with(graph, 3, verifier=Evicted(judge.model), budget=16, method=RandomSearch(), rounds="small")
    assert card.loads.count("held") == card.unloads.count("held") == 2
    assert same(found, want)


def test_after_a_search_a_judge_can_be_evicted_and_forgotten(card, monkeypatch):
    judge, graph = held(), graph_on(card, monkeypatch)
    search_with(graph, 3, verifier=judge, budget=4, method=RandomSearch())
    patcher = judge.model.patcher
    assert patcher.loaded_size() == patcher.model_size()  # as ComfyUI leaves every model
    mm.free_memory(1e30, CARD)
    assert patcher.loaded_size() == 0 and card.used == 0
    assert not any(loaded.model is patcher for loaded in mm.current_loaded_models)
    module = weakref.ref(judge.model.module)
    del judge, patcher
    gc.collect()
    assert module() is None


class Crowded(Held):
    """A judge with room for so many pictures at a time beside its weights."""

    room = 3

    def score(self, images: Tensor, latents: Tensor | None = None) -> Tensor:
        def work(part: Tensor) -> Tensor:
            if len(part) > self.room:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            return Held.score(self, part)

        return in_slices(work, images)


@pytest.mark.parametrize("skip", [True, False])
def test_a_judge_without_room_for_a_whole_round_goes_on_with_less(card, monkeypatch, skip):
    judge, graph = held(), graph_on(card, monkeypatch)
    options = {"budget": 12, "method": RandomSearch(), "on_verifier_error": "skip" if skip else "stop"}
    assert same(search_with(graph, 3, verifier=Crowded(judge.model), **options), search_with(graph, 3, verifier=judge, **options))


def test_a_judge_without_room_for_one_picture_is_a_verifier_s_failure(card, monkeypatch):
    class Full(Crowded):
        room = 0

    judge, graph = Full(held().model), graph_on(card, monkeypatch)
    with pytest.raises(ValueError, match="verifier 'held' failed on candidate 0: OutOfMemoryError"):
        search_with(graph, 3, verifier=judge, budget=4, method=RandomSearch())
    found = search_with(graph, 3, verifier=judge, budget=4, method=RandomSearch(), on_verifier_error="skip")
    assert len(found.report["problems"]) == 4 and found.report["best"]["index"] == 0
