"""`csg serve`: start Triton on a model repository, wait until every model is ready, stop it cleanly."""

from __future__ import annotations

import errno
import fcntl
import secrets
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import IO

from csg.console import log, print_json, stdout
from csg.errors import InputError, ServerError, UsageError
from csg.files import atomic_write
from csg_serve.server.control import load_error, load_failed, repository_index, until_timeout
from csg_serve.server.flags import KEEP_ON_LOAD_ERROR, Endpoints, environment, triton_flags
from csg_serve.server.log_keeper import older_part
from csg_serve.server.options import ANY_ADDRESS, LOOPBACK, ServerOptions, control_secret
from csg_serve.server.process import descriptor_limit, start_server
from csg_serve.server.state import (
    LOG,
    SECRET,
    ServerState,
    clear_regions,
    running_server,
    server_processes,
    write_state,
)
from csg_serve.server.stop import STARTED_ELSEWHERE, have_ended, stop_server
from csg_serve.server.strays import check_entries, is_model, stray_names
from csg_serve.server.tuning import set_scheduling_policy
from csg_serve.server.verification import log_verified, verify_running
from csg_serve.server.watchdog import start_watchdog
from csg_serve.triton.config import needs_openvino, repository_flags
from csg_serve.triton.executable import Triton, find_triton
from csg_serve.triton.failures import mark_served
from csg_serve.verify.verify import check

LOG_TAIL_LINES = 15

LOG_END_S = 1
"""Seconds that the log of a server that has ended may take to be complete."""

FEW_DESCRIPTORS = 4096
"""Limit of open files below which idle connections may well use them up."""


def serve_command(repository: Path, options: ServerOptions, detach: bool, as_json: bool) -> None:
    """Run `csg serve`: until Ctrl-C, a signal or `csg serve --stop`; detached, until every model is ready.

    SIGTERM ends a server that is ready with exit code 0: running requests are answered, new ones refused.

    Raises:
        InputError: the repository holds no model or can't be written; the secret file holds no secret.
        UsageError: the address or a port can't be used on this machine.
        ServerError: there is no tritonserver, a port is in use, a server already runs on the repository, or a model
            does not load.
        VerificationError: the answers of a model differ from the golden ones.
    """
    end_on_signals()
    with ExitStack() as cleanup:
        process, state = _start_until_ready(repository, options, cleanup)
        _announce(state, as_json)
        _warn(options)
        if detach:
            cleanup.pop_all()
            return
        log("press Ctrl-C to stop it")
        if not _is_ignored(signal.SIGTERM):
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        if process.wait() != 0:
            raise _died(process, repository / LOG, state)


def start(repository: Path, options: ServerOptions) -> ServerState:
    """Start a server as `csg serve --detach` does, and return when every model is ready; raises as `serve_command`."""
    with ExitStack() as cleanup:
        _, state = _start_until_ready(repository, options, cleanup)
        _warn(options)
        cleanup.pop_all()
        return state


def _start_until_ready(
    repository: Path, options: ServerOptions, cleanup: ExitStack
) -> tuple[subprocess.Popen[bytes], ServerState]:
    """The process of a server whose models are all ready; `cleanup` stops it."""
    _check_repository(repository)
    secret = control_secret(options)
    triton = find_triton(needs_openvino(repository))
    with _locked_log(repository) as log_file:
        clear_regions()
        endpoints = _free_endpoints(options)
        process, state = _start(repository, options, endpoints, log_file, triton=triton, secret=secret)
        cleanup.callback(stop_server, repository, state)
        write_state(repository, state)
        start_watchdog(repository, state.token)
        _wait_until_ready(process, repository, state)
        _verify(repository, state)
        return process, state


