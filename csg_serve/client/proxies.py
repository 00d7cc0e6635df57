"""The proxy between a client and a gRPC server. HTTP addresses are reached without one."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from urllib.parse import urlsplit

from csg_serve.client.address import Address

PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
"""Variables that gRPC reads; the first one that is set counts."""
EXCEPTIONS = ("no_grpc_proxy", "no_proxy", "NO_PROXY")
"""Variables that list hosts to reach without a proxy; the first one that is set counts."""


def proxy_of(address: Address) -> str | None:
    """The proxy that gRPC uses for an address, as http://HOST:PORT without user and password; None for none."""
    url = next((os.environ[name] for name in PROXIES if name in os.environ), "")
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    if address.http or address.local or parts.scheme != "http" or not parts.hostname:
        return None
    listed = next((os.environ[name] for name in EXCEPTIONS if name in os.environ), "")
    if any(_matches(address.host, entry.strip()) for entry in listed.split(",")):
        return None
    return f"http://{parts.netloc.rpartition('@')[2]}"


def proxy_option(address: Address) -> dict[str, int]:
    """The option of a gRPC channel: whether a proxy of the environment may be used."""
    return {"grpc.enable_http_proxy": int(proxy_of(address) is not None)}


def _matches(host: str, entry: str) -> bool:
    """Whether an entry covers a host: the name or the end of one, an IP network, or "*"."""
    if not entry or entry == "*":
        return entry == "*"
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return host.lower().endswith(entry.removeprefix("*").lower())


def place(addresses: Sequence[Address]) -> str:
    """Where servers are, for an error: their addresses, and the proxies on the way."""
    proxies = dict.fromkeys(filter(None, map(proxy_of, addresses)))
    through = f" through the proxy {', '.join(proxies)}" if proxies else ""
    return ", ".join(map(str, addresses)) + through


def proxy_hint(addresses: Sequence[Address], hint: str) -> str:
    """The hint of an error: what to do about a proxy if there is one on the way, else `hint`."""
    hosts = ",".join(address.host for address in addresses if proxy_of(address))
    return f"set no_proxy={hosts} if the server needs no proxy, or check what the proxy lets pass" if hosts else hint
