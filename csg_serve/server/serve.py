"""A model repository's tritonserver: start it, wait until every model is ready, let it finish, leave nothing behind."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import psutil

from csg.console import log, print_json, stdout
from csg.errors import InputError, ServerError, UsageError
from csg.files import atomic_write
from csg_serve.server.flags import (
    ENDPOINTS,
    EVERYWHERE,
    LOOPBACK,
    STAY,
    Bind,
    Options,
    environment,
    read_secret,
    triton_flags,
)
from csg_serve.server.state import LOG, SECRET, STATE, index, processes, read_state, reason, ticks
from csg_serve.server.watchdog import start_guard
from csg_serve.triton.config import server_flags
from csg_serve.triton.executable import Triton, find_triton

LAST_S = 5  # for the Python stubs, when their server has ended
LOG_TAIL_LINES = 15


def serve_command(repository: Path, options: Options, detach: bool, as_json: bool) -> None:
    """`csg serve`: run until Ctrl-C, a signal or `csg serve --stop`; with `detach`, return when every model is ready.

    SIGTERM ends a server that is ready with exit code 0. Requests under way are answered, new ones refused.

    Raises:
        InputError: the repository holds no model, or can't be written; the file of the secret holds none.
        UsageError: a port or the address is none of this machine's.
        ServerError: no tritonserver, a port in use, a server there already, a model that does not load.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, signal.default_int_handler)
    if not repository.is_dir() or not any(e.is_dir() and not e.name.startswith(".") for e in repository.iterdir()):
        raise InputError(f"no model in {repository}/", "put one there with `csg deploy`")
    if (place := str(repository.resolve())) != shlex.quote(place):  # it starts its stub through a shell
        raise InputError(
            f"Triton's Python backend runs no model below {place!r}", "use a path without blanks or quotes"
        )
    secret = _secret(options)
    with _claimed_log(repository) as log_file, ExitStack() as cleanup:
        bind = _free_addresses(options)
        triton = find_triton()
        log(f"serving {repository}/ with {triton.executable}; its log is {repository / LOG}")
        addresses = {name: f"{LOOPBACK if host == EVERYWHERE else host}:{port}" for name, (host, port) in bind.items()}
        token = f"csg-{secrets.token_hex(8)}-"
        (repository / SECRET).unlink(missing_ok=True)
        if secret:
            atomic_write(repository / SECRET, secret.encode(), mode=0o600)
        flags = triton_flags(options, str(repository.resolve()), bind, secret)
        flags += server_flags(repository, triton.executable)
        process = _launch(triton, flags, token, options.threads, log_file)
        state = {"pid": process.pid, "token": token, **addresses, "control": options.control, "drain": options.drain}
        cleanup.callback(_stop, repository, state)
        atomic_write(repository / STATE, json.dumps(state).encode())
        start_guard(repository, token)
        _wait_until_ready(process, repository, addresses["http"])
        _announce(process.pid, addresses, as_json)
        _warn(repository, options)
        if detach:
            cleanup.pop_all()
            return
        log("Ctrl-C stops it")
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        if process.wait() != 0:
            raise _died(process, repository / LOG)


def stop_command(repository: Path, as_json: bool) -> None:
    """`csg serve --stop`: stop the server that runs on a repository, when it has answered what is under way.

    Raises:
        ServerError: none does.
    """
    state = read_state(repository)
    if state is None or not processes(state):
        raise ServerError(f"no server runs on {repository}/", "`csg serve` starts one")
    _stop(repository, state)
    log(f"stopped the server on {repository}/ (process {state['pid']})")
    if as_json:
        print_json({name: state[name] for name in ("pid", *ENDPOINTS)})


def _secret(options: Options) -> str | None:
    """The secret of the control API: from the user's file, or a new one; None where it asks for none."""
    if options.secret_file:
        return read_secret(options.secret_file)
    return secrets.token_urlsafe(24) if options.restricted else None


