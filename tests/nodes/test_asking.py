"""Questions at the page: who may be asked, what is an answer, and what a search node makes of it; without a server."""

from __future__ import annotations

import io
import threading
import time

import pytest

pytestmark = pytest.mark.comfy

from inprocess import boot

boot()

import comfy.model_management as mm
import torch
from PIL import Image
from searching import interrupt, search, strict

from noise_search.nodes.adapter import prompt_context
from noise_search.nodes.definitions.verifiers.human import NSHumanVerifier
from noise_search.nodes.server import questions as asking
from noise_search.nodes.server.questions import PageAsker, Questions, jpeg, read_answer
from noise_search.search.methods.zero_order import ZeroOrderSearch
from noise_search.verifiers.human.human import HumanVerifier
from noise_search.verifiers.human.questions import BY_MODEL, ERROR, STOP, Absent, Answer, Ended, Question
from toys import ToyVerifier, run_node

PICTURES = tuple(torch.rand(3, 1, 8, 8, 3))
ASKED = Question((3, 5, 9), PICTURES, best=3, asked=2)
ZERO_ORDER = ZeroOrderSearch(neighbors=3)


class FakeServer:
    """As much of ComfyUI's server as is looked at."""

    def __init__(self, client_id="page", connected=("page",)):
        self.client_id, self.sockets = client_id, dict.fromkeys(connected)
        self.loop, self.events = self, []

    def call_soon_threadsafe(self, call, *args):
        call(*args)

    def call_later(self, seconds, call):
        threading.Timer(seconds, call).start()

    def send_sync(self, event, data, sid):
        self.events.append((event, data, sid))


@pytest.fixture
def server(monkeypatch):
    fake = FakeServer()
    monkeypatch.setattr(prompt_context.PromptServer, "instance", fake, raising=False)
    return fake


@pytest.fixture
def no_server(monkeypatch):
    monkeypatch.setattr(prompt_context.PromptServer, "instance", None, raising=False)


def answering(*answers):
    """Answer the questions as they come, in another thread; returns what was asked."""
    seen, todo = [], list(answers)

    def listen(prompt_id, node):
        for opened in asking.questions.all():
            if opened.id not in [o.id for o in seen] and todo:
                seen.append(opened)
                said = todo.pop(0)
                payload = said(opened.asked) if callable(said) else said
                if payload is None:
                    continue
                threading.Thread(target=asking.questions.answer, args=(opened.id, payload)).start()

    asking.questions.listeners.append(listen)
    return seen, lambda: asking.questions.listeners.remove(listen)


def test_an_answer_comes_back(server):
    seen, stop = answering({"question": "ignored", "ranking": [5, 3]})
    try:
        assert PageAsker().ask(ASKED, lambda: False) == Answer((5, 3))
    finally:
        stop()
    assert seen[0].asked is ASKED and asking.questions.all() == []
    with pytest.raises(ValueError, match="not open"):
        asking.questions.answer(seen[0].id, {"ranking": [5]})


def test_what_the_page_is_told():
    questions, told = Questions(), []
    questions.listeners.append(lambda *where: told.append((where, questions.current(*where))))
    opened = questions.open(Question((3, 5, 9), PICTURES, 3, 2, 20.0, True, "so and so"), "prompt", "1:2")
    current = questions.current("prompt", "1:2")
    assert current == {
        "id": opened.id, "kind": "pick", "candidates": [3, 5, 9], "best": 3, "seconds_left": current["seconds_left"],
        "timeout": 20.0, "asked": 2, "model_ready": True, "accuracy": "so and so",
    }  # fmt: skip
    assert 0 < current["seconds_left"] <= 20
    assert questions.current("prompt", "1") is None and questions.current("other", "1:2") is None
    questions.answer(opened.id, {"take_over": True})
    assert questions.current("prompt", "1:2") is None and opened.answer == Answer(take_over=True)
    with pytest.raises(ValueError, match="not open"):
        questions.answer(opened.id, {"ranking": [3]})  # the first answer holds
    questions.close(opened)
    assert [where for where, _ in told] == [("prompt", "1:2")] * 3
    assert [state is None for _, state in told] == [False, True, True]
    assert questions.open(ASKED, "prompt", "2").as_dict()["seconds_left"] is None


