"""A real ComfyUI server with this pack in it, and a client that follows it over HTTP and its websocket.

def test_x(server):                                # marker: server
    result = server.run(workflow)                  # API-form workflow; queue, wait, raise on an error
    picture = server.image(result.outputs["9"]["images"][0])
    prompt_id = server.queue(workflow); server.interrupt(); server.wait(prompt_id).status
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from inprocess import ROOT, find_comfyui

FRONTEND = "NOISE_SEARCH_FRONTEND"  # environment variable: a folder with another package comfyui_frontend_package in it
ENDS = {
    "execution_success": "success",
    "execution_error": "error",
    "execution_interrupted": "interrupted",
}


@dataclass(frozen=True)
class Result:
    """How a prompt ended.

    Attributes:
        prompt_id: The prompt.
        status: "success", "error" or "interrupted".
        message: The data of the last event (of an error: node_id, exception_message, ...).
        outputs: What its output nodes showed, by node id.
        events: All its events in order, as (type, data).
    """

    prompt_id: str
    status: str
    message: dict[str, Any]
    outputs: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]


class Refused(RuntimeError):
    """The server did not accept a prompt; carries its answer."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(json.dumps(answer, indent=1))
        self.answer = answer


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def frontend_flags() -> list[str]:
    """Return the flags that have ComfyUI serve the frontend that the environment names; none for its own."""
    folder = os.environ.get(FRONTEND)
    if not folder:
        return []
    root = Path(folder).resolve() / "comfyui_frontend_package" / "static"
    if not (root / "index.html").exists():
        raise RuntimeError(f"{FRONTEND}={folder}: no comfyui_frontend_package in it; `pip install --target` puts one there")
    return ["--front-end-root", str(root)]


def link_packs(base: Path) -> None:
    """Put this pack, the demo's nodes and the stand-in for other packs into the custom nodes of a base directory."""
    packs = {"noise-search": ROOT, "noise-search-demo": ROOT / "demo", "foreign": ROOT / "tests" / "foreign"}
    (base / "custom_nodes").mkdir(parents=True, exist_ok=True)
    for name, folder in packs.items():
        if (folder / "__init__.py").exists() and not (base / "custom_nodes" / name).exists():
            (base / "custom_nodes" / name).symlink_to(folder, target_is_directory=True)


