"""The Triton that `csg serve` would start, and the servers of this user that run."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from csg.errors import CsgError
from csg_serve.doctor.report import Problem, ReportPart
from csg_serve.triton.environment import existing_environment
from csg_serve.triton.pythons import newest_python

CONNECT_S = 2.0
"""Seconds that a server gets to accept a connection."""
REPOSITORY = "--model-repository="


def triton() -> ReportPart:
    """Which Triton `csg serve` starts, and what is missing for it."""
    part = ReportPart("triton")
    if on_path := shutil.which("tritonserver"):
        backends = Path(on_path).resolve().parent.parent / "backends"
        names = sorted(folder.name for folder in backends.glob("*/")) if backends.is_dir() else []
        part.facts["tritonserver"] = f"{on_path}, backends {', '.join(names) or 'where it looks by default'}"
        return part
    try:
        found = existing_environment()
        if found:
            part.facts["tritonserver"] = f"{found.triton / 'bin/tritonserver'}, Python 3.{found.minor}"
            return part
        python = newest_python()
        part.facts["tritonserver"] = f"none yet: `csg serve --prepare` creates its environment with {python.executable}"
    except CsgError as error:
        part.facts["tritonserver"] = "none"
        part.problems.append(Problem(error.message, error.hint))
    return part


def servers() -> ReportPart:
    """The servers that run, and whether they accept connections."""
    part = ReportPart("servers")
    try:
        repositories = list(_running())
    except ModuleNotFoundError:
        part.facts["running"] = "not known without the extra serve"
        return part
    for pid, repository in repositories:
        name = f"process {pid}"
        state = _state(repository)
        if state is None:
            part.facts[name] = f"{repository}, not started by csg"
            continue
        deaf = [f"{kind} {address}" for kind, address in state.items() if not _accepts(address)]
        part.facts[name] = f"{repository}, " + ", ".join(f"{kind} {address}" for kind, address in state.items())
        if deaf:
            advice = f"see {repository}/.csg-serve.log, or end it: csg serve --stop --repository {repository}"
            part.problems.append(
                Problem(f"the server on {repository} accepts no connection: {', '.join(deaf)}", advice)
            )
    if not repositories:
        part.facts["running"] = "none"
    return part


def _running() -> Iterator[tuple[int, str]]:
    """Process id and repository of each tritonserver that this user can see."""
    import psutil

    for process in psutil.process_iter():
        with suppress(psutil.Error):  # ended, a zombie, or another user's
            words = process.cmdline()
            if words and Path(words[0]).name == "tritonserver":
                named = [word.removeprefix(REPOSITORY) for word in words if word.startswith(REPOSITORY)]
                yield process.pid, named[0] if named else "a repository that its command line does not name"


def _state(repository: str) -> dict[str, str] | None:
    """The addresses of the server of csg on a repository, by endpoint; None if it is none of csg."""
    from csg_serve.server.state import running_server

    state = running_server(Path(repository))
    return state.addresses if state else None


def _accepts(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), CONNECT_S):
            return True
    except (OSError, ValueError):
        return False
