"""Options of `csg serve`, and the files they name: TLS certificates and the secret of the control API."""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from csg.errors import InputError, UsageError, one_line
from csg_serve.triton.local import generate_secret

LOOPBACK, ANY_ADDRESS = "127.0.0.1", "0.0.0.0"
ENDPOINTS = ("http", "grpc", "metrics")
SECRET_PATTERN = re.compile(r"[A-Za-z0-9_-]{16,}")

LogLevel = Literal["error", "warning", "info", "verbose"]
Control = Literal["poll", "explicit"]


@dataclass(frozen=True)
class TlsFiles:
    """PEM files of the gRPC endpoint."""

    cert: Path
    """Certificate of the server."""

    key: Path
    """Private key of the certificate, without a password."""

    client_ca: Path | None = None
    """Certificates of the CA that signs the clients' certificates. None: clients need no certificate."""


@dataclass(frozen=True)
class ServerOptions:
    """How `csg serve` starts Triton."""

    address: str = LOOPBACK
    """IPv4 address of the interface to listen on."""

    ports: tuple[int, int, int] = (8000, 8001, 8002)
    """Ports of HTTP, gRPC and metrics. 0 takes a free one."""

    expose_http: bool = False
    """Whether HTTP listens on `address` too. Otherwise it stays on loopback, unless `address` is loopback itself."""

    control: Control = "poll"
    """How the server finds new versions: "poll" looks at the repository, "explicit" waits to be told."""

    secret_file: Path | None = None
    """File with the secret of the control API. None: a new secret."""

    tls: TlsFiles | None = None
    """Certificates of the gRPC endpoint. None: gRPC is not encrypted."""

    threads: int = 1
    """CPU cores that one model may use."""

    drain_s: int = 30
    """Seconds that running requests get to finish when the server stops."""

    log_level: LogLevel = "info"
    """Lowest severity that Triton writes to its log."""

    tuning: str = "on"
    """CPU tuning: "on", "off", or a comma-separated list; see `csg_serve.server.tuning`."""

    @property
    def exposed(self) -> bool:
        """Whether other machines can reach the server."""
        return not ipaddress.IPv4Address(self.address).is_loopback

    @property
    def hosts(self) -> dict[str, str]:
        """The address of each endpoint."""
        http = self.address if self.expose_http or not self.exposed else LOOPBACK
        return {name: http if name == "http" else self.address for name in ENDPOINTS}


def check_address(address: str) -> str:
    """Return `address` if it is an IPv4 address.

    Raises:
        UsageError: it is not.
    """
    try:
        return str(ipaddress.IPv4Address(address))
    except ValueError:
        raise UsageError(
            f"{address!r} is not an IPv4 address", f"use an address of this machine, or {ANY_ADDRESS} for all of them"
        ) from None


def check_tls(cert: Path | None, key: Path | None, client_ca: Path | None) -> TlsFiles | None:
    """Check the TLS files and return them with absolute paths; None if no file is given.

    Raises:
        UsageError: the certificate or its key is missing.
        InputError: a file can't be read, is not a PEM file of the right kind, or does not match the others.
    """
    if cert is None and key is None and client_ca is None:
        return None
    if cert is None or key is None:
        raise UsageError("TLS needs a certificate and its key", "give both --tls-cert and --tls-key")
    for file in filter(None, (cert, key, client_ca)):
        if not os.access(file, os.R_OK):
            raise InputError(f"can't read {file}", "give a PEM file")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert, key, password=_refuse_password)
    except ssl.SSLError as error:
        message = f"{cert} and {key} are not a certificate and its key: {error.reason or one_line(error)}"
        raise InputError(message, "give PEM files that belong together, the key without a password") from None
    if client_ca:
        try:
            context.load_verify_locations(client_ca)
        except ssl.SSLError as error:
            message = f"{client_ca} holds no certificate: {error.reason or one_line(error)}"
            raise InputError(message, "give the PEM file of the CA that signs the clients' certificates") from None
    return TlsFiles(cert.absolute(), key.absolute(), client_ca and client_ca.absolute())


def _refuse_password() -> str:
    raise ssl.SSLError("the key has a password")


def read_secret(file: Path) -> str:
    """Read the secret of the control API, which clients send in the header `csg-secret`.

    Raises:
        InputError: the file can't be read, or does not hold a secret.
    """
    try:
        secret = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise InputError(f"can't read {file}: {reason}", "give a text file with a secret") from None
    if not SECRET_PATTERN.fullmatch(secret):
        hint = f"write at least 16 letters, digits, '-' and '_', for example {secrets.token_urlsafe(24)}"
        raise InputError(f"{file} holds no secret", hint)
    return secret


def control_secret(options: ServerOptions) -> str:
    """Return the secret of the control API: the user's, or a new one.

    There always is one: a web page can send a POST to loopback, and a request to load a model may carry its script.

    Raises:
        InputError: as `read_secret`.
    """
    return read_secret(options.secret_file) if options.secret_file else generate_secret()