def end_on_signals() -> None:
    """Let SIGTERM and SIGHUP end this process as Ctrl-C does, after it has cleaned up."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if not _is_ignored(number):
            signal.signal(number, signal.default_int_handler)


def _is_ignored(number: signal.Signals) -> bool:
    """Return whether a signal is ignored, as SIGHUP is under nohup."""
    return signal.getsignal(number) is signal.SIG_IGN


def _check_repository(repository: Path) -> None:
    check_entries(repository)
    path = str(repository.resolve())
    if path != shlex.quote(path):  # Triton starts its Python stubs through a shell
        raise InputError(
            f"Triton's Python backend runs no model below {path!r}", "use a path without spaces and quotes"
        )


@contextmanager
def _locked_log(repository: Path) -> Iterator[IO[bytes]]:
    """Empty and lock the log. The server inherits the lock with the file and holds it until its last process ends."""
    path = repository / LOG
    try:
        log_file = path.open("ab")
    except OSError as error:
        raise InputError(f"can't write {path}: {error.strerror}", "serve a repository that you can write") from None
    with log_file:
        try:
            fcntl.flock(log_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            hint = f"stop it first with `csg serve --stop --repository {repository}`"
            if running_server(repository) is None:
                hint = STARTED_ELSEWHERE
            raise ServerError(f"a server already runs on {repository}/", hint) from None
        log_file.truncate(0)
        older_part(path).unlink(missing_ok=True)
        yield log_file


def _free_endpoints(options: ServerOptions) -> Endpoints:
    """Return address and port of each endpoint; all were free a moment ago."""
    with ExitStack() as listeners:
        return {
            name: (host, _free_port(name, host, port, listeners))
            for (name, host), port in zip(options.hosts.items(), options.ports, strict=True)
        }


def _free_port(name: str, host: str, port: int, listeners: ExitStack) -> int:
    """Return the port, or a free one for 0; it stays in use until `listeners` is closed."""
    listener = listeners.enter_context(socket.socket())
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    hint = f"choose another port, for example --{name}-port 0 for any free one"
    try:
        listener.bind((host, port))
        listener.listen()
    except OverflowError:
        raise UsageError(f"{name} port {port} is not between 0 and 65535", hint) from None
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            hint = f"use an address of this machine, or {ANY_ADDRESS}"
            raise UsageError(f"{host} is not an address of this machine", hint) from None
        raise ServerError(f"can't use {name} port {port}: {error.strerror}", hint) from None
    return int(listener.getsockname()[1])


def _start(
    repository: Path,
    options: ServerOptions,
    endpoints: Endpoints,
    log_file: IO[bytes],
    *,
    triton: Triton,
    secret: str,
) -> tuple[subprocess.Popen[bytes], ServerState]:
    """Start tritonserver, and return its process with what is to be recorded of it."""
    log(f"serving {repository}/ with {triton.executable}; log: {repository / LOG}")
    atomic_write(repository / SECRET, secret.encode(), mode=0o600)
    token = f"csg-{secrets.token_hex(8)}-"
    flags = triton_flags(options, str(repository.resolve()), endpoints, secret)
    flags += [*repository_flags(repository, triton.executable), KEEP_ON_LOAD_ERROR]
    flags.append(f"--backend-config=python,shm-region-prefix-name={token}")
    if triton.backends:
        flags.append(f"--backend-directory={triton.backends}")
    command = [str(triton.executable), *flags]
    process = start_server(command, environment(triton, options), log_file, token)
    set_scheduling_policy(process.pid, options.tuning)
    addresses = {
        name: f"{LOOPBACK if host == ANY_ADDRESS else host}:{port}" for name, (host, port) in endpoints.items()
    }
    return process, ServerState(
        pid=process.pid,
        token=token,
        http=addresses["http"],
        grpc=addresses["grpc"],
        metrics=addresses["metrics"],
        control=options.control,
        tls=options.tls is not None,
        drain_s=options.drain_s,
    )


def _wait_until_ready(process: subprocess.Popen[bytes], repository: Path, state: ServerState) -> None:
    """Wait until Triton answers, which is when it has tried to load every model.

    Raises:
        ServerError: a model did not load, or Triton ended.
        VerificationError: a model did not load since its answers differ from the golden ones.
    """
    log_file, entries = repository / LOG, []
    for _ in until_timeout(log_file):
        entries = repository_index(repository, state.http)
        if entries:
            break
        if process.poll() is not None:
            raise _died(process, log_file, state)
    ready = {entry["name"] for entry in entries if entry.get("state") == "READY"}
    for entry in entries:
        hidden = entry["name"].startswith(".")
        if entry.get("state") != "READY" and not hidden and (is_model(repository / entry["name"]) or not ready):
            reason, hint = load_error(entry, log_file), f"deploy it again, or see {log_file}"
            mark_served(repository, entry["name"], reason)
            raise load_failed(f"model {entry['name']}", reason, hint)
    if strays := stray_names(repository, ready):
        log(f"passed over in {repository}/, no readable config.pbtxt of that name: {', '.join(strays)}")


def _verify(repository: Path, state: ServerState) -> None:
    """Compare the answers of all models with their golden answers.

    Raises:
        VerificationError: a model answers wrongly.
        ServerError: a model gives no answer.
        InputError: a model carries no valid card or golden answers.
    """
    found = verify_running(repository, state)
    for one in sorted(found, key=lambda one: one.failed):
        mark_served(repository, one.model, one.reason if one.failed else None)
    check(found)
    log_verified(found)


def _died(process: subprocess.Popen[bytes], log_file: Path, state: ServerState) -> ServerError:
    """Return the error for a server that ended by itself, and print the end of its log, once its keeper has ended."""
    have_ended(partial(server_processes, log_file.parent, state), LOG_END_S)
    for line in log_file.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]:
        log(line)
    return ServerError(f"tritonserver ended with exit code {process.returncode}", f"see its log {log_file}")


def _announce(state: ServerState, as_json: bool) -> None:
    if as_json:
        print_json({"pid": state.pid, **state.addresses})
        sys.stdout.flush()
    else:
        for name, address in state.addresses.items():
            stdout.print(f"{name:8} {address}")


def _warn(options: ServerOptions) -> None:
    """Print what to know about a server that other machines can reach, or that may open few files."""
    if (limit := descriptor_limit()) < FEW_DESCRIPTORS:
        unloads = " and unloads its models until there is (not with --control explicit)"
        what = f"without a free one it takes no connection{unloads if options.control == 'poll' else ''}"
        log(f"the server may open at most {limit} files and connections (ulimit -Hn): {what}")
    if options.exposed:
        encryption = "gRPC is encrypted" if options.tls else "gRPC is not encrypted (--tls-cert)"
        http = "HTTP is open to them too" if options.expose_http else "HTTP stays on loopback"
        known = "SECURITY.md lists what is known of Triton's versions"
        log(f"other machines can reach the server at {options.address}: {encryption}; {http}; {known}")
