"""A chat-completions server on this machine, as the protocol is documented, that notes what it got and can misbehave.

with ChatServer() as server:
    client = Client(endpoint_of(server.url), lambda: Access("settings"))
    server.script = [status(429, retry_after="7"), status(500)]     # for the next two requests; then it answers well
    ... server.seen[0].headers["Authorization"] ...
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
from PIL import Image

Act = Callable[[BaseHTTPRequestHandler, Any], None]


@dataclass
class Seen:
    """A request: its path, headers and parsed body."""

    path: str
    headers: Any
    body: dict[str, Any]

    @property
    def text(self) -> str:
        return next(part["text"] for part in self.body["messages"][0]["content"] if part["type"] == "text")

    @property
    def images(self) -> list[torch.Tensor]:
        """The pictures (H, W, 3), 0 to 255, decoded from their data URLs."""
        urls = [part["image_url"]["url"] for part in self.body["messages"][0]["content"] if part["type"] == "image_url"]
        return [decoded(url) for url in urls]


def decoded(url: str) -> torch.Tensor:
    """Decode a data URL of a PNG: (H, W, 3), 0 to 255."""
    head, data = url.split(",", 1)
    assert head == "data:image/png;base64"
    picture = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
    assert picture.format == "PNG" and picture.mode == "RGB" and picture.info == {}
    return torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(picture.height, picture.width, 3)


def brightness(image: torch.Tensor) -> float:
    """Mean of a picture, 0 to 1, as the server judges it."""
    return image.double().mean().item() / 255


def judged(seen: Seen) -> dict[str, Any]:
    """Answer as a model would that likes bright pictures, with the fields that the question names."""
    light = [brightness(image) for image in seen.images]
    keys = seen.text.rsplit("with the keys ", 1)[-1]
    if '{"elements"' in seen.text:
        return {"elements": ["a red circle", "a  blue square", "left of", "on grey"]}
    if "better" in keys:
        better = "tie" if light[0] == light[1] else "first" if light[0] > light[1] else "second"
        return {"observations": "one is brighter", "better": better}
    if "element_1" in keys:
        names = [word.strip(",") for word in keys.split() if word.startswith("element_")]
        return {name: "yes" if light[0] > k / len(names) else "no" for k, name in enumerate(names)}
    aspects = ["accuracy_to_prompt", "originality", "visual_quality", "internal_consistency", "emotional_resonance"]
    assert all(name in keys for name in aspects)
    return {"observations": "bright", **dict.fromkeys(aspects, 10 * light[0])}


def completion(content: Any, finish: str = "stop") -> bytes:
    """Return the body of an answer."""
    text = content if isinstance(content, str) else json.dumps(content)
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return json.dumps({"id": "1", "object": "chat.completion", "model": "m", "choices": [choice]}).encode()


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def status(code: int, body: str | bytes = "{}", **headers: str) -> Act:
    """Answer with a status."""
    raw = body.encode() if isinstance(body, str) else body
    return lambda handler, seen: send(handler, code, raw, **headers)


def says(content: Any, finish: str = "stop") -> Act:
    """Answer well-formed, with other content."""
    return lambda handler, seen: send(handler, 200, completion(content, finish))


def echoes_key(code: int) -> Act:
    """Answer with what was sent as the key."""
    return lambda handler, seen: send(handler, code, str(seen.headers["Authorization"]).encode())


def hang_up(handler: BaseHTTPRequestHandler, seen: Seen) -> None:
    """Close without a word."""


def huge(handler: BaseHTTPRequestHandler, seen: Seen) -> None:
    """Answer with 3 MB, in chunks, or as much as is taken."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for _ in range(48):
        handler.wfile.write(b"10000\r\n" + b" " * 65536 + b"\r\n")
    handler.wfile.write(b"0\r\n\r\n")


@dataclass
class ChatServer:
    """The server; a context manager.

    Attributes:
        seen: Requests so far.
        script: What to do with the next requests, in order; with none left, it answers well.
        answer: What a well-behaved answer says.
        ended: Set when the server ends: who waits for it hangs until then.
    """

    answer: Callable[[Seen], Any] = judged
    tls: Any = None
    seen: list[Seen] = field(default_factory=list)
    script: list[Act] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> ChatServer:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                seen = Seen(self.path, self.headers, body)
                outer.seen.append(seen)
                act = outer.script.pop(0) if outer.script else says(outer.answer(seen))
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the other side had enough
                    act(self, seen)

            def log_message(self, *args: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass

        self._server = Quiet(("127.0.0.1", 0), Handler)
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *args: Any) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}/v1"

    def hangs(self, clock: Clock, seconds: float, *, drip: bool = False) -> Act:
        """Return an act: time passes, and no complete answer comes; with `drip`, a byte of it now and then."""

        def act(handler: BaseHTTPRequestHandler, seen: Seen) -> None:
            if drip:
                handler.send_response(200)
                handler.send_header("Content-Length", "100000")
                handler.end_headers()
            for _ in range(10):
                if drip:
                    handler.wfile.write(b" ")
                    handler.wfile.flush()
                clock.now += seconds / 10
            self.ended.wait(20)

        return act


@dataclass
class Clock:
    """A clock that moves only when somebody sleeps by it, or by hand; `slept` lists how long."""

    now: float = 0.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
