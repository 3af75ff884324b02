"""What anyone may send to the routes: an answer of 4xx that says why, whatever the body and its encoding are."""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
import threading
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from inprocess import boot

pytestmark = pytest.mark.comfy

boot()

import torch  # noqa: E402
from aiohttp import web  # noqa: E402
from remembered import keep_journals  # noqa: E402

from noise_search.nodes.server import routes  # noqa: E402
from noise_search.nodes.store import journals  # noqa: E402
from noise_search.nodes.store.thumbnails import Thumbnails, jpeg  # noqa: E402
from noise_search.search.journal.journal import FILE, THUMBS, Journal  # noqa: E402
from noise_search.search.noise.recipe import Recipe  # noqa: E402
from noise_search.search.reporting.live_feed import LiveFeed  # noqa: E402

PLACE, NAME, ID = "0" * 32, "1" * 32, "2" * 32
POSTS = ("/searches/" + ID + "/commands", "/forget", "/questions/" + ID)
THUMB, RECIPES = f"/thumbs/{PLACE}/{NAME}", f"/recipes/{PLACE}/{NAME}"
PICTURE, RECIPE = torch.full((8, 8, 3), 0.5), Recipe(5, 5)
JSON_TYPE = {"Content-Type": "application/json"}
BOMB = gzip.compress(b" " * 30_000_000)
TOO_DEEP = b"[" * 9000


