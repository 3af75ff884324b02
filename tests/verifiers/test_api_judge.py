"""What the API judge asks, what it takes for an answer, and how pictures get there."""

from __future__ import annotations

import base64
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from chatserver import ChatServer, Clock, brightness, decoded, says, status
from PIL import Image

from noise_search.verifiers.api.access import Access, endpoint_of
from noise_search.verifiers.api.client import Client
from noise_search.verifiers.api.judge import CHECK_LIST, COMPARE, FIVE_ASPECTS, ApiJudge, data_url
from noise_search.verifiers.api.questions import ASPECTS, better, check_list, elements, five_aspects
from noise_search.verifiers.api.replies import WrongAnswer
from noise_search.verifiers.common.base import PairwiseVerifier, SettlingVerifier, Verifier

KEY = "sk-proj-0123456789abcdefSECRET"
PROMPT = "a red circle left of a blue square"
GRADES = {"accuracy_to_prompt": 9, "originality": 4, "visual_quality": 7.5, "internal_consistency": 10, "emotional_resonance": 0}


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as running:
        yield running


def judge_of(server: ChatServer, ask: str = FIVE_ASPECTS, **more: Any) -> ApiJudge:
    clock = Clock()
    access = Access("the/file", keys={server.address: KEY})
    limits = {"max_requests": more.pop("max_requests", 0)}
    client = Client(endpoint_of(server.url), lambda: access, clock=clock, sleep=clock.sleep, **limits)
    return ApiJudge(client, "tiny-vlm", PROMPT, ask, **more)


def greys(*levels: float) -> torch.Tensor:
    return torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, 6, 8, 3)


# Pictures.


