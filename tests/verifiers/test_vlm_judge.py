"""The judge: its probabilities against transformers' own, its three ways of asking, and what it refuses."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest
import torch
from tiny_vlm import picture, save_model, save_weights

from inprocess import boot

pytestmark = pytest.mark.comfy

boot()

import comfy.model_management as mm  # noqa: E402
import transformers  # noqa: E402
from transformers import AutoModelForImageTextToText, AutoProcessor  # noqa: E402

from noise_search.nodes.definitions.verifiers.vlm import JUDGE, NSVLMJudge  # noqa: E402
from noise_search.nodes.weights.vlm import load_vision_language  # noqa: E402
from noise_search.verifiers.vlm.vlm import probabilities, spellings, to_pil  # noqa: E402
from noise_search.verifiers.vlm.vlm_judge import GRADED, VLMJudge, elements_of  # noqa: E402

KINDS = ["qwen2", "qwen2.5", *(["qwen3"] if hasattr(transformers, "Qwen3VLConfig") else [])]
IMAGES = torch.stack([picture(60, 90, phase) for phase in range(3)])


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object) -> None:
        pytest.fail("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", connect)


def judge(name: str, prompt: str, ask: str, max_pixels: int = 200_000, **more: str) -> VLMJudge:
    return NSVLMJudge.execute(name, prompt, ask, max_pixels, **more).args[0]


def reference(folder: Path, images: torch.Tensor, question: str, words: list[set[str]]) -> torch.Tensor:
    """Ask transformers directly: the probability (B, n) of n sets of words, of the whole vocabulary's softmax."""
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    model = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True).eval()
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    tokens = {i: processor.tokenizer.decode([i]).strip() for i in range(len(processor.tokenizer))}
    spelled = [[i for i, token in tokens.items() if token in chosen] for chosen in words]
    rows = []
    for image in images:
        inputs = processor(text=[text], images=[to_pil(image)], return_tensors="pt")
        with torch.no_grad():
            p = model(**inputs).logits[0, -1].double().softmax(0)
        rows.append(torch.stack([p[ids].sum() for ids in spelled]))
    return torch.stack(rows)


@pytest.mark.parametrize("name", KINDS)
def test_yes_or_no_is_the_probability_of_yes_among_both(vlm_folder: Path, name: str) -> None:
    question = 'Does this figure show "a fox in snow"? Please answer yes or no.'
    yes, no = reference(vlm_folder / name, IMAGES, question, [{"Yes", "yes"}, {"No", "no"}]).unbind(1)
    scores = judge(name, " a fox in snow\n", "yes or no").score(IMAGES)
    torch.testing.assert_close(scores, (yes / (yes + no)).float(), rtol=1e-5, atol=1e-6)


def test_aspects_are_the_mean_of_expected_digits(vlm_folder: Path) -> None:
    verifier = judge("qwen2.5", "a fox", "aspects")
    assert len(verifier.questions) == len(GRADED) == 5
    expected = torch.zeros(len(IMAGES), dtype=torch.float64)
    for question in verifier.questions:
        assert '"a fox"' in question
        p = reference(vlm_folder / "qwen2.5", IMAGES, question, [{str(digit)} for digit in range(10)])
        expected += (p @ torch.arange(10.0, dtype=torch.float64)) / p.sum(1) * 10 / 9 / 5
    torch.testing.assert_close(verifier.score(IMAGES), expected.float(), rtol=1e-5, atol=1e-5)


def test_a_check_list_asks_about_each_element(vlm_folder: Path) -> None:
    single = torch.stack([judge("qwen2", element, "yes or no").score(IMAGES) for element in ("a fox", "snow")])
    text = "a fox\n\n  snow \n"
    torch.testing.assert_close(judge("qwen2", "x", "check-list", elements=text).score(IMAGES), single.mean(0))
    product = judge("qwen2", "x", "check-list", elements=text, combine="product").score(IMAGES)
    torch.testing.assert_close(product, single[0] * single[1])
    torch.testing.assert_close(judge("qwen2", "a fox and snow", "check-list").score(IMAGES), single.mean(0))


def test_prompts_are_split_into_elements() -> None:
    text = "Two cats, a dog and a band. Sandy ground;  a dog, at 2.5 m,"
    assert elements_of(text) == ("Two cats", "a dog", "a band", "Sandy ground", "at 2.5 m")
    assert elements_of("a cat  and \t a dog\r\nsand and") == ("a cat", "a dog", "sand and")
    assert elements_of("a" + 200_000 * " " + "b") == ("a" + 200_000 * " " + "b",)  # in time that grows with the length


def test_probabilities_by_hand() -> None:
    logits = torch.tensor([1.0, 2.0, 4.0, 3.0]).log()
    torch.testing.assert_close(probabilities(logits, [[0, 1], [3]]), torch.tensor([0.5, 0.5]))


def textures(bright: torch.Tensor, seed: int) -> torch.Tensor:
    """Make noisy pictures (N, 56, 56, 3) of given brightness (N,), 0 to 1."""
    noise = torch.rand(len(bright), 56, 56, 3, generator=torch.Generator().manual_seed(seed))
    return 0.7 * bright[:, None, None, None] + 0.3 * noise


