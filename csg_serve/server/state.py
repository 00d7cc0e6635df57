"""The server that runs on a model repository: which it is, what it has ready, and how a new version gets into it.

<repository>/.csg-serve.log     what the server says; locked as long as one of its processes lives
<repository>/.csg-serve.json    which process it is, its addresses, how it finds new versions
<repository>/.csg-serve.secret  the secret of its control API, where that asks for one; for the owner's eyes
"""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from csg.errors import InputError, ServerError
from csg_serve.server.flags import ENDPOINTS, read_secret
from csg_serve.triton.protocol import CONTROL_TIMEOUT_S, LOAD_TIMEOUT_S, POLL_S, SECRET_HEADER, triton_message

LOG, STATE, SECRET = ".csg-serve.log", ".csg-serve.json", ".csg-serve.secret"
TOKEN = r"csg-[0-9a-f]{16}-"
RESTART = "it is for the user who started the server; if it was changed, stop the server and start it again"


def read_state(repository: Path) -> dict[str, Any] | None:
    """What `csg serve` wrote about its server, which may have ended since; None where nothing sound is written."""
    try:
        state: dict[str, Any] = json.loads((repository / STATE).read_text())
        sound = re.fullmatch(TOKEN, state["token"]) and {"pid", "control", "drain", *ENDPOINTS} <= state.keys()
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return state if sound else None


def processes(state: dict[str, Any]) -> list[psutil.Process]:
    """tritonserver and its Python stubs: all carry the token on their command lines, which a recycled pid does not."""
    return [process for process in psutil.process_iter() if _carries(process, state["token"])]


def _carries(process: psutil.Process, token: str) -> bool:
    try:
        return token in " ".join(process.cmdline())
    except psutil.Error:  # gone, a zombie, or another user's
        return False


def wait_until_live(repository: Path, model: str, version: int) -> str | None:
    """Wait until the server that runs on a repository serves a new version; one that does not poll is told to load it.

    Returns:
        its gRPC address; None where no server of ours runs.

    Raises:
        ServerError: the version does not load.
    """
    log, noticed, told = repository / LOG, time.monotonic() + 3 * POLL_S, False
    for _ in ticks(log):
        server = read_state(repository)
        if server is None or not processes(server):
            return None
        if server["control"] == "explicit" and not told:
            told = load(repository, server, model, version)
        found = [e for e in index(repository, server["http"]) if (e["name"], e.get("version")) == (model, str(version))]
        state = found[0]["state"] if found else None
        if state == "READY":
            return str(server["grpc"])
        # until Triton has had the time to notice it may be what became of an older try
        waits = found and found[0].get("reason") == "unloaded"  # Triton may be at work on another model
        if state == "UNAVAILABLE" and not waits and (told or time.monotonic() > noticed):
            raise _does_not_load(model, version, reason(found[0], log))
    return None


def load(repository: Path, server: dict[str, Any], model: str, version: int) -> bool:
    """Whether the server has been told to load what the model's configuration names; False while it does not listen.

    Raises:
        ServerError: it does not load.
    """
    try:
        _post(repository, server["http"], f"models/{model}/load", LOAD_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        raise _does_not_load(model, version, triton_message(_error_text(error))) from None
    except (OSError, http.client.HTTPException):
        return False
    return True


def unload(repository: Path, model: str) -> None:
    """Have a server that does not poll let go of a model which has left its repository."""
    server = read_state(repository)
    if server and server["control"] == "explicit" and processes(server):
        with suppress(OSError, http.client.HTTPException):
            _post(repository, server["http"], f"models/{model}/unload", CONTROL_TIMEOUT_S)


def _does_not_load(model: str, version: int, why: str) -> ServerError:
    return ServerError(f"{model} version {version} does not load: {why}", "what was live stays so")


def ticks(log: Path) -> Iterator[None]:
    """Ten times a second, until it takes too long."""
    deadline = time.monotonic() + LOAD_TIMEOUT_S
    while time.monotonic() < deadline:
        yield
        time.sleep(0.1)
    raise ServerError(f"tritonserver took more than {LOAD_TIMEOUT_S} s", f"see {log}")


def index(repository: Path, http_address: str) -> list[dict[str, str]]:
    """Triton's repository index: name, version, state, reason; empty while it does not answer."""
    try:
        entries: list[dict[str, str]] = json.loads(_post(repository, http_address, "index", CONTROL_TIMEOUT_S))
    except (OSError, http.client.HTTPException):
        return []
    return entries


def _post(repository: Path, http_address: str, call: str, timeout: float) -> bytes:
    """A call of the control API, with the secret where there is one."""
    request = urllib.request.Request(
        f"http://{http_address}/v2/repository/{call}", method="POST", headers=_secret_header(repository / SECRET)
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=timeout) as response:
            content: bytes = response.read()
            return content
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.FORBIDDEN:
            raise ServerError(f"the server does not take the secret in {repository / SECRET}", RESTART) from None
        raise


def _secret_header(file: Path) -> dict[str, str]:
    try:
        return {SECRET_HEADER: read_secret(file)} if file.exists() else {}
    except InputError as error:
        raise ServerError(error.message, RESTART) from None


def _error_text(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"])
    except (ValueError, LookupError, TypeError):
        return str(error)


def reason(entry: dict[str, str], log: Path) -> str:
    """Why a model is not ready, on one line: from the index, else the last error in the log that names it."""
    errors = [
        line for line in log.read_text(errors="replace").splitlines() if line[:1] == "E" and entry["name"] in line
    ]
    return triton_message(entry.get("reason") or "".join(errors[-1:]).partition("] ")[2].strip('"') or "unknown reason")
