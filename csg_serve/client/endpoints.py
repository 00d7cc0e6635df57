"""The servers that a command talks to: addresses, TLS, and the secret of the control API."""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from csg.errors import InputError, UsageError
from csg_serve.client.address import Address, parse_address
from csg_serve.triton.local import find_local_secret

MAX_SECRET = 4096
"""Characters of a secret that fit into a header."""
DEFAULT_ADDRESS = "localhost:8001"


@dataclass(frozen=True)
class Servers:
    """One or several servers of the same model, and the credentials that they require.

    Any of the TLS files makes a plain HOST:PORT a TLS address.
    """

    texts: tuple[str, ...]
    """Addresses, as given."""
    tls_ca: Path | None = None
    """PEM file of the certificates to trust; None for the system's."""
    tls_cert: Path | None = None
    """PEM file of the client's certificate, for servers that require one."""
    tls_key: Path | None = None
    """PEM file of the key of `tls_cert`."""
    secret: str | None = None
    """Secret of the servers' control API."""

    def __str__(self) -> str:
        return ", ".join(self.texts)

    @cached_property
    def addresses(self) -> tuple[Address, ...]:
        """The parsed addresses, each once.

        Raises:
            UsageError: an address is malformed, or excludes TLS although TLS files are given.
        """
        if not self.texts:
            raise UsageError("no server address is given", "give HOST:PORT of a server")
        certificates = bool(self.tls_ca or self.tls_cert or self.tls_key)
        return tuple(dict.fromkeys(parse_address(text, certificates) for text in self.texts))

    def secret_header(self, name: str) -> dict[str, str]:
        """The header that carries the secret, empty without one."""
        return {name: self.secret} if self.secret else {}

    @cached_property
    def ssl_context(self) -> ssl.SSLContext:
        """The certificates, loaded and checked.

        Raises:
            UsageError: a certificate is given without its key, or a key without its certificate.
            InputError: a file can't be read, or is not a PEM file.
        """
        if bool(self.tls_cert) != bool(self.tls_key):
            raise UsageError("a client certificate needs its key", "give both --tls-cert and --tls-key")
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


class ConnectionSecret:
    """The secret that one connection's calls carry: the given one, or that of the user's own server on this machine.

    Args:
        address: of the server.
        servers: with the given secret, if there is one.
    """

    def __init__(self, address: Address, servers: Servers):
        self._address, self._searched = address, address.local and not servers.secret
        self._servers = servers
        self.renew()

    def renew(self) -> bool:
        """Look for the secret again; return whether it has changed, as it does when a server starts again."""
        before = self._servers.secret
        if self._searched:
            port = int(self._address.authority.rpartition(":")[2])
            found = find_local_secret("http" if self._address.http else "grpc", port)
            self._servers = replace(self._servers, secret=found)
        return self._servers.secret != before

    def header(self, name: str) -> dict[str, str]:
        """The header that carries the secret, empty without one."""
        return self._servers.secret_header(name)


def as_servers(server: str | Sequence[str] | Servers) -> Servers:
    """The servers, from one address or several."""
    if isinstance(server, Servers):
        return server
    return Servers((server,) if isinstance(server, str) else tuple(server))


def named_servers(
    texts: Sequence[str] | None,
    *,
    tls_ca: Path | None = None,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    secret_file: Path | None = None,
) -> Servers:
    """The servers that the options of a command describe.

    Args:
        texts: addresses; None for the default one.
        tls_ca: PEM file of the certificates to trust.
        tls_cert: PEM file of the client's certificate.
        tls_key: PEM file of its key.
        secret_file: file with the secret; None for the variable CSG_SECRET, if it is set.

    Raises:
        InputError: the file can't be read, or the secret can't be sent.
    """
    secret = os.environ.get("CSG_SECRET")
    if secret_file:
        try:
            secret = secret_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            what = f"can't read {secret_file}: {getattr(error, 'strerror', error)}"
            raise InputError(what, "give a file with the server's secret") from None
    if secret and not (secret.isascii() and secret.isprintable() and len(secret) <= MAX_SECRET):
        where = secret_file or "CSG_SECRET"
        raise InputError(f"{where} holds no secret", "a secret is one line of letters, digits, '-' and '_'")
    addresses = tuple(texts or (DEFAULT_ADDRESS,))
    return Servers(addresses, tls_ca=tls_ca, tls_cert=tls_cert, tls_key=tls_key, secret=secret or None)


def _unusable(what: str, error: OSError) -> InputError:
    return InputError(f"can't use {what} for TLS: {error.strerror or error}", "give readable PEM files")
