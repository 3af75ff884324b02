"""A vision-language model as a judge: one picture and one question in, the logits of the next token out.

Nothing is generated. A model's answer is read from the distribution of the one token that decides it, which is
deterministic, costs one forward pass, and tells pictures apart that would get the same written answer.

The model and its processor are Hugging Face's own classes; this file only calls them, in transformers 4.50 and later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..common.base import quoted
from ..common.preprocess import eight_bit
from ..common.text_repair import joined

DIGITS = tuple("0123456789")
# Bytes of activations for one token and one value of the hidden state: a generous fit to Qwen's 3.5 to 5 times wider
# feed-forward layers, in a picture tower with four patches for a token.
VALUES_PER_TOKEN = 64


@dataclass(frozen=True, eq=False)
class VisionLanguageModel:
    """A model of `AutoModelForImageTextToText`, held in a model patcher, and its processor.

    Attributes:
        held: called with a function of (module, device), it loads the module and runs the function; `dtype`, `patcher`.
        processor: Hugging Face's; makes tokens and patches of text and picture.
    """

    held: Any
    processor: Any

    def conversation(self, question: str) -> str:
        """Write a question about one picture in the model's chat format, up to where its answer begins."""
        content = [{"type": "image"}, {"type": "text", "text": question}]
        tokenizer = self.processor.tokenizer
        return tokenizer.apply_chat_template(
            [{"role": "user", "content": content}],
            chat_template=chat_template(self.processor),
            add_generation_prompt=True,
            tokenize=False,
            enable_thinking=False,  # templates that do not know the word ignore it
        )

    def prepared(
        self, name: str, image: Any, question: str, answer: str = "", size: str | None = "max_pixels"
    ) -> dict[str, Tensor]:
        """Make the model's inputs, on the CPU.

        Args:
            name: the verifier's, for messages.
            image: a PIL picture.
            question: what is asked; see `check_text`.
            answer: how the model's answer begins.
            size: the node's input that the picture's size comes from; None if there is none.

        Raises:
            ValueError: text and picture are longer than the model can read.
        """
        inputs = self.processor(text=[joined(self.conversation(question) + answer)], images=[image], return_tensors="pt")
        longest = getattr(self.held.module.config.get_text_config(), "max_position_embeddings", None)
        tokens = inputs["input_ids"].shape[1]
        if longest and tokens > longest:
            made = "input 'prompt' makes" if size is None else f"inputs 'prompt' and '{size}' make"
            lower = "" if size is None else f", or lower '{size}'"
            raise ValueError(
                f"{name}: {made} {tokens} tokens with the picture; the model reads {longest}. Shorten the prompt{lower}."
            )
        return dict(inputs)

    def next_token(self, name: str, image: Any, question: str, answer: str = "") -> Tensor:
        """Return the logits (V,) of the token after the answer so far, float32 on the CPU."""
        inputs = self.prepared(name, image, question, answer)
        return forward(self.held, inputs)[0, -1].float().cpu()


def forward(held: Any, inputs: dict[str, Tensor], last: bool = True) -> Tensor:
    """Run a model on one conversation and leave nothing of it behind.

    Args:
        held: a held model whose module has `get_output_embeddings()`.
        inputs: from the processor, on the CPU.
        last: whether only the last token's logits are made; those of all would take about a GB.

    Returns:
        (1, 1, V), or (1, L, V) of all L tokens.
    """

    def work(module: Any, device: torch.device) -> Tensor:
        head = module.get_output_embeddings()
        hook = head.register_forward_pre_hook(lambda _, hidden: (hidden[0][:, -1:],)) if last else None
        moved = {key: value.to(device, held.dtype if value.is_floating_point() else None) for key, value in inputs.items()}
        try:
            with torch.no_grad():
                return module(**moved, use_cache=False).logits
        finally:
            if hook is not None:
                hook.remove()
            for part in module.modules():
                if getattr(part, "rope_deltas", None) is not None:  # Qwen's: positions of the last conversation
                    part.rope_deltas = None

    config = held.module.config.get_text_config()
    tokens = inputs["input_ids"].shape[1]
    return held(work, float(tokens * config.hidden_size * VALUES_PER_TOKEN * held.dtype.itemsize))


def chat_template(processor: Any) -> str | None:
    """Return the template of conversations, which some folders keep with the tokenizer only."""
    return getattr(processor, "chat_template", None) or getattr(processor.tokenizer, "chat_template", None)


def check_text(processor: Any, text: str, name: str, input: str = "prompt") -> None:
    """Refuse text that the tokenizer would read as something else than text.

    Raises:
        ValueError: it is blank, or holds one of the model's control tokens, such as the picture's place.
    """
    if not text.strip():
        raise ValueError(
            f"{name}: input '{input}' is {quoted(text)}; there is nothing to ask about. Write what the image should show."
        )
    found = sorted(token for token in processor.tokenizer.get_added_vocab() if token.strip() and token in text)
    if found:
        raise ValueError(
            f"{name}: input '{input}' holds {', '.join(map(repr, found))}, control tokens of the model. Take them out."
        )


def spellings(processor: Any, words: Sequence[str], name: str) -> list[int]:
    """Return the ids of the tokens that spell one of the words whole, with or without a space before it.

    Raises:
        ValueError: there is none.
    """
    tokenizer = processor.tokenizer
    ids = (tokenizer.encode(space + word, add_special_tokens=False) for word in words for space in ("", " "))
    found = sorted({encoded[0] for encoded in ids if len(encoded) == 1})
    if not found:
        spelled = " or ".join(map(repr, words))
        raise ValueError(f"{name}: the tokenizer of input 'model_name' has no single token for {spelled}. Choose another model.")
    return found


def probabilities(logits: Tensor, choices: Sequence[Sequence[int]]) -> Tensor:
    """Return how likely each choice is, if it is one of them.

    Args:
        logits: (V,).
        choices: the tokens of each of n choices; their probabilities are added.

    Returns:
        (n,) float32, of sum 1.
    """
    return torch.stack([logits.double()[list(tokens)].logsumexp(0) for tokens in choices]).softmax(0).float()


def to_pil(image: Tensor, max_pixels: int | None = None) -> Any:
    """Make a PIL picture of (H, W, 3) in [0, 1], shrunk to at most `max_pixels` with its sides' ratio kept."""
    from PIL import Image

    picture = Image.fromarray(eight_bit(image).numpy())
    width, height = picture.size
    if max_pixels is None or width * height <= max_pixels:
        return picture
    scale = (max_pixels / (width * height)) ** 0.5
    return picture.resize((max(1, int(width * scale)), max(1, int(height * scale))), Image.Resampling.BICUBIC)