def test_pictures_are_kept_while_the_question_is_open():
    questions = Questions()
    opened = questions.open(ASKED, "prompt", "1")
    picture = Image.open(io.BytesIO(questions.picture(opened.id, 5)))
    assert picture.format == "JPEG" and picture.size == (8, 8)
    assert questions.picture(opened.id, 4) is None and questions.picture("0" * 32, 5) is None
    questions.close(opened)
    assert questions.picture(opened.id, 5) is None


@pytest.mark.parametrize(
    ("shape", "size"),
    [((1, 300, 200, 3), (200, 300)), ((1, 1024, 2048, 3), (512, 256)), ((2, 8, 8, 3), (16, 8)), ((81, 600, 300, 3), (1024, 512))],
)
def test_pictures_are_small_enough(shape, size):
    assert Image.open(io.BytesIO(jpeg(torch.rand(shape)))).size == size


def test_frames_of_a_video_are_spread_over_it():
    video = torch.linspace(0, 1, 10)[:, None, None, None].expand(10, 8, 8, 3)
    found = Image.open(io.BytesIO(jpeg(video)))
    shades = [found.getpixel((8 * frame + 4, 4))[0] for frame in range(4)]
    assert shades == pytest.approx([0, 85, 170, 255], abs=3)


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (None, "JSON object"), ([3], "JSON object"), ({}, "list of candidates"), ({"ranking": "3"}, "list of candidates"),
        ({"ranking": [3.0]}, "list of candidates"), ({"ranking": [True]}, "list of candidates"),
        ({"ranking": ["<b>"]}, "list of candidates"), ({"ranking": [4]}, "must name candidates of this question \\(3, 5, 9\\)"),
        ({"ranking": [3, 3]}, "at most once"), ({"take_over": True}, "cannot take over yet"),
        ({"take_over": 1}, "list of candidates"),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_refused(payload, why):
    with pytest.raises(ValueError, match=why):
        read_answer(payload, ASKED)


def test_a_wrong_answer_leaves_the_question_open():
    questions = Questions()
    opened = questions.open(ASKED, "prompt", "1")
    with pytest.raises(ValueError):
        questions.answer(opened.id, {"ranking": [77]})
    questions.answer(opened.id, {"ranking": []})
    assert opened.answer == Answer(())
    for other in (None, 5, ["x"], "0" * 32):
        with pytest.raises(ValueError, match="not open"):
            questions.answer(other, {"ranking": []})


def test_time_runs_out(server):
    with pytest.raises(Absent, match="nobody answered in 0.3 s"):
        PageAsker().ask(Question((1, 2), PICTURES[:2], timeout=0.3), lambda: False)
    assert asking.questions.all() == []


def test_nobody_to_ask(server, monkeypatch):
    monkeypatch.setattr(asking, "GRACE", 0.3)
    server.sockets.clear()
    with pytest.raises(Absent, match="the page that queued this is closed"):
        PageAsker().ask(ASKED, lambda: False)
    server.client_id = None
    with pytest.raises(Absent, match="no page queued this"):
        PageAsker().ask(ASKED, lambda: False)
    monkeypatch.setattr(prompt_context.PromptServer, "instance", None, raising=False)
    with pytest.raises(Absent, match="no page queued this"):
        PageAsker().ask(ASKED, lambda: False)


def test_a_page_that_is_being_reloaded_is_waited_for(server):
    server.sockets.clear()
    threading.Timer(0.4, lambda: server.sockets.update(page=None)).start()
    seen, stop = answering({"ranking": [9]})
    try:
        assert PageAsker().ask(ASKED, lambda: False) == Answer((9,))
    finally:
        stop()


def test_a_page_that_is_closed_leaves_its_question_open(server):
    def close_first(question):
        server.sockets.clear()
        return {"ranking": [3]}

    seen, stop = answering(close_first)
    try:
        assert PageAsker().ask(ASKED, lambda: False) == Answer((3,))
    finally:
        stop()


