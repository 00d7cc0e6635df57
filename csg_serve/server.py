"""A model repository's tritonserver: start it on loopback, wait until every model is ready, stop it, leave nothing.

    <repository>/.csg-serve.log     what the server says; locked as long as one of its processes lives
    <repository>/.csg-serve.json    which process it is, and its addresses

Triton polls the repository, so that what `csg deploy` adds goes live in the running server.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import psutil

from csg.console import print_json, results, say
from csg.errors import InputError, ServerError, UsageError
from csg.files import write_bytes
from csg_serve.config import server_flags
from csg_serve.triton import Triton, find_triton

HOST = "127.0.0.1"
ENDPOINTS = ("http", "grpc", "metrics")
LOG, STATE = ".csg-serve.log", ".csg-serve.json"
TOKEN = r"csg-[0-9a-f]{16}-"
POLL_S = 1
LOAD_TIMEOUT_S = 600
STOP_TIMEOUT_S = 30
LOG_TAIL_LINES = 15


def serve_command(repository: Path, ports: tuple[int, int, int], detach: bool, as_json: bool) -> None:
    """`csg serve`: run until Ctrl-C, a signal or `csg serve --stop`; with `detach`, return when every model is ready.

    Args:
        ports: HTTP, gRPC, metrics; 0 takes a free one.

    Raises:
        InputError: the repository holds no model, or can't be written.
        ServerError: no tritonserver, a port in use, a server there already, a model that does not load.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, signal.default_int_handler)
    if not repository.is_dir() or not any(e.is_dir() and not e.name.startswith(".") for e in repository.iterdir()):
        raise InputError(f"no model in {repository}/", "put one there with `csg deploy`")
    with _claimed_log(repository) as log, ExitStack() as cleanup:
        addresses = dict(zip(ENDPOINTS, _free_addresses(ports), strict=True))
        triton = find_triton()
        say(f"serving {repository}/ with {triton.executable}; its log is {repository / LOG}")
        token = f"csg-{secrets.token_hex(8)}-"
        process = _launch(triton, repository, addresses, token, log)
        state = {"pid": process.pid, "token": token, **addresses}
        cleanup.callback(_stop, repository, state)
        write_bytes(repository / STATE, json.dumps(state).encode())
        _wait_until_ready(process, addresses["http"], repository / LOG)
        _announce(process.pid, addresses, as_json)
        if detach:
            cleanup.pop_all()
            return
        say("Ctrl-C stops it")
        if process.wait() != 0:
            raise _died(process, repository / LOG)


def stop_command(repository: Path, as_json: bool) -> None:
    """`csg serve --stop`: stop the server that runs on a repository.

    Raises:
        ServerError: none does.
    """
    state = _state(repository)
    if state is None or not _processes(state):
        raise ServerError(f"no server runs on {repository}/", "`csg serve` starts one")
    _stop(repository, state)
    say(f"stopped the server on {repository}/ (process {state['pid']})")
    if as_json:
        print_json({name: state[name] for name in ("pid", *ENDPOINTS)})


def _state(repository: Path) -> dict[str, Any] | None:
    """What `csg serve` wrote about its server, which may have ended since; None where nothing sound is written."""
    try:
        state: dict[str, Any] = json.loads((repository / STATE).read_text())
        sound = re.fullmatch(TOKEN, state["token"]) and {"pid", *ENDPOINTS} <= state.keys()
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return state if sound else None


def wait_until_live(repository: Path, model: str, version: int) -> str | None:
    """Wait until the server that runs on a repository serves a new version.

    Returns:
        its gRPC address; None where no server of ours runs.

    Raises:
        ServerError: the version does not load.
    """
    log, noticed = repository / LOG, time.monotonic() + 3 * POLL_S  # until then it may be what became of an older try
    for _ in _ticks(log):
        server = _state(repository)
        if server is None or not _processes(server):
            return None
        found = [e for e in _index(server["http"]) if (e["name"], e.get("version")) == (model, str(version))]
        state = found[0]["state"] if found else None
        if state == "READY":
            return str(server["grpc"])
        waits = found and found[0].get("reason") == "unloaded"  # Triton may be at work on another model
        if state == "UNAVAILABLE" and not waits and time.monotonic() > noticed:
            raise ServerError(
                f"{model} version {version} does not load: {_reason(found[0], log)}", "what was live stays so"
            )
    return None


@contextmanager
def _claimed_log(repository: Path) -> Iterator[IO[bytes]]:
    """The log, emptied and locked; the server inherits the lock with the file and holds it to its last process."""
    try:
        log = (repository / LOG).open("ab")
    except OSError as error:
        raise InputError(
            f"can't write {repository / LOG}: {error.strerror}", "serve a repository that can be written"
        ) from None
    with log:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            todo = f"stop it first with `csg serve --stop --repository {repository}`"
            raise ServerError(f"a server runs on {repository}/ already", todo) from None
        log.truncate(0)
        yield log


