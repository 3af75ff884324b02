"""Requests to an endpoint: what is sent, what is tried again, what is given up, and what is never told."""

from __future__ import annotations

import email.utils
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chatserver import ChatServer, Clock, echoes_key, hang_up, huge, says, send, status

from noise_search.verifiers.api import exchange
from noise_search.verifiers.api.access import Access, endpoint_of
from noise_search.verifiers.api.client import Client, Dialect
from noise_search.verifiers.api.replies import WrongAnswer

KEY = "sk-proj-0123456789abcdefSECRET"
MESSAGES = [{"role": "user", "content": [{"type": "text", "text": "Answer with the keys observations, better"}]}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(answer=lambda seen: {"a": "fine"}) as running:
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock()


def client_of(server: ChatServer, clock: Clock, keys: dict[str, str] | None = None, **more: Any) -> Client:
    access = Access("the/file", keys={server.address: KEY} if keys is None else keys)
    options = {"timeout": 30.0, "clock": clock, "sleep": clock.sleep, "jitter": lambda: 0.0, **more}
    return Client(endpoint_of(server.url), lambda: access, **options)


def complete(client: Client) -> str:
    return client.complete("tiny-vlm", MESSAGES, SCHEMA, 77)


def test_the_request_is_as_the_protocol_says(server: ChatServer, clock: Clock) -> None:
    assert json.loads(complete(client_of(server, clock))) == {"a": "fine"}
    (seen,) = server.seen
    assert seen.path == "/v1/chat/completions"
    assert seen.headers["Authorization"] == f"Bearer {KEY}"
    assert seen.headers["Host"] == server.address
    assert seen.headers["Content-Type"] == "application/json"
    assert seen.headers["Accept-Encoding"] == "identity"
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": SCHEMA}}
    assert seen.body == {
        "model": "tiny-vlm", "messages": MESSAGES, "max_tokens": 77, "stream": False, "temperature": 0, "response_format": wanted,
    }  # fmt: skip


def test_without_a_key_none_is_sent(server: ChatServer, clock: Clock) -> None:
    complete(client_of(server, clock, keys={"127.0.0.1:1": KEY, "localhost:11434": KEY}))
    assert "Authorization" not in server.seen[0].headers
    assert KEY not in str(server.seen[0].headers) + json.dumps(server.seen[0].body)


def test_proxies_of_the_environment_are_not_used(server: ChatServer, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    complete(client_of(server, clock))
    assert len(server.seen) == 1


REFUSALS = {
    "'response_format.type' must be 'json_object' or 'text'": ["json_schema", "json_object"],
    "unknown field: response_format": ["json_schema", "json_object", "text"],
}


@pytest.mark.parametrize(("complaint", "formats"), REFUSALS.items())
@pytest.mark.parametrize("code", [400, 404, 422, 500])
def test_a_milder_format_where_the_server_wants_one(
    server: ChatServer, clock: Clock, complaint: str, formats: list[str], code: int
) -> None:
    server.script = [status(code, json.dumps({"error": complaint}))] * (len(formats) - 1)
    client = client_of(server, clock)
    complete(client)
    assert [seen.body.get("response_format", {"type": "text"})["type"] for seen in server.seen] == formats
    complete(client)  # and it is remembered
    assert len(server.seen) == len(formats) + 1
    assert server.seen[-1].body == server.seen[-2].body
    assert client.requests == len(server.seen)  # refused ones count too
    assert clock.slept == []


def test_no_endpoint_for_the_parameters_is_a_refusal_of_the_format(server: ChatServer, clock: Clock) -> None:
    said = {"error": {"message": "No endpoints found that can handle the requested parameters.", "code": 404}}
    server.script = [status(404, json.dumps(said)), status(200, json.dumps(said))]
    complete(client_of(server, clock))
    assert [seen.body.get("response_format", {"type": "text"})["type"] for seen in server.seen] == [
        "json_schema", "json_object", "text"
    ]  # fmt: skip
    assert clock.slept == []


SPENT = json.dumps({"error": {"message": "You exceeded your current quota, please check it", "code": "insufficient_quota"}})
BLIND = "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj"


@pytest.mark.parametrize(("code", "body", "says"), [
    (429, SPENT, "status 429: .*exceeded your current quota"), (500, BLIND, "Input 'model' has to be a model that sees pictures"),
    (503, BLIND, "sees pictures"), (404, "No endpoints found that support image input", "sees pictures"),
    (400, "tiny-vlm is not a multimodal model", "sees pictures"), (429, "Your credit balance is too low", "credit balance"),
])  # fmt: skip
def test_what_will_not_pass_is_not_tried_again(server: ChatServer, clock: Clock, code: int, body: str, says: str) -> None:
    server.script = [status(code, body)] * 9
    with pytest.raises(ValueError, match=says):
        complete(client_of(server, clock))
    assert (len(server.seen), clock.slept) == (1, [])


@pytest.mark.parametrize(("body", "headers"), [
    (SPENT, {"Retry_After": "5"}), ("You exceeded your current quota. Please retry in 32.1s.", {}),
    ("Rate limit reached. Please try again in 20s. Add a payment method to raise it.", {}), ("too many requests", {}),
])  # fmt: skip
def test_a_quota_that_fills_again_is_waited_for(server: ChatServer, clock: Clock, body: str, headers: dict[str, str]) -> None:
    server.script = [status(429, body, **headers)]
    assert complete(client_of(server, clock))
    assert len(server.seen) == 2 and clock.now == pytest.approx(5 if headers else 1)


@pytest.mark.parametrize(("answer", "says"), [
    ({"error": "no such model"}, "status 200 with an error: .*no such model"),
    ({"error": {"message": "bad", "code": 402}}, "status 402: .*bad"),
    ({"error": {"code": True}, "choices": []}, "with an error"),
    ({"error": {"message": "key", "code": 401}}, "it refuses the key sent"),
    ({"choices": [{"finish_reason": "error", "error": {"message": "upstream", "code": 400}}]}, "status 400: .*upstream"),
])  # fmt: skip
def test_an_error_with_status_200_is_an_error(server: ChatServer, clock: Clock, answer: Any, says: str) -> None:
    server.script = [status(200, json.dumps(answer))] * 9
    with pytest.raises(ValueError, match=says):
        complete(client_of(server, clock))
    assert len(server.seen) == 1


def test_an_error_with_status_200_that_passes_is_tried_again(server: ChatServer, clock: Clock) -> None:
    server.script = [status(200, json.dumps({"error": {"code": 502}})), status(200, json.dumps({"error": {"code": 429}}))]
    assert complete(client_of(server, clock))
    assert len(server.seen) == 3


def test_no_error_at_all_is_none(server: ChatServer, clock: Clock) -> None:
    server.script = [status(200, json.dumps({"choices": [{"message": {"content": "ok"}, "error": None}], "error": None}))]
    assert complete(client_of(server, clock)) == "ok"


@pytest.mark.parametrize(("seconds", "attempts"), [(30, 7), (8, 5), (120, 19)])
def test_a_model_that_loads_is_waited_for_as_long_as_timeout_says(
    server: ChatServer, clock: Clock, seconds: float, attempts: int
) -> None:
    """Pauses of 1, 2, 4, 8, 8, ... seconds, and a last look when the time is over."""
    server.script = [status(503, '{"error": {"message": "Loading model"}}')] * 99
    with pytest.raises(
        ValueError, match=f"Loading model.* Gave up after {seconds} s, since input 'timeout' is {seconds}: raise it"
    ):
        complete(client_of(server, clock, timeout=float(seconds)))
    assert clock.now == pytest.approx(seconds)
    assert len(server.seen) == attempts
    server.script = [status(503)] * (attempts - 1)
    assert complete(client_of(server, clock, timeout=float(seconds)))


def test_a_model_that_asks_for_longer_is_given_up_at_once(server: ChatServer, clock: Clock) -> None:
    server.script = [status(503, Retry_After="20"), status(503, "loading", Retry_After="20")]
    with pytest.raises(ValueError, match="Gave up after 20 s, .* is 30, and it asks for 20 s more"):
        complete(client_of(server, clock))
    assert len(server.seen) == 2


def test_other_names_of_other_models(server: ChatServer, clock: Clock) -> None:
    too_many = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    server.script = [
        status(400, json.dumps({"error": {"message": too_many}})),
        status(400, "Unsupported value: 'temperature' does not support 0 with this model."),
    ]
    complete(client_of(server, clock))
    last = server.seen[-1].body
    assert last["max_completion_tokens"] == 77
    assert "max_tokens" not in last and "temperature" not in last
    assert last["response_format"]["type"] == "json_schema"


def test_a_dialect_ends() -> None:
    dialect, steps = Dialect(), 0
    while (milder := dialect.milder("max_completion_tokens temperature response_format")) is not None:
        dialect, steps = milder, steps + 1
    assert (steps, dialect) == (4, Dialect("text", "max_completion_tokens", False))
    assert Dialect().milder("no such model") is None


@pytest.mark.parametrize(
    ("code", "says"),
    [(400, "status 400: no such thing"), (402, "status 402"), (404, "Inputs 'base_url' .* and 'model'"), (413, "status 413")],
)
def test_refusals_are_told_at_once(server: ChatServer, clock: Clock, code: int, says: str) -> None:
    server.script = [status(code, "no such thing")]
    with pytest.raises(ValueError, match=f"^API judge: {server.address}: .*{says}"):
        complete(client_of(server, clock))
    assert (len(server.seen), clock.slept) == (1, [])


def cut_off(handler: Any, seen: Any) -> None:
    """Send whole JSON, and yet less than is announced."""
    handler.send_response(200)
    handler.send_header("Content-Length", "5000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [{"message": {"content": "{}"}}]}')


@pytest.mark.parametrize("act", [status(500), status(503, "loading"), status(408), hang_up, cut_off])
def test_what_passes_is_tried_again(server: ChatServer, clock: Clock, act: Callable) -> None:
    server.script = [act]
    client = client_of(server, clock)
    assert json.loads(complete(client)) == {"a": "fine"}
    assert len(server.seen) == client.requests == 2
    assert sum(clock.slept) == pytest.approx(1)


def test_pauses_double_and_attempts_end(server: ChatServer, clock: Clock) -> None:
    server.script = [status(500, "still broken")] * 9
    with pytest.raises(ValueError, match="status 500: still broken. Gave up after 4 attempts"):
        complete(client_of(server, clock))
    assert len(server.seen) == 4
    assert clock.now == pytest.approx(1 + 2 + 4)
    assert max(clock.slept) <= 0.1  # so that a cancel is noticed


def test_pauses_are_spread(server: ChatServer, clock: Clock) -> None:
    server.script = [status(500)]
    complete(client_of(server, clock, jitter=lambda: 0.75))
    assert clock.now == pytest.approx(1.75)


def test_retry_after_in_seconds(server: ChatServer, clock: Clock) -> None:
    server.script = [status(429, "slow down", Retry_After="17")]
    complete(client_of(server, clock))
    assert clock.now == pytest.approx(17)


def test_retry_after_as_a_date(server: ChatServer, clock: Clock) -> None:
    when = email.utils.formatdate(time.time() + 40, usegmt=True)
    server.script = [status(429, Retry_After=when), status(429, Retry_After="Mon, 01 Jan 2001 00:00:00 GMT")]
    complete(client_of(server, clock))
    assert 30 < clock.now <= 40 + 2.1


@pytest.mark.parametrize("header", ["soon", "-5", "1e9", "inf", "٣"])
def test_retry_after_that_says_nothing(server: ChatServer, clock: Clock, header: str) -> None:
    raw = header.encode("utf-8").decode("latin-1")
    server.script = [status(429, Retry_After=raw)]
    complete(client_of(server, clock))
    assert clock.now == pytest.approx(1)


def test_no_longer_than_three_timeouts(server: ChatServer, clock: Clock) -> None:
    server.script = [status(429, "quota", Retry_After="3600")]
    with pytest.raises(ValueError, match="429: quota. Gave up after 1 attempts: the next one, in 3600 s, would"):
        complete(client_of(server, clock))
    assert clock.slept == []


@pytest.mark.parametrize("drip", [False, True])
def test_an_answer_must_be_complete_in_time(server: ChatServer, clock: Clock, drip: bool) -> None:
    server.script = [server.hangs(clock, 30, drip=drip)]
    client = client_of(server, clock)
    assert complete(client)  # the second attempt's
    assert len(server.seen) == client.requests == 2


def test_a_server_that_never_answers(server: ChatServer, clock: Clock) -> None:
    server.script = [server.hangs(clock, 31)] * 9
    with pytest.raises(ValueError, match="no complete answer within 25 s. Gave up after 3 attempts"):  # 90 - 2 * 31 - 1 - 2
        complete(client_of(server, clock))
    assert len(server.seen) == 3


def test_an_answer_beyond_the_limit_is_not_read(server: ChatServer, clock: Clock) -> None:
    server.script = [huge]
    with pytest.raises(ValueError, match="an answer of more than 1048576 bytes"):
        complete(client_of(server, clock))
    assert len(server.seen) == 1


def test_an_answer_at_the_limit_is_read(server: ChatServer, clock: Clock) -> None:
    body = json.dumps({"choices": [{"message": {"content": "ok"}}]}).encode()
    server.script = [status(200, body.ljust(exchange.MAX_BYTES))]
    assert complete(client_of(server, clock)) == "ok"


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    client = Client(endpoint_of(f"http://localhost:{port}/v1"), lambda: Access("the/file"))
    with pytest.raises(ValueError, match=f"localhost:{port}: .*refused; is the server running"):
        complete(client)
    assert client.requests == 1


def test_localhost_goes_to_this_machine_without_a_look_up(
    server: ChatServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    original = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *a, **k: (asked.append(host), original(host, *a, **k))[1])
    access = Access("the/file")
    client = Client(endpoint_of(f"http://localhost:{server.port}/v1"), lambda: access, clock=clock, sleep=clock.sleep)
    complete(client)
    assert asked == ["127.0.0.1"]  # a numeral: nobody is asked
    assert server.seen[0].headers["Host"] == f"localhost:{server.port}"


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(server: ChatServer, clock: Clock, code: int) -> None:
    with ChatServer() as other:
        target = f"http://{other.address}/v1/chat/completions?key={KEY}"
        server.script = [status(code, "", Location=target)]
        with pytest.raises(ValueError, match="a redirect to 127.0.0.1, which is not followed") as error:
            complete(client_of(server, clock))
        assert other.seen == []
    assert KEY not in str(error.value) and "key=" not in str(error.value)


@pytest.mark.parametrize("location", ["http://[", "", "/elsewhere"])
def test_odd_redirects(server: ChatServer, clock: Clock, location: str) -> None:
    server.script = [status(302, "", Location=location)]
    with pytest.raises(ValueError, match="which is not followed"):
        complete(client_of(server, clock))


# Secrets.


def all_of(error: BaseException | None) -> str:
    """What an error and all it came from say, in every way it may be shown."""
    text = ""
    while error is not None:
        text += f"{error} {error!r} {error.args} {vars(error)}"
        error = error.__cause__ or error.__context__
    return text


@pytest.mark.parametrize("code", [200, 302, 400, 401, 403, 404, 429, 500])
def test_a_key_that_comes_back_is_not_told(server: ChatServer, clock: Clock, code: int, caplog: Any) -> None:
    def echo(handler: Any, seen: Any) -> None:
        key = seen.headers["Authorization"]
        body = json.dumps({"error": f"Incorrect key: {key}, {KEY[:14]}", "response": key}).encode()
        send(handler, code, body, Location=f"https://{KEY}.example/?{KEY}", Retry_After="9999")

    server.script = [echo] * 9
    client = client_of(server, clock)
    caplog.set_level(0)
    with pytest.raises((ValueError, WrongAnswer)) as caught:
        complete(client)
    said = client.shown(str(caught.value)) if code == 200 else all_of(caught.value)
    assert server.seen[0].headers["Authorization"] == f"Bearer {KEY}"
    for text in (said, caplog.text, repr(client), str(vars(client))):
        assert KEY not in text and KEY[:14] not in text and KEY.lower() not in text


def test_a_server_that_talks_no_http_and_echoes_the_key(clock: Clock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for _ in range(4):
                talk, _ = listening.accept()
                with talk:
                    heard = talk.recv(65536)
                    talk.sendall(heard[heard.index(b"Bearer") :] if b"Bearer" in heard else b"sk-")

        threading.Thread(target=serve, daemon=True).start()
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        access = Access("the/file", keys={address: KEY})
        client = Client(endpoint_of(f"http://{address}/v1"), lambda: access, clock=clock, sleep=clock.sleep)
        with pytest.raises(ValueError, match="BadStatusLine.*Gave up") as caught:
            complete(client)
    assert KEY not in all_of(caught.value) and "***" in str(caught.value)


def test_a_refused_key_says_where_keys_are(server: ChatServer, clock: Clock) -> None:
    server.script = [echoes_key(401), status(401, "who are you")]
    client = client_of(server, clock)
    with pytest.raises(ValueError, match=f"""it refuses the key sent. Keys are in the/file, under 'keys', "{server.address}\""""):
        complete(client)
    with pytest.raises(ValueError, match="it refuses a request without a key"):
        complete(client_of(server, clock, keys={}))


def watched(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Note every attempt to look a name up, to connect, or to open a socket."""
    tried: list[Any] = []
    for where, name in ((socket, "getaddrinfo"), (socket, "create_connection"), (socket, "gethostbyname")):
        monkeypatch.setattr(where, name, lambda *a, _n=name, **k: tried.append((_n, a)))
    monkeypatch.setattr(socket.socket, "connect", lambda *a, **k: tried.append(("connect", a)))
    return tried


def test_a_host_that_is_not_allowed_gets_no_byte(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = watched(monkeypatch)
    for url in ("https://evil.example/v1", "https://169.254.169.254/v1", "https://127.0.0.1.nip.io/v1"):
        client = Client(endpoint_of(url), lambda: Access("the/file", keys={"evil.example:443": KEY}), clock=clock)
        with pytest.raises(ValueError, match="not among 'allowed_hosts'"):
            complete(client)
        assert client.requests == 0
    assert tried == []


def test_a_host_that_the_user_takes_back_is_out_of_use_at_once(server: ChatServer, clock: Clock) -> None:
    endpoint = endpoint_of("https://judge.example/v1")
    now = [Access("the/file", frozenset({"judge.example:443"}))]
    client = Client(endpoint, lambda: now[0], clock=clock, sleep=clock.sleep)
    assert client.access().key_for(endpoint) == ""
    now[0] = Access("the/file")
    with pytest.raises(ValueError, match="not among 'allowed_hosts'"):
        complete(client)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cert.pem and key.pem of judge.example, signed by itself."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl, to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=judge.example", "-addext", "subjectAltName=DNS:judge.example", "-keyout", folder / "key.pem",
         "-out", folder / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


@pytest.fixture
def encrypted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    """A server on this machine, over https, that *.example resolves to."""
    rules = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    rules.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    original = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *a, **k: original("127.0.0.1" if host.endswith(".example") else host, *a, **k)
    )
    with ChatServer(answer=lambda seen: {"a": "fine"}, tls=rules) as running:
        yield running


def remote(server: ChatServer, clock: Clock, host: str = "judge.example") -> Client:
    address = f"{host}:{server.port}"
    access = Access("the/file", frozenset({address}), {address: KEY, "other.example:443": "another-key-99"})
    return Client(endpoint_of(f"https://{address}/v1"), lambda: access, clock=clock, sleep=clock.sleep, jitter=lambda: 0.0)


def trusting(monkeypatch: pytest.MonkeyPatch, certificate: Path) -> None:
    rules = ssl.create_default_context(cafile=certificate / "cert.pem")
    monkeypatch.setattr(exchange, "tls", lambda: rules)


def test_an_allowed_host_over_https(
    encrypted: ChatServer, certificate: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusting(monkeypatch, certificate)
    assert json.loads(complete(remote(encrypted, clock))) == {"a": "fine"}
    (seen,) = encrypted.seen
    assert seen.headers["Authorization"] == f"Bearer {KEY}"
    assert seen.headers["Host"] == f"judge.example:{encrypted.port}"
    assert "another-key" not in str(seen.headers)


def test_a_certificate_of_another_host_is_refused(
    encrypted: ChatServer, certificate: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusting(monkeypatch, certificate)
    with pytest.raises(ValueError, match="no encrypted connection: .*[Hh]ostname mismatch"):
        complete(remote(encrypted, clock, "impostor.example"))
    assert encrypted.seen == []


def test_a_certificate_that_nobody_signed_is_refused(encrypted: ChatServer, clock: Clock) -> None:
    with pytest.raises(ValueError, match="no encrypted connection: .*certificate verify failed"):
        complete(remote(encrypted, clock))
    assert (encrypted.seen, clock.slept) == ([], [])


def test_https_to_a_server_that_does_not_encrypt(server: ChatServer, clock: Clock) -> None:
    client = Client(endpoint_of(f"https://{server.address}/v1"), lambda: Access("the/file", keys={server.address: KEY}))
    client.clock, client.sleep = clock, clock.sleep
    with pytest.raises(ValueError, match="no encrypted connection"):
        complete(client)
    assert server.seen == []


def test_a_machine_on_the_own_network_gets_it_over_http_if_the_user_says_so(
    server: ChatServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *a, **k: original("127.0.0.1", *a, **k))  # stands for 192.168.1.20
    address = f"judge.lan:{server.port}"
    now = [Access("the/file", keys={address: KEY}, unencrypted=frozenset({address}))]
    client = Client(endpoint_of(f"http://{address}/v1"), lambda: now[0], clock=clock, sleep=clock.sleep)
    assert complete(client)
    assert server.seen[0].headers["Authorization"] == f"Bearer {KEY}"
    now[0] = Access("the/file", frozenset({address}), {address: KEY})
    with pytest.raises(ValueError, match="without encryption"):
        complete(client)
    assert len(server.seen) == 1


def test_a_name_that_leads_out_of_the_own_network_gets_no_byte(
    server: ChatServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Elsewhere(socket.socket):
        def getpeername(self) -> Any:
            return ("8.8.8.8", server.port)

    def connect(address: Any, *rest: Any) -> socket.socket:
        sock = Elsewhere()
        sock.connect(("127.0.0.1", server.port))
        return sock

    monkeypatch.setattr(socket, "create_connection", connect)
    access = Access("the/file", unencrypted=frozenset({f"judge.lan:{server.port}"}))
    client = Client(endpoint_of(f"http://judge.lan:{server.port}/v1"), lambda: access, clock=clock, sleep=clock.sleep)
    with pytest.raises(ValueError, match="judge.lan is not on your own network, and was sent nothing"):
        complete(client)
    assert server.seen == [] and clock.slept == []


# Costs.


def test_no_more_requests_than_allowed(server: ChatServer, clock: Clock) -> None:
    client = client_of(server, clock, max_requests=2)
    complete(client), complete(client)
    with pytest.raises(ValueError, match="^API judge: input 'max_requests' is 2, and so many"):
        complete(client)
    assert len(server.seen) == 2


def test_attempts_count_as_requests(server: ChatServer, clock: Clock) -> None:
    server.script = [status(500)] * 9
    with pytest.raises(ValueError, match="input 'max_requests' is 3"):
        complete(client_of(server, clock, max_requests=3))
    assert len(server.seen) == 3


def test_0_is_no_limit(server: ChatServer, clock: Clock) -> None:
    client = client_of(server, clock, max_requests=0)
    assert [complete(client) for _ in range(5)] and client.requests == 5


def test_each_execution_starts_anew(server: ChatServer, clock: Clock) -> None:
    running = ["first"]
    client = client_of(server, clock, max_requests=2, execution=lambda: running[0])
    asked: list[int] = []
    for _ in range(3):
        client.once("what", lambda: asked.append(1))
    complete(client), complete(client)
    running[0] = "second"
    assert client.requests == 0
    complete(client), complete(client)
    client.once("what", lambda: asked.append(1))
    assert len(asked) == 2
    with pytest.raises(ValueError, match="max_requests"):
        complete(client)


def test_what_failed_is_asked_again(server: ChatServer, clock: Clock) -> None:
    client = client_of(server, clock)
    server.script = [status(404)]
    with pytest.raises(ValueError, match="404"):
        client.once("what", lambda: complete(client))
    assert client.once("what", lambda: complete(client)) == '{"a": "fine"}'


# Cancel.


class Cancelled(Exception):
    pass


def test_cancel_during_a_request(server: ChatServer, clock: Clock) -> None:
    server.script = [server.hangs(clock, 1)] * 9

    def check() -> None:
        if server.seen:
            raise Cancelled

    with pytest.raises(Cancelled):
        complete(client_of(server, clock, check=check))
    assert len(server.seen) == 1


def test_cancel_between_requests(server: ChatServer, clock: Clock) -> None:
    def check() -> None:
        if clock.now > 0.5:
            raise Cancelled

    server.script = [status(500)] * 9
    with pytest.raises(Cancelled):
        complete(client_of(server, clock, check=check))
    assert len(server.seen) == 1 and clock.now < 0.7


def test_cancel_before_any(server: ChatServer, clock: Clock) -> None:
    def check() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        complete(client_of(server, clock, check=check))
    assert server.seen == []


# What is no completion.


@pytest.mark.parametrize(
    "body",
    ["", "not JSON", "[]", "null", "{}", '{"choices": []}', '{"choices": [{}]}', '{"choices": [{"message": null}]}',
     '{"choices": {"0": 1}}', "[" * 50_000, '{"choices": [{"message": {"content": null, "refusal": "I may not"}}]}',
     '{"choices": [{"message": {"content": "  "}}]}', '{"choices": [{"message": {"content": [{"text": "{}"}]}}]}',
     '{"choices": [{"message": {"content": [{"type": "thinking", "text": "{}"}, 7, null]}}]}',
     '{"choices": [{"message": {"content": null, "reasoning_content": "{}"}}]}',
     '{"choices": [{"message": {"content": "{"}, "finish_reason": "length"}]}'],
)  # fmt: skip
def test_no_completion(server: ChatServer, clock: Clock, body: str) -> None:
    server.script = [status(200, body)]
    with pytest.raises(WrongAnswer):
        complete(client_of(server, clock))


def test_an_answer_in_parts(server: ChatServer, clock: Clock) -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": '{"a": "draft"}'}]}
    parts = [thinking, {"type": "text", "text": '{"a":'}, {"type": "text", "text": '"fine"}'}]
    server.script = [status(200, json.dumps({"choices": [{"message": {"content": parts}}]}))]
    assert json.loads(complete(client_of(server, clock))) == {"a": "fine"}


def test_a_refusal_is_named(server: ChatServer, clock: Clock) -> None:
    server.script = [status(200, '{"choices": [{"message": {"content": null, "refusal": "I may not"}}]}')]
    with pytest.raises(WrongAnswer, match="I may not"):
        complete(client_of(server, clock))
    server.script = [says("{", "length")]
    with pytest.raises(WrongAnswer, match="'max_tokens'"):
        complete(client_of(server, clock))