@pytest.fixture
def folder(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Where the journal of `PLACE` lies, which a search that ended wrote: with a small picture and a recipe, `NAME`."""
    folder = keep_journals(tmp_path, monkeypatch) / PLACE
    journal = Journal(folder, PLACE)
    journal.add_run(NAME, {"what": {}, "calls": 1, "levels": [], "recipe": json.loads(RECIPE.to_json())}, b"")
    journal.close()
    feed = LiveFeed({"id": ID, "row": 0, "prompt_id": "p", "node": "n"}, Thumbnails(PLACE, folder / THUMBS), lambda event: None,
                lambda seconds, action: None)  # fmt: skip
    feed.album.add(NAME, PICTURE[None])
    feed.recipes[NAME] = RECIPE
    feed.final = {"candidates": []}
    monkeypatch.setattr(routes.searches, "_listed", {})
    routes.searches.add(feed, "page", "n")
    return folder


@pytest.fixture(scope="module")
def ask() -> Iterator[Any]:
    """Send bytes to a server with the routes, and return the status and JSON of its answer."""
    app = web.Application()
    app.add_routes([web.route(method, routes.ROOT + path, handler) for method, path, handler in routes.ROUTES])
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(app)
    loop.run_until_complete(runner.setup())
    loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", 0).start())
    port = runner.addresses[0][1]

    async def talk(raw: bytes, ends: bool) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(raw)
        if ends:
            writer.write_eof()
        answer = await reader.read()
        writer.close()
        return answer

    def send(method: str, path: str, headers: dict[str, str], body: bytes, ends: bool = False) -> tuple[int, Any]:
        sized = {} if {"Content-Length", "Transfer-Encoding"} & set(headers) else {"Content-Length": str(len(body))}
        lines = [f"{method} {routes.ROOT}{path} HTTP/1.1", "Host: x", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in {**headers, **sized}.items()]
        raw = loop.run_until_complete(asyncio.wait_for(talk("\r\n".join([*lines, "", ""]).encode() + body, ends), 60))
        head, _, text = raw.partition(b"\r\n\r\n")
        return int(head.split()[1]), text

    yield send
    loop.run_until_complete(runner.cleanup())
    loop.close()


BODIES = [
    ({"Content-Encoding": "gzip"}, b'{"id": 1}'),
    ({"Content-Encoding": "gzip"}, gzip.compress(b'{"id": 1}')[:-9]),
    ({"Content-Encoding": "deflate"}, b'{"id": 1}'),
    ({"Content-Encoding": "deflate"}, zlib.compress(b'{"id": 1}')[:6]),
    ({"Content-Encoding": "br"}, b'{"id": 1}'),
    ({"Content-Encoding": "zstd"}, b'{"id": 1}'),
    ({"Content-Encoding": "gzip, gzip"}, b'{"id": 1}'),
    ({"Content-Encoding": "nothing"}, b"{"),
    ({"Content-Encoding": "gzip"}, BOMB),
    ({"Transfer-Encoding": "chunked"}, b"zz\r\n{}\r\n0\r\n\r\n"),
    ({"Transfer-Encoding": "chunked"}, b"-2\r\n{}\r\n0\r\n\r\n"),
    ({"Transfer-Encoding": "chunked", "Content-Encoding": "gzip"}, b"2\r\n{}\r\n0\r\n\r\n"),
    ({"Content-Length": "-1"}, b"{}"),
    ({"Content-Type": "application/json; charset=no-such"}, b"\xff\xfe"),
    ({"Content-Type": "application/json; charset=utf-16"}, b"{"),
    ({"Content-Type": "text/plain"}, b"{}"),
    ({"Content-Type": ";;;"}, b"{}"),
    ({}, b""), ({}, b"\x00"), ({}, b"\xff"), ({}, b"[]"), ({}, b"1"), ({}, b"null"), ({}, b"{"), ({}, TOO_DEEP),
    ({}, b'{"a":' * 1500), ({}, b" " * 20_000), ({}, b"9" * 9000), ({}, b'{"id": NaN}'), ({}, b'{"id": 1e999}'),
    ({}, b'{"id": "\\ud800"}'), ({}, b'{"command": "\\ud800", "place": 7}'),
    ({}, b'{"place": 12345678901234567890123456789012}'), ({}, b'{"id": 12345678901234567890123456789012}'),
    ({}, b'{"place": {}}'), ({}, b'{"id": [], "place": []}'), ({}, b'{"ranking": {"a": []}}'),
]  # fmt: skip


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(("headers", "body"), BODIES, ids=map(str, range(len(BODIES))))  # compressed bytes hold the time
def test_whatever_is_posted_is_answered_with_4xx(ask: Any, folder: Any, path: str, headers: dict[str, str], body: bytes) -> None:
    status, _ = ask("POST", path, {**JSON_TYPE, **headers}, body)
    assert 400 <= status < 500


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("path", POSTS)
def test_a_body_that_is_not_encoded_as_it_says_is_named(ask: Any, folder: Any, path: str, encoding: str) -> None:
    status, text = ask("POST", path, {**JSON_TYPE, "Content-Encoding": encoding}, b'{"place": "x"}')
    assert status == 400 and "cannot be read" in json.loads(text)["error"]


def test_a_body_that_is_encoded_as_it_says_is_read(ask: Any, folder: Any) -> None:
    body = gzip.compress(json.dumps({"place": PLACE}).encode())
    assert ask("POST", "/forget", {**JSON_TYPE, "Content-Encoding": "gzip"}, body)[0] == 200
    assert not folder.exists()


@pytest.mark.parametrize("said", [{"place": PLACE}, {"id": ID}])
def test_what_is_forgotten_is_served_no_more(ask: Any, folder: Any, said: dict[str, str]) -> None:
    assert ask("GET", THUMB, {}, b"") == (200, jpeg(PICTURE))
    assert ask("GET", RECIPES, {}, b"") == (200, RECIPE.to_json().encode())
    assert ask("POST", "/forget", JSON_TYPE, json.dumps(said).encode())[0] == 200
    assert [ask("GET", path, {}, b"")[0] for path in (THUMB, RECIPES)] == [404, 404]
    assert ask("POST", "/forget", JSON_TYPE, json.dumps(said).encode())[0] == 404


def test_a_journal_that_cannot_be_deleted_is_said(ask: Any, folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(journals.shutil, "rmtree", refuse)
    status, text = ask("POST", "/forget", JSON_TYPE, json.dumps({"place": PLACE}).encode())
    assert status == 409 and json.loads(text) == {"error": "the journal cannot be deleted: Permission denied"}


LINES = [b"\xff\xfe", b"[]", b"{}", b'{"kind": "run"}', b'{"kind": "run", "name": "%s"}' % NAME.encode(),
         b'{"kind": "run", "name": "%s", "recipe": 7}' % NAME.encode(),
         b'{"kind": "run", "name": "%s", "recipe": {"noise_search": 99}}' % NAME.encode()]  # fmt: skip


@pytest.mark.parametrize("line", LINES)
def test_a_damaged_journal_knows_no_such_candidate(ask: Any, folder: Any, line: bytes) -> None:
    routes.searches.get(ID).recipes.clear()
    (folder / FILE).write_bytes(b"\n".join([line, line, b""]))
    assert ask("GET", RECIPES, {}, b"")[0] == 404


def test_what_stands_in_the_place_of_files_is_no_picture_and_no_recipe(ask: Any, folder: Any) -> None:
    routes.searches.get(ID).forget()
    for path in (folder / THUMBS / f"{NAME}.jpg", folder / FILE):
        path.unlink()
        path.mkdir()
    assert [ask("GET", path, {}, b"")[0] for path in (THUMB, RECIPES)] == [404, 404]


TOUCHES = ("open", "os.listdir", "os.scandir", "os.remove", "os.rmdir", "os.rename", "shutil.rmtree")  # of Python's audit events
_watched: list[list[tuple[str, str]]] = []


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if _watched and event in TOUCHES:
        _watched[-1].append((event, threading.current_thread().name))


def test_no_file_is_touched_in_the_servers_loop(ask: Any, folder: Any) -> None:
    """A journal may be large and a disk slow: other requests, and ComfyUI's own, must not wait for them."""
    sys.addaudithook(_audit)  # which stays, and does nothing afterwards
    routes.searches.get(ID).album.flush()
    routes.searches.get(ID).recipes.clear()
    routes.searches.get(ID).album.end()
    seen: list[tuple[str, str]] = []
    _watched.append(seen)
    try:
        answers = [
            ask("GET", path, {}, b"") for path in (THUMB, RECIPES, f"/searches/{ID}", "/searches?client_id=page", "/questions")
        ]
        answers.append(ask("GET", f"/questions/{ID}/1", {}, b""))
        for path in POSTS:
            answers.append(ask("POST", path, JSON_TYPE, json.dumps({"place": PLACE}).encode()))
    finally:
        _watched.clear()
    assert [status for status, _ in answers] == [200, 200, 200, 200, 200, 404, 400, 200, 400]
    events = {event for event, _ in seen}
    assert {"open", "shutil.rmtree"} <= events
    assert {thread.rsplit("_", 1)[0] for _, thread in seen} <= {"noise-search-pictures", "noise-search-journals"}


def test_a_recipe_is_found_in_a_journal_of_any_size_line_by_line(folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only lines that hold the name are read as JSON."""
    from noise_search.search.journal import reading

    journal = Journal(folder, PLACE)
    for number in range(50):
        journal.add_run(f"{number:032x}", {"what": {}, "calls": 1, "levels": [], "recipe": {"noise": number}})
    journal.close()
    read, usable = [], reading.entries_in
    monkeypatch.setattr(reading, "entries_in", lambda line: (read.append(line), usable(line))[1])
    assert journals.recipe_of(PLACE, NAME) == RECIPE.to_json() and len(read) == 1