def _free_addresses(ports: tuple[int, int, int]) -> list[str]:
    """HOST:PORT of each endpoint, free a moment ago."""
    addresses = []
    with ExitStack() as held:
        for name, port in zip(ENDPOINTS, ports, strict=True):
            listener = held.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            todo = f"choose another, for example --{name}-port 0 for any free one"
            try:
                listener.bind((HOST, port))
                listener.listen()
            except OverflowError:
                raise UsageError(f"{name} port {port} is none", todo) from None
            except OSError as error:
                raise ServerError(f"{name} port {port} can't be used: {error.strerror}", todo) from None
            addresses.append(f"{HOST}:{listener.getsockname()[1]}")
    return addresses


def _launch(
    triton: Triton, repository: Path, addresses: dict[str, str], token: str, log: IO[bytes]
) -> subprocess.Popen[bytes]:
    """Start tritonserver as the leader of its own process group, so that Ctrl-C reaches csg alone."""
    arguments = [
        str(triton.executable),
        f"--model-repository={repository.resolve()}",
        "--model-control-mode=poll",
        f"--repository-poll-secs={POLL_S}",
        "--exit-on-error=false",
        f"--backend-config=python,shm-region-prefix-name={token}",
    ]
    arguments += server_flags(repository, triton.executable)
    if triton.backends:
        arguments.append(f"--backend-directory={triton.backends}")
    for name, address in addresses.items():
        arguments += [f"--{name}-address={HOST}", f"--{name}-port={address.rpartition(':')[2]}"]
    return subprocess.Popen(
        arguments, env=triton.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
    )


def _wait_until_ready(process: subprocess.Popen[bytes], http_address: str, log: Path) -> None:
    """Triton answers when it has tried every model; one that did not load is an error."""
    for _ in _ticks(log):
        index = _index(http_address)
        if index:
            break
        if process.poll() is not None:
            raise _died(process, log)
    for entry in index:
        if entry.get("state") != "READY" and not entry["name"].startswith("."):
            what = f"model {entry['name']} does not load: {_reason(entry, log)}"
            raise ServerError(what, f"deploy it again, or see {log}")


def _ticks(log: Path) -> Iterator[None]:
    """Ten times a second, until it takes too long."""
    deadline = time.monotonic() + LOAD_TIMEOUT_S
    while time.monotonic() < deadline:
        yield
        time.sleep(0.1)
    raise ServerError(f"tritonserver took more than {LOAD_TIMEOUT_S} s", f"see {log}")


def _index(http_address: str) -> list[dict[str, str]]:
    """Triton's repository index: name, version, state, reason; empty while it does not answer."""
    request = urllib.request.Request(f"http://{http_address}/v2/repository/index", method="POST")
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with contextlib.suppress(OSError, http.client.HTTPException), direct.open(request, timeout=5) as response:
        entries: list[dict[str, str]] = json.load(response)
        return entries
    return []


def _reason(entry: dict[str, str], log: Path) -> str:
    """Why a model is not ready, on one line: from the index, else the last error in the log that names it."""
    errors = [
        line for line in log.read_text(errors="replace").splitlines() if line[:1] == "E" and entry["name"] in line
    ]
    reason = entry.get("reason") or "".join(errors[-1:]).partition("] ")[2].strip('"') or "unknown reason"
    return " ".join(reason.partition("\n\nAt:")[0].split())


def _died(process: subprocess.Popen[bytes], log: Path) -> ServerError:
    """The error for a server that ended by itself; the end of its log goes to standard error."""
    for line in log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]:
        say(line)
    return ServerError(f"tritonserver ended by itself with exit code {process.returncode}", f"its log is {log}")


def _announce(pid: int, addresses: dict[str, str], as_json: bool) -> None:
    if as_json:
        print_json({"pid": pid, **addresses})
        sys.stdout.flush()
    else:
        for name, address in addresses.items():
            results.print(f"{name:8} {address}")


def _stop(repository: Path, state: dict[str, Any]) -> None:
    """SIGTERM to the server's processes, SIGKILL to what is left of them after a while; their files go with them."""
    try:
        _signal(state, signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while _processes(state) and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        _signal(state, signal.SIGKILL)
        (repository / STATE).unlink(missing_ok=True)
        for region in Path("/dev/shm").glob(f"{state['token']}*"):
            region.unlink(missing_ok=True)


def _signal(state: dict[str, Any], number: signal.Signals) -> None:
    for process in _processes(state):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _processes(state: dict[str, Any]) -> list[psutil.Process]:
    """tritonserver and its Python stubs: all carry the token on their command lines, which a recycled pid does not."""
    return [process for process in psutil.process_iter() if _carries(process, state["token"])]


def _carries(process: psutil.Process, token: str) -> bool:
    try:
        return token in " ".join(process.cmdline())
    except psutil.Error:  # gone, a zombie, or another user's
        return False
