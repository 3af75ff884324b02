"""Texts are repaired as ftfy repairs them, and BERT's tokens are those of its own tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from noise_search.verifiers.clip.siglip_score import SigLIP
from noise_search.verifiers.common.text_repair import PASSES, clip_text, repair
from noise_search.verifiers.image_reward.wordpiece import encode, load_tokenizer
from noise_search.verifiers.vlm.vlm import VisionLanguageModel

FIXTURES = Path(__file__).parent / "fixtures"
FOUND = json.loads((FIXTURES / "tokens.json").read_text(encoding="ascii"))


@pytest.mark.parametrize(("text", "expected"), FOUND["repaired"])
def test_it_repairs_as_ftfy_does(text: str, expected: str) -> None:
    assert repair(text) == expected
    assert repair(expected) == expected


def test_many_texts_are_changed_and_many_are_not() -> None:
    changed = [text for text, expected in FOUND["repaired"] if text != expected]
    assert len(FOUND["repaired"]) >= 70
    assert len(changed) > 30 and len(FOUND["repaired"]) - len(changed) > 15


def test_a_clip_text_has_neither_entities_nor_runs_of_white_space() -> None:
    assert clip_text(" a &lt;b&gt;\u00a0\n“c” \u3000 &amp;lt; d<&amp; ") == 'a <b> "c" < d<&'


def test_nested_entities_end() -> None:
    deep = "&" + "amp;" * 3000
    assert repair(deep) == "&" + "amp;" * (3000 - PASSES)


@pytest.mark.parametrize("case", FOUND["tokens"], ids=lambda case: ascii(case["text"])[:24])
def test_bert_tokens_are_those_of_its_own_tokenizer(case: dict[str, Any]) -> None:
    """In a vocabulary of the pieces that the whole one found, where the longest match must find the same."""
    vocabulary = {"[PAD]": 0, "[UNK]": 100, "[MASK]": 103, **dict(case["bert"])}
    ids, _ = encode(load_tokenizer(vocabulary), case["text"], 512)
    assert ids == [number for _, number in case["bert"]]


def sound(text: str) -> str:
    """Join a text's surrogate pairs, without which no tokenizer takes it."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@pytest.mark.parametrize("case", FOUND["tokens"], ids=lambda case: ascii(case["text"])[:24])
def test_siglip_and_language_models_leave_all_to_their_own_tokenizers(case: dict[str, Any]) -> None:
    """SigLIP lowers its texts, as in training; transformers' tokenizers of both do the rest themselves."""
    read: list[str] = []

    def tokenizer(text: str, **_: Any) -> dict[str, list[int]]:
        read.append(text)
        return {"input_ids": [1, 2]}

    def processor(text: list[str], **_: Any) -> dict[str, torch.Tensor]:
        read.extend(text)
        return {"input_ids": torch.zeros(1, 2)}

    siglip = SigLIP(lambda work: [torch.ones(1)], tokenizer, 64, 32, "bilinear", (0.5,) * 3, (0.5,) * 3, 1.0, 0.0)
    siglip.text_features(case["text"])
    plain = SimpleNamespace(apply_chat_template=lambda talk, **_: talk[0]["content"][1]["text"], chat_template="")
    processor.tokenizer = plain
    config = SimpleNamespace(get_text_config=lambda: None)
    model = VisionLanguageModel(SimpleNamespace(module=SimpleNamespace(config=config)), processor)
    model.prepared("judge", None, f"What of {case['text']}?")
    assert read == [sound(case["text"]).lower(), f"What of {sound(case['text'])}?"]
