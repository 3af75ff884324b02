"""Score from Graph: nodes of any make between Candidate Image and a number, run for each picture by the real ComfyUI."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.comfy

from whole_prompts import Ended, Refused, Runner, foreign, node

pack = foreign()

import torch
from searching import search, without_seconds

from noise_search.search.methods.halving import HalvingSearch
from noise_search.verifiers.measures.statistics import ImageStatistics

BRIGHT = torch.tensor([0.25, 0.75, 0.5])


def pictures() -> torch.Tensor:
    """Three pictures whose mean is known; red, green and blue differ by a fixed step."""
    tint = torch.tensor([0.1, 0.0, -0.1])
    return (BRIGHT[:, None, None, None] + tint).expand(3, 8, 8, 3).clone()


def chain(end: dict[str, Any] | None = None, output: int = 0, **settings: Any) -> dict[str, Any]:
    """A prompt that keeps the verifier made of a chain: `end` reads ["image", 0]."""
    return {
        "image": node("NSGraphImage"),
        "end": end or node("ForeignNumber", image=["image", 0], kind="float"),
        "verifier": node(
            "NSScoreFromGraph",
            **{"score": ["end", output], "prefer": "high", "batch_size": 1, "trusts_previews": True, **settings},
        ),
        "keep": node("ForeignKeep", value=["verifier", 0]),
    }


def image_reward(model: str = "ImageReward-v1.0", prompt: str = "a red fox") -> dict[str, Any]:
    return chain(node("ImageRewardScore", model=["loader", 0], prompt=["text", 0], images=["image", 0])) | {
        "loader": node("ImageRewardLoader", model=model),
        "text": node("PrimitiveString", value=prompt),
    }


def known(node_id: str) -> bool:
    import nodes

    return node_id in nodes.NODE_CLASS_MAPPINGS


def ended_well(prompt: dict[str, Any], runner: Runner | None = None) -> Ended:
    ended = (runner or Runner()).run(prompt)
    assert ended.status == "execution_success", ended.error
    return ended


def made_by(prompt: dict[str, Any], runner: Runner | None = None) -> Any:
    """The verifier that a prompt makes."""
    pack.KEPT.clear()
    ended_well(prompt, runner)
    return pack.KEPT.pop()


def fails(prompt: dict[str, Any]) -> Ended:
    ended = Runner().run(prompt)
    assert ended.status == "execution_error"
    return ended


# What is run, and when


def test_stock_nodes_alone() -> None:
    """The mean of a channel: the picture scaled to one pixel, as a mask of one pixel."""
    prompt = chain(node("ImageToMask", "Redness", image=["scaled", 0], channel="red"))
    prompt["scaled"] = node("ImageScale", image=["image", 0], upscale_method="area", width=1, height=1, crop="disabled")
    verifier = made_by(prompt)
    assert verifier.name == "Redness"
    torch.testing.assert_close(verifier.score(pictures()), BRIGHT + 0.1)
    prompt["verifier"]["inputs"]["batch_size"] = 2
    torch.testing.assert_close(made_by(prompt).score(pictures()), BRIGHT + 0.1)


@pytest.mark.parametrize("output", [0, 1], ids=["FLOAT", "STRING"])
def test_a_published_pack_s_nodes(output: int) -> None:
    pack.RUNS.clear()
    prompt = image_reward()
    prompt["verifier"]["inputs"]["score"] = ["end", output]
    verifier = made_by(prompt)
    assert dict(pack.RUNS) == {"load": 1}  # by ComfyUI, once; nothing was scored yet
    assert verifier.name == "ImageReward Score"
    scores = verifier.score(pictures())
    eight_bit = (255 * pictures()).to(torch.uint8).float().mean(dim=(1, 2)) / 255
    torch.testing.assert_close(scores, eight_bit[:, 0] - eight_bit.mean(1))  # each alone, not the mean of three
    assert dict(pack.RUNS) == {"load": 1, "score": 3}


def test_the_score_of_a_native_verifier() -> None:
    """Nodes of this pack are nodes too: Score Images inside a chain is the verifier itself."""
    prompt = chain(node("NSScoreImages", images=["image", 0], verifier=["judge", 0]), output=3)
    weights = {"sharpness": 0.0, "exposure": 1.0, "colorfulness": 0.5, "contrast": 0.0}
    prompt["judge"] = node("NSImageStatistics", **weights)
    assert torch.equal(made_by(prompt).score(pictures()), ImageStatistics(**weights).score(pictures()))


@pytest.mark.parametrize("cache", ["CLASSIC", "LRU", "NONE", "RAM_PRESSURE"])
def test_nothing_is_run_again_unless_it_changed(cache: str) -> None:
    runner = Runner(cache)
    prompt = image_reward()
    prompt["shown"] = node("PreviewAny", source=["scores", 3])
    prompt["scores"] = node("NSScoreImages", images=["given", 0], verifier=["verifier", 0], keep=0)
    prompt["given"] = node("EmptyImage", width=8, height=8, batch_size=2, color=0xFF0000)

    def run() -> tuple[dict[str, int], str]:
        pack.RUNS.clear()
        ended = ended_well(prompt, runner)
        return dict(pack.RUNS), ended.outputs["shown"]["text"][0]

    first = {"load": 1, "score": 2}
    cached = first if cache == "NONE" else {}
    assert run() == (first, str(torch.tensor(2 / 3).item()))
    assert run()[0] == cached
    prompt["text"]["inputs"]["value"] = "a blue fox"  # outside, read by a node inside
    changed = first if cache == "NONE" else {"score": 2}
    assert run() == (changed, str(torch.tensor(-1 / 3).item()))
    prompt["loader"]["inputs"]["model"] = "contrary"
    assert run() == (first, str(torch.tensor(1 / 3).item()))
    assert run()[0] == cached
    prompt["end"]["inputs"]["prompt"] = "green"  # a constant of a node inside
    assert run() == (changed, str(torch.tensor(1 / 3).item()))
    prompt["end"]["inputs"]["prompt"] = "red"
    assert run() == (changed, str(torch.tensor(-2 / 3).item()))


def test_a_picture_is_a_copy_and_objects_stay() -> None:
    pack.RUNS.clear()
    verifier, images = made_by(chain(node("ForeignNumber", image=["image", 0], kind="scribble"))), pictures()
    torch.testing.assert_close(verifier.score(images), BRIGHT)
    torch.testing.assert_close(verifier.score(images), BRIGHT)
    assert torch.equal(images, pictures())
    assert pack.RUNS["made"] == 1  # a node that keeps its model in itself loads it once


def test_models_of_the_nodes_are_shown() -> None:
    import comfy.model_patcher

    from noise_search.nodes.definitions.verifiers.graph import models_of

    patcher = comfy.model_patcher.ModelPatcher(torch.nn.Linear(1, 1), torch.device("cpu"), torch.device("cpu"))
    holder = type("Holder", (), {"patcher": patcher})()
    several = type("Several", (), {"get_models": lambda self: [patcher, "no model"]})()
    assert models_of(patcher) == models_of(holder) == models_of(several) == [patcher]
    assert models_of("a prompt") == models_of(pack.ColorModel(1.0)) == []


# What nodes may be like


@pytest.mark.parametrize("kind", ["float", "text", "tensor", "tensor 1", "list", "array", "scalar", "progress"])
def test_numbers_of_many_types(kind: str) -> None:
    torch.testing.assert_close(made_by(chain(node("ForeignNumber", image=["image", 0], kind=kind))).score(pictures()), BRIGHT)


def test_low_may_be_good() -> None:
    torch.testing.assert_close(made_by(chain(prefer="low")).score(pictures()), -BRIGHT)


def test_a_batch_at_once() -> None:
    pack.RUNS.clear()
    verifier = made_by(chain(node("ForeignNumber", image=["image", 0], kind="each"), batch_size=2))
    torch.testing.assert_close(verifier.score(pictures()), BRIGHT)
    assert pack.RUNS["number each"] == 2


def test_an_async_node_inside_comfyui_s_running_loop() -> None:
    pack.RUNS.clear()
    prompt = chain(node("ForeignAsync", image=["image", 0]))
    prompt["scores"] = node("NSScoreImages", images=["given", 0], verifier=["verifier", 0], keep=0)
    prompt["given"] = node("EmptyImage", width=8, height=8, batch_size=2, color=0xFFFFFF)
    prompt["shown"] = node("PreviewAny", source=["scores", 3])
    assert ended_well(prompt).outputs["shown"]["text"][0] == "1.0"
    assert pack.RUNS[f"async end of {len(prompt)}"] == 2  # hidden inputs are the prompt's own
    torch.testing.assert_close(made_by(prompt).score(pictures()), BRIGHT)


def test_lists_in_and_out() -> None:
    prompt = chain(node("ForeignLists", images=["split", 0], weight=2.0), batch_size=3)
    prompt["split"] = node("ForeignSplit", images=["image", 0])
    pack.RUNS.clear()
    verifier = made_by(prompt)
    torch.testing.assert_close(verifier.score(pictures()), 2 * BRIGHT)
    assert dict(pack.RUNS) == {"split w": 1, "lists": 1}
    prompt["end"] = node("ForeignNumber", image=["split", 0], kind="float")  # run for each item of the list
    torch.testing.assert_close(made_by(prompt).score(pictures()), BRIGHT)


@pytest.mark.parametrize("first", [True, False])
def test_lazy_inputs_are_asked_for_only_if_wanted(first: bool) -> None:
    prompt = chain(node("ForeignSwitch", first=first, on=["on", 0], off=["off", 0]))
    prompt["on"] = node("ImageRewardScore", model=["loader", 0], prompt="red", images=["image", 0])
    prompt["off"] = node("ImageRewardScore", model=["loader", 0], prompt="blue", images=["image", 0])
    prompt["loader"] = node("ImageRewardLoader", model="m")
    pack.RUNS.clear()
    scores = made_by(prompt).score(pictures())
    assert pack.RUNS["score"] == 3  # of six
    assert ((scores > 0) == first).all()


def colored(prompt: str, model: str, images: str = "given") -> dict[str, Any]:
    """A node that counts its runs; on the red picture "given", it answers 2/3 for "red" and -1/3 for "blue"."""
    return node("ImageRewardScore", model=[model, 0], prompt=prompt, images=[images, 0])


def sides(end: dict[str, Any]) -> dict[str, Any]:
    """A chain that ends in a choice between "on", which looks at the candidate, and "off", which does not."""
    return chain(end) | {
        "on": colored("red", "loader", "image"),
        "off": colored("blue", "other"),
        "loader": node("ImageRewardLoader", model="m"),
        "other": node("ImageRewardLoader", model="n"),
        "given": node("EmptyImage", width=8, height=8, batch_size=1, color=0xFF0000),
    }


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("node_id", ["ForeignSwitch", "ComfySwitchNode"])
def test_a_side_outside_is_evaluated_only_if_it_is_asked_for(node_id: str, first: bool) -> None:
    """The other side is no value of the node's, and neither it nor its loader is run."""
    if node_id == "ForeignSwitch":
        prompt = sides(node("ForeignSwitch", first=first, on=["on", 0], off=["off", 0]))
    elif known(node_id):
        prompt = sides(node("ComfySwitchNode", switch=first, on_true=["on", 0], on_false=["off", 0]))
    else:
        pytest.skip("this core has no such node")
    pack.RUNS.clear()
    scores = made_by(prompt).score(pictures())
    assert dict(pack.RUNS) == {"load": 1, "score": 3 if first else 1}
    if first:
        assert (scores > 0).all()
    else:
        torch.testing.assert_close(scores, torch.full((3,), -1 / 3))


