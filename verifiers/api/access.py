"""Where the API judge may go and which key it shows there: the rules that keep pictures and keys at home.

Workflows come from strangers, so an address in one is no permission. This machine (127.0.0.0/8, ::1, `localhost`) is
always allowed; every other host only if the user's own settings file lists it, and only over https, unless the file
lists it under `UNENCRYPTED` too: then without, if it lies on the user's own network. Hosts are compared as they are
written: a name that merely resolves to this machine is another machine. Keys live in that file or in the environment, and
each belongs to one host and port; 127.0.0.1, ::1 and `localhost` are one host.

    {"api_judge": {"allowed_hosts": ["api.openai.com"], "keys": {"api.openai.com": "ENV:OPENAI_API_KEY"}}}

References:
    RFC 6761, section 6.3: applications may take `localhost` for the loopback address without asking a resolver
"""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .hosts import PRINTABLE, address_of, host_and_port, ip_of, may_be_own

NAME = "API judge"
SECTION = "api_judge"
PORTS = {"http": 80, "https": 443}
UNENCRYPTED = "send_my_pictures_and_keys_unencrypted_to"
SETTINGS = ("allowed_hosts", UNENCRYPTED, "keys")
LOCALHOST = "localhost"
THIS_MACHINE = ("127.0.0.1", "::1", LOCALHOST)
ENDPOINT = "/chat/completions"
ENVIRONMENT = "ENV:"
GRAM = 8  # characters: a stretch of a key as long as this is hidden wherever it turns up
LOOKED_AT = 4096  # characters of what a server said that are worth reading
SHOWN = 300  # characters of what a server said that an error may quote


@dataclass(frozen=True)
class Endpoint:
    """A server that speaks the chat-completions protocol.

    Attributes:
        scheme: "http" or "https".
        host: Lower case; an IPv6 address without brackets.
        port: Its port.
        path: What precedes `ENDPOINT`, as "/v1".
    """

    scheme: str
    host: str
    port: int
    path: str

    @property
    def address(self) -> str:
        """Host and port, as the settings file names them."""
        return address_of(self.host, self.port)

    @property
    def is_loopback(self) -> bool:
        """Whether this is the machine we run on, by what is written and not by what a resolver says."""
        address = ip_of(self.host)
        if address is None:
            return self.host == LOCALHOST
        return address.is_loopback and (address.version == 4 or address == ipaddress.IPv6Address(1))

    @property
    def targets(self) -> tuple[str, ...]:
        """Where to connect, first to last; `localhost` is never looked up."""
        return ("127.0.0.1", "::1") if self.host == LOCALHOST else (self.host,)


def endpoint_of(base_url: str) -> Endpoint:
    """Read a base URL as "http://127.0.0.1:11434/v1".

    Raises:
        ValueError: Naming the input, for what is no such URL, or holds a password or a query. Nothing of it is quoted: it
            may be secret.
    """
    url = base_url.strip()
    if not PRINTABLE.fullmatch(url) or "\\" in url:
        raise _bad_url("is empty or holds blanks or other characters that no URL has")
    scheme, _, rest = url.partition("://")
    if scheme.lower() not in PORTS or not rest:
        raise _bad_url("begins with neither http:// nor https://")
    netloc, _, path = rest.partition("/")
    if "@" in netloc:
        raise _bad_url("holds a user name or password; whoever gets the workflow would have it. Put a key into the settings file")
    if "?" in url or "#" in url:
        raise _bad_url("holds a query or fragment ('?', '#'); it has to end in a path, usually /v1")
    found = host_and_port(netloc)
    if found is None:
        raise _bad_url("names no host, or one in a spelling that is not accepted")
    host, port = found
    scheme = scheme.lower()
    path = f"/{path}".rstrip("/").removesuffix(ENDPOINT).rstrip("/")
    return Endpoint(scheme, host, PORTS[scheme] if port is None else port, path)


