"""What is an answer in all that a model writes: the last complete object outside of its thinking."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from noise_search.verifiers.api.answers import MARKS, OPENS, PAIRS, answers_in
from noise_search.verifiers.api.questions import ASPECTS, better, check_list, five_aspects
from noise_search.verifiers.api.replies import WrongAnswer

GOOD, DRAFT = ({"observations": 'a {red} "cup"', **dict.fromkeys(ASPECTS, grade)} for grade in (7, 1))
ANSWER, OTHER = json.dumps(GOOD), json.dumps(DRAFT)
QUESTION = five_aspects("a cup")


def grade(content: str) -> float:
    return QUESTION.answer(content)


@pytest.mark.parametrize("around", [
    "Sure, here it is: {}", "{} I hope that helps!", "So: {}\nThat is all.", "```json\n{}\n```", "Answer:\n```\n{}\n``` done",
    "[{}]", "Weights {{a, b}} and {{ \"c\" }}: {}", "an open {{ brace and a \" quote\n{}", "5\" wide: {}", "<answer>{}</answer>",
    "<|begin_of_box|>{}<|end_of_box|>", "<think></think>{}", "\ufeff{}", "{}<|im_end|>", "{}</s>", "{{}} {}", '{{"note": 1}}\n{}',
])  # fmt: skip
def test_a_complete_object_in_other_text_is_an_answer(around: str) -> None:
    assert grade(around.format(ANSWER)) == 7


@pytest.mark.parametrize(("opening", "closing"), [
    *PAIRS, ("<THINK>", "</Think>"), ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final <|constrain|>json<|message|>"),
    ("<|channel|>commentary<|message|>", "<|call|><|channel|>final<|message|>"),
])  # fmt: skip
def test_thinking_is_cut_first(opening: str, closing: str) -> None:
    thoughts = f'Let me see { {1: 2} }. A draft: {OTHER} "and then'
    assert grade(f"{opening}{thoughts}{closing}\n{ANSWER}") == 7
    assert grade(f"{thoughts}{closing}\n{ANSWER}") == 7  # the opening mark was in the prompt's template
    assert grade(f"{thoughts}{closing}{opening}{OTHER}{closing} So: {ANSWER}.") == 7
    for nothing in (
        f"{opening}{thoughts}{closing}",
        f"{thoughts}{closing}",
        f"{opening}{OTHER}",
        f"{opening}{thoughts}{closing}none",
    ):
        with pytest.raises(WrongAnswer, match="not the JSON"):
            grade(nothing)


@pytest.mark.parametrize("beginning", ["<answer>", "<|begin_of_box|>", "analysisLet me see.assistantfinal"])
def test_what_comes_before_the_answer_begins_is_thinking(beginning: str) -> None:
    assert grade(f"{OTHER} hm {beginning}{ANSWER}") == 7
    with pytest.raises(WrongAnswer):
        grade(f"{ANSWER} hm {beginning}7")


def test_other_marks_do_not_end_thinking() -> None:
    for mark in ("</thinking>", "<answer>", "<|begin_of_box|>", "<think>"):
        with pytest.raises(WrongAnswer):
            grade(f"<think>I shall write {mark}{OTHER}")
        assert grade(f"<think>I shall write {mark}{OTHER}</think>{ANSWER}") == 7


def test_an_answer_before_thinking_that_never_ends_is_one() -> None:
    assert grade(f"{ANSWER}\n<think>was that right? {OTHER}") == 7


@pytest.mark.parametrize("before", ["", "<think>a {b}</think>", "hm</think>"])
@pytest.mark.parametrize("mark", ["</think>", "<think>", "<answer>"])
def test_an_answer_that_is_all_there_is_may_quote_marks(before: str, mark: str) -> None:
    assert grade(before + json.dumps({**GOOD, "observations": f"a sign reads {mark}"})) == 7


def test_of_several_objects_the_last_with_all_fields_counts() -> None:
    part = json.dumps({name: 3 for name in list(ASPECTS)[:4]})
    bare = json.dumps(dict.fromkeys(ASPECTS, 7))  # without observations, which nobody reads
    for content in (f"{OTHER}{ANSWER}", f"{OTHER} then {ANSWER} and {part}", f"{ANSWER} {{}} []", f"{OTHER}\n{bare}\n{part}"):
        assert grade(content) == 7
    with pytest.raises(WrongAnswer, match="must be a number from 0 to 10"):  # no other is taken in its place
        grade(ANSWER + json.dumps({**GOOD, "originality": 11}))
    with pytest.raises(WrongAnswer, match=f"'{list(ASPECTS)[4]}' must be"):
        grade(f"{part}")


@pytest.mark.parametrize("content", [
    json.dumps({"draft": GOOD}), json.dumps({"answer": ANSWER}), f'{{"a": 1, "a": {ANSWER}}}', f'{{"a": NaN, "b": {ANSWER}}}',
    ANSWER[:-1], ANSWER[1:], ANSWER.replace('"', "'"), ANSWER.replace(", ", ",, ", 1),
])  # fmt: skip
def test_what_is_no_object_of_its_own_is_no_answer(content: str) -> None:
    for around in ("{}", "so: {}.", "```json\n{}\n```"):
        with pytest.raises(WrongAnswer):
            grade(around.replace("{}", content))


@pytest.mark.parametrize("said", ["7", "7/10", " 7 / 10 ", "7.0", "7 out of 10", 7, 7.0])
def test_grades_that_are_texts(said: Any) -> None:
    assert grade(json.dumps(dict.fromkeys(ASPECTS, said))) == 7


def test_yes_and_no_as_models_write_them() -> None:
    said = ["Yes", "YES", " yes.", True, "No", "no", False, "NO."]
    names = [f"element_{number}" for number in range(1, 9)]
    assert check_list(names).answer(json.dumps(dict(zip(names, said, strict=True)))) == 0.5
    assert [better("a").answer(json.dumps({"better": word})) for word in ("First", "second.", "TIE")] == [1, 0, 0.5]


# Whatever the text is, it is read in a time that grows as its length: without that, these would take hours.

MB = 1 << 18  # of a quarter each, to be quick
LONG = [
    "{" * MB, "}" * MB, "{}" * (MB // 2), '{"a":' * (MB // 5), '{"a":' * 150_000 + "1" + "}" * 150_000, '{"' * (MB // 2),
    "[" * MB,
    '{"a":[' * (MB // 6), '{"a":"' * (MB // 6), "\\" * MB, '{"' + "\\" * MB, "<think>" * (MB // 7), "</think>" * (MB // 8),
    "<" * MB, "</think>{" * (MB // 9), '</think>{"a":"' * (MB // 14), "<think></think>" * (MB // 15), "\n" * MB, " " * MB + "x",
    "```json\n" + "\n" * MB, "{ " * (MB // 4) + "} " * (MB // 4), "{{{{{{{{1}}}}}}}}" * (MB // 17), '{"a":1,}' * (MB // 8),
    "7" * MB, '{"a":' + "7" * MB + "}", "<answer>{" * (MB // 9),
]  # fmt: skip


@pytest.mark.parametrize("content", LONG, ids=range(len(LONG)))
def test_long_texts_are_read_to_their_end(content: str) -> None:
    with pytest.raises(WrongAnswer):
        grade(content)
    assert grade(f"{content}\n</think>\n</think>{ANSWER}") == 7 or "<think>" in content


def nested(lots: random.Random, depth: int) -> Any:
    kind = lots.randrange(6) if depth else 0
    if kind < 2:
        return lots.choice([None, True, 1, -2.5, "", "a", "{", "}", '"', "\\", "[1]", "\n", '{"a": 1}'])
    if kind < 4:
        return [nested(lots, depth - 1) for _ in range(lots.randrange(4))]
    return {lots.choice("abcd") + str(i): nested(lots, depth - 1) for i in range(lots.randrange(4))}


@pytest.mark.parametrize("seed", range(40))
def test_random_texts_and_objects(seed: int) -> None:
    """Objects among random pieces of text are found whole; random pieces alone end in no other way than in an answer or none."""
    lots = random.Random(seed)
    pieces = ["{", "}", '"', "\\", "\n", " ", "a", "[", "]", ":", ",", *MARKS, "```", "\u2603", "{}", '{"a":']
    noise = ["".join(lots.choices(pieces, k=lots.randrange(60))) for _ in range(30)]
    for text in noise:
        assert all(type(found) is dict for found in answers_in(text))
    calm = [piece for piece in pieces if piece not in MARKS and not set(piece) & set('{}"\\')]
    wanted = [{"z": nested(lots, 5)} for _ in range(6)]
    text = "".join(json.dumps(one) + "".join(lots.choices(calm, k=9)) for one in wanted)
    assert answers_in(text) == wanted
    opening = next(mark for mark, (what, _) in MARKS.items() if what == OPENS)
    assert answers_in(f"{text}{opening}{text}") == wanted
