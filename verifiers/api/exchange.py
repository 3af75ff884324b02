"""One HTTP request that ends in time: a POST in a thread of its own, watched by the thread that wants the answer.

Name look-up, connection, encryption and a body that drips in byte by byte can each hold a thread up for longer than any
socket timeout says. So the asking thread only watches the clock and the user's cancel, and cuts the connection when
either says so. Redirects are not followed, proxies of the environment not used, bodies beyond a limit not read.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from .access import ENDPOINT, Endpoint
from .hosts import is_own

MAX_BYTES = 2**20  # of an answer
POLL = 0.05  # seconds between two looks at clock and cancel


@dataclass(frozen=True)
class Reply:
    """What a server answered: status, two headers ("" where missing), and the whole body."""

    status: int
    retry_after: str
    location: str
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")


@dataclass(frozen=True)
class Failure:
    """Why there is no answer, in words, and whether it may be otherwise next time."""

    why: str
    passing: bool


class NotOwn(Exception):
    """What was connected to without encryption lies outside of the user's network."""


class Exchange:
    """A POST on its way."""

    def __init__(self, endpoint: Endpoint, key: str, body: bytes, seconds: float) -> None:
        """Prepare it; `seconds` is how long its thread may outlive a cut that finds no connection yet."""
        self._endpoint, self._key, self._body, self._seconds = endpoint, key, body, seconds
        self._socket: socket.socket | None = None
        self._cut = False
        self._outcome: Reply | Failure = Failure("its thread ended without an outcome", False)
        self._done = threading.Event()

    def run(self, check: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> Reply | Failure:
        """Send it and wait for the outcome.

        Args:
            check: Raises if the user cancelled.
            clock: Seconds.
        """
        ends = clock() + self._seconds
        threading.Thread(target=self._work, name="noise-search-request", daemon=True).start()
        try:
            while not self._done.wait(POLL):
                check()
                if clock() >= ends:
                    return Failure(f"no complete answer within {self._seconds:g} s", True)
        finally:
            self._cut_off()
        check()
        return self._outcome

    def _cut_off(self) -> None:
        """End the connection; a thread that waits on it wakes up."""
        self._cut = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def _work(self) -> None:
        try:
            self._outcome = self._talk()
        except ssl.SSLError as error:
            self._outcome = Failure(f"no encrypted connection: {error}", isinstance(error, ssl.SSLEOFError))
        except NotOwn as error:
            self._outcome = Failure(str(error), False)
        except (ConnectionRefusedError, socket.gaierror) as error:
            self._outcome = Failure(f"{error}; is the server running, and the address right?", False)
        except (OSError, http.client.HTTPException) as error:
            self._outcome = Failure(f"{type(error).__name__}: {error}", True)
        except Exception as error:  # a bug of ours is not to hang the one who waits
            self._outcome = Failure(f"{type(error).__name__}: {error}", False)
        finally:
            if self._socket is not None:
                self._socket.close()
            self._done.set()

    def _talk(self) -> Reply | Failure:
        connection = self._connected()
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "noise-search",
                   "Connection": "close"}  # fmt: skip
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may have answered before it had heard all
            connection.request("POST", f"{self._endpoint.path}{ENDPOINT}", self._body, headers)
        response = connection.getresponse()
        body = response.read(MAX_BYTES + 1)
        if len(body) > MAX_BYTES:
            return Failure(f"an answer of more than {MAX_BYTES} bytes", False)
        if response.length:
            return Failure(f"an answer cut off {response.length} bytes before its end", True)
        return Reply(response.status, response.headers.get("Retry-After", ""), response.headers.get("Location", ""), body)

    def _connected(self) -> http.client.HTTPConnection:
        host, port, encrypted = self._endpoint.host, self._endpoint.port, self._endpoint.scheme == "https"
        sock = _connect(self._endpoint, self._seconds)
        self._hold(sock)
        if not encrypted and not is_own(sock.getpeername()[0]):  # a name leads where its resolver says
            raise NotOwn(f"{host} is not on your own network, and was sent nothing: such machines are asked over https only")
        connection = http.client.HTTPConnection(host, port)
        if encrypted:
            sock = secured = tls().wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
            self._hold(secured)
            secured.do_handshake()
            connection = http.client.HTTPSConnection(host, port, context=tls())
        connection.sock = sock  # so that it neither looks up nor connects by itself
        return connection

    def _hold(self, sock: socket.socket) -> None:
        self._socket = sock
        if self._cut:
            raise ConnectionAbortedError("it was given up while it connected")


def _connect(endpoint: Endpoint, seconds: float) -> socket.socket:
    """Connect to the first target that answers; if none does, the first one's error is the one that tells most."""
    errors = []
    for target in endpoint.targets:
        try:
            return socket.create_connection((target, endpoint.port), seconds)
        except OSError as error:
            errors.append(error)
    raise errors[0]


@functools.cache
def tls() -> ssl.SSLContext:
    """Return the rules of encryption: certificates and host names are verified."""
    return ssl.create_default_context()
