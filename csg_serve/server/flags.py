"""What starts a tritonserver: the options of `csg serve` as Triton's flags, for the one here or NVIDIA's container."""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import shlex
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from csg.console import log, print_json
from csg.errors import InputError, ServerError, UsageError
from csg_serve.triton.config import server_flags
from csg_serve.triton.executable import Triton, find_triton
from csg_serve.triton.protocol import POLL_S, SECRET_HEADER

LOOPBACK, EVERYWHERE = "127.0.0.1", "0.0.0.0"
ENDPOINTS = ("http", "grpc", "metrics")
STAY = "--exit-on-error=false"  # `csg serve` tells by itself which model does not load, and why
IMAGE = "nvcr.io/nvidia/tritonserver:24.10-py3"  # Triton 2.51, the one of the nvidia-pytriton wheel
CONTROL_API = "model-repository,shared-memory,trace,logging"
CONTAINER_TRITON = Path("/opt/tritonserver/bin/tritonserver")
CONTAINER_PORTS = {"http": 8000, "grpc": 8001, "metrics": 8002}
THREADS = "CSG_THREADS"  # read by the Python backend's model.py
TUNING = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}  # large pages for weights and activations, where Linux has them
BATCH_WORK = ["chrt", "--batch", "0"]  # what `csg serve` does by itself: see csg_serve/server/serve.py

_PLACE = "@secret@"  # stands for the secret in a command that is printed

LogLevel = Literal["error", "warning", "info", "verbose"]
_LOG_FLAGS: dict[LogLevel, list[str]] = {
    "error": ["--log-warning=false", "--log-info=false"],
    "warning": ["--log-info=false"],
    "info": [],
    "verbose": ["--log-verbose=1"],
}


@dataclass(frozen=True)
class Tls:
    """PEM files of the gRPC endpoint: its certificate and key, and who signs the clients' (None: clients need none)."""

    cert: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True)
class Options:
    """What `csg serve` is asked for.

    address: IPv4 of the interface to listen on. ports: HTTP, gRPC, metrics; 0 takes a free one. control: how new
    versions are found. secret_file: holds the secret of the control API. threads: cores a model may use. drain:
    seconds that requests under way get at the end.
    """

    address: str = LOOPBACK
    ports: tuple[int, int, int] = (8000, 8001, 8002)
    control: Literal["poll", "explicit"] = "poll"
    secret_file: Path | None = None
    tls: Tls | None = None
    threads: int = 1
    drain: int = 30
    log_level: LogLevel = "info"

    @property
    def exposed(self) -> bool:
        """Whether other machines reach the server."""
        return not ipaddress.IPv4Address(self.address).is_loopback

    @property
    def restricted(self) -> bool:
        """Whether the control API asks for the secret."""
        return self.exposed or self.secret_file is not None

    @property
    def hosts(self) -> dict[str, str]:
        """The address each endpoint listens on. Triton's HTTP knows no TLS: beside it, it stays on loopback."""
        return {name: LOOPBACK if name == "http" and self.tls else self.address for name in ENDPOINTS}


def check_address(address: str) -> str:
    """`address` itself when it is an IPv4 address.

    Raises:
        UsageError: it is none.
    """
    try:
        return str(ipaddress.IPv4Address(address))
    except ValueError:
        raise UsageError(
            f"{address!r} is no IPv4 address", f"give one of this machine, or {EVERYWHERE} for all of them"
        ) from None


def check_tls(cert: Path | None, key: Path | None, client_ca: Path | None) -> Tls | None:
    """The TLS files, known to be a certificate, its key, and certificates of a CA; None where none is given.

    Raises:
        UsageError: one is missing.
        InputError: one can't be read, or they don't fit together.
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
        context.load_cert_chain(cert, key, password=_no_password)
    except ssl.SSLError as error:
        what = f"{cert} and {key} are no certificate and its key: {error.reason or error}"
        raise InputError(what, "give PEM files that belong together, the key without a password") from None
    if client_ca:
        try:
            context.load_verify_locations(client_ca)
        except ssl.SSLError as error:
            what = f"{client_ca} holds no certificate: {error.reason or error}"
            raise InputError(what, "give the PEM file of the CA that signs the clients' certificates") from None
    return Tls(cert.absolute(), key.absolute(), client_ca and client_ca.absolute())


def _no_password() -> str:
    raise ssl.SSLError("the key has a password")


def read_secret(file: Path) -> str:
    """The secret in a file, the header csg-secret that requests to the control API must carry.

    Raises:
        InputError: the file can't be read, or holds something else.
    """
    try:
        secret = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"can't read {file}: {getattr(error, 'strerror', error)}", "give one with a secret") from None
    if not re.fullmatch(r"[A-Za-z0-9_-]{16,}", secret):
        hint = f"write at least 16 letters, digits, '-' and '_', for example {secrets.token_urlsafe(24)}"
        raise InputError(f"{file} holds no secret", hint)
    return secret


Bind = Mapping[str, tuple[str, int]]  # address and port of each endpoint


def triton_flags(options: Options, repository: str, bind: Bind, secret: str | None) -> list[str]:
    """Triton's flags. Its ONNX Runtime backend gets one thread pool for all instances of all models.

    A strict server is not ready while a version loads, though the one before answers, and balancers would leave it.
    """
    flags = [f"--model-repository={repository}", f"--model-control-mode={options.control}"]
    flags.append("--load-model=*" if options.control == "explicit" else f"--repository-poll-secs={POLL_S}")
    flags += ["--strict-readiness=false", f"--exit-timeout-secs={options.drain}", *_LOG_FLAGS[options.log_level]]
    pool = {"enable-global-threadpool": 1, "intra_op_thread_count": options.threads, "inter_op_thread_count": 1}
    flags += [f"--backend-config=onnxruntime,{name}={value}" for name, value in pool.items()]
    for name, (host, port) in bind.items():
        flags += [f"--{name}-address={host}", f"--{name}-port={port}"]
    if secret:
        restriction = f"{CONTROL_API}:{SECRET_HEADER}={secret}"
        flags += [f"--grpc-restricted-protocol={restriction}", f"--http-restricted-api={restriction}"]
    if options.tls:
        flags += [
            "--grpc-use-ssl=true",
            f"--grpc-server-cert={options.tls.cert}",
            f"--grpc-server-key={options.tls.key}",
        ]
        if options.tls.client_ca:
            flags += ["--grpc-use-ssl-mutual=true", f"--grpc-root-cert={options.tls.client_ca}"]
    return flags


def environment(triton: Triton, threads: int) -> dict[str, str]:
    """A server's variables: how many cores a model may use, and the tuning, where the user has not set it."""
    return TUNING | triton.environment | {THREADS: str(threads)}