@dataclass(frozen=True)
class Access:
    """What the settings file allows.

    Attributes:
        source: The file, for messages.
        allowed: Addresses ("host:port") other than this machine that may be asked, over https.
        keys: For addresses, the key itself or "ENV:" and the name of the variable that holds it.
        unencrypted: Addresses on the user's own network that may be asked over http.
    """

    source: str
    allowed: frozenset[str] = frozenset()
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    unencrypted: frozenset[str] = frozenset()

    def check(self, endpoint: Endpoint) -> None:
        """Refuse an endpoint on another machine that is not listed.

        Raises:
            ValueError: Naming the host and the file.
        """
        if not endpoint.is_loopback and endpoint.scheme != "https":
            self._check_unencrypted(endpoint)
        elif not endpoint.is_loopback and endpoint.address not in self.allowed:
            raise ValueError(
                f"{NAME}: input 'base_url' goes to {endpoint.address}, which is not among 'allowed_hosts' of '{SECTION}' in"
                f" {self.source}. Your pictures and prompt would be sent there. If you want that, and not only the workflow's"
                f' author, list "{_listed(endpoint)}" there; the node\'s help shows how.'
            )

    def _check_unencrypted(self, endpoint: Endpoint) -> None:
        if not may_be_own(endpoint.host):
            raise _bad_url(f"goes to {endpoint.address} without encryption; machines outside of your own network are asked over"
                           " https only")  # fmt: skip
        if endpoint.address not in self.unencrypted:
            raise ValueError(
                f"{NAME}: input 'base_url' goes to {endpoint.address} without encryption: whoever is on the way could read your"
                " pictures, prompts and key, and change the grades. Use https. If it is a machine on your own network and you"
                f" accept that, list \"{endpoint.address}\" under '{UNENCRYPTED}' of '{SECTION}' in {self.source}."
            )

    def key_for(self, endpoint: Endpoint) -> str:
        """Return the key for an endpoint; "" where the file has none.

        Raises:
            ValueError: If the endpoint is not allowed, the variable is not set, or the key cannot be sent.
        """
        self.check(endpoint)
        same = THIS_MACHINE if endpoint.host in THIS_MACHINE else ()
        addresses = (endpoint.address, *(address_of(host, endpoint.port) for host in same))
        entry = next((self.keys[address] for address in addresses if address in self.keys), None)
        if entry is None:
            return ""
        if entry.startswith(ENVIRONMENT) and not _resolved(entry):
            raise ValueError(
                f"{NAME}: 'keys' of '{SECTION}' in {self.source} says that the key of {endpoint.address} is in the environment"
                f" variable {entry.removeprefix(ENVIRONMENT)}, which is not set. Set it before ComfyUI starts."
            )
        key = _resolved(entry)
        if not PRINTABLE.fullmatch(key):
            raise ValueError(
                f"{NAME}: the key of {endpoint.address} in {self.source} (or in the variable it names) is empty or holds blanks"
                " or characters that no key has. Copy it anew."
            )
        return key

    def hide(self, text: str) -> str:
        """Make what a server said fit for messages: without keys or control characters, and short."""
        text = text[:LOOKED_AT]
        for entry in self.keys.values():
            text = hidden(text, _resolved(entry))
        text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return text if len(text) <= SHOWN else text[:SHOWN] + "…"


def hidden(text: str, secret: str) -> str:
    """Replace a secret in a text by "***", and every stretch of it of at least 8 characters."""
    size = min(GRAM, len(secret))
    if not size:
        return text
    grams = {secret[i : i + size] for i in range(len(secret) - size + 1)}
    out, shown_until, i = [], 0, 0
    while i + size <= len(text):
        if text[i : i + size] not in grams:
            i += 1
            continue
        out += [text[shown_until:i], "***"]
        while i + size <= len(text) and text[i : i + size] in grams:
            i += 1
        i = shown_until = i - 1 + size
    return "".join([*out, text[shown_until:]])


def read_access(path: str | os.PathLike[str]) -> Access:
    """Read the settings file; one that does not exist allows nothing but this machine.

    Raises:
        ValueError: Naming the file and what is wrong with it, never what it holds.
    """
    source = str(path)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return Access(source)
    except (OSError, UnicodeDecodeError) as error:
        problem = f"cannot be read ({type(error).__name__})"
    else:
        return _access(_section(text, source), source)
    raise _bad_file(source, problem)


def _section(text: str, source: str) -> Mapping[str, object]:
    where, settings = "", None
    try:
        settings = json.loads(text)
    except RecursionError:
        where = "nested too deep"
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
    if where:  # raised out here: the caught error holds the file's text, keys included
        raise _bad_file(source, f"is not JSON ({where})")
    section = settings.get(SECTION, {}) if isinstance(settings, dict) else None
    if not isinstance(section, dict):
        raise _bad_file(source, f"must hold an object, with an object '{SECTION}' in it")
    return section


def _access(section: Mapping[str, object], source: str) -> Access:
    if set(section) - set(SETTINGS):
        known = f"neither {', '.join(map(repr, SETTINGS[:-1]))} nor {SETTINGS[-1]!r}"
        raise _bad_file(source, f"has something in '{SECTION}' that is {known}")
    keys = section.get("keys", {})
    if not isinstance(keys, dict) or not all(isinstance(key, str) for key in keys.values()):
        raise _bad_file(source, f"'keys' of '{SECTION}' must be an object of texts")
    return Access(
        source,
        _hosts(section, "allowed_hosts", "https", source),
        {_entry(host, "keys", "https", source): key for host, key in keys.items()},
        _hosts(section, UNENCRYPTED, "http", source),
    )


def _hosts(section: Mapping[str, object], what: str, scheme: str, source: str) -> frozenset[str]:
    hosts = section.get(what, [])
    if not isinstance(hosts, list) or not all(isinstance(host, str) for host in hosts):
        raise _bad_file(source, f"'{what}' of '{SECTION}' must be a list of texts")
    return frozenset(_entry(host, what, scheme, source) for host in hosts)


def _entry(written: str, what: str, scheme: str, source: str) -> str:
    """Return the address of a host as the file names it; without a port it is the scheme's."""
    found = host_and_port(written)
    if found is None:
        raise _bad_file(source, f"'{what}' of '{SECTION}' names something that is no host: write api.openai.com or host:8443")
    host, port = found
    return address_of(host, PORTS[scheme] if port is None else port)


def _listed(endpoint: Endpoint) -> str:
    return endpoint.address.removesuffix(f":{PORTS['https']}")


def _resolved(entry: str) -> str:
    value = os.environ.get(entry.removeprefix(ENVIRONMENT), "") if entry.startswith(ENVIRONMENT) else entry
    return value.strip()


def _bad_url(problem: str) -> ValueError:
    return ValueError(f"{NAME}: input 'base_url' {problem}. Expected something like http://127.0.0.1:11434/v1.")


def _bad_file(source: str, problem: str) -> ValueError:
    return ValueError(f"{NAME}: the settings file {source} {problem}. Mend or remove it; the node's help shows the format.")