def test_finish_and_cancel_withdraw_the_question(server):
    with pytest.raises(Ended, match="you ended it"):
        PageAsker().ask(ASKED, lambda: bool(asking.questions.all()))
    assert asking.questions.all() == []
    threading.Timer(0.2, interrupt).start()
    with pytest.raises(mm.InterruptProcessingException):
        PageAsker().ask(ASKED, lambda: False)
    mm.interrupt_current_processing(False)
    assert asking.questions.all() == []


def human(asker=None, **settings):
    if asker is None:
        return run_node(NSHumanVerifier, **{"set_size": 4, "timeout": 0.0, "when_absent": BY_MODEL, **settings})[0]
    return HumanVerifier(asker, **settings)


def best_by(verifier):
    return lambda question: {"ranking": [max(
        zip(question.candidates, question.pictures, strict=True), key=lambda pair: float(verifier.score(pair[1]))
    )[0]]}  # fmt: skip


def test_a_search_node_follows_your_picks(server):
    """With somebody who picks what a verifier would, the winner is the one of a search with that verifier."""
    seen, stop = answering(*[best_by(ToyVerifier())] * 5)
    try:
        found = search(verifier=human(), budget=10, method=ZERO_ORDER, keep=2)
    finally:
        stop()
    want = search(verifier=ToyVerifier(), budget=10, method=ZERO_ORDER, keep=1)
    assert found.recipe == want.recipe and torch.equal(found.images[:1], want.images)
    choices = found.report["choices"]
    assert [choice["by"] for choice in choices] == ["you"] * 3
    assert choices[0] == {"shown": [0, 1, 2, 3], "ranking": choices[0]["ranking"], "by": "you", "best": 0}
    assert found.report["verifier"] == "your choice" and found.report["seconds"]["waiting"] > 0
    assert [opened.node for opened in seen] == [""] * 3  # no prompt is running here


def test_no_server_each_setting(no_server):
    stopped = search(verifier=human(when_absent=STOP), budget=10, method=ZERO_ORDER)
    assert stopped.report["best"]["index"] == 0 and stopped.report["choices"] == []
    assert "nobody can be asked" in stopped.report["stopped"]
    assert strict(stopped.recipe)["seed"] == strict(stopped.report["baseline"]["recipe"])["seed"]
    model = search(verifier=human(), budget=10, method=ZERO_ORDER)
    assert "has 0 of the 5 picks it needs, and no 'assistant' is connected" in model.report["stopped"]
    assisted = search(verifier=human(assistant=ToyVerifier()), budget=10, method=ZERO_ORDER)
    assert assisted.recipe == search(verifier=ToyVerifier(), budget=10, method=ZERO_ORDER).recipe
    assert {choice["by"] for choice in assisted.report["choices"]} == {"assistant"}
    with pytest.raises(
        ValueError, match="Human Verifier: nobody can be asked, since no page queued this.*'when_absent' is 'error'"
    ):
        search(verifier=human(when_absent=ERROR), budget=10, method=ZERO_ORDER)


def test_waiting_does_not_eat_the_time_limit(server):
    from noise_search.search.base.budget import StopRules

    def slowly(question):
        time.sleep(1.0)
        return {"ranking": [question.candidates[-1]]}

    seen, stop = answering(*[slowly] * 3)
    try:
        found = search(verifier=human(), budget=8, method=ZERO_ORDER, limits=StopRules(max_seconds=300))
    finally:
        stop()
    assert found.report["seconds"]["waiting"] >= 2.0
    assert len(found.report["order"]) == 8


def test_cancel_while_a_question_is_open(server):
    seen, stop = answering(lambda question: interrupt())
    try:
        with pytest.raises(mm.InterruptProcessingException):
            search(verifier=human(), budget=8, method=ZERO_ORDER)
    finally:
        stop()
        mm.interrupt_current_processing(False)
    assert asking.questions.all() == []


def test_it_cannot_be_held_out(no_server):
    with pytest.raises(ValueError, match="held_out: 'your choice' asks you"):
        search(verifier=ToyVerifier(), held_out=human(), budget=4)
