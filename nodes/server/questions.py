"""Questions to the person at ComfyUI's page: opened by a search, shown by the page, answered over HTTP.

`questions` holds those that are open, for all searches of this server:

    questions.current(prompt_id, node)     the state's "question": what a page shows, or None
    questions.answer(question_id, payload) what the commands route calls; a ValueError says what was wrong
    questions.listeners                    called with (prompt_id, node) whenever `current` changed, from any thread

and the routes below give a question's pictures while it is open, and let scripts see and answer questions too.
"""

from __future__ import annotations

import io as bytes_io
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import comfy.model_management as mm
import numpy as np
from comfy_execution.utils import get_executing_context
from PIL import Image
from torch import Tensor

from ...search.core.control import FINISHED
from ...verifiers.common.preprocess import eight_bit
from ...verifiers.human.questions import Absent, Answer, Ended, Question
from ..adapter.prompt_context import server

PICTURE_SIDE = 512  # pixels
FRAMES_SHOWN = 4  # of a video, side by side
LOOK_EVERY = 0.1  # seconds between two looks at the cancel button
GRACE = 10.0  # seconds in which a page that is being reloaded comes back


@dataclass(eq=False)
class OpenQuestion:
    """A question that waits for its answer.

    Attributes:
        id: hex digits.
        prompt_id, node: whose it is: the prompt, and the execution id of its search node.
        asked: what was asked.
        pictures: JPEG files, by candidate.
        deadline: when it is withdrawn, on the monotonic clock; None for never.
        answered: set when `answer` is there.
    """

    id: str
    prompt_id: str
    node: str
    asked: Question
    pictures: dict[int, bytes]
    deadline: float | None
    answered: threading.Event = field(default_factory=threading.Event)
    answer: Answer | None = None

    @property
    def seconds_left(self) -> float | None:
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def as_dict(self) -> dict[str, Any]:
        """Return what the page is told: plain JSON values."""
        left = self.seconds_left
        return {
            "id": self.id,
            "kind": "pick",
            "candidates": list(self.asked.candidates),
            "best": self.asked.best,
            "seconds_left": None if left is None else round(left, 1),
            "timeout": self.asked.timeout or None,
            "asked": self.asked.asked,
            "model_ready": self.asked.model_ready,
            "accuracy": self.asked.accuracy,
        }


class Questions:
    """The open questions of all searches; safe to use from any thread.

    Attributes:
        listeners: called with (prompt_id, node) when that node's question was opened, answered or withdrawn.
    """

    def __init__(self) -> None:
        """Start without any."""
        self._lock = threading.Lock()
        self._open: dict[str, OpenQuestion] = {}
        self.listeners: list[Callable[[str, str], None]] = []

    def open(self, question: Question, prompt_id: str, node: str) -> OpenQuestion:
        """Show a question to the person until it is closed."""
        pictures = {index: jpeg(images) for index, images in zip(question.candidates, question.pictures, strict=True)}
        deadline = time.monotonic() + question.timeout if question.timeout else None
        opened = OpenQuestion(uuid.uuid4().hex, prompt_id, node, question, pictures, deadline)
        with self._lock:
            self._open[opened.id] = opened
        self._tell(opened)
        return opened

    def close(self, opened: OpenQuestion) -> None:
        """Withdraw a question, answered or not."""
        with self._lock:
            self._open.pop(opened.id, None)
        self._tell(opened)

    def answer(self, question_id: Any, payload: Any) -> None:
        """Answer a question.

        Args:
            question_id: its id.
            payload: {"ranking": [best, next best, ...]}, empty for "all bad", or {"take_over": true}.

        Raises:
            ValueError: it is not open, or this is no answer to it.
        """
        with self._lock:
            opened = self._open.get(question_id) if isinstance(question_id, str) else None
            if opened is None or opened.answered.is_set():
                raise ValueError("that question is not open (any more): it was answered, timed out, or its search has ended")
            opened.answer = read_answer(payload, opened.asked)
            opened.answered.set()
        self._tell(opened)

    def current(self, prompt_id: str, node: str) -> dict[str, Any] | None:
        """Return what a page shows of a node's open question; None without one."""
        found = (o for o in self.all() if (o.prompt_id, o.node) == (prompt_id, node))
        return next((opened.as_dict() for opened in found), None)

    def picture(self, question_id: str, candidate: int) -> bytes | None:
        """Return the JPEG file of one of a question's candidates; None if it is not open or has no such candidate."""
        with self._lock:
            opened = self._open.get(question_id)
        return None if opened is None else opened.pictures.get(candidate)

    def all(self) -> list[OpenQuestion]:
        """Return the questions without an answer, oldest first."""
        with self._lock:
            return [opened for opened in self._open.values() if not opened.answered.is_set()]

    def _tell(self, opened: OpenQuestion) -> None:
        for listener in list(self.listeners):
            listener(opened.prompt_id, opened.node)


