"""The control API of the server that runs on a model repository: index, load, unload."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from csg.errors import CsgError, InputError, ServerError, VerificationError
from csg_serve.python_backend.golden import WRONG
from csg_serve.server.options import read_secret
from csg_serve.server.state import LOG, SECRET, ServerState, running_server
from csg_serve.triton.protocol import CONTROL_TIMEOUT_S, LOAD_TIMEOUT_S, POLL_S, SECRET_HEADER, triton_message

LOOK_S = 0.1
MAX_ANSWER = 2**24
"""Bytes of an answer that are read."""
STAYS = "the previous version stays live"
RESTART = "only the user who started the server may use it; if the file was changed, stop and start the server"


def wait_until_live(repository: Path, model: str, version: int) -> ServerState | None:
    """Wait until the running server serves a version; a server that does not poll is told to load it.

    Returns:
        The server; None if no server of `csg serve` runs on the repository.

    Raises:
        ServerError: the version does not load, or takes longer than `LOAD_TIMEOUT_S`.
        VerificationError: it does not load since its answers differ from the golden ones.
    """
    log_file, noticed_by, told = repository / LOG, time.monotonic() + 3 * POLL_S, False
    for _ in until_timeout(log_file):
        server = running_server(repository)
        if server is None:
            return None
        if server.control == "explicit" and not told:
            told = load_model(repository, server, model, version)
        entry = _index_entry(repository, server, model, version)
        if entry.get("state") == "READY":
            return server
        # A polling server needs time to notice the version: until then the entry may be that of an earlier attempt.
        waiting = entry.get("reason") == "unloaded"  # Triton is busy with another model
        if entry.get("state") == "UNAVAILABLE" and not waiting and (told or time.monotonic() > noticed_by):
            raise load_failed(f"{model} version {version}", load_error(entry, log_file), STAYS)
    return None


def load_model(repository: Path, server: ServerState, model: str, version: int) -> bool:
    """Tell the server to load the version that a model's configuration names; False if it does not listen yet.

    Raises:
        ServerError: the version does not load.
        VerificationError: it does not load since its answers differ from the golden ones.
    """
    try:
        _post(repository, server.http, f"models/{model}/load", LOAD_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        raise load_failed(f"{model} version {version}", triton_message(_error_text(error)), STAYS) from None
    except (OSError, http.client.HTTPException):
        return False
    return True


def unload_model(repository: Path, model: str) -> None:
    """Tell a running server that does not poll to unload a model whose folder was removed."""
    server = running_server(repository)
    if server and server.control == "explicit":
        with suppress(OSError, http.client.HTTPException):
            _post(repository, server.http, f"models/{model}/unload", CONTROL_TIMEOUT_S)


def repository_index(repository: Path, http_address: str) -> list[dict[str, str]]:
    """Return Triton's repository index: name, version, state and reason of each model; empty if it does not answer.

    Raises:
        ServerError: Triton can't read the repository, since it holds a link that leads nowhere.
    """
    try:
        answer = _post(repository, http_address, "index", CONTROL_TIMEOUT_S)
        entries: list[dict[str, str]] = json.loads(answer.decode(errors="replace"))  # a folder's name may be no UTF-8
    except urllib.error.HTTPError as error:
        reason = triton_message(_error_text(error))
        if "failed to stat file" in reason:
            raise ServerError(f"Triton can't read {repository}/: {reason}", "remove this link or repair it") from None
        return []
    except (OSError, http.client.HTTPException, ValueError):
        return []
    return entries


def load_error(entry: dict[str, str], log_file: Path) -> str:
    """Return why a model of the index is not ready, on one line.

    Triton does not always give the reason in the index; then it is the last error in the log that names the model.
    """
    lines = log_file.read_text(errors="replace").splitlines()
    errors = [line for line in lines if line[:1] == "E" and entry["name"] in line]
    logged = "".join(errors[-1:]).partition("] ")[2].strip('"')
    return triton_message(entry.get("reason") or logged or "unknown reason")


def until_timeout(log_file: Path) -> Iterator[None]:
    """Yield every 0.1 s.

    Raises:
        ServerError: after `LOAD_TIMEOUT_S`.
    """
    deadline = time.monotonic() + LOAD_TIMEOUT_S
    while time.monotonic() < deadline:
        yield
        time.sleep(LOOK_S)
    raise ServerError(f"tritonserver took more than {LOAD_TIMEOUT_S} s", f"see {log_file}")


def is_in_service(repository: Path, server: ServerState, model: str, version: int) -> bool:
    """Whether a version is not being loaded or unloaded, nor unloaded; True also if the server does not say."""
    try:
        entry = _index_entry(repository, server, model, version)
    except ServerError:
        return True
    return entry.get("state") not in ("LOADING", "UNLOADING") and entry.get("reason") != "unloaded"


def _index_entry(repository: Path, server: ServerState, model: str, version: int) -> dict[str, str]:
    """Return a version's entry in the index; empty if there is none."""
    for entry in repository_index(repository, server.http):
        if (entry["name"], entry.get("version")) == (model, str(version)):
            return entry
    return {}


def load_failed(model: str, reason: str, hint: str) -> CsgError:
    """The error for a model that does not load: VerificationError if its answers differ from the golden ones."""
    if WRONG in reason:
        return VerificationError(f"{model} {WRONG}{reason.partition(WRONG)[2]}", hint)
    return ServerError(f"{model} does not load: {reason}", hint)


def _post(repository: Path, http_address: str, call: str, timeout_s: float) -> bytes:
    """Call the control API, with the secret if there is one."""
    request = urllib.request.Request(
        f"http://{http_address}/v2/repository/{call}", method="POST", headers=_secret_header(repository / SECRET)
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects())
    try:
        with direct.open(request, timeout=timeout_s) as response:
            content: bytes = response.read(MAX_ANSWER)
            return content
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.FORBIDDEN:
            raise ServerError(f"the server does not accept the secret in {repository / SECRET}", RESTART) from None
        raise


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Takes a redirect for an error, since following it would send the secret elsewhere."""

    def redirect_request(self, *_: object) -> None:
        return None


def _secret_header(file: Path) -> dict[str, str]:
    try:
        return {SECRET_HEADER: read_secret(file)} if file.exists() else {}
    except InputError as error:
        raise ServerError(error.message, RESTART) from None


def _error_text(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read(MAX_ANSWER))["error"])
    except (ValueError, LookupError, TypeError):
        return str(error)
