"""Finds what a model answered in all that it wrote: thinking is cut first, then complete JSON objects are looked for.

Models think aloud before they answer, and their servers pass that on in marks of many kinds, or in none when the prompt's
template holds the opening one. An object in the thinking is a draft and never the answer. All of it takes time in
proportion to the length, whatever the text is.

References:
    DeepSeek-R1 and Qwen3 (<think>), Mistral (Magistral: [THINK]), Moonshot (Kimi-VL: ◁think▷), ByteDance (Seed-OSS:
        <seed:think>), Cohere (Command A Reasoning: <|START_THINKING|>), Swiss AI (Apertus: <|inner_prefix|>), Zhipu
        (GLM-4.1V: <|begin_of_box|>): the chat templates that are published with the models
    OpenAI harmony response format: channels analysis, commentary and final
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

HARMONY = "harmony"
OPENS, CLOSES, ANSWERS = "opens", "closes", "answers"
PAIRS = (
    *((f"<{word}>", f"</{word}>") for word in ("think", "thinking", "thought", "reasoning", "reflection", "analysis")),
    ("[THINK]", "[/THINK]"), ("◁think▷", "◁/think▷"), ("<seed:think>", "</seed:think>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"), ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
)  # fmt: skip
# what an answer begins with, where the thinking before it has no marks; the last is harmony's without its special tokens
BEGINNINGS = ("<answer>", "<|begin_of_box|>", "<|begin_of_solution|>", "<|START_RESPONSE|>", "assistantfinal")
MARKS = {
    **{mark.lower(): (what, pair[0]) for pair in PAIRS for what, mark in zip((OPENS, CLOSES), pair, strict=True)},
    **{mark.lower(): (ANSWERS, "") for mark in BEGINNINGS},
    "<|channel|>analysis": (OPENS, HARMONY), "<|channel|>commentary": (OPENS, HARMONY), "<|channel|>final": (CLOSES, HARMONY),
}  # fmt: skip
MARK = re.compile("|".join(map(re.escape, MARKS)), re.IGNORECASE | re.ASCII)  # fixed texts: nothing to try twice
BRACE = re.compile(r'["{}\\\n]')
BEGINS = re.compile(r'\{\s*"')  # what an object with fields begins with
DEEPEST = 8  # objects within objects: an answer that is asked for has one or two; so each letter is parsed at most so often


class NoAnswer(ValueError):
    """JSON that is not taken for an answer: a field occurs twice, or a value is no JSON."""


def answers_in(content: str) -> list[dict[str, Any]]:
    """Return the complete JSON objects of an answer that lie outside its thinking and outside each other, in order."""
    begins, ends = _spoken(content)
    for start in (0, *begins[:1]):  # an answer that is nothing but an object may quote marks
        whole = _loaded(content[start:])
        if whole is not None:
            return [whole]
    return list(_objects(content[begins[-1] if begins else 0 : ends]))


def _spoken(content: str) -> tuple[list[int], int]:
    """Return where thinking ended and something else began, each time, and where thinking began that never ends."""
    thinking, opened, begins = "", len(content), []
    for found in MARK.finditer(content):
        what, kind = MARKS[found[0].lower()]
        if not thinking and what == OPENS:
            thinking, opened = kind, found.start()
        elif not thinking or (what, kind) == (CLOSES, thinking):
            thinking = ""
            begins.append(found.end())
    return begins, opened if thinking else len(content)


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of a text, the outermost that are JSON."""
    done = 0
    for start, end, depth in sorted(_braces(text)):
        if start < done or depth > DEEPEST or not BEGINS.match(text, start):
            continue
        try:
            found = _loaded(text[start:end], strict=True)
        except NoAnswer:
            done = end
            continue
        if found is not None:
            done = end
            yield found


def _braces(text: str) -> list[tuple[int, int, int]]:
    """Return where braces that belong together begin and end, and how many pairs deep they are."""
    pairs: list[tuple[int, int, int]] = []
    open_ones: list[list[int]] = []  # where each begins, and how deep it is so far
    quoting, escaped = False, -1
    for found in BRACE.finditer(text):
        at, letter = found.start(), found[0]
        if quoting:
            if letter == "\\" and at != escaped:
                escaped = at + 1
            elif letter == "\n" or (letter == '"' and at != escaped):  # no text of JSON goes beyond its line
                quoting = False
        elif letter == '"':
            quoting = bool(open_ones)
        elif letter == "{":
            open_ones.append([at, 1])
        elif letter == "}" and open_ones:
            start, depth = open_ones.pop()
            pairs.append((start, at + 1, depth))
            if open_ones:
                open_ones[-1][1] = max(open_ones[-1][1], depth + 1)
    return pairs


def _loaded(text: str, strict: bool = False) -> dict[str, Any] | None:
    """Return the object that a text is; None if it is none.

    Raises:
        NoAnswer: With `strict`, if it is JSON that cannot be taken for an answer.
    """
    try:
        found = json.loads(text, object_pairs_hook=_distinct, parse_constant=_refuse)
    except NoAnswer:
        if strict:
            raise
        return None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise NoAnswer("a field occurs twice")
    return fields


def _refuse(word: str) -> Any:
    raise NoAnswer(f"{word} is not JSON")