def test_a_model_that_says_yes_to_bright_pictures_orders_them(vlm_folder: Path) -> None:
    """Its word head is fitted to the hidden states of its own answers, then asked about pictures it has not seen."""
    folder = vlm_folder / "bright"
    model = save_model(folder, seed=1).eval()
    bright = torch.linspace(0, 1, 100)
    asked = judge("bright", "light", "yes or no")
    hidden: list[torch.Tensor] = []
    hook = asked.model.held.module.get_output_embeddings().register_forward_hook(lambda _, x, y: hidden.append(x[0][0, -1]))
    asked.score(textures(bright, 0))
    hook.remove()
    fit = torch.linalg.lstsq(torch.stack(hidden).double(), (bright[:, None] - 0.5).double(), driver="gelsd").solution[:, 0]
    yes, no = asked.choices
    with torch.inference_mode(False), torch.no_grad():
        head = model.get_output_embeddings().weight
        head[[*yes, *no]] = 0
        head[yes], head[no] = 10 * fit.float().clone(), -10 * fit.float().clone()
    save_weights(folder, model)
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")  # another model under the same name
    scores = judge("bright", "light", "yes or no").score(textures(torch.tensor([0.35, 0.9, 0.1, 0.65]), 1))
    assert scores.argsort().tolist() == [2, 0, 3, 1]
    assert (scores > 0.5).tolist() == [False, True, False, True]


def test_large_pictures_are_shrunk(vlm_folder: Path) -> None:
    assert to_pil(picture(100, 200)).size == (200, 100)
    assert to_pil(picture(100, 200), 5000).size == (100, 50)
    large = picture(224, 448)[None]
    small = judge("qwen2", "a fox", "yes or no", 112 * 56)
    grid = small.model.prepared("x", to_pil(large[0], 112 * 56), "?")["image_grid_thw"].tolist()
    assert grid == [[1, 4, 8]]  # patches of 14 pixels: 56 x 112
    assert small.score(large) != judge("qwen2", "a fox", "yes or no").score(large)


def test_nothing_is_left_behind_and_answers_repeat(vlm_folder: Path) -> None:
    verifier = judge("qwen2", "a fox", "yes or no")
    first = verifier.score(IMAGES)
    verifier.score(picture(200, 60)[None])  # another shape moves the positions of the text
    assert torch.equal(verifier.score(IMAGES), first)
    module = verifier.model.held.module
    assert all(getattr(part, "rope_deltas", None) is None for part in module.modules())
    assert not module.get_output_embeddings()._forward_pre_hooks
    assert verifier.get_models() == [verifier.model.held.patcher]
    mm.unload_all_models()
    assert torch.equal(verifier.score(IMAGES), first)


def test_frequencies_of_positions_keep_their_precision(vlm_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(vlm_folder / "qwen2", vlm_folder / "rough")
    exact = judge("qwen2", "a fox", "yes or no").score(IMAGES)
    monkeypatch.setattr(mm, "should_use_bf16", lambda device: True)
    verifier = judge("rough", "a fox", "yes or no")
    module = verifier.model.held.module
    assert {parameter.dtype for parameter in module.parameters()} == {torch.bfloat16}
    assert {buffer.dtype for buffer in module.buffers()} == {torch.float32}
    torch.testing.assert_close(verifier.score(IMAGES), exact, rtol=0, atol=0.03)


def test_nodes_that_name_one_folder_share_it(vlm_folder: Path) -> None:
    assert load_vision_language(JUDGE, "qwen2.5") is load_vision_language(JUDGE, "qwen2.5")


@pytest.mark.parametrize(
    ("prompt", "elements", "message"),
    [
        (" ", "", "input 'prompt' is ' '; there is nothing to ask about"),
        ("a <|image_pad|>", "", "input 'prompt' holds '<|image_pad|>', control tokens"),
        ("a", "b\n<|im_end|>", "input 'elements' holds '<|im_end|>'"),
        (" , . ", "", "without an element to ask about"),
    ],
)
def test_texts_that_cannot_be_asked_are_refused(vlm_folder: Path, prompt: str, elements: str, message: str) -> None:
    with pytest.raises(ValueError, match="VLM Judge: .*") as caught:
        judge("qwen2", prompt, "check-list", elements=elements)
    assert message in str(caught.value)


def test_texts_longer_than_the_model_reads_are_refused(vlm_folder: Path) -> None:
    with pytest.raises(ValueError, match="VLM Judge: inputs 'prompt' and 'max_pixels' make .* the model reads 4096"):
        judge("qwen2", "fox " * 2000, "yes or no").score(IMAGES)


def test_unknown_choices_and_words_are_refused(vlm_folder: Path) -> None:
    with pytest.raises(ValueError, match="input 'ask' is 'maybe'"):
        judge("qwen2", "a fox", "maybe")
    with pytest.raises(ValueError, match="input 'combine' is 'sum'"):
        judge("qwen2", "a fox", "check-list", combine="sum")
    processor = load_vision_language(JUDGE, "qwen2").processor
    with pytest.raises(ValueError, match="VLM Judge: the tokenizer of input 'model_name' has no single token for 'maybe'"):
        spellings(processor, ["maybe"], "VLM Judge")