def test_switches_behind_switches_ask_one_after_another() -> None:
    prompt = sides(node("ForeignSwitch", first=False, on=["on", 0], off=["second", 0]))
    prompt["second"] = node("ForeignSwitch", first=True, on=["third", 0], off=["on", 0])
    prompt["third"] = node("ForeignSwitch", first=False, on=["on", 0], off=["off", 0])
    pack.RUNS.clear()
    torch.testing.assert_close(made_by(prompt).score(pictures()), torch.full((3,), -1 / 3))
    assert dict(pack.RUNS) == {"load": 1, "score": 1}


def test_what_a_candidate_decides_is_evaluated_when_one_asks_for_it() -> None:
    """And then once: pictures of 0.25 and 0.5 take the dark side, 0.75 the bright one."""
    prompt = sides(node("ForeignChoice", image=["image", 0], bright=["on", 0], dark=["off", 0]))
    pack.RUNS.clear()
    verifier = made_by(prompt)
    assert dict(pack.RUNS) == {}
    assert verifier.score(pictures()[1:2]).item() == pytest.approx(0.1, abs=1e-2)
    assert dict(pack.RUNS) == {"load": 1, "score": 1}
    scores = [verifier.score(pictures()).tolist() for _ in range(2)]
    assert scores[0] == scores[1] == pytest.approx([-1 / 3, 0.1, -1 / 3], abs=1e-2)
    assert dict(pack.RUNS) == {"load": 2, "score": 4}  # bright three times in all, dark once


