"""Hosts as they are written: what one is, and which IP addresses only private networks have."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

HOST = re.compile(r"[a-z0-9]([a-z0-9_.-]*[a-z0-9])?")
PRINTABLE = re.compile(r"[!-~]+")  # what a header can carry, without blanks
LONGEST_HOST = 253  # characters
OWN_NETWORKS = tuple(map(ipaddress.ip_network, (
    "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "fc00::/7", "fe80::/10",
    "::1/128",
)))  # fmt: skip


def host_and_port(netloc: str) -> tuple[str, int | None] | None:
    """Split "host", "host:port", "[::1]:port"; None for anything else."""
    if not PRINTABLE.fullmatch(netloc) or set(netloc) & set("/\\@?#%"):
        return None
    try:
        parts = urlsplit(f"//{netloc}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return None
    address = ip_of(host)
    if address is not None:
        return address.compressed, port
    return (host, port) if len(host) <= LONGEST_HOST and HOST.fullmatch(host) and ".." not in host else None


def may_be_own(host: str) -> bool:
    """Whether a host may be on the user's own network: its address is one of those, or it is a name, which says nothing."""
    address = ip_of(host)
    return address is None or is_own(host)


def is_own(address: str) -> bool:
    """Whether an IP address, perhaps with a zone, is one that only private networks have."""
    found = ip_of(address.partition("%")[0])
    found = getattr(found, "ipv4_mapped", None) or found
    return found is not None and any(found.version == net.version and found in net for net in OWN_NETWORKS)


def ip_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address that a host is written as; None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def address_of(host: str, port: int) -> str:
    """Return host and port as one text."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
