"""Where servers are and how to reach them: addresses, TLS, the secret of restricted protocols."""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from csg.errors import InputError, UsageError

ADDRESS = re.compile(r"(?:(grpcs?|https?)://)?((?:[^\s/:\[\]]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5}))/?")


DEFAULT = "localhost:8001"


@dataclass(frozen=True)
class Address:
    """One server's endpoint: HOST:PORT, or with the protocol before it: grpc://, grpcs://, http://, https://."""

    text: str
    authority: str
    http: bool
    tls: bool

    def __str__(self) -> str:
        return self.text

    @property
    def local(self) -> bool:
        """Whether it is on loopback, so that the server may share memory with us."""
        host = self.authority.rpartition(":")[0].strip("[]")
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"


@dataclass(frozen=True)
class Servers:
    """One or several servers of the same model, and what they ask of a client.

    texts: their addresses. tls_ca: PEM certificates to trust in place of the system's; tls_cert, tls_key: the client's
    own, for servers that ask for one. Any of these makes a plain HOST:PORT a TLS address. secret: what the server's
    restricted protocols ask for.
    """

    texts: tuple[str, ...]
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    secret: str | None = None

    def __str__(self) -> str:
        return ", ".join(self.texts)

    @cached_property
    def addresses(self) -> tuple[Address, ...]:
        """The addresses, taken apart.

        Raises:
            UsageError: one is malformed, or does without TLS although certificates are given.
        """
        if not self.texts:
            raise UsageError("no server is named", "give HOST:PORT of one")
        return tuple(dict.fromkeys(self._address(text) for text in self.texts))

    def _address(self, text: str) -> Address:
        match = ADDRESS.fullmatch(text)
        if not match or not 0 < int(match[3]) < 65536:
            raise UsageError(
                f"{text!r} is no server address",
                "give HOST:PORT of its gRPC endpoint, for example localhost:8001, or http://HOST:PORT",
            )
        scheme, certificates = match[1], bool(self.tls_ca or self.tls_cert or self.tls_key)
        if scheme in ("grpc", "http") and certificates:
            raise UsageError(f"{text} is an address without TLS", f"give {scheme}s://, or no certificates")
        return Address(text, match[2], scheme in ("http", "https"), scheme in ("grpcs", "https") or certificates)

    @cached_property
    def ssl_context(self) -> ssl.SSLContext:
        """The certificates, checked.

        Raises:
            UsageError: certificate and key are not given together.
            InputError: a file can't be read, or is no PEM file.
        """
        if bool(self.tls_cert) != bool(self.tls_key):
            raise UsageError("a client's certificate and its key go together", "give both --tls-cert and --tls-key")
        try:
            context = ssl.create_default_context(cafile=self.tls_ca)
        except OSError as error:
            raise _unusable(str(self.tls_ca), error) from None
        if self.tls_cert:
            try:
                context.load_cert_chain(self.tls_cert, self.tls_key, password=lambda: "")
            except OSError as error:
                raise _unusable(f"{self.tls_cert} with {self.tls_key}", error) from None
        return context


def as_servers(server: str | Sequence[str] | Servers) -> Servers:
    """The servers, from one address or several."""
    if isinstance(server, Servers):
        return server
    return Servers((server,) if isinstance(server, str) else tuple(server))


def named_servers(
    texts: Sequence[str] | None,
    tls_ca: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    secret_file: Path | None,
) -> Servers:
    """The servers that a command is given; the secret from a file, or the variable CSG_SECRET.

    Raises:
        InputError: the file can't be read.
    """
    secret = os.environ.get("CSG_SECRET")
    if secret_file:
        try:
            secret = secret_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            what = f"can't read {secret_file}: {getattr(error, 'strerror', error)}"
            raise InputError(what, "give a file with the server's secret") from None
    return Servers(tuple(texts or (DEFAULT,)), tls_ca, tls_cert, tls_key, secret or None)


def _unusable(what: str, error: OSError) -> InputError:
    return InputError(f"can't use {what} for TLS: {error.strerror or error}", "give PEM files that can be read")
