"""Searches as pages see them: while they run over the websocket, afterwards from memory and in the node's output."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import comfy.model_management as mm
from comfy_execution.utils import get_executing_context

from ...search.reporting.live_feed import CANCELLED, FAILED, LiveFeed
from ...search.reporting.snapshot import fitted
from ..adapter.prompt_context import PromptContext, server
from ..store import journals
from ..store.thumbnails import Thumbnails
from .questions import questions

EVENT = "noise_search.update"
OUTPUT = "noise_search"  # what a search node's output is called
ENDED = 20  # searches that are remembered after their end


@dataclass(frozen=True)
class Listed:
    """A search, the page that queued it, and the execution id of its node."""

    feed: LiveFeed
    client: str | None
    node: str


class Searches:
    """The searches that run, and the last that ended; safe to use from any thread."""

    def __init__(self) -> None:
        """Start without any."""
        self._lock = threading.Lock()
        self._listed: dict[str, Listed] = {}
        self._begun: Counter[tuple[str | None, str]] = Counter()  # of the prompt that runs

    def begin(self, prompt_id: str | None, node: str) -> int:
        """Count one more run of searches that a node of the page shows; return how many there were in this prompt."""
        with self._lock:
            if all(prompt != prompt_id for prompt, _ in self._begun):
                self._begun.clear()
            self._begun[prompt_id, node] += 1
            return self._begun[prompt_id, node]

    def add(self, feed: LiveFeed, client: str | None, node: str) -> None:
        """Remember a search until enough others ended after it."""
        with self._lock:
            ended = [key for key, listed in self._listed.items() if listed.feed.search is None]
            for key in ended[: max(0, len(ended) - ENDED + 1)]:
                del self._listed[key]
            self._listed[feed.about["id"]] = Listed(feed, client, node)

    def get(self, key: str) -> LiveFeed | None:
        """Return the search of an id; None if it is not remembered or has not begun."""
        listed = self._listed.get(key)
        return listed.feed if listed is not None and listed.feed.state else None

    def of(self, client: str) -> list[LiveFeed]:
        """Return what a page queued, the newest first."""
        with self._lock:
            listed = list(self._listed.values())
        return [one.feed for one in reversed(listed) if one.client == client and one.feed.state]

    def asked(self, prompt_id: str, node: str) -> None:
        """Have a search tell that a question was opened or answered."""
        for listed in list(self._listed.values()):
            if (listed.feed.about["prompt_id"], listed.node) == (prompt_id, node):
                listed.feed.touch()

    def forgotten(self, place: str) -> None:
        """Let go of the small pictures and recipes that were kept of a place."""
        for feed in self.at(place):
            feed.forget()

    def at(self, place: str) -> list[LiveFeed]:
        """Return the searches whose small pictures are found at a place."""
        with self._lock:
            return [one.feed for one in self._listed.values() if one.feed.album.place == place]


searches = Searches()
questions.listeners.append(searches.asked)
journals.listeners.append(searches.forgotten)


class ClientSession:
    """The page that queued a prompt, for one run of a search node: one search for each row of its latent batch.

    Attributes:
        client: the page's id; None if the prompt came without one.
    """

    def __init__(self, caller: PromptContext, rows: int) -> None:
        """Note who runs the node."""
        context, self._server = get_executing_context(), server()
        workflow = caller.extra.get("workflow")
        self.client: str | None = None if self._server is None else self._server.client_id
        prompt_id = None if context is None else context.prompt_id
        self._node = caller.node or ("" if context is None else context.node_id)
        self._item = 0 if context is None else context.list_index or 0
        shown = caller.display or self._node
        self._about = {
            "node": shown,
            "number": searches.begin(prompt_id, shown),
            "workflow": _text(workflow.get("id")) if isinstance(workflow, dict) else None,
            "prompt_id": prompt_id,
            "rows": rows,
        }
        self._feeds: list[LiveFeed] = []

    @contextmanager
    def watch(self, row: int) -> Iterator[LiveFeed]:
        """Give the feed of a row's search; an error within ends it."""
        key = uuid.uuid4().hex
        about = {"id": key, "row": row, "search": self._name(row), **self._about}
        feed = LiveFeed(about, Thumbnails(key), self._send, self._later)
        feed.question = lambda: questions.current(self._about["prompt_id"], self._node)
        searches.add(feed, self.client, self._node)
        self._feeds.append(feed)
        try:
            yield feed
        except mm.InterruptProcessingException:
            feed.end(CANCELLED, "cancelled")
            raise
        except BaseException as error:
            feed.end(FAILED, f"failed: {error or type(error).__name__}")
            raise

    def output(self) -> dict[str, Any]:
        """Return what the node shows: the last states of its searches."""
        return {OUTPUT: fitted([feed.output for feed in self._feeds if feed.final is not None])}

    def _name(self, row: int) -> str:
        """Return what tells a row's search from all others of the prompt, whenever it is queued: see `choosing.chosen_recipe`."""
        item = f"[{self._item}]" if self._item else ""
        return self._node + item + (f"#{row + 1}" if self._about["rows"] > 1 else "")

    def _send(self, event: dict[str, Any]) -> None:
        if self.client is not None:
            self._server.send_sync(EVENT, event, self.client)

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something on the server's loop; without a server there is nobody to tell."""
        if self._server is not None:
            self._server.loop.call_soon_threadsafe(self._server.loop.call_later, seconds, action)


def _text(value: Any) -> str | None:
    """Return a text of a workflow, which may hold anything."""
    return value[:100] if isinstance(value, str) else None
