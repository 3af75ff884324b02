"""What a page does over HTTP to follow searches of a server: hear their events, ask for states, send commands.

state = wait_until(server, prompt_id, lambda state: state["phase"] == "ended")
status, headers, answer = ask(server, f"/searches/{state['id']}")
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from noise_search.search.reporting.snapshot import merged

ROOT = "/noise_search"


def live_events(server: Any, prompt_id: str) -> list[dict[str, Any]]:
    return [data for kind, data in list(server.events) if kind == "noise_search.update" and data["prompt_id"] == prompt_id]


def known(server: Any, prompt_id: str, node_id: str = "search") -> dict[str, Any]:
    """What a page that saw all events so far knows of a node's search."""
    state: dict[str, Any] = {}
    for event in live_events(server, prompt_id):
        if event["node"] == node_id:
            state = merged(state, event)
    return state


def wait_until(server: Any, prompt_id: str, is_it: Callable[[dict[str, Any]], Any], node_id: str = "search") -> dict[str, Any]:
    """Wait for a state; return it."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        if (state := known(server, prompt_id, node_id)) and is_it(state):
            return state
        time.sleep(0.02)
    raise AssertionError(f"no such state: {json.dumps(known(server, prompt_id))[:2000]}\n{server.log()[-3000:]}")


def ask(server: Any, path: str, body: Any = None, *, prefix: str = ROOT, kind: str = "application/json") -> tuple[int, Any, Any]:
    """Return status, headers and answer (JSON parsed) of a route; POST if there is a body (bytes as they are)."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.url + prefix + path, data, {"Content-Type": kind} if data is not None else {})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            status, headers, text = answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        status, headers, text = error.code, error.headers, error.read()
    return status, headers, json.loads(text) if headers.get_content_type() == "application/json" else text


def tell(server: Any, state: dict[str, Any], command: str, **more: Any) -> tuple[int, Any]:
    status, _, answer = ask(server, f"/searches/{state['id']}/commands", {"command": command, **more})
    return status, answer


def searches_of(server: Any, client: str) -> list[dict[str, Any]]:
    return ask(server, f"/searches?client_id={client}")[2]