class Server:
    """A server process, and one client of it. Use as a context manager."""

    def __init__(self, timeout: float = 180.0, base: Path | None = None, **environment: str) -> None:
        """Prepare a server, on a base directory of its own unless `base` is given: that one stays."""
        self.timeout, self._environment = timeout, environment
        self.client_id = uuid.uuid4().hex
        self._temp = None if base is not None else tempfile.TemporaryDirectory(prefix="noise-search-server-")
        self.base = base or Path(self._temp.name)
        self.log_path = self.base / "server.log"
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.previews = 0  # binary messages: pictures shown while sampling
        self._changed = threading.Condition()
        self._connected = threading.Event()
        self._broken: str | None = None

    def __enter__(self) -> Server:
        link_packs(self.base)
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, str(find_comfyui() / "main.py"), "--cpu", "--port", str(port)]
        command += ["--base-directory", str(self.base), "--database-url", "sqlite:///:memory:"]
        command += ["--disable-api-nodes", "--disable-auto-launch", "--preview-method", "latent2rgb", *frontend_flags()]
        # One thread, as for the tests in process: two servers on two cores would wait for each other's.
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **self._environment}
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=self.base, env=environment)
        try:
            self._wait_until_up()
            threading.Thread(target=lambda: asyncio.run(self._follow()), daemon=True).start()
            if not self._connected.wait(30):
                raise RuntimeError(f"no websocket to ComfyUI ({self._broken})\n{self.log()}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def kill(self) -> None:
        """End it as a crash does."""
        self.process.kill()
        self.process.wait()

    def __exit__(self, *error: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self._temp is not None:
            self._temp.cleanup()

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + self.timeout
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"ComfyUI ended with {self.process.returncode}\n{self.log()}")
            try:
                self._get("/system_stats")
                return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.25)
        raise RuntimeError(f"ComfyUI did not come up within {self.timeout} s\n{self.log()}")

    async def _follow(self) -> None:
        """Record every event that the server sends to this client, until it goes away."""
        try:
            async with aiohttp.ClientSession() as session:
                where = f"{self.url}/ws?clientId={self.client_id}"
                async with session.ws_connect(where, max_msg_size=0) as channel:
                    self._connected.set()
                    async for message in channel:
                        self._record(message)
        except aiohttp.ClientError as error:
            self._broken = repr(error)

    def _record(self, message: aiohttp.WSMessage) -> None:
        with self._changed:
            if message.type == aiohttp.WSMsgType.TEXT:
                event = json.loads(message.data)
                self.events.append((event["type"], event.get("data") or {}))
            elif message.type == aiohttp.WSMsgType.BINARY:
                self.previews += 1
            self._changed.notify_all()

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=self.timeout) as answer:
            return answer.read()

    def _post(self, path: str, body: Any) -> Any:
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            if error.code != 400:
                raise
            raise Refused(json.loads(error.read())) from None
        return json.loads(text) if text else None

    def log(self) -> str:
        """Everything that the server has printed."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def object_info(self) -> dict[str, Any]:
        """Every node that the server knows."""
        return json.loads(self._get("/object_info"))

    def get(self, path: str) -> bytes:
        """Any GET route, such as "/extensions"."""
        return self._get(path)

    def post(self, path: str, body: Any) -> Any:
        """Any POST route that takes JSON, such as "/settings"."""
        return self._post(path, body)

    def queue(self, workflow: dict[str, Any], pnginfo: dict[str, Any] | None = None) -> str:
        """Queue an API-form workflow and return its prompt id; `Refused` holds the server's reasons.

        `pnginfo` is what saved pictures carry beside the prompt: the page sends the UI form there, as "workflow".
        """
        extra = {} if pnginfo is None else {"extra_data": {"extra_pnginfo": pnginfo}}
        return self._post("/prompt", {"prompt": workflow, "client_id": self.client_id, **extra})["prompt_id"]

    def interrupt(self) -> None:
        """Cancel what is running."""
        self._post("/interrupt", {})

    def history(self, prompt_id: str) -> dict[str, Any]:
        """What the server remembers of a prompt that has ended ({} before)."""
        return json.loads(self._get(f"/history/{prompt_id}")).get(prompt_id, {})

    def image(self, entry: dict[str, str]) -> bytes:
        """The file of one entry of an output's `images`."""
        return self._get("/view?" + urllib.parse.urlencode(entry))

    def wait_for(self, kind: str, prompt_id: str, timeout: float | None = None) -> dict[str, Any]:
        """Wait for the first event of a type ("progress", "executing", ...) of a prompt; return its data."""
        found = self._await(lambda: self._find({kind}, prompt_id), timeout, f"{kind} of {prompt_id}")
        return found[1]

    def wait(self, prompt_id: str, timeout: float | None = None) -> Result:
        """Wait until a prompt has ended, whichever way."""
        kind, message = self._await(lambda: self._find(set(ENDS), prompt_id), timeout, f"end of {prompt_id}")
        deadline = time.monotonic() + 10
        while not (entry := self.history(prompt_id)) and time.monotonic() < deadline:
            time.sleep(0.02)  # the event is sent just before the history is written
        with self._changed:
            events = [event for event in self.events if event[1].get("prompt_id") == prompt_id]
        return Result(prompt_id, ENDS[kind], message, entry.get("outputs", {}), events)

    def run(self, workflow: dict[str, Any], timeout: float | None = None) -> Result:
        """Queue, wait, and raise with the node's traceback unless it succeeded."""
        result = self.wait(self.queue(workflow), timeout)
        if result.status != "success":
            where = "".join(result.message.get("traceback", []))
            raise RuntimeError(f"prompt ended with {result.status}: {result.message}\n{where}")
        return result

    def _find(self, kinds: set[str], prompt_id: str) -> tuple[str, dict[str, Any]] | None:
        mine = (e for e in self.events if e[0] in kinds and e[1].get("prompt_id") == prompt_id)
        return next(mine, None)

    def _await(self, find: Any, timeout: float | None, what: str) -> Any:
        with self._changed:
            if not self._changed.wait_for(lambda: find() is not None, timeout or self.timeout):
                raise TimeoutError(f"no {what} in {timeout or self.timeout} s\n{self.log()[-4000:]}")
            return find()
