"""A stand-in for a ComfyUI server that counts what it is asked, and answers at once."""

from __future__ import annotations

import io
import json
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

PICTURE = (5, 6, 7)  # the colour of every picture


def report(seed: int, own: float, best: float) -> dict[str, Any]:
    """Return what is read of a search's report."""
    return {
        "seed": str(seed), "baseline": {"index": 0, "score": own, "scores": {"A": own, "B": 1.0}},
        "best": {"index": 3, "score": best, "scores": {"A": best, "B": 2.0}},
        "held_out": {"verifier": "H", "scores": {"0": 10.0, "3": 30.0}},
        "model_calls": 8, "verifier_calls": 4, "seconds": {"total": 0.5},
    }  # fmt: skip


class FakeServer:
    """Prompts with the word "refused" or "broken" end so; every other gives a picture and a report.

    Attributes:
        posted: Workflows that were posted, in order.
    """

    def __init__(self) -> None:
        self.posted: list[dict[str, Any]] = []
        self.unknown: set[str] = set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # noqa: N802
                outer.get(self)

            def do_POST(self) -> None:  # noqa: N802
                outer.post(self)

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()

    def answer(self, handler: Any, body: bytes | dict[str, Any], code: int = 200, **headers: str) -> None:
        """Send an answer."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(code)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)

    def get(self, handler: Any) -> None:
        """Answer a GET."""
        path = urllib.parse.urlsplit(handler.path)
        name = path.path.rpartition("/")[2]
        if path.path.startswith("/object_info/"):
            self.answer(handler, {} if name in self.unknown else {name: {}})
        elif path.path == "/queue":
            self.answer(handler, {"queue_running": [], "queue_pending": []})
        elif path.path.startswith("/history/"):
            self.answer(handler, {name: self.history(self.posted[int(name)])})
        elif path.path == "/view":
            assert urllib.parse.parse_qs(path.query) == {"filename": ["a.png"], "type": ["output"]}
            out = io.BytesIO()
            Image.new("RGB", (4, 2), PICTURE).save(out, "PNG")
            self.answer(handler, out.getvalue())
        else:
            self.answer(handler, b"", 302, Location=self.url + "/queue")

    def post(self, handler: Any) -> None:
        """Answer a POST."""
        workflow = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))["prompt"]
        self.posted.append(workflow)
        if "refused" in workflow["1"]["inputs"]["text"]:
            errors = {"1": {"class_type": "T", "errors": [{"message": "Bad value", "details": "text"}]}}
            self.answer(handler, {"error": {"message": "Prompt failed"}, "node_errors": errors}, 400)
        else:
            self.answer(handler, {"prompt_id": str(len(self.posted) - 1), "node_errors": {}})

    def history(self, workflow: dict[str, Any]) -> dict[str, Any]:
        """Return how a prompt ended."""
        if "broken" in workflow["1"]["inputs"]["text"]:
            message = {"node_id": "2", "node_type": "N", "exception_type": "ValueError", "exception_message": "no\n"}
            return {"status": {"status_str": "error", "messages": [["execution_error", message]]}, "outputs": {}}
        shown = [{"filename": "a.png", "subfolder": "", "type": "output"}] * 2
        outputs: dict[str, Any] = {"3": {"images": shown}}
        if "bench_report_2" in workflow:
            seed = workflow["2"]["inputs"]["seed"]
            outputs["bench_report_2"] = {"text": [json.dumps(report(seed, 1.0, 2.0 + len(self.posted)))]}
        return {"status": {"status_str": "success", "messages": []}, "outputs": outputs}