questions = Questions()


@dataclass(frozen=True)
class PageAsker:
    """Asks the person whose page queued the prompt that is running."""

    def ask(self, question: Question, finishing: Callable[[], bool]) -> Answer:
        """Wait for the answer; Cancel is noticed within `LOOK_EVERY`."""
        wait_for_page(finishing)
        context = get_executing_context()
        prompt_id, node = ("", "") if context is None else (context.prompt_id, context.node_id)
        opened = questions.open(question, prompt_id, node)
        try:
            while not opened.answered.wait(LOOK_EVERY):
                check(finishing)
                if opened.seconds_left == 0.0:
                    break
        finally:
            questions.close(opened)
        if opened.answer is None:
            raise Absent(f"nobody answered in {question.timeout:g} s")
        return opened.answer


def check(finishing: Callable[[], bool]) -> None:
    """Raise if the user cancelled, or ends the search."""
    mm.throw_exception_if_processing_interrupted()
    if finishing():
        raise Ended(FINISHED)


def wait_for_page(finishing: Callable[[], bool]) -> None:
    """Return when the page that queued the running prompt is connected.

    Raises:
        Absent: it is not, and did not come back in the time that a reload takes; or the prompt has none.
    """
    running = server()
    client = None if running is None else running.client_id
    if running is None or client is None:
        raise Absent("nobody can be asked, since no page queued this (it came over HTTP without a client id)")
    deadline = time.monotonic() + GRACE
    while client not in running.sockets:
        check(finishing)
        if time.monotonic() > deadline:
            raise Absent("nobody can be asked, since the page that queued this is closed")
        time.sleep(LOOK_EVERY)


def read_answer(payload: Any, question: Question) -> Answer:
    """Return the answer to a question that a page or a script sent.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(payload, dict):
        raise ValueError("an answer is a JSON object: {'ranking': [...]} or {'take_over': true}")
    if payload.get("take_over") is True:
        if not question.model_ready:
            raise ValueError("the model of your choices cannot take over yet: it has too few choices to go by")
        return Answer(take_over=True)
    ranking, shown = payload.get("ranking"), question.candidates
    if not isinstance(ranking, list) or not all(type(index) is int for index in ranking):
        raise ValueError("'ranking' must be a list of candidates' numbers, best first; an empty one says that all are bad")
    if len(set(ranking)) < len(ranking) or not set(ranking) <= set(shown):
        raise ValueError(f"'ranking' must name candidates of this question ({', '.join(map(str, shown))}), each at most once")
    return Answer(tuple(ranking))


def jpeg(images: Tensor) -> bytes:
    """Return a JPEG file of a candidate's pictures (F, H, W, 3) in [0, 1]; of a video, up to four frames side by side."""
    count = min(len(images), FRAMES_SHOWN)
    places = [round(number * (len(images) - 1) / max(count - 1, 1)) for number in range(count)]
    picture = Image.fromarray(np.concatenate(list(eight_bit(images[places]).numpy()), axis=1))
    picture.thumbnail((PICTURE_SIDE * count, PICTURE_SIDE))
    out = bytes_io.BytesIO()
    picture.save(out, "JPEG", quality=90)
    return out.getvalue()
