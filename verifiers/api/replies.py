"""What the replies of chat-completions servers tell: an answer, an error with whatever status, or when to come back.

References:
    OpenAI API reference, "The chat completion object"; OpenRouter API reference, "Errors": errors that come with status 200
    RFC 9110, section 10.2.3: Retry-After, in seconds or as a date
"""

from __future__ import annotations

import email.utils
import json
import time
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from .exchange import Failure, Reply

TEXTS = ("text", "output_text")  # kinds of parts of a message that are what is said
SPENT = (
    "insufficient_quota", "current quota", "quota exceeded", "exceeded your quota", "insufficient balance", "insufficient credit",
    "credit balance", "out of credits", "billing_hard_limit", "billing_not_active",
)  # fmt: skip
COMING_BACK = ("try again in", "retry in", "retry after")  # what is spent is so for a while only
NO_PICTURES = (
    "image input", "image_url", "mmproj", "not a multimodal", "not support image", "not support vision", "not support picture",
    "images are not supported", "image is not supported", "no vision",
)  # fmt: skip


class WrongAnswer(Exception):
    """An answer came, and it is not what was asked for; says why."""


def is_busy(status: int) -> bool:
    return status in (408, 429) or status >= 500


def says(reply: Reply, words: tuple[str, ...]) -> bool:
    said = reply.text.lower()
    return any(word in said for word in words)


def comes_back(reply: Reply) -> bool:
    """Whether a server says when it will answer again."""
    return asked_pause(reply) > 0 or says(reply, COMING_BACK)


def unwrapped(reply: Reply) -> Reply:
    """Return the error that came with status 200 as if it had come with its own status, or 0 if it names none."""
    error = _error_in(reply) if reply.status == 200 else None
    if not error:
        return reply
    code = error.get("code") if isinstance(error, dict) else None
    return replace(reply, status=code if type(code) is int and 400 <= code < 600 else 0)


def _error_in(reply: Reply) -> Any:
    """Return what an answer tells of an error, whole or of its first choice; None if it tells of none."""
    try:
        answer = json.loads(reply.body)
        choice = (answer.get("choices") or [{}])[0]
        return answer.get("error") or choice.get("error")
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return None


def asked_pause(outcome: Reply | Failure) -> float:
    """Return the seconds that a server's Retry-After asks for; 0 where it does not."""
    said = outcome.retry_after.strip() if isinstance(outcome, Reply) else ""
    if said.isascii() and said.isdigit():
        return float(said[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(said).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def host_of(location: str) -> str:
    try:
        return urlsplit(location).hostname or "another path of the same host"
    except ValueError:
        return "somewhere unreadable"


def _text_of(content: Any) -> str:
    """Return the text of a message: itself, or that of its parts; parts of other kinds, as thinking, are no text."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") if isinstance(part, dict) and part.get("type") in TEXTS else part for part in parts]
    return "\n".join(text for text in texts if isinstance(text, str))


def content_of(reply: Reply) -> str:
    """Return the text of the first choice of a completion."""
    try:
        choice = json.loads(reply.body)["choices"][0]
        message = choice["message"]
        content, refusal = _text_of(message.get("content")), message.get("refusal")
    except (ValueError, RecursionError, KeyError, IndexError, TypeError, AttributeError):
        raise WrongAnswer(f"no chat completion: {reply.text}") from None
    if content.strip():
        if choice.get("finish_reason") == "length":
            raise WrongAnswer(f"it ran into the limit 'max_tokens': {content}")
        return content
    raise WrongAnswer(f"no text (refusal: {refusal}, finish reason: {choice.get('finish_reason')})")
