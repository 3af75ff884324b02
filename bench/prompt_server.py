"""Run workflows on a ComfyUI that is up, over HTTP: queue, ask until it has ended, fetch the pictures."""

from __future__ import annotations

import http.client
import ipaddress
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable
from typing import Any

POLL = (0.05, 1.0)  # seconds between two questions: first, and at most
TIMEOUT = 3600.0  # seconds for one prompt
FORGOTTEN = 5.0  # seconds after which a prompt that the server knows nothing of is given up


class PromptError(RuntimeError):
    """One prompt could not be run; the run goes on with the next."""


class BackendGone(RuntimeError):
    """No prompt can be run any more; the run ends."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A loopback server has no say in where else prompts go."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def check_host(url: str, allowed: Iterable[str] = ()) -> str:
    """Return the base address of a server that may be used: this machine's, or an allowed host.

    Args:
        url: Such as "http://127.0.0.1:8188".
        allowed: Further host names, as written in the address.

    Raises:
        ValueError: For another host, or another scheme than http and https.
    """
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError(f"--server {url!r}: expected an address such as http://127.0.0.1:8188")
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if not loopback and host not in set(allowed):
        raise ValueError(f"--server {url!r} is not on this machine: allow it with --allow-host {host}")
    return url.rstrip("/")


class ServerBackend:
    """A ComfyUI server.

    Attributes:
        url: Its address.
        timeout: Seconds after which one prompt is cancelled and counts as failed.
    """

    def __init__(self, url: str, timeout: float = TIMEOUT, allowed: Iterable[str] = ()) -> None:
        """Check the address; nothing is sent.

        Raises:
            ValueError: As `check_host`.
        """
        self.url, self.timeout = check_host(url, allowed), timeout
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())

    def unknown(self, types: Iterable[str]) -> list[str]:
        """Return which node types the server does not have.

        Raises:
            BackendGone: If it does not answer.
        """
        return [t for t in types if t not in json.loads(self._get("/object_info/" + urllib.parse.quote(t, safe="")))]

    def run(self, workflow: dict[str, Any]) -> dict[str, Any]:
        """Run a workflow; return what its output nodes showed, by node id.

        Raises:
            PromptError: If it was refused, failed, was interrupted, or took too long.
            BackendGone: If the server does not answer.
        """
        answer = self._post("/prompt", {"prompt": workflow})
        prompt_id = answer["prompt_id"]
        if answer.get("node_errors"):  # it runs the rest, without the pictures or the report
            self._cancel(prompt_id)
            raise PromptError(refusal(answer))
        try:
            entry = self._wait(prompt_id)
        except KeyboardInterrupt:
            self._cancel(prompt_id)
            raise
        status = entry.get("status") or {}
        if status.get("status_str") != "success":
            raise PromptError(failure(status.get("messages") or []))
        return entry.get("outputs") or {}

    def picture(self, entry: dict[str, str]) -> bytes:
        """Return the file of one entry of an output's `images`."""
        keys = ("filename", "subfolder", "type")
        return self._get("/view?" + urllib.parse.urlencode({key: entry.get(key, "") for key in keys}))

    def _wait(self, prompt_id: str) -> dict[str, Any]:
        started = known = time.monotonic()
        pause = POLL[0]
        while True:
            queue = self._queued(prompt_id)  # before the history: it leaves the one as it enters the other
            entry = json.loads(self._get(f"/history/{prompt_id}")).get(prompt_id)
            if entry:
                return entry
            now = time.monotonic()
            known = now if queue else known
            if now - known > FORGOTTEN:
                raise PromptError("the server no longer knows the prompt: was its queue or history cleared?")
            if now - started > self.timeout:
                self._cancel(prompt_id)
                raise PromptError(f"not ended after {self.timeout:g} s (--timeout): cancelled")
            time.sleep(pause)
            pause = min(POLL[1], 1.5 * pause)

    def _queued(self, prompt_id: str) -> bool:
        queue = json.loads(self._get("/queue"))
        return any(item[1] == prompt_id for kind in ("queue_running", "queue_pending") for item in queue[kind])

    def _cancel(self, prompt_id: str) -> None:
        self._post("/queue", {"delete": [prompt_id]})
        self._post("/interrupt", {"prompt_id": prompt_id})

    def _get(self, path: str) -> bytes:
        return self._open(urllib.request.Request(self.url + path))

    def _post(self, path: str, body: Any) -> Any:
        text = self._open(
            urllib.request.Request(self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        )
        return json.loads(text) if text else None

    def _open(self, request: urllib.request.Request) -> bytes:
        try:
            with self._opener.open(request, timeout=60) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            if error.code == 400 and request.full_url == f"{self.url}/prompt":
                raise PromptError(refusal(json.loads(text))) from None
            raise PromptError(f"{request.full_url} answered {error.code} {error.reason}: {text[:500]}") from None
        except (OSError, http.client.HTTPException) as error:
            raise BackendGone(f"{self.url} does not answer: {error}") from error


def refusal(answer: dict[str, Any]) -> str:
    """Return in words why ComfyUI did not accept a workflow."""
    error = answer.get("error") or {}
    said = [error["message"]] if isinstance(error, dict) and error.get("message") else []
    for node_id, node in (answer.get("node_errors") or {}).items():
        said += [f"node {node_id} ({node.get('class_type')}): {e['message']}: {e.get('details', '')}" for e in node["errors"]]
    return "refused: " + ("; ".join(said) or str(answer))


def failure(messages: list[Any]) -> str:
    """Return in words how a prompt failed, from the messages of its execution."""
    for kind, data in reversed(messages):
        if kind == "execution_error":
            what = f"{data['exception_type']}: {data['exception_message'].strip()}"
            return f"node {data['node_id']} ({data['node_type']}): {what}"
        if kind == "execution_interrupted":
            return "interrupted"
    return "failed, and ComfyUI did not say why"