def test_what_comfyui_evaluates_anyway_is_not_evaluated_again_for_a_lazy_input() -> None:
    prompt = sides(node("ForeignChoice", image=["image", 0], bright=["on", 0], dark=["off", 0]))
    prompt["off"] = colored("blue", "other", "split")
    prompt["split"] = node("ForeignSplit", images=["given", 0])
    prompt["scores"] = node("NSScoreImages", images=["split", 0], verifier=["verifier", 0], keep=0)
    prompt["shown"] = node("PreviewAny", source=["scores", 3])
    pack.RUNS.clear()
    assert float(ended_well(prompt).outputs["shown"]["text"][0]) == pytest.approx(-1 / 3)
    assert dict(pack.RUNS) == {"split w": 1, "load": 1, "score": 1}


def test_a_node_is_not_paid_for_in_the_search_by_a_lazy_input() -> None:
    prompt = sides(node("ForeignChoice", image=["image", 0], bright=["on", 0], dark=["off", 0]))
    prompt["off"] = node("ForeignPaid", image=["given", 0])
    verifier = made_by(prompt)
    assert verifier.score(pictures()[1:2]).item() > 0
    with pytest.raises(ValueError, match=r"node 'ForeignPaid' \(id off, ForeignPaid\) is paid for by the call"):
        verifier.score(pictures()[:1])