@contextmanager
def _claimed_log(repository: Path) -> Iterator[IO[bytes]]:
    """The log, emptied and locked; the server inherits the lock with the file and holds it to its last process."""
    try:
        log_file = (repository / LOG).open("ab")
    except OSError as error:
        raise InputError(
            f"can't write {repository / LOG}: {error.strerror}", "serve a repository that can be written"
        ) from None
    with log_file:
        try:
            fcntl.flock(log_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            hint = f"stop it first with `csg serve --stop --repository {repository}`"
            raise ServerError(f"a server runs on {repository}/ already", hint) from None
        log_file.truncate(0)
        yield log_file


def _free_addresses(options: Options) -> Bind:
    """Address and port of each endpoint, free a moment ago."""
    bind = {}
    with ExitStack() as held:
        for (name, host), port in zip(options.hosts.items(), options.ports, strict=True):
            listener = held.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            hint = f"choose another, for example --{name}-port 0 for any free one"
            try:
                listener.bind((host, port))
                listener.listen()
            except OverflowError:
                raise UsageError(f"{name} port {port} is none", hint) from None
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL:
                    hint = f"give an address of this machine, or {EVERYWHERE}"
                    raise UsageError(f"{host} is no address of this machine", hint) from None
                raise ServerError(f"{name} port {port} can't be used: {error.strerror}", hint) from None
            bind[name] = (host, listener.getsockname()[1])
    return bind


def _launch(triton: Triton, flags: list[str], token: str, threads: int, log_file: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start tritonserver as the leader of its own process group, so that Ctrl-C reaches csg alone.

    It and its children do batch work, for Linux: a thread that wakes does not take the core from one that computes,
    whose caches are full of what it is at.
    """
    arguments = [str(triton.executable), *flags, STAY, f"--backend-config=python,shm-region-prefix-name={token}"]
    if triton.backends:
        arguments.append(f"--backend-directory={triton.backends}")
    variables = environment(triton, threads)
    process = subprocess.Popen(
        arguments, env=variables, stdin=subprocess.DEVNULL, stdout=log_file, stderr=log_file, start_new_session=True
    )
    with suppress(OSError):  # a sandbox may forbid it
        os.sched_setscheduler(process.pid, os.SCHED_BATCH, os.sched_param(0))
    return process


def _wait_until_ready(process: subprocess.Popen[bytes], repository: Path, http_address: str) -> None:
    """Triton answers when it has tried every model; one that did not load is an error."""
    log_file, entries = repository / LOG, []
    for _ in ticks(log_file):
        entries = index(repository, http_address)
        if entries:
            break
        if process.poll() is not None:
            raise _died(process, log_file)
    for entry in entries:
        if entry.get("state") != "READY" and not entry["name"].startswith("."):
            what = f"model {entry['name']} does not load: {reason(entry, log_file)}"
            raise ServerError(what, f"deploy it again, or see {log_file}")


def _died(process: subprocess.Popen[bytes], log_file: Path) -> ServerError:
    """The error for a server that ended by itself; the end of its log goes to standard error."""
    for line in log_file.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]:
        log(line)
    return ServerError(f"tritonserver ended by itself with exit code {process.returncode}", f"its log is {log_file}")


def _announce(pid: int, addresses: Mapping[str, str], as_json: bool) -> None:
    if as_json:
        print_json({"pid": pid, **addresses})
        sys.stdout.flush()
    else:
        for name, address in addresses.items():
            stdout.print(f"{name:8} {address}")


def _warn(repository: Path, options: Options) -> None:
    """What a person should know of a server that others can reach."""
    if options.exposed:
        encrypted = "gRPC is encrypted, HTTP is on loopback" if options.tls else "nothing is encrypted (--tls-cert)"
        log(f"listening on {options.address} for other machines; {encrypted}")
    if options.restricted:
        log(f"the control API asks for the secret in {repository / SECRET}")


def _stop(repository: Path, state: dict[str, Any]) -> None:
    """SIGTERM to tritonserver, which answers what is under way; SIGKILL to what is left when its time is up."""
    try:
        for process in _server(state):
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        if not _gone(_server, state, state["drain"]):
            log(f"{state['drain']} s were not enough for the requests under way; ending the server all the same")
        else:
            _gone(processes, state, LAST_S)
    finally:
        for process in processes(state):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for file in (STATE, SECRET):
            (repository / file).unlink(missing_ok=True)
        for region in Path("/dev/shm").glob(f"{state['token']}*"):
            region.unlink(missing_ok=True)


def _server(state: dict[str, Any]) -> list[psutil.Process]:
    """tritonserver itself, while it runs."""
    return [process for process in processes(state) if process.pid == state["pid"]]


def _gone(found: Callable[[dict[str, Any]], list[psutil.Process]], state: dict[str, Any], seconds: float) -> bool:
    """Whether there are no such processes any more, within so many seconds."""
    deadline = time.monotonic() + seconds
    while left := found(state):
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return not left
