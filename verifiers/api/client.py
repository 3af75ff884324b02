"""Asks a chat-completions endpoint and sees to it that an answer comes, comes in time, and does not cost too much.

What the protocol's servers differ in is found out by asking: a request that is refused because of its
`response_format`, `max_tokens` or `temperature` is sent again in a milder dialect, which is then kept.

References:
    OpenAI API reference, "Create chat completion": messages with image_url parts, response_format, max_completion_tokens
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from .access import NAME, Access, Endpoint
from .exchange import Exchange, Failure, Reply
from .replies import NO_PICTURES, SPENT, asked_pause, comes_back, content_of, host_of, is_busy, says, unwrapped

T = TypeVar("T")
ATTEMPTS = 4  # at one request
PATIENCE = 3  # timeouts that one request may take in all, attempts and pauses
FIRST_PAUSE = 1.0  # seconds; doubled after each attempt
NAP = 0.1  # seconds of a pause between two looks at cancel
FORMATS = ("json_schema", "json_object", "text")
OF_FORMAT = ("response_format", "json_schema", "json_object", "schema", "grammar", "structured", "requested parameters")
REFUSING = (0, 400, 404, 422, 500, 501)  # statuses that servers refuse a form with; 0: an error that came with status 200
LOADING = 503  # also said by what is overloaded: both pass
LONGEST_PAUSE = 8.0  # seconds between two looks at whether a model is loaded


@dataclass(frozen=True)
class Dialect:
    """How a server takes a request.

    Attributes:
        format: One of `FORMATS`: how the answer's form is demanded.
        tokens: What the limit of the answer's length is called.
        temperature: Whether it may be set.
    """

    format: str = FORMATS[0]
    tokens: str = "max_tokens"
    temperature: bool = True

    def body(self, model: str, messages: list[dict[str, Any]], schema: dict[str, Any], max_tokens: int) -> dict[str, Any]:
        """Return a request."""
        body = {"model": model, "messages": messages, self.tokens: max_tokens, "stream": False}
        if self.temperature:
            body["temperature"] = 0
        if self.format == "json_schema":
            named = {"name": "answer", "strict": True, "schema": schema}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        elif self.format == "json_object":
            body["response_format"] = {"type": "json_object"}
        return body

    def milder(self, complaint: str) -> Dialect | None:
        """Return what to try after a refusal; None if it is about something else."""
        if self.tokens == "max_tokens" and "max_completion_tokens" in complaint:
            return replace(self, tokens="max_completion_tokens")
        if self.temperature and "temperature" in complaint:
            return replace(self, temperature=False)
        if self.format != FORMATS[-1] and any(word in complaint.lower() for word in OF_FORMAT):
            return replace(self, format=FORMATS[FORMATS.index(self.format) + 1])
        return None


@dataclass(eq=False)
class Client:
    """Requests to one endpoint, counted and remembered for as long as one execution of a node lasts.

    No key is held here: settings are read anew for each request, so that a host or key that the user takes back is
    out of use at once.

    Attributes:
        endpoint: Where to.
        access: Reads the settings.
        timeout: Seconds for one attempt, everything included.
        max_requests: Attempts in one execution; 0 for no limit.
        check: Raises if the user cancelled.
        execution: Says which execution this is; a new one starts with no requests made.
        clock: Seconds, for time limits.
        sleep: Waits for seconds.
        jitter: A random number in [0, 1).
    """

    endpoint: Endpoint
    access: Callable[[], Access] = field(repr=False)
    timeout: float = 120.0
    max_requests: int = 0
    check: Callable[[], None] = field(default=lambda: None, repr=False)
    execution: Callable[[], Hashable] = field(default=lambda: None, repr=False)
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)
    jitter: Callable[[], float] = field(default=random.SystemRandom().random, repr=False)
    _requests: int = field(default=0, init=False, repr=False)
    _known: dict[str, Any] = field(default_factory=dict, init=False, repr=False)
    _running: Hashable = field(default=None, init=False, repr=False)
    _dialect: Dialect = field(default_factory=Dialect, init=False, repr=False)

    @property
    def requests(self) -> int:
        """Attempts made in this execution."""
        self._follow()
        return self._requests

    def once(self, what: str, ask: Callable[[], T]) -> T:
        """Return the answer to `what`, asked at most once in an execution: each costs time or money."""
        self._follow()
        if what not in self._known:
            self._known[what] = ask()
        return self._known[what]

    def complete(self, model: str, messages: list[dict[str, Any]], schema: dict[str, Any], max_tokens: int) -> str:
        """Send messages and return the text of the answer.

        Args:
            model: Its name at the endpoint.
            messages: As the protocol has them.
            schema: JSON schema of the answer, demanded where the server can.
            max_tokens: The answer's limit.

        Raises:
            WrongAnswer: It holds no text.
            ValueError: No answer came, or a refusal.
        """
        while True:
            reply = self._post(json.dumps(self._dialect.body(model, messages, schema, max_tokens)).encode())
            if reply.status == 200:
                return content_of(reply)
            milder = self._milder(reply)
            if milder is None:
                raise self.error(self._refusal(reply))
            self._dialect = milder

    def error(self, said: str) -> ValueError:
        """Return an error about the endpoint; keys are hidden in what it quotes."""
        return ValueError(f"{NAME}: {self.endpoint.address}: {said}")

    def shown(self, text: str) -> str:
        """Make what the server said fit for messages."""
        return self.access().hide(text)

    def _post(self, body: bytes) -> Reply:
        """Send a request until it is answered, within `ATTEMPTS` and `PATIENCE`; while a model loads, within the timeout."""
        started = self.clock()
        failed, loading = 0, 0
        while True:
            self.check()
            key = self.access().key_for(self.endpoint)
            self._count()
            seconds = min(self.timeout, started + PATIENCE * self.timeout - self.clock())
            outcome = Exchange(self.endpoint, key, body, seconds).run(self.check, self.clock)
            if isinstance(outcome, Reply):
                outcome = unwrapped(outcome)
                if not self._passes(outcome):
                    return outcome
            elif not outcome.passing:
                raise self.error(self._why(outcome))
            if isinstance(outcome, Reply) and outcome.status == LOADING:
                loading += 1
                self._pause(self._until_loaded(outcome, loading, started))
            else:
                failed += 1
                self._pause(self._until_next(outcome, failed, failed + loading, started))

    def _passes(self, reply: Reply) -> bool:
        """Whether the same request may be answered another time."""
        if not is_busy(reply.status) or (reply.status in REFUSING and self._milder(reply) is not None):
            return False
        return not (says(reply, NO_PICTURES) or (says(reply, SPENT) and not comes_back(reply)))

    def _milder(self, reply: Reply) -> Dialect | None:
        """Return what to try after a refusal; None if it is about something else."""
        return self._dialect.milder(reply.text) if reply.status in REFUSING and not says(reply, NO_PICTURES) else None

    def _until_loaded(self, reply: Reply, attempt: int, started: float) -> float:
        """Return the seconds to wait for a model to load.

        Raises:
            ValueError: The time for that is over, or would be.
        """
        left, asked = started + self.timeout - self.clock(), asked_pause(reply)
        if left <= 0 or asked > left:
            wants = f", and it asks for {asked:.0f} s more" if asked > left else ""
            raise self.error(f"{self._why(reply)}. Gave up after {self.clock() - started:.0f} s, since input 'timeout' is"
                             f" {self.timeout:g}{wants}: raise it if the model takes longer to load")  # fmt: skip
        return min(left, max(self._backed_off(attempt, LONGEST_PAUSE), asked))

    def _until_next(self, outcome: Reply | Failure, failed: int, attempts: int, started: float) -> float:
        """Return the seconds to wait after an attempt that failed.

        Raises:
            ValueError: It was the last, or the next would be too late.
        """
        why = self._why(outcome)
        pause = max(self._backed_off(failed), asked_pause(outcome))
        if self.clock() + pause >= started + PATIENCE * self.timeout:
            raise self.error(f"{why}. Gave up after {attempts} attempts: the next one, in {pause:.0f} s, would be beyond"
                             f" {PATIENCE} times the input 'timeout' ({self.timeout:g} s)")  # fmt: skip
        if failed == ATTEMPTS:
            raise self.error(f"{why}. Gave up after {attempts} attempts")
        return pause

    def _backed_off(self, attempt: int, most: float = math.inf) -> float:
        """Return a pause in seconds, doubled after each attempt, spread at random."""
        return min(most, FIRST_PAUSE * 2.0 ** min(attempt - 1, 30)) * (1 + self.jitter())

    def _count(self) -> None:
        self._follow()
        if self.max_requests and self._requests >= self.max_requests:
            raise ValueError(
                f"{NAME}: input 'max_requests' is {self.max_requests}, and so many requests were made in this execution. Raise"
                " it (0: no limit), or lower the search's budget; with on_verifier_error 'skip' the search keeps what it has."
            )
        self._requests += 1

    def _follow(self) -> None:
        """Begin anew if this is another execution."""
        running = self.execution()
        if running != self._running:
            self._running, self._requests, self._known = running, 0, {}

    def _pause(self, seconds: float) -> None:
        ends = self.clock() + seconds
        while (left := ends - self.clock()) > 0:
            self.check()
            self.sleep(min(NAP, left))

    def _why(self, outcome: Reply | Failure) -> str:
        if isinstance(outcome, Failure):
            return self.shown(outcome.why)
        status = f"status {outcome.status}" if outcome.status else "status 200 with an error"
        return f"{status}: {self.shown(outcome.text)}"

    def _refusal(self, reply: Reply) -> str:
        said = self._why(reply)
        if 300 <= reply.status < 400:
            return (f"status {reply.status}, a redirect to {self.shown(host_of(reply.location))}, which is not followed: the"
                    " picture would go where nobody allowed it. Write the final address into input 'base_url'")  # fmt: skip
        if reply.status in (401, 403):  # servers quote keys here
            sent = "the key sent" if self.access().key_for(self.endpoint) else "a request without a key"
            return (f"status {reply.status}: it refuses {sent}. Keys are in {self.access().source}, under"
                    f' \'keys\', "{self.endpoint.address}"')  # fmt: skip
        if says(reply, NO_PICTURES):
            return f"{said}. Input 'model' has to be a model that sees pictures, with its vision part loaded"
        if reply.status == 404:
            return f"{said}. Inputs 'base_url' (usually ending in /v1) and 'model' have to be what the server knows"
        return said
