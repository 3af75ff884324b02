"""Each verifier hands its model the tokens of its own reference, for texts as people and language models write them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import CLIPTokenizerFast

from inprocess import boot

pytestmark = pytest.mark.comfy

boot()

from noise_search.nodes.store.setup_key import _digest  # noqa: E402
from noise_search.nodes.weights.clip import ClipPair, load_clip_pair  # noqa: E402
from noise_search.verifiers.clip.clip_score import ClipScore  # noqa: E402
from noise_search.verifiers.clip.hps_v2 import HPSv2  # noqa: E402
from noise_search.verifiers.clip.pick_score import PickScore  # noqa: E402
from noise_search.verifiers.content.zero_shot import ZeroShotClass  # noqa: E402

FOUND = json.loads((Path(__file__).parent / "fixtures" / "tokens.json").read_text(encoding="ascii"))["tokens"]
END = 49407
REFERENCES = {"CLIP score": "openai", "PickScore": "transformers", "HPS v2.1": "hpsv2"}


@pytest.fixture(scope="module")
def pair(tiny_clip: SimpleNamespace) -> ClipPair:
    return load_clip_pair(tiny_clip.path)


def verifiers(pair: ClipPair, prompt: str) -> list[ClipScore]:
    towers = pair.clip, pair.clip_vision, prompt
    return [ClipScore(*towers), PickScore(*towers), HPSv2(*towers, encode=pair.encode_pixels)]


def tokens_read(verifier: Any, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Return the tokens of each text that the model gets, up to the first end."""
    read, encode = [], verifier.clip.encode_from_tokens

    def noted(tokens: dict[str, list], **options: Any) -> Any:
        (rows,) = tokens.values()
        (row,) = rows
        ids = [token for token, weight in row if weight == 1]
        read.append(ids[: ids.index(END) + 1])
        return encode(tokens, **options)

    with monkeypatch.context() as patched:
        patched.setattr(verifier.clip, "encode_from_tokens", noted)
        _ = verifier.class_features if isinstance(verifier, ZeroShotClass) else verifier.text_features
    return read


@pytest.mark.parametrize("case", FOUND, ids=lambda case: ascii(case["text"])[:24])
def test_tokens_are_those_of_the_reference(case: dict[str, Any], pair: ClipPair, monkeypatch: pytest.MonkeyPatch) -> None:
    for verifier in verifiers(pair, case["text"]):
        expected = case[REFERENCES[verifier.name]]
        assert tokens_read(verifier, monkeypatch) == [expected[: expected.index(END) + 1]], verifier.name


def test_the_references_differ() -> None:
    assert len(FOUND) >= 30
    assert sum(case["openai"] != case["transformers"] for case in FOUND) >= 10
    assert any(case["openai"] != case["hpsv2"] for case in FOUND)


def test_classes_are_read_as_clip_reads_texts(pair: ClipPair, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = ZeroShotClass(pair.clip, pair.clip_vision, ["cat's toy", "dog"], ['a "{}".', "{}"])
    curly = ZeroShotClass(pair.clip, pair.clip_vision, ["cat’s toy", "dog"], ["a “{}”.", "{}"])
    assert tokens_read(curly, monkeypatch) == tokens_read(plain, monkeypatch)
    assert (plain.score_version, curly.score_version) == ((), ("text",))


def test_the_tokenizer_of_a_file_is_the_same_with_every_transformers(pair: ClipPair) -> None:
    """The slow class, CLIPTokenizer up to transformers 4, puts spaces around CJK letters, and asks whether ftfy is there."""
    assert isinstance(pair.clip.tokenizer.clip_l.tokenizer, CLIPTokenizerFast)


@pytest.mark.parametrize("prompt", ["a red circle", "  Café\n at 東京 ", "don't"])
def test_scores_that_did_not_change_keep_their_signature(pair: ClipPair, prompt: str) -> None:
    clip, pick, hps = verifiers(pair, prompt)
    assert (clip.score_version, pick.score_version, hps.score_version) == ((), (), ("pixels",))


def test_scores_that_changed_get_another_signature(pair: ClipPair) -> None:
    clip, pick, hps = verifiers(pair, "it’s")
    assert (clip.score_version, pick.score_version, hps.score_version) == (("text",), (), ("pixels", "text"))
    for verifier in verifiers(pair, "fate \\(series\\)"):
        assert "text" in verifier.score_version  # ComfyUI's tokenizer took the backslashes away


def test_the_signature_of_a_verifier_and_of_what_holds_it_has_the_version() -> None:
    def digest(version: tuple[str, ...] | None, held: bool) -> str:
        made = type("Part", (), {"prompt": "a", **({} if version is None else {"score_version": version})})()
        return _digest(type("Whole", (), {"parts": (made,)})() if held else made)

    for held in (False, True):
        assert digest(None, held) == digest((), held) != digest(("text",), held)
