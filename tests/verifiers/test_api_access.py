"""Where the API judge may go, and which key it shows there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from noise_search.verifiers.api.access import Access, Endpoint, endpoint_of, hidden, read_access

KEY = "sk-proj-0123456789abcdefSECRET"


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://127.0.0.1:11434/v1", Endpoint("http", "127.0.0.1", 11434, "/v1")),
        (" http://LOCALHOST:1234/v1/ ", Endpoint("http", "localhost", 1234, "/v1")),
        ("http://[::1]:8080", Endpoint("http", "::1", 8080, "")),
        ("http://[0:0::1]/v1", Endpoint("http", "::1", 80, "/v1")),
        ("http://127.9.9.9/v1", Endpoint("http", "127.9.9.9", 80, "/v1")),
        ("HTTPS://Api.OpenAI.com/v1", Endpoint("https", "api.openai.com", 443, "/v1")),
        ("https://10.0.0.7:8443/openai/v1", Endpoint("https", "10.0.0.7", 8443, "/openai/v1")),
    ],
)
def test_base_urls(url: str, endpoint: Endpoint) -> None:
    assert endpoint_of(url) == endpoint


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "is empty"),
        ("127.0.0.1:11434", "neither http:// nor https://"),
        ("file:///etc/passwd", "neither http"),
        ("ftp://127.0.0.1/v1", "neither http"),
        (f"http://user:{KEY}@127.0.0.1/v1", "user name or password"),
        (f"http://{KEY}@127.0.0.1/v1", "user name or password"),
        (f"https://127.0.0.1@evil.example/{KEY}", "user name or password"),
        (f"http://127.0.0.1/v1?key={KEY}", "query or fragment"),
        (f"http://127.0.0.1/v1#{KEY}", "query or fragment"),
        (f"http://evil.example#@127.0.0.1/{KEY}", "user name or password"),
        (f"http://127.0.0.1\\.evil.example/{KEY}", "characters that no URL has"),
        (f"http://127.0.0.1/\r\nX-Key: {KEY}", "characters that no URL has"),
        ("http://127.0.0.1 .evil.example/", "characters that no URL has"),
        ("http://１２７.0.0.1/v1", "characters that no URL has"),
        ("http:///v1", "names no host"),
        ("http://127.0.0.1:99999/v1", "names no host"),
        ("http://127.0.0.1:x/v1", "names no host"),
        ("http://[::1%25eth0]/v1", "names no host"),
        ("http://[::1/v1", "names no host"),
        ("http://localhost./v1", "names no host"),
        ("http://%6cocalhost/v1", "names no host"),
        (f"http://{'a' * 254}/{KEY}", "names no host"),
    ],
)
def test_bad_base_urls_are_refused_and_not_quoted(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as error:
        endpoint_of(url)
    assert str(error.value).startswith("API judge: input 'base_url'")
    assert KEY not in str(error.value)


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "127.255.255.254", "[::1]", "[0000:0000:0000:0000:0000:0000:0000:0001]"]
)
def test_this_machine(host: str) -> None:
    endpoint = endpoint_of(f"http://{host}:11434/v1")
    assert endpoint.is_loopback
    assert Access("settings").key_for(endpoint) == ""


@pytest.mark.parametrize(
    "host",
    [
        "localhost.evil.example", "127.0.0.1.nip.io", "localtest.me", "ip6-localhost", "0.0.0.0", "127.1", "2130706433",
        "0x7f.0.0.1", "0177.0.0.1", "10.0.0.1", "169.254.169.254", "[::]", "[::ffff:127.0.0.1]", "[fe80::1]", "api.openai.com",
    ],
)  # fmt: skip
def test_other_machines_whatever_they_resolve_to(host: str) -> None:
    endpoint = endpoint_of(f"https://{host}/v1")
    assert not endpoint.is_loopback
    with pytest.raises(ValueError, match="which is not among 'allowed_hosts' of 'api_judge' in the/file"):
        Access("the/file").key_for(endpoint)
    with pytest.raises(ValueError, match="without encryption"):
        Access("the/file", frozenset({endpoint.address})).key_for(endpoint_of(f"http://{host}:443/v1"))


@pytest.mark.parametrize(("url", "path"), [
    ("http://127.0.0.1:8000/v1/chat/completions", "/v1"), ("http://127.0.0.1:8000/v1/chat/completions/", "/v1"),
    ("http://127.0.0.1:8000/chat/completions", ""), ("http://127.0.0.1:8000/api/v1/", "/api/v1"),
    ("http://127.0.0.1:8000/chat/completions/v1", "/chat/completions/v1"),
])  # fmt: skip
def test_a_full_address_is_understood(url: str, path: str) -> None:
    assert endpoint_of(url).path == path


UNENCRYPTED = "send_my_pictures_and_keys_unencrypted_to"


@pytest.mark.parametrize(
    "host", ["192.168.1.20:11434", "10.0.0.7", "172.31.0.1:1", "[fd00::5]:8080", "100.64.0.9", "nas.lan:8000"]
)
def test_a_machine_on_the_own_network_without_encryption(tmp_path: Path, host: str) -> None:
    endpoint = endpoint_of(f"http://{host}/v1")
    access = settings(tmp_path, {UNENCRYPTED: [host]})
    assert access.key_for(endpoint) == ""
    for other in ({}, {"allowed_hosts": [host]}, {UNENCRYPTED: ["192.168.1.21:11434"]}):
        with pytest.raises(ValueError, match=f"without encryption: whoever.*could read.*'{UNENCRYPTED}' of 'api_judge' in "):
            settings(tmp_path, other).check(endpoint)
    with pytest.raises(ValueError, match="not among 'allowed_hosts'"):  # that line is of http alone
        access.check(endpoint_of(f"https://{host}/v1"))


def test_a_key_may_be_sent_there_if_it_is_that_machine_s(tmp_path: Path) -> None:
    access = settings(
        tmp_path, {UNENCRYPTED: ["nas.lan", "10.0.0.7:8000"], "keys": {"10.0.0.7:8000": KEY, "nas.lan": "other-key"}}
    )
    assert access.key_for(endpoint_of("http://10.0.0.7:8000/v1")) == KEY
    assert access.key_for(endpoint_of("http://nas.lan/v1")) == ""  # its key is of port 443


@pytest.mark.parametrize("host", ["8.8.8.8", "1.1.1.1:8000", "172.32.0.1", "[2001:db8::1]", "0.0.0.0", "[::ffff:8.8.8.8]"])
def test_no_machine_elsewhere_is_asked_without_encryption(tmp_path: Path, host: str) -> None:
    with pytest.raises(ValueError, match="machines outside of your own network are asked over https only"):
        settings(tmp_path, {UNENCRYPTED: [host]}).check(endpoint_of(f"http://{host}/v1"))


def test_localhost_is_never_looked_up() -> None:
    assert endpoint_of("http://localhost:1/v1").targets == ("127.0.0.1", "::1")
    assert endpoint_of("https://api.openai.com/v1").targets == ("api.openai.com",)


def settings(tmp_path: Path, section: object) -> Access:
    path = tmp_path / "noise_search.json"
    path.write_text(json.dumps({"another pack's": 1, "api_judge": section}), encoding="utf-8")
    return read_access(path)


def test_hosts_and_ports_must_be_those_of_the_file(tmp_path: Path) -> None:
    hosts = ["API.openai.com", "host.example:8443", "[2001:db8::1]", "10.0.0.7:443"]
    access = settings(tmp_path, {"allowed_hosts": hosts})
    for url in ("api.openai.com", "api.openai.com:443", "host.example:8443", "[2001:db8:0::1]", "10.0.0.7"):
        access.check(endpoint_of(f"https://{url}/v1"))
    for url in ("api.openai.com:8443", "host.example", "openai.com", "evil.api.openai.com", "api.openai.com.evil.example"):
        with pytest.raises(ValueError, match="not among 'allowed_hosts'"):
            access.check(endpoint_of(f"https://{url}/v1"))


def test_the_refusal_says_what_to_list(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'list "api\.openai\.com" there'):
        settings(tmp_path, {}).check(endpoint_of("https://api.openai.com/v1"))
    with pytest.raises(ValueError, match=r'list "host\.example:8443" there'):
        settings(tmp_path, {}).check(endpoint_of("https://host.example:8443/v1"))


def test_a_key_belongs_to_one_host_and_port(tmp_path: Path) -> None:
    hosts = ["api.openai.com", "api.other.example", "api.openai.com:8443"]
    keys = {"api.openai.com": KEY, "127.0.0.1:8000": "local-key-1234"}
    access = settings(tmp_path, {"allowed_hosts": hosts, "keys": keys})
    assert access.key_for(endpoint_of("https://api.openai.com/v1")) == KEY
    for host in ("127.0.0.1", "localhost", "[::1]"):  # one machine, however it is written
        assert access.key_for(endpoint_of(f"http://{host}:8000/v1")) == "local-key-1234"
    for url in ("https://api.other.example/v1", "https://api.openai.com:8443/v1", "http://127.0.0.1:8001/v1",
                "http://localhost:8001/v1", "http://127.0.0.2:8000/v1"):  # fmt: skip
        assert access.key_for(endpoint_of(url)) == ""


def test_a_key_allows_no_host(tmp_path: Path) -> None:
    access = settings(tmp_path, {"keys": {"api.openai.com": KEY}})
    with pytest.raises(ValueError, match="not among 'allowed_hosts'"):
        access.key_for(endpoint_of("https://api.openai.com/v1"))


def test_a_key_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = {"allowed_hosts": ["api.openai.com"], "keys": {"api.openai.com": "ENV:MY_KEY"}}
    access, endpoint = settings(tmp_path, section), endpoint_of("https://api.openai.com/v1")
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(ValueError, match="environment variable MY_KEY, which is not set"):
        access.key_for(endpoint)
    monkeypatch.setenv("MY_KEY", f"{KEY}\n")
    assert access.key_for(endpoint) == KEY
    assert access.hide(f"you sent {KEY}") == "you sent ***"


@pytest.mark.parametrize("key", ["", " ", "two words", "line\r\nX-Evil: 1", "schlüssel"])
def test_keys_that_no_header_can_carry(tmp_path: Path, key: str) -> None:
    access = settings(tmp_path, {"keys": {"127.0.0.1:1": key}})
    with pytest.raises(ValueError, match="is empty or holds blanks") as error:
        access.key_for(endpoint_of("http://127.0.0.1:1"))
    assert not key.strip() or key not in str(error.value)


def test_without_a_file_only_this_machine(tmp_path: Path) -> None:
    access = read_access(tmp_path / "noise_search.json")
    assert (access.allowed, dict(access.keys)) == (frozenset(), {})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"api_judge": {"keys": {"a.example": "' + KEY + '"}', r"is not JSON \(line 1, column \d+\)"),
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON|nested too deep"),
        ("[1]", "must hold an object"),
        ('{"api_judge": ["' + KEY + '"]}', "must hold an object"),
        ('{"api_judge": {"key": "' + KEY + '"}}', "neither 'allowed_hosts', 'send_my_.*' nor 'keys'"),
        ('{"api_judge": {"send_my_pictures_and_keys_unencrypted_to": "nas.lan"}}', "must be a list of texts"),
        ('{"api_judge": {"allowed_hosts": "api.openai.com"}}', "must be a list of texts"),
        ('{"api_judge": {"allowed_hosts": [1]}}', "must be a list of texts"),
        ('{"api_judge": {"keys": ["' + KEY + '"]}}', "must be an object of texts"),
        ('{"api_judge": {"keys": {"a.example": ["' + KEY + '"]}}}', "must be an object of texts"),
        ('{"api_judge": {"allowed_hosts": ["https://api.openai.com/v1"]}}', "names something that is no host"),
        ('{"api_judge": {"allowed_hosts": ["*"]}}', "names something that is no host"),
        ('{"api_judge": {"allowed_hosts": ["*.openai.com"]}}', "names something that is no host"),
        ('{"api_judge": {"keys": {"user:' + KEY + '@a.example": "x"}}}', "names something that is no host"),
    ],
)
def test_malformed_settings(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "noise_search.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=says) as error:
        read_access(path)
    seen = error.value
    assert str(path) in str(seen) and KEY not in str(seen)
    assert seen.__context__ is None and seen.__cause__ is None  # a JSON error holds the whole text


def test_unreadable_settings(tmp_path: Path) -> None:
    (tmp_path / "noise_search.json").mkdir()
    with pytest.raises(ValueError, match="cannot be read"):
        read_access(tmp_path / "noise_search.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(ValueError, match="cannot be read"):
        read_access(tmp_path / "bytes.json")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"key {KEY}!", "key ***!"),
        (f"{KEY}{KEY} and {KEY}", "****** and ***"),
        (f"starts {KEY[:12]}... ends", "starts ***... ends"),
        (f"ends in {KEY[-10:]}", "ends in ***"),
        (f"middle {KEY[5:20]}", "middle ***"),
        (f"few {KEY[:7]}", f"few {KEY[:7]}"),
        ("nothing", "nothing"),
        ("", ""),
    ],
)
def test_keys_and_long_parts_of_them_are_hidden(text: str, shown: str) -> None:
    assert hidden(text, KEY) == shown


def test_short_keys_are_hidden_whole() -> None:
    assert hidden("an abc of abcs", "abc") == "an *** of ***s"
    assert hidden("text", "") == "text"


def test_what_a_server_said_is_made_fit_for_a_log(tmp_path: Path) -> None:
    access = settings(tmp_path, {"keys": {"127.0.0.1:1": KEY, "127.0.0.1:2": "another-key-99"}})
    assert access.hide(f"a\n\x1b[31mred\x00 {KEY}\tanother-key-99") == "a [31mred *** ***"
    assert len(access.hide("x " * 10_000)) < 310
    assert KEY not in repr(access) and "another" not in repr(access)
