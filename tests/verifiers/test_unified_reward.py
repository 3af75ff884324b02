"""UnifiedReward: expected grades against transformers' own probabilities, and by hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_vlm import picture

from inprocess import boot

pytestmark = pytest.mark.comfy

boot()

from transformers import AutoModelForImageTextToText, AutoProcessor  # noqa: E402

from noise_search.nodes.definitions.verifiers.vlm import NSUnifiedReward  # noqa: E402
from noise_search.verifiers.vlm.unified_reward import QUESTION, UnifiedReward  # noqa: E402
from noise_search.verifiers.vlm.vlm import to_pil  # noqa: E402

IMAGE = picture(60, 90)


def graded(axis: str, name: str = "qwen2.5") -> UnifiedReward:
    return NSUnifiedReward.execute(name, "a fox in {snow}", axis, 200_000).args[0]


def test_grades_are_expected_numbers(vlm_folder: Path) -> None:
    """All branches by transformers directly, here, whatever their probability."""
    processor = AutoProcessor.from_pretrained(vlm_folder / "qwen2.5", local_files_only=True)
    model = AutoModelForImageTextToText.from_pretrained(vlm_folder / "qwen2.5", local_files_only=True).eval()
    question = QUESTION.replace("{}", "a fox in {snow}")
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    digits = [processor.tokenizer.encode(str(digit))[0] for digit in range(10)]

    def likely(answer: str, chosen: list[int]) -> torch.Tensor:
        inputs = processor(text=[text + answer], images=[to_pil(IMAGE)], return_tensors="pt")
        with torch.no_grad():
            return model(**inputs).logits[0, -1, chosen].double().softmax(0)

    answer, expected = "", []
    for axis in ("Alignment", "Coherence", "Style"):
        answer += f"{axis} Score (1-5): "
        first = likely(answer, digits[1:6])
        tenths = [likely(f"{answer}{d}.", digits) @ torch.arange(10.0).double() / 10 for d in (1, 2, 3, 4)]
        number = sum(first[d - 1] * (d + tenths[d - 1]) for d in (1, 2, 3, 4)) + first[4] * 5
        expected.append(number)
        answer += f"{number:.1f}\n"
    found = graded("mean").grades(IMAGE)
    torch.testing.assert_close(found, torch.stack(expected).float(), rtol=0, atol=1e-4)
    torch.testing.assert_close(graded("mean").score(IMAGE[None]), found.mean()[None])
    for i, axis in enumerate(("alignment", "coherence", "style")):
        torch.testing.assert_close(graded(axis).score(IMAGE[None]), found[i : i + 1])


def test_numbers_by_hand(vlm_folder: Path) -> None:
    real = graded("coherence")
    asked: list[str] = []
    likely = {
        "Alignment Score (1-5): ": {2: 0.25, 3: 0.75},
        "Alignment Score (1-5): 2.": {8: 1.0},
        "Alignment Score (1-5): 3.": {0: 0.5, 2: 0.5},
        "Alignment Score (1-5): 3.0\nCoherence Score (1-5): ": {4: 0.2, 5: 0.8},
        "Alignment Score (1-5): 3.0\nCoherence Score (1-5): 4.": {5: 1.0},
    }

    def next_token(name: str, image: object, question: str, answer: str = "") -> torch.Tensor:
        asked.append(answer)
        logits = torch.full((300,), -30.0)
        for digit, p in likely[answer].items():
            logits[real.digits[digit][0]] = torch.tensor(p).log()
        return logits

    fake = SimpleNamespace(processor=real.model.processor, next_token=next_token)
    found = UnifiedReward(fake, "a fox", "coherence").grades(IMAGE)
    # 0.25 x 2.8 + 0.75 x 3.1 = 3.025; 0.2 x 4.5 + 0.8 x 5 = 4.9
    torch.testing.assert_close(found, torch.tensor([3.025, 4.9]), rtol=0, atol=1e-4)
    assert asked == list(likely)  # the tenths of unlikely digits are not asked for


def test_what_cannot_be_asked_is_refused(vlm_folder: Path) -> None:
    with pytest.raises(ValueError, match="UnifiedReward: input 'axis' is 'beauty'"):
        graded("beauty")
    with pytest.raises(ValueError, match="UnifiedReward: input 'prompt' is ''"):
        NSUnifiedReward.execute("qwen2.5", "", "mean", 200_000)
