"""BERT's WordPiece tokens, as BLIP uses them."""

from __future__ import annotations

from typing import Any

from ..common.text_repair import joined

MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# BLIP adds two tokens behind the vocabulary; ImageReward's texts use neither, but its table of tokens has them.
ADDED = ("[DEC]", "[ENC]")


def read_vocabulary(path: str) -> dict[str, int]:
    """Read a vocab.txt: one token on each line, its number is the line's.

    Raises:
        ValueError: it is not such a file; says why.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            tokens = [line.rstrip("\n") for line in file]
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not text ({error})") from error
    vocabulary = {token: number for number, token in enumerate(tokens)}
    if missing := [mark for mark in MARKS if mark not in vocabulary]:
        raise ValueError(f"it has no line {' or '.join(missing)}")
    if len(vocabulary) < len(tokens):
        raise ValueError("it holds a line twice")
    return vocabulary


def load_tokenizer(vocabulary: dict[str, int]) -> Any:
    """Build the uncased tokenizer of a vocabulary, with BLIP's two tokens behind it."""
    from tokenizers import BertWordPieceTokenizer

    tokenizer = BertWordPieceTokenizer(vocabulary, lowercase=True)
    tokenizer.add_special_tokens(list(ADDED))
    return tokenizer


def encode(tokenizer: Any, text: str, limit: int) -> tuple[list[int], int]:
    """Return the numbers of a text's tokens between [CLS] and [SEP], at most `limit` in all, and how many it would have."""
    words = tokenizer.encode(joined(text), add_special_tokens=False).ids
    first, last = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    return [first, *words[: limit - 2], last], len(words) + 2
