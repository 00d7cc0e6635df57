"""Addresses of servers, and whether one is this machine."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from csg.errors import UsageError

ADDRESS = re.compile(
    r"(?:(?P<scheme>grpcs?|https?)://)?(?P<host>[^\s/:\[\]\\%]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?(?P<path>/.*)?",
    re.IGNORECASE,
)
PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*/?")
PORTS = {"http": "80", "https": "443"}
"""Port of a scheme if an address has none."""
HOSTS = Path("/etc/hosts")
EXAMPLE = "give HOST:PORT of its gRPC endpoint, for example localhost:8001, or http://HOST:PORT"


@dataclass(frozen=True)
class Address:
    """Endpoint of one server."""

    text: str = field(compare=False)
    """As given: HOST:PORT, or a URL of grpc, grpcs, http or https."""
    authority: str
    """HOST:PORT."""
    http: bool
    """HTTP instead of gRPC."""
    tls: bool
    """With TLS."""
    path: str = ""
    """HTTP: what stands before every path of the server, as an ingress wants it, without a slash at its end."""

    def __str__(self) -> str:
        return self.text

    @property
    def host(self) -> str:
        """Name or IP address, without brackets."""
        return self.authority.rpartition(":")[0].strip("[]")

    @property
    def target(self) -> str:
        """What gRPC takes for the address; without "dns" a host named unix would be a socket in the file system."""
        return f"dns:///{self.authority}"

    @property
    def url(self) -> str:
        """The URL of an HTTP server, without a slash at its end."""
        return f"{'https' if self.tls else 'http'}://{self.authority}{self.path}"

    @cached_property
    def local(self) -> bool:
        """Whether the host is this machine: client and server may share memory, and no proxy is between them."""
        return is_this_machine(self.host)


def is_this_machine(host: str) -> bool:
    """Whether a host is this machine.

    Nothing is asked of a name server: a name counts if it is localhost, this machine's own, or in /etc/hosts.

    Args:
        host: a name or an IP address, without brackets.
    """
    host = host.lower().removesuffix(".")
    if host == "localhost" or host.endswith(".localhost") or host == socket.gethostname().lower():
        return True
    return any(map(_is_loopback, [host, *_hosts_file(host)]))


def parse_address(text: str, certificates: bool = False) -> Address:
    """The address in a text.

    Args:
        text: HOST:PORT, or with grpc://, grpcs://, http:// or https:// before it; the last two may do without a port,
            and may have a path.
        certificates: whether TLS files were given, which makes a plain HOST:PORT a TLS address.

    Raises:
        UsageError: it is malformed, or excludes TLS although TLS files are given.

    Example:
        >>> parse_address("https://models.example.com/digits").url
        'https://models.example.com:443/digits'
    """
    if "@" in text:  # not quoted: it may hold a password
        raise UsageError("a server address can't hold a user name or a password", "leave out what is before the '@'")
    if "?" in text or "#" in text:
        shown = re.split("[?#]", text)[0]
        raise UsageError(f"server address {shown}... has a query or a fragment", "leave out what is from '?' or '#' on")
    match = ADDRESS.fullmatch(text)
    scheme = (match["scheme"] or "").lower() if match else ""
    port = match and (match["port"] or PORTS.get(scheme))
    if not match or not port or not 0 < int(port) < 65536 or not _is_host(match["host"]):
        raise UsageError(f"{text!r} is not a server address", EXAMPLE)
    http, path = scheme in PORTS, match["path"] or "/"
    if not http and path != "/":
        raise UsageError(f"{text!r} has a path, and gRPC has none", "give HOST:PORT, or http://HOST:PORT/PATH")
    if not PATH.fullmatch(path) or {".", ".."} & set(path.split("/")):
        hint = "its parts may hold letters, digits, '.', '_', '~' and '-'"
        raise UsageError(f"the path {path!r} of a server address can't be used", hint)
    if scheme in ("grpc", "http") and certificates:
        raise UsageError(f"{text} is an address without TLS", f"give {scheme}s://, or leave out the TLS files")
    tls = scheme in ("grpcs", "https") or certificates
    return Address(text, authority=f"{match['host']}:{port}", http=http, tls=tls, path=path.removesuffix("/"))


def _is_host(text: str) -> bool:
    try:
        if text[0] == "[":
            return bool(ipaddress.IPv6Address(text[1:-1]))
    except ValueError:
        return False
    return text.isprintable() and all(0 < len(part) < 64 for part in text.removesuffix(".").split("."))


def _is_loopback(host: str) -> bool:
    """Whether a host is an address of this machine alone: 127.0.0.0/8 in any of its forms, ::1, or "any" of them."""
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        try:
            found = ipaddress.ip_address(socket.inet_aton(host))  # such as 127.1
        except OSError:
            return False
    found = getattr(found, "ipv4_mapped", None) or found
    return found.is_loopback or found.is_unspecified


def _hosts_file(name: str) -> list[str]:
    """The addresses that /etc/hosts gives a name."""
    try:
        lines = [line.partition("#")[0].lower().split() for line in HOSTS.read_text(errors="replace").splitlines()]
    except OSError:
        return []
    return [words[0] for words in lines if name in words[1:]]
