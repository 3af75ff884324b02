"""Asks a chat-completions endpoint and sees to it that an answer comes, comes in time, and does not cost too much.

What the protocol's servers differ in is found out by asking: a request that is refused because of its
`response_format`, `max_tokens` or `temperature` is sent again in a milder dialect, which is then kept.

References:
    OpenAI API reference, "Create chat completion": messages with image_url parts, response_format, max_completion_tokens
    RFC 9110, section 10.2.3: Retry-After, in seconds or as a date
"""

from __future__ import annotations

import email.utils
import json
import random
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

from .api_access import NAME, Access, Endpoint
from .api_exchange import Exchange, Failure, Reply

T = TypeVar("T")
ATTEMPTS = 4  # at one request
PATIENCE = 3  # timeouts that one request may take in all, attempts and pauses
FIRST_PAUSE = 1.0  # seconds; doubled after each attempt
NAP = 0.1  # seconds of a pause between two looks at cancel
FORMATS = ("json_schema", "json_object", "text")
OF_FORMAT = ("response_format", "json_schema", "json_object", "schema", "grammar", "structured")


class WrongAnswer(Exception):
    """An answer came, and it is not what was asked for; says why."""


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
                return _content(reply)
            milder = self._dialect.milder(reply.text) if reply.status in (400, 422) else None
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
        """Send a request until it is answered, within `ATTEMPTS` and `PATIENCE`."""
        ends = self.clock() + PATIENCE * self.timeout
        for attempt in range(1, ATTEMPTS + 1):
            self.check()
            key = self.access().key_for(self.endpoint)
            self._count()
            seconds = min(self.timeout, ends - self.clock())
            outcome = Exchange(self.endpoint, key, body, seconds).run(self.check, self.clock)
            if isinstance(outcome, Reply) and not _busy(outcome.status):
                return outcome
            why = self._why(outcome)
            pause = FIRST_PAUSE * 2 ** (attempt - 1) * (1 + self.jitter())
            pause = max(pause, _asked_pause(outcome))
            if isinstance(outcome, Failure) and not outcome.passing:
                raise self.error(why)
            if self.clock() + pause >= ends:
                raise self.error(f"{why}. Gave up after {attempt} attempts: the next one, in {pause:.0f} s, would be beyond"
                                 f" {PATIENCE} times the input 'timeout' ({self.timeout:g} s)")  # fmt: skip
            if attempt < ATTEMPTS:
                self._pause(pause)
        raise self.error(f"{why}. Gave up after {ATTEMPTS} attempts")

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
        return f"status {outcome.status}: {self.shown(outcome.text)}"

    def _refusal(self, reply: Reply) -> str:
        said = self._why(reply)
        if 300 <= reply.status < 400:
            return (f"status {reply.status}, a redirect to {self.shown(_host_of(reply.location))}, which is not followed: the"
                    " picture would go where nobody allowed it. Write the final address into input 'base_url'")  # fmt: skip
        if reply.status in (401, 403):  # servers quote keys here
            sent = "the key sent" if self.access().key_for(self.endpoint) else "a request without a key"
            return (f"status {reply.status}: it refuses {sent}. Keys are in {self.access().source}, under"
                    f' \'keys\', "{self.endpoint.address}"')  # fmt: skip
        if reply.status == 404:
            return f"{said}. Inputs 'base_url' (usually ending in /v1) and 'model' have to be what the server knows"
        return said


def _busy(status: int) -> bool:
    return status in (408, 429) or status >= 500


def _asked_pause(outcome: Reply | Failure) -> float:
    """Return the seconds that a server's Retry-After asks for; 0 where it does not."""
    said = outcome.retry_after.strip() if isinstance(outcome, Reply) else ""
    if said.isascii() and said.isdigit():
        return float(said[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(said).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _host_of(location: str) -> str:
    try:
        return urlsplit(location).hostname or "another path of the same host"
    except ValueError:
        return "somewhere unreadable"


def _content(reply: Reply) -> str:
    """Return the text of the first choice of a completion."""
    try:
        choice = json.loads(reply.body)["choices"][0]
        message = choice["message"]
        content, refusal = message.get("content"), message.get("refusal")
    except (ValueError, RecursionError, KeyError, IndexError, TypeError, AttributeError):
        raise WrongAnswer(f"no chat completion: {reply.text}") from None
    if isinstance(content, str) and content.strip():
        if choice.get("finish_reason") == "length":
            raise WrongAnswer(f"it ran into the limit 'max_tokens': {content}")
        return content
    raise WrongAnswer(f"no text (refusal: {refusal}, finish reason: {choice.get('finish_reason')})")