def test_a_node_feeds_two_and_runs_once() -> None:
    prompt = chain(node("NSScoreImages", images=["batch", 0], verifier=["judge", 0], keep=1), output=3)
    prompt["judge"] = node("NSImageStatistics", sharpness=0.0, exposure=0.0, colorfulness=0.0, contrast=1.0)
    prompt["split"] = node("ForeignSplit", images=["image", 0])
    prompt["batch"] = node("ImageBatch", image1=["split", 0], image2=["split", 0])
    pack.RUNS.clear()
    made_by(prompt).score(pictures()[:1])
    assert sum(count for what, count in pack.RUNS.items() if what.startswith("split")) == 1


def test_two_chains_share_a_candidate_image() -> None:
    prompt = chain()
    prompt["second"] = node("NSScoreFromGraph", score=["end", 0], prefer="low", batch_size=1, trusts_previews=False)
    prompt["verifier"], prompt["first"] = node("NSVerifierEnsemble", verifier_1=["first", 0], verifier_2=["second", 0],
                                               weight_1=1.0, weight_2=0.25, mode="weighted sum", gate_threshold=0.0,
                                               ), prompt["verifier"]  # fmt: skip
    verifier = made_by(prompt)
    torch.testing.assert_close(verifier.score(pictures()), 0.75 * BRIGHT)
    assert [part.trusts_previews for part in verifier.parts] == [True, False]