def test_pictures_arrive_as_they_are() -> None:
    pixels = torch.randint(0, 256, (5, 7, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for image in (pixels / 255, (pixels / 255).flip(1).contiguous().flip(1), (pixels / 255).permute(2, 0, 1).permute(1, 2, 0)):
        assert torch.equal(decoded(data_url(image, 10_000)), pixels)
    assert torch.equal(decoded(data_url((pixels / 255).double(), 35)), pixels)


@pytest.mark.parametrize("size", [(100, 200), (200, 100), (1, 5000), (333, 333)])
def test_large_pictures_shrink_to_the_limit(size: tuple[int, int]) -> None:
    shrunk = decoded(data_url(torch.full((*size, 3), 0.5), 1024))
    height, width = shrunk.shape[:2]
    assert 0.85 * 1024 <= height * width <= 1024
    if min(size) > 1:
        assert height / width == pytest.approx(size[0] / size[1], rel=0.05)
    assert (shrunk == 128).all()


def test_a_picture_of_the_limit_keeps_its_size() -> None:
    assert decoded(data_url(torch.rand(32, 32, 3), 1024)).shape == (32, 32, 3)


def test_pictures_carry_nothing_else() -> None:
    raw = base64.b64decode(data_url(torch.rand(4, 4, 3), 1024).split(",")[1])
    picture = Image.open(io.BytesIO(raw))
    assert picture.info == {} and b"tEXt" not in raw and b"iTXt" not in raw and b"eXIf" not in raw


# Grades.


def test_five_aspects_are_averaged(server: ChatServer) -> None:
    server.answer = lambda seen: {"observations": "x", **GRADES}
    scores = judge_of(server).score(greys(0.5))
    assert scores.tolist() == pytest.approx([30.5 / 5])
    (seen,) = server.seen
    assert PROMPT in seen.text and all(name in seen.text for name in ASPECTS) and "JSON" in seen.text
    schema = seen.body["response_format"]["json_schema"]["schema"]
    assert schema["required"] == list(schema["properties"]) == ["observations", *ASPECTS]
    assert schema["additionalProperties"] is False
    assert all(schema["properties"][name]["enum"] == list(range(11)) for name in ASPECTS)
    (picture,) = seen.images
    assert torch.equal(picture, torch.full((6, 8, 3), 128, dtype=torch.uint8))


def test_one_request_for_each_picture(server: ChatServer) -> None:
    judge = judge_of(server)
    scores = judge.score(greys(0.2, 0.8, 0.4))
    assert scores.dtype == torch.float32
    assert scores.tolist() == pytest.approx([10 * brightness(seen.images[0]) for seen in server.seen])
    assert len(server.seen) == 3 and all(len(seen.images) == 1 for seen in server.seen)
    assert judge.score(greys(0.8, 0.2)).tolist() == [scores[1], scores[0]]
    assert len(server.seen) == 3  # none is asked about twice


def test_check_list(server: ChatServer) -> None:
    judge = judge_of(server, CHECK_LIST)
    scores = judge.score(greys(0.1, 0.6, 1.0))
    assert scores.tolist() == [0.25, 0.75, 1.0]  # brighter than 0, 1/4, 2/4, 3/4
    first, *others = server.seen
    assert first.images == [] and PROMPT in first.text
    assert len(others) == 3 and all("element_4: on grey" in seen.text for seen in others)
    assert all("element_2: a blue square" in seen.text for seen in others)  # blanks are made one
    schema = others[0].body["response_format"]["json_schema"]["schema"]
    assert schema["properties"] == {f"element_{k}": {"type": "string", "enum": ["yes", "no"]} for k in (1, 2, 3, 4)}
    assert judge.score_range == (0, 1)


def test_a_search_that_goes_on_is_judged_by_the_same_check_list(server: ChatServer) -> None:
    written: list[list[str]] = []

    def settled(ask: Any) -> list[str]:
        written[:] = written or [ask()]
        return written[0]

    first = judge_of(server, CHECK_LIST)
    assert isinstance(first, SettlingVerifier)
    first.settle(settled)
    assert first.score(greys(0.6)).tolist() == [0.75] and len(written[0]) == 4
    written[0] = ["only this"]
    again = judge_of(server, CHECK_LIST)  # as in another execution
    again.settle(settled)
    again.score(greys(0.6))
    assert ["element_1: only this" in seen.text for seen in server.seen] == [False, False, True]
    graded = judge_of(server)
    graded.settle(settled)
    assert len(server.seen) == 3


def test_the_check_list_is_logged_without_keys(server: ChatServer, caplog: Any) -> None:
    server.script = [says({"elements": ["a circle", f"my {KEY}", "\x1b[31mred"]})]
    with caplog.at_level(logging.INFO, "noise-search"):
        judge_of(server, CHECK_LIST).score(greys(0.5))
    assert "check-list: a circle; my ***; [31mred" in caplog.text
    assert KEY not in caplog.text


@pytest.mark.parametrize(("levels", "better_is"), [((0.8, 0.2), 1), ((0.2, 0.8), 0), ((0.5, 0.5), 0.5)])
def test_comparison(server: ChatServer, levels: tuple[float, float], better_is: float) -> None:
    judge = judge_of(server, COMPARE)
    first, second = greys(*levels).split(1)
    assert judge.compare(first, second) == better_is
    (seen,) = server.seen
    assert [brightness(image) for image in seen.images] == pytest.approx(levels, abs=0.003)
    assert isinstance(judge, PairwiseVerifier) and judge.finalists == 4


def test_of_videos_the_middle_frames_are_compared(server: ChatServer) -> None:
    assert judge_of(server, COMPARE).compare(greys(1.0, 0.2, 1.0), greys(0.0, 0.6, 0.0)) == 0
    assert [round(brightness(image), 1) for image in server.seen[0].images] == [0.2, 0.6]


def test_finalists_are_compared_only_if_asked_for(server: ChatServer) -> None:
    assert [judge_of(server, ask).finalists for ask in (FIVE_ASPECTS, CHECK_LIST, COMPARE)] == [0, 0, 4]
    assert isinstance(judge_of(server), Verifier)


# Answers.


def answered(answer: Any) -> str:
    return json.dumps(answer)


@pytest.mark.parametrize("wrap", ["{}", "\n {} \n", "```json\n{}\n```", "```\n{}\n```\n", "<think>{{5?}}\nno</think>\n{}",
                                  "<think>x</think>\n```json\n{}\n```"])  # fmt: skip
def test_wrappings_of_answers(wrap: str) -> None:
    assert five_aspects(PROMPT).answer(wrap.format(answered(GRADES))) == pytest.approx(6.1)


WRONG = [
    "", "7", "[7]", "null", "fine picture", "{}", answered(GRADES)[:-1],
    *(
        answered({**GRADES, "originality": wrong})
        for wrong in (11, -1, 10.01, "11", "-1", "7/5", "nan", "٧", "", None, True, [7], {}, 10**400)
    ),
    answered({**GRADES, "originality": 3})[:-1] + ', "originality": 9}',
    answered({**GRADES, "originality": float("nan")}), answered({**GRADES, "originality": float("inf")}),
    answered(GRADES).replace(": 4,", ": 1e999,"),
    *(answered({k: v for k, v in GRADES.items() if k != name}) for name in GRADES),
    "[" * 100_000, '{"a":' * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("content", WRONG, ids=range(len(WRONG)))
def test_wrong_grades_are_no_grades(content: str) -> None:
    with pytest.raises(WrongAnswer):
        five_aspects(PROMPT).answer(content)


@pytest.mark.parametrize("wrong", [{}, *({"element_2": wrong} for wrong in ("maybe", 1, ["no"], None, ""))])
def test_wrong_check_lists(wrong: dict) -> None:
    assert check_list(["a", "b"]).answer('{"element_1": "yes", "element_2": "no", "more": 1}') == 0.5
    with pytest.raises(WrongAnswer, match="must be one of yes, no"):
        check_list(["a", "b"]).answer(answered({"element_1": "yes", **wrong}))


@pytest.mark.parametrize("wrong", [[], "a", ["a"] * 13, [""], [" "], [1], ["x" * 201], None])
def test_wrong_elements(wrong: Any) -> None:
    assert elements(PROMPT).answer('{"elements": ["a\\n b"]}') == ("a b",)
    with pytest.raises(WrongAnswer, match="'elements' must be"):
        elements(PROMPT).answer(answered({"elements": wrong}))


@pytest.mark.parametrize("wrong", ["1", 1, True, None, "both"])
def test_wrong_comparisons(wrong: Any) -> None:
    with pytest.raises(WrongAnswer, match="must be one of first, second, tie"):
        better(PROMPT).answer(answered({"better": wrong}))


def test_a_wrong_answer_is_asked_for_again(server: ChatServer) -> None:
    server.script = [says("It is lovely, 9/10!"), says({**GRADES, "originality": 12})]
    judge = judge_of(server)
    assert judge.score(greys(1.0)).tolist() == [10]
    assert [seen.text.count("An earlier answer could not be used") for seen in server.seen] == [0, 1, 1]
    assert "'originality' must be a number from 0 to 10" in server.seen[2].text
    assert [len(seen.body["messages"]) for seen in server.seen] == [1, 1, 1]


def test_a_model_that_never_answers_right(server: ChatServer) -> None:
    server.script = [says("It is lovely! " * 1000)] * 9
    with pytest.raises(ValueError, match="model 'tiny-vlm' gave 3 answers that .*, the last: .*It is lovely") as error:
        judge_of(server).score(greys(0.5))
    assert len(server.seen) == 3
    assert len(str(error.value)) < 500
    assert error.value.__context__ is None


@pytest.mark.parametrize("body", ["", "not JSON", "{}"])
def test_an_answer_that_is_no_completion(server: ChatServer, body: str) -> None:
    server.script = [status(200, body)]
    assert judge_of(server).score(greys(1.0)).tolist() == [10]
    server.script = [status(200, body)] * 3
    with pytest.raises(ValueError, match="no chat completion"):
        judge_of(server).score(greys(0.5))


def test_a_model_that_tells_the_key(server: ChatServer) -> None:
    server.script = [says(f"the key is {KEY}")] * 3
    with pytest.raises(ValueError, match=r"the key is \*\*\*") as error:
        judge_of(server).score(greys(0.5))
    assert KEY not in str(error.value) and error.value.__context__ is None
    assert all(KEY not in json.dumps(seen.body) for seen in server.seen)


def test_the_cost_cap_covers_all_requests(server: ChatServer) -> None:
    judge = judge_of(server, CHECK_LIST, max_requests=3)
    assert len(judge.score(greys(0.1, 0.2))) == 2  # and the check-list
    with pytest.raises(ValueError, match="input 'max_requests' is 3"):
        judge.score(greys(0.1, 0.3))
    assert len(server.seen) == 3
    assert len(judge.score(greys(0.2, 0.1))) == 2  # what is known costs nothing


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"prompt": " "}, "'prompt' is ' '"),
        ({"model": ""}, "'model' is ''"),
        ({"ask": "politely"}, "'ask' is 'politely'"),
        ({"max_pixels": 0}, "'max_pixels' and 'max_tokens'"),
        ({"max_tokens": 0}, "'max_pixels' and 'max_tokens'"),
    ],
)
def test_bad_inputs(inputs: dict[str, Any], says: str) -> None:
    client = Client(endpoint_of("http://127.0.0.1:1/v1"), lambda: Access("the/file"))
    with pytest.raises(ValueError, match=f"^API judge: input.*{says}"):
        ApiJudge(client, **{"model": "m", "prompt": "p", **inputs})


def test_nothing_of_it_shows_a_key(server: ChatServer) -> None:
    judge = judge_of(server)
    judge.score(greys(0.5))
    assert KEY not in repr(judge) + str(vars(judge)) + str(vars(judge.client))


@pytest.mark.parametrize("opening", ["```json", "```", "<think>", "<think>\n</think>```"])
def test_an_answer_of_line_ends_is_refused_at_once(opening: str) -> None:
    """A model that runs away writes thousands; reading them may not take time that grows with their cube."""
    with pytest.raises(WrongAnswer, match="not the JSON"):
        five_aspects("a cat").answer(opening + "\n" * 20_000 + "x")


@pytest.mark.parametrize("fence", [
    "```json\n{}\n```", "``` \n\n{}```\n", " ```json \n {} \n ``` ", "<think>so\n</think>\n```\n{}\n```",
])  # fmt: skip
def test_fences_are_taken_off(fence: str) -> None:
    answer = json.dumps({"elements": ["a ```cat``` of fences"]})
    assert elements("a cat").answer(fence.replace("{}", answer)) == ("a ```cat``` of fences",)
