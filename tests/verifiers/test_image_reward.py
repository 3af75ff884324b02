"""ImageReward's tokens, preprocessing, network and score, against the original package (by committed fixtures) and PIL."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_image_reward as tiny
import torch
from torch import Tensor

from noise_search.verifiers.image_reward.blip import Sizes, load_network, weight_shapes
from noise_search.verifiers.image_reward.image_reward import MAX_TOKENS, ImageReward, preprocess
from noise_search.verifiers.image_reward.wordpiece import encode, load_tokenizer, read_vocabulary

FOUND = json.loads(tiny.FIXTURES.read_text(encoding="utf-8"))
PIXEL_STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]


class Plain:
    """A network, held without ComfyUI; `most` is how many pictures its device has memory for."""

    dtype = torch.float32
    patcher = None

    def __init__(self, module: Any, most: int = 1000) -> None:
        self.module, self.most = module, most
        self.rows: list[int] = []

    def __call__(self, work: Callable[..., Tensor], memory: float) -> Tensor:
        def network(pixels: Tensor, tokens: Tensor) -> Tensor:
            self.rows.append(len(pixels))
            if len(pixels) > self.most:
                raise torch.cuda.OutOfMemoryError
            return self.module(pixels, tokens)

        assert memory > 0
        return work(network, torch.device("cpu"))


@pytest.fixture(scope="module")
def network() -> Any:
    sd = tiny.weights(tiny.published_names())
    return load_network(Sizes.of(sd), sd)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer({token: number for number, token in enumerate(tiny.VOCABULARY)})


def patchworks(count: int) -> Tensor:
    return tiny.pictures(count).float() / 255


@pytest.mark.parametrize("case", FOUND["real"], ids=lambda case: case["prompt"][:24])
def test_tokens_equal_the_originals_in_the_real_vocabulary(case: dict[str, Any]) -> None:
    # The greedy longest match over the pieces that it found in the whole vocabulary must find the same ones.
    vocabulary = {"[PAD]": 0, "[UNK]": 100, "[MASK]": 103, **dict(case["pieces"])}
    ids, length = encode(load_tokenizer(vocabulary), case["prompt"], MAX_TOKENS)
    assert ids == [number for number in case["ids"] if number != 0]
    assert length == len(case["pieces"])


def test_some_real_prompts_are_cut() -> None:
    lengths = [len(case["pieces"]) for case in FOUND["real"]]
    assert len(lengths) >= 20
    assert max(lengths) > MAX_TOKENS > min(lengths)


def test_tokens_equal_the_originals(tokenizer: Any) -> None:
    for prompt, ids in zip(FOUND["prompts"], FOUND["ids"], strict=True):
        assert encode(tokenizer, prompt, MAX_TOKENS)[0] == ids


def test_embedding_equals_the_originals(network: Any) -> None:
    image = network.blip["visual_encoder"](preprocess(patchworks(1), 224))
    assert image.shape == (1, 197, 128)
    torch.testing.assert_close(image[0, FOUND["embedding_rows"]], torch.tensor(FOUND["embedding"]), rtol=0, atol=1e-4)


@pytest.mark.parametrize("case", range(len(FOUND["prompts"])))
def test_scores_equal_the_originals(network: Any, tokenizer: Any, case: int) -> None:
    verifier = ImageReward(Plain(network), tokenizer, FOUND["prompts"][case])
    expected = torch.tensor(FOUND["scores"][case])
    torch.testing.assert_close(verifier.score(patchworks(4)), expected, rtol=0, atol=1e-4)
    assert expected.std() > 0.1  # the pictures are told apart by far more than the tolerance


def test_the_published_model_has_the_originals_weights() -> None:
    sizes = Sizes(image_size=224, patch=16, vision=(1024, 24, 4096), text=(768, 12, 3072), words=30524, positions=512)
    shapes = weight_shapes(sizes)
    unused = {"blip.vision_proj.weight", "blip.vision_proj.bias", "blip.text_proj.weight", "blip.text_proj.bias",
              "blip.text_encoder.embeddings.position_ids"}  # fmt: skip
    expected = {}
    for name, (count, shape) in FOUND["published_shapes"].items():
        numbers = range(count) if "*" in name else [""]
        expected |= {name.replace("*", str(number)): tuple(shape) for number in numbers}
    assert expected.keys() - shapes.keys() == unused
    assert shapes == {name: shape for name, shape in expected.items() if name not in unused}


def photograph(height: int, width: int) -> Tensor:
    """Draw smooth colors, fine grain and hard edges up to black and white: (H, W, 3), uint8."""
    coarse = tiny.hashed("coarse", 3 * 81).view(1, 3, 9, 9) / 2**24
    picture = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0].movedim(0, -1)
    picture = picture + 0.2 * (tiny.hashed("grain", picture.numel()).view_as(picture) / 2**24 - 0.5)
    picture[height // 3 : height // 2, width // 4 : width // 2] = 0
    picture[height // 2 :, ::17] = 1
    return (255 * picture.clamp(0, 1)).round().to(torch.uint8)


@pytest.mark.parametrize(
    ("height", "width"), [(512, 512), (480, 641), (301, 224), (1000, 333), (90, 130), (224, 224), (225, 227)]
)
def test_preprocessing_equals_pil(height: int, width: int) -> None:
    from PIL import Image
    from torchvision import transforms as T

    def resized(picture: Image.Image) -> Image.Image:
        """Resize across, then down: Pillow 13 turns the passes around where a picture is tall, which is 12 levels apart."""
        width, height = T.Resize(224)(picture).size
        return picture.resize((width, picture.height), Image.BICUBIC).resize((width, height), Image.BICUBIC)

    picture = photograph(height, width)
    normalize = T.Normalize((0.48145466, 0.4578275, 0.40821073), tuple(PIXEL_STD.flatten().tolist()))
    expected = normalize(T.ToTensor()(T.CenterCrop(224)(resized(Image.fromarray(picture.numpy())))))
    apart = (preprocess(picture[None].float() / 255, 224)[0] - expected).abs() * PIXEL_STD * 255
    assert apart.max() < 1.01  # one level of 255
    assert (apart > 0.01).float().mean() < 0.002


def test_pictures_are_scored_in_halves_where_memory_is_short(network: Any, tokenizer: Any) -> None:
    whole, halves = Plain(network), Plain(network, most=2)
    images = patchworks(5)
    expected = ImageReward(whole, tokenizer, "a red circle").score(images)
    torch.testing.assert_close(ImageReward(halves, tokenizer, "a red circle").score(images), expected, rtol=0, atol=1e-5)
    assert whole.rows == [5]
    assert halves.rows == [5, 3, 2, 2, 1]
    with pytest.raises(torch.cuda.OutOfMemoryError):
        ImageReward(Plain(network, most=0), tokenizer, "a red circle").score(images[:1])


def test_a_long_prompt_is_cut_and_that_is_logged_once(network: Any, tokenizer: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "noise-search"):
        fits = ImageReward(Plain(network), tokenizer, "circle " * 33)
        assert fits.tokens.shape == (1, 35)
        assert not caplog.records
        cut = ImageReward(Plain(network), tokenizer, "circle " * 33 + "a blue square")
        images = patchworks(2)
        assert torch.equal(cut.score(images), fits.score(images))
        cut.score(images)
    assert [record.getMessage() for record in caplog.records] == [
        "ImageReward: the prompt has 38 tokens, of which the first 35 count; put what matters first."
    ]


def test_tokens_are_made_once(network: Any, tokenizer: Any) -> None:
    verifier = ImageReward(Plain(network), tokenizer, "a red circle")
    assert verifier.tokens is verifier.tokens


@pytest.mark.parametrize("prompt", ["", " \n"])
def test_an_empty_prompt_is_refused(network: Any, tokenizer: Any, prompt: str) -> None:
    with pytest.raises(ValueError, match="ImageReward: input 'prompt' is"):
        ImageReward(Plain(network), tokenizer, prompt)


def test_scores_have_no_bound(network: Any, tokenizer: Any) -> None:
    assert ImageReward(Plain(network), tokenizer, "a").score_range == (-math.inf, math.inf)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\xff\xfe\x00 binary \x80", "it is not text"),
        (b"one\ntwo\n", r"it has no line \[PAD\] or \[UNK\]"),
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\na\n", "it holds a line twice"),
    ],
)
def test_other_files_are_no_vocabulary(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "vocab.txt").write_bytes(content)
    with pytest.raises(ValueError, match=why):
        read_vocabulary(str(tmp_path / "vocab.txt"))


def test_line_ends_of_windows_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes("\r\n".join([*tiny.VOCABULARY, ""]).encode())
    assert list(read_vocabulary(str(tmp_path / "vocab.txt"))) == tiny.VOCABULARY


def without(name: str) -> dict[str, Tensor]:
    sd = tiny.weights(tiny.published_names())
    return {key: value for key, value in sd.items() if key != name}


@pytest.mark.parametrize(
    ("sd", "why"),
    [
        ({}, "patch_embed.proj.weight is missing"),
        (without("blip.visual_encoder.blocks.0.mlp.fc1.weight"), "blocks.0.mlp.fc1.weight is missing"),
        ({**without(""), "blip.visual_encoder.pos_embed": torch.zeros(197, 128)}, r"pos_embed has the shape \(197, 128\)"),
        ({**without(""), "blip.visual_encoder.patch_embed.proj.weight": torch.zeros(100, 3, 16, 16)}, "is 100 wide"),
    ],
)
def test_sizes_of_other_weights_are_refused(sd: dict[str, Tensor], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Sizes.of(sd)