def test_a_chain_inside_a_chain() -> None:
    prompt = chain(node("NSScoreImages", images=["image", 0], verifier=["inner", 0], keep=0), output=3)
    prompt["inner image"] = node("NSGraphImage")
    prompt["inner end"] = node("ForeignNumber", image=["inner image", 0], kind="float")
    prompt["inner"] = node("NSScoreFromGraph", score=["inner end", 0], prefer="low", batch_size=1, trusts_previews=True)
    torch.testing.assert_close(made_by(prompt).score(pictures()), -BRIGHT)


# The example picture


def test_an_example_is_tried_before_the_search() -> None:
    prompt = chain(node("ForeignNumber", "Scorer", image=["image", 0], kind="trouble"))
    assert ended_well(prompt).error == ""  # nothing to try it on: the first candidate will tell
    prompt["image"] = node("NSGraphImage", image=["example", 0])
    prompt["example"] = node("EmptyImage", width=8, height=8, batch_size=1, color=0xFF0000)
    ended = fails(prompt)
    assert "node 'Scorer' (id end, ForeignNumber) failed: KeyError: 'no such weight'" in ended.error
    assert ended.error_node == "verifier"
    prompt["end"]["inputs"]["kind"] = "float"
    torch.testing.assert_close(made_by(prompt).score(pictures()), BRIGHT)


@pytest.mark.parametrize("example", [True, False])
def test_what_else_hangs_on_the_nodes_sees_the_example_or_nothing(example: bool) -> None:
    prompt = image_reward()
    prompt["shown"] = node("PreviewAny", source=["end", 0])
    if example:
        prompt["image"] = node("NSGraphImage", image=["red", 0])
        prompt["red"] = node("EmptyImage", width=8, height=8, batch_size=1, color=0xFF0000)
    shown = ended_well(prompt).outputs.get("shown")
    assert (shown is not None) == example
    if example:
        assert float(shown["text"][0]) == pytest.approx(2 / 3)


# Errors


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("trouble", r"node 'Mine' \(id end, ForeignNumber\) failed: KeyError: 'no such weight' \(picture 0 of 3, from 0\)"),
        ("words", "the text 'score: 0.25"),
        ("two", "gave 2 numbers for 1 picture"),
        ("none", "type NoneType"),
        ("dict", "type dict"),
        ("picture", r"a Tensor of shape \(1, 8, 8, 3\)"),
        ("blocked", r"node 'Mine' .* gave no score; it, or a node before it, blocked the picture: not safe"),
    ],
)
def test_what_went_wrong_is_said(kind: str, says: str) -> None:
    verifier = made_by(chain(node("ForeignNumber", "Mine", image=["image", 0], kind=kind)))
    with pytest.raises(ValueError, match=f"^Mine: .*{says}"):
        verifier.score(pictures())


def test_a_node_that_builds_nodes_is_refused() -> None:
    verifier = made_by(chain(node("ForeignExpand", image=["image", 0])))
    with pytest.raises(ValueError, match=r"node 'ForeignExpand' \(id end.* builds further nodes while it runs"):
        verifier.score(pictures())


def test_what_cannot_be_a_chain_is_refused_before_the_search() -> None:
    ended = fails(chain(node("ImageRewardScore", model=["loader", 0], prompt="red", images=["other", 0])) | {
        "loader": node("ImageRewardLoader", model="m"),
        "other": node("EmptyImage", width=8, height=8, batch_size=1, color=0),
    })  # fmt: skip
    assert ended.error_node == "verifier"
    assert ended.error.startswith("Score from Graph: input 'score' comes from 'ImageReward Score' (node end), and no Candidate")
    ended = fails(chain(node("ForeignPaid", image=["image", 0])))
    assert "'ForeignPaid' (node end) is paid for by the call" in ended.error
    prompt = chain()
    prompt["verifier"]["inputs"]["score"] = 3.5
    assert "input 'score' is 3.5; connect" in fails(prompt).error
    del prompt["verifier"]["inputs"]["score"]
    with pytest.raises(Refused, match="required_input_missing"):
        Runner().run(prompt)


