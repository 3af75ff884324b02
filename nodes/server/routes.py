"""What pages may ask of searches over HTTP. Ids and names are hex digits, and nothing else is ever part of a path."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import Any, TypeVar

from aiohttp import web
from aiohttp.http import HttpProcessingError

from ...search.core.search import Search
from ...search.journal.journal import THUMBS
from ...search.reporting.live_feed import LiveFeed
from ..adapter.prompt_context import server
from ..store.journals import forget, place_folder, recipe_of
from ..store.thumbnails import read
from .live import searches
from .questions import questions

ROOT = "/noise_search"
HEX = re.compile(r"[0-9a-f]{32}")
BODY_BYTES, ANSWER_BYTES = 10_000, 4096
CLIENT_LETTERS = 200
FOR_EVER = "private, max-age=31536000, immutable"  # whom it was sent to may keep it, no proxy: it may be forgotten
UNREADABLE = (web.RequestPayloadError, HttpProcessingError)  # a body that is not what Content- or Transfer-Encoding says
Handler = Callable[[web.Request], Awaitable[web.Response]]
T = TypeVar("T")

_pictures = ThreadPoolExecutor(2, "noise-search-pictures")  # so many requests at a time read small pictures
_journals = ThreadPoolExecutor(1, "noise-search-journals")  # and so many read a whole journal, or delete it


class Refused(Exception):
    """What was asked for cannot be given."""

    def __init__(self, why: str, status: int = 400) -> None:
        super().__init__(why)
        self.status = status


def refusing(handler: Handler) -> Handler:
    """Have a handler answer with the words of what it refuses."""

    @wraps(handler)
    async def answer(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except Refused as refused:
            return web.json_response({"error": str(refused)}, status=refused.status)

    return answer


async def off_loop(threads: ThreadPoolExecutor, action: Callable[..., T], *args: Any) -> T:
    """Have something done that reads, deletes or waits, and let the server's loop go on meanwhile."""
    return await asyncio.get_running_loop().run_in_executor(threads, action, *args)


@refusing
async def get_searches(request: web.Request) -> web.Response:
    """List the states of a page's searches, newest first."""
    client = request.query.get("client_id", "")
    if not 0 < len(client) <= CLIENT_LETTERS:
        raise Refused(f"client_id: it must be the page's own, of 1 to {CLIENT_LETTERS} letters, not of {len(client)}")
    return _json([feed.state for feed in searches.of(client)])


@refusing
async def get_search(request: web.Request) -> web.Response:
    """Give the state of a search."""
    return _json(_feed(_hex(request, "id")).state)


@refusing
async def post_command(request: web.Request) -> web.Response:
    """Tell a search what to do: {"command": ..., "candidate": ...}."""
    feed = _feed(_hex(request, "id"))
    body = await _body(request)
    command = COMMANDS.get(body["command"]) if isinstance(body.get("command"), str) else None
    if command is None:
        raise Refused(f"command: it must be one of {', '.join(COMMANDS)}, not {body.get('command')!r:.100}")
    search = feed.search  # from now on it may end at any moment
    if search is None:
        raise Refused("this search has ended: queue it again", 409)
    command(search, body)
    feed.touch()
    return _json({"ok": True})


@refusing
async def get_thumb(request: web.Request) -> web.Response:
    """Give a small picture, JPEG."""
    place, name = _hex(request, "place"), _hex(request, "name")
    found = await off_loop(_pictures, _thumb, place, name)
    if found is None:
        raise Refused("there is no such thumbnail (any more)", 404)
    return web.Response(body=found, content_type="image/jpeg", headers={"Cache-Control": FOR_EVER, **SAFE})


@refusing
async def get_recipe(request: web.Request) -> web.Response:
    """Give the recipe of the candidate that a small picture is of, JSON text."""
    place, name = _hex(request, "place"), _hex(request, "name")
    known = next((recipe for feed in searches.at(place) if (recipe := feed.recipes.get(name)) is not None), None)
    try:
        recipe = await off_loop(_journals, recipe_of, place, name) if known is None else known.to_json()
    except OSError as error:
        raise Refused(f"the journal cannot be read: {error.strerror}", 404) from error
    if recipe is None:
        raise Refused("there is no such candidate (any more)", 404)
    return web.Response(text=recipe, content_type="application/json", headers={**FRESH, **SAFE})


@refusing
async def post_forget(request: web.Request) -> web.Response:
    """Delete the journal of a search: {"id": ...} or {"place": ...}."""
    body = await _body(request)
    said = next(iter(body.values()), None)
    if sorted(body) not in (["id"], ["place"]) or not isinstance(said, str) or not HEX.fullmatch(said):
        raise Refused("what to forget is said by {'id': ...} or {'place': ...}, of 32 hex digits")
    place = _feed(said).album.place if "id" in body else said
    try:
        there = await off_loop(_journals, forget, place)
    except ValueError as error:
        raise Refused(str(error), 409) from error
    except OSError as error:
        raise Refused(f"the journal cannot be deleted: {error.strerror}", 409) from error
    if not there:
        raise Refused("this search has no journal", 404)
    return _json({"ok": True})


