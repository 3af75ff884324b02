"""States of searches as the server sends them, and a stand-in for its routes in a page.

fake = FakeSearches(page.page)          # answers /noise_search/...; before anything asks
fake.update(state(candidates=[row(0, 0.1)]))
fake.posted                             # what the page sent: [(path, body), ...]
"""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import unquote, urlsplit

PICTURE = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="160" height="160"><rect width="160" height="160" fill="hsl({hue} 45% 78%)"/>'
    '<circle cx="{x}" cy="92" r="34" fill="hsl({hue2} 75% 45%)"/>'
    '<rect x="{x2}" y="44" width="58" height="58" fill="hsl({hue3} 70% 52%)"/></svg>'
)


def row(i: int, score: float | None = None, status: str | None = None, **more: Any) -> dict[str, Any]:
    """Return one candidate; by default finished if it has a score and waiting if not."""
    status = status or ("waiting" if score is None else "finished")
    thumb = None if status in ("waiting", "running") else f"t{i}"
    known = {"i": i, "parent": None, "state": status, "score": score, "scores": [], "calls": 16, "thumb": thumb, "look": None}
    return known | more


def state(**changes: Any) -> dict[str, Any]:
    """Return a whole state of a search on node 1 that is running, with four candidates."""
    known = {
        "version": 1, "id": "abc", "rev": 1, "node": "1", "workflow": None, "prompt_id": "p1", "place": "f00d",
        "phase": "running", "row": 0, "rows": 1, "words": "random search: new noises", "method": "random search",
        "verifier": "clip score", "parts": ["clip score"], "calls": 64, "cap": 256, "restored": 0, "seconds": 12.3,
        "left": 36.9, "stopped": "", "best": 2, "chosen": None, "baseline": 0.12, "budget": 16,
        "curve": [[16, 0.12], [32, 0.2], [48, 0.35]],
        "candidates": [row(0, 0.12), row(1, 0.2), row(2, 0.35), row(3, status="running")], "question": None, "number": 1,
    }  # fmt: skip
    return known | {"search": changes.get("node", "1")} | changes


def event(curve_from: int = 0, **changes: Any) -> dict[str, Any]:
    """Return a live event: a state with only the changed candidates, and the curve from one point on."""
    return state(**changes) | {"curve_from": curve_from}


def workflow(*nodes: tuple[int, str]) -> dict[str, Any]:
    """Return a UI-form workflow of unconnected nodes (id, type), side by side."""
    placed = [
        {"id": i, "type": kind, "pos": [80 + 620 * n, 60], "size": [520, 800], "order": n, "mode": 0, "properties": {}}
        for n, (i, kind) in enumerate(nodes)
    ]
    return {"last_node_id": 99, "last_link_id": 0, "nodes": placed, "links": [], "groups": [], "version": 0.4}


class FakeSearches:
    """Answers the pack's routes in a page, from what a test put in.

    Attributes:
        searches: what the list of searches and each search's own route give.
        recipes: text of a recipe, by name.
        history: the server's history, by prompt id.
        running: what the server's queue says of the prompt that runs.
        refuse: if set, every command is refused with these words.
        posted: (path, body) of every POST, prompts ("/prompt") included.
    """

    def __init__(self, page: Any) -> None:
        self.page = page
        self.searches: list[dict[str, Any]] = []
        self.recipes: dict[str, str] = {}
        self.history: dict[str, Any] = {}
        self.running: list[Any] = []
        self.refuse = ""
        self.posted: list[tuple[str, Any]] = []
        page.route(re.compile(r"/noise_search/"), self._answer)
        page.route(re.compile(r"/api/history/"), lambda route: route.fulfill(json=self.history))
        queue = lambda: {"queue_running": self.running, "queue_pending": []}  # noqa: E731
        page.route(re.compile(r"/api/queue$"), lambda route: route.fulfill(json=queue()))
        page.route(re.compile(r"/api/prompt$"), self._queue)

    def send(self, detail: dict[str, Any], kind: str = "noise_search.update") -> None:
        """Let an event of the server arrive in the page."""
        self.page.evaluate("([kind, detail]) => app.api.dispatchEvent(new CustomEvent(kind, { detail }))", [kind, detail])

    def update(self, detail: dict[str, Any]) -> None:
        """Let a live event arrive, and wait until a dashboard has drawn it."""
        self.send(detail)
        self.drawn(detail)

    def drawn(self, known: dict[str, Any]) -> None:
        """Wait until a dashboard has drawn a state."""
        drawn = f'.ns-dashboard[data-id="{known["id"]}"][data-rev="{known["rev"]}"][data-phase="{known["phase"]}"]'
        self.page.wait_for_selector(drawn, state="attached", timeout=10_000)

    def after(self, count: int) -> list[tuple[str, Any]]:
        """Return what the page has sent, once there are `count` of them."""
        for _ in range(100):
            if len(self.posted) >= count:
                return self.posted
            self.page.wait_for_timeout(50)
        raise TimeoutError(f"only {self.posted} was sent, not {count} of them")

    def _queue(self, route: Any) -> None:
        if route.request.method != "POST":
            return route.continue_()
        self.posted.append(("/prompt", route.request.post_data_json))
        route.fulfill(json={"prompt_id": "p2", "number": 1, "node_errors": {}})

    def _answer(self, route: Any) -> None:
        path = unquote(urlsplit(route.request.url).path).split("/noise_search", 1)[1]
        if route.request.method == "POST":
            self.posted.append((path, route.request.post_data_json))
            refused = {"status": 409, "json": {"error": self.refuse}}
            return route.fulfill(**refused) if self.refuse else route.fulfill(json={"ok": True})
        kind, *rest = path.strip("/").split("/")
        if kind in ("thumbs", "questions"):
            return route.fulfill(body=_picture(rest[1]), content_type="image/svg+xml")
        if kind == "recipes":
            return route.fulfill(body=self.recipes[rest[1]], content_type="application/json")
        if kind == "searches" and not rest:
            return route.fulfill(body=json.dumps(self.searches), content_type="application/json")
        found = next((s for s in self.searches if s["id"] == rest[0]), None)
        route.fulfill(json=found) if found else route.fulfill(status=404, json={"error": f"no search {rest[0]}"})


def _picture(name: str) -> str:
    n = int(re.sub(r"\D", "", name) or 0)
    return PICTURE.format(hue=n * 47 % 360, hue2=n * 83 % 360, hue3=n * 131 % 360, x=40 + n * 17 % 80, x2=20 + n * 29 % 80)