def container_flags(options: Options, secret: str | None) -> list[str]:
    """Triton's flags in a container: /models is the repository, and it listens on every address of its own network.

    There it ends when a model does not load at the start, for whoever runs the container to see.
    """
    bind = {name: (EVERYWHERE, port) for name, port in CONTAINER_PORTS.items()}
    return triton_flags(options, "/models", bind, secret)


def print_command(repository: Path, options: Options, as_json: bool) -> None:
    """`csg serve --print-command`: what a person can paste, for the tritonserver here and for NVIDIA's container.

    Raises:
        UsageError: a port is 0.
    """
    if 0 in options.ports:
        raise UsageError("a command to print needs its ports", "name them instead of 0, which is any free one")
    commands = {}
    try:
        commands["here"] = _command_here(repository, options)
    except ServerError as error:
        log(f"no command for this machine: {error}")
    commands["container"] = _command_in_container(repository, options)
    if options.restricted and options.secret_file is None:
        log("CSG_SECRET must hold the secret of the control API; or name a file with --secret-file")
    if as_json:
        print_json(commands)
    else:
        print("\n\n".join(f"# {where}\n{command}" for where, command in commands.items()))


def _command_here(repository: Path, options: Options) -> str:
    triton = find_triton()
    wanted = environment(triton, options.threads).items()
    changed = [f"{name}={value}" for name, value in wanted if os.environ.get(name) != value]
    bind = dict(zip(ENDPOINTS, zip(options.hosts.values(), options.ports, strict=True), strict=True))
    flags = triton_flags(options, str(repository.resolve()), bind, _PLACE if options.restricted else None)
    flags += server_flags(repository, triton.executable)
    backends = [f"--backend-directory={triton.backends}"] if triton.backends else []
    command = [*BATCH_WORK, str(triton.executable), *flags, STAY, *backends]
    return _shell("env", [*changed, *command], options.secret_file)


def _command_in_container(repository: Path, options: Options) -> str:
    """`docker run`: it publishes the ports where the endpoints would listen here."""
    mounts, tls = {"/models": repository}, None
    if options.tls:
        files = {name: file for name, file in vars(options.tls).items() if file}
        mounts |= {f"/tls/{name}.pem": file for name, file in files.items()}
        tls = Tls(**{name: Path(f"/tls/{name}.pem") for name in files})
    published = zip(options.hosts.values(), options.ports, CONTAINER_PORTS.values(), strict=True)
    run = [
        f"--stop-timeout={options.drain + 5}",
        *(f"--publish={host}:{port}:{inside}" for host, port, inside in published),
        *(f"--volume={file.resolve()}:{inside}:ro" for inside, file in mounts.items()),
        *(f"--env={name}={value}" for name, value in {**TUNING, THREADS: options.threads}.items()),
        IMAGE,
        "tritonserver",
    ]
    flags = container_flags(replace(options, tls=tls), _PLACE if options.restricted else None)
    flags += server_flags(repository, CONTAINER_TRITON)
    return _shell("docker run --rm", [*run, *flags], options.secret_file)


def _shell(start: str, rest: list[str], secret_file: Path | None) -> str:
    """A command for a POSIX shell, an option a line; the secret is read when it runs, and not shown."""
    secret = f'"$(cat {shlex.quote(str(secret_file.resolve()))})"' if secret_file else '"${CSG_SECRET:?}"'
    lines = [start, *map(shlex.quote, rest)]
    return " \\\n  ".join(lines).replace(_PLACE, secret)