@refusing
async def get_questions(request: web.Request) -> web.Response:
    """List the open questions, for scripts: {"questions": [{"id", "prompt_id", "node", "candidates", ...}]}."""
    listed = [{**opened.as_dict(), "prompt_id": opened.prompt_id, "node": opened.node} for opened in questions.all()]
    return _json({"questions": listed})


@refusing
async def get_question_picture(request: web.Request) -> web.Response:
    """Give a picture that a question is about, JPEG."""
    found = questions.picture(_hex(request, "question"), int(request.match_info["candidate"]))
    if found is None:
        raise Refused("no such picture: that question is not open (any more), or has no such candidate", 404)
    return web.Response(body=found, content_type="image/jpeg", headers={**FRESH, **SAFE})


@refusing
async def post_answer(request: web.Request) -> web.Response:
    """Take an answer: {"ranking": [...]} or {"take_over": true}."""
    try:
        questions.answer(_hex(request, "question"), await _body(request, ANSWER_BYTES))
    except ValueError as error:
        raise Refused(str(error)) from error
    return _json({"ok": True})


def _thumb(place: str, name: str) -> bytes | None:
    found = next((data for feed in searches.at(place) if (data := feed.album.get(name)) is not None), None)
    return read(place_folder(place) / THUMBS, name) if found is None else found


def _finish(search: Search, body: dict[str, Any]) -> None:
    search.user_requests.finish()
    search.user_requests.resume()  # it does not end while it waits


def _answer(search: Search, body: dict[str, Any]) -> None:
    try:
        questions.answer(body.get("question"), body)
    except ValueError as error:
        raise Refused(str(error), 409) from error


COMMANDS: dict[str, Callable[[Search, dict[str, Any]], None]] = {
    "finish": _finish,
    "pause": lambda search, body: search.user_requests.pause(),
    "resume": lambda search, body: search.user_requests.resume(),
    "more": lambda search, body: search.user_requests.favor(_candidate(search, body)),
    "discard": lambda search, body: search.user_requests.discard(_candidate(search, body)),
    "answer": _answer,
}
SAFE = {"X-Content-Type-Options": "nosniff"}
FRESH = {"Cache-Control": "no-store"}


def _candidate(search: Search, body: dict[str, Any]) -> int:
    """Return the candidate that a command is about."""
    index, count = body.get("candidate"), len(search.candidates)
    if type(index) is not int or not 0 <= index < count:
        raise Refused(f"candidate: it must be a whole number from 0 to {count - 1}, not {index!r:.100}")
    return index


def _feed(key: str) -> LiveFeed:
    feed = searches.get(key)
    if feed is None:
        raise Refused("there is no such search: it has not begun, or ended long ago, or the server was started anew", 404)
    return feed


def _hex(request: web.Request, name: str) -> str:
    """Return a part of the address that must be hex digits."""
    text = request.match_info[name]
    if not HEX.fullmatch(text):
        raise Refused(f"{name}: it must be of 32 hex digits in lower case", 404)
    return text


async def _body(request: web.Request, most: int = BODY_BYTES) -> dict[str, Any]:
    """Return the JSON object of a request."""
    if request.content_type != "application/json":  # which other sites' pages cannot send unasked
        raise Refused("the body must be JSON, with the header 'Content-Type: application/json'", 415)
    data = bytearray()
    try:
        async for part in request.content.iter_chunked(most):
            data += part
            if len(data) > most:
                raise Refused(f"the body has at most {most} bytes", 413)
    except UNREADABLE as error:
        raise Refused("the body cannot be read: it is not encoded as its headers say") from error
    try:
        body = json.loads(bytes(data))
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise Refused("the body must be a JSON object")
    return body


def _json(value: Any) -> web.Response:
    return web.json_response(value, headers={**FRESH, **SAFE})


ROUTES = (
    ("GET", "/searches", get_searches),
    ("GET", "/searches/{id}", get_search),
    ("POST", "/searches/{id}/commands", post_command),
    ("GET", "/thumbs/{place}/{name}", get_thumb),
    ("GET", "/recipes/{place}/{name}", get_recipe),
    ("POST", "/forget", post_forget),
    ("GET", "/questions", get_questions),
    ("GET", "/questions/{question}/{candidate:[0-9]{1,9}}", get_question_picture),
    ("POST", "/questions/{question}", post_answer),
)


def add_routes() -> None:
    """Give the running server the routes; without a server, as in tools and tests, nothing happens."""
    if (running := server()) is not None:
        for method, path, handler in ROUTES:
            running.routes.route(method, ROOT + path)(handler)


add_routes()  # here, not in the extension's `on_load`, which older cores do not call