def test_cancel_inside_a_node_cancels_and_progress_is_left_alone() -> None:
    import comfy.model_management as mm
    import comfy.utils
    from comfy_execution import progress

    verifier = made_by(chain(node("ForeignNumber", image=["image", 0], kind="cancel")))
    hook, registry = comfy.utils.PROGRESS_BAR_HOOK, progress.get_progress_state()
    try:
        with pytest.raises(mm.InterruptProcessingException):
            verifier.score(pictures())
    finally:
        mm.interrupt_current_processing(False)
    assert comfy.utils.PROGRESS_BAR_HOOK is hook and progress.get_progress_state() is registry
    calls: list[Any] = []
    comfy.utils.set_progress_bar_global_hook(lambda *args, **kwargs: calls.append(args))
    try:
        made_by(chain(node("ForeignNumber", image=["image", 0], kind="progress"))).score(pictures())
    finally:
        comfy.utils.set_progress_bar_global_hook(hook)
    assert calls == [] and "end" not in progress.get_progress_state().nodes
    idle = made_by(chain())
    mm.interrupt_current_processing(True)  # pressed while another node runs: noticed at the next one
    try:
        with pytest.raises(mm.InterruptProcessingException):
            idle.score(pictures())
    finally:
        mm.interrupt_current_processing(False)


# In a search


class Redness:
    """What `image_reward` computes, as a verifier of its own."""

    name = "ImageReward Score"
    score_range = (-1.0, 1.0)
    needs_prompt, prompt, trusts_previews = False, "", True

    def score(self, images: torch.Tensor, latents: torch.Tensor | None = None) -> torch.Tensor:
        found = []
        for image in images:
            mean = (255.0 * image.float()).clamp(0, 255).to(torch.uint8).float().mean(dim=(0, 1))
            found.append(float(mean[0] - mean.mean()) / 255)
        return torch.tensor(found)


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral"])
@pytest.mark.parametrize("method", [None, HalvingSearch()], ids=["default", "halving"])
def test_a_search_finds_what_the_same_native_verifier_finds(sampler: str, method: Any) -> None:
    by_graph = search("eps", sampler, 3, verifier=made_by(image_reward()), budget=6, method=method)
    by_hand = search("eps", sampler, 3, verifier=Redness(), budget=6, method=method)
    assert by_graph.recipe == by_hand.recipe and by_graph.score == by_hand.score
    assert torch.equal(by_graph.images, by_hand.images)
    assert without_seconds(by_graph.report) == without_seconds(by_hand.report)
    assert by_graph.report["best"]["index"] > 0


def test_nodes_that_scribble_and_reseed_do_not_change_a_search() -> None:
    kinds = ("float", "scribble")
    made = [made_by(chain(node("ForeignNumber", "N", image=["image", 0], kind=kind))) for kind in kinds]
    plain, scribbled = (search("eps", "euler_ancestral", 3, verifier=verifier, budget=5) for verifier in made)
    assert torch.equal(plain.images, scribbled.images)
    assert without_seconds(plain.report) == without_seconds(scribbled.report)


def test_a_failing_node_is_named_with_its_candidate() -> None:
    verifier = made_by(chain(node("ForeignNumber", "Mine", image=["image", 0], kind="trouble")))
    with pytest.raises(ValueError, match=r"verifier 'Mine' failed on candidate 0: .*node 'Mine' \(id end, ForeignNumber\)"):
        search("eps", "euler", 3, verifier=verifier, budget=3)
