"""`csg serve --print-command`: the command that starts Triton here, and the one for a container."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from pathlib import Path

from csg.console import log, print_json
from csg.errors import ServerError, UsageError
from csg_serve.server.flags import (
    CONTAINER_PORTS,
    KEEP_ON_LOAD_ERROR,
    container_flags,
    environment,
    script_variables,
    triton_flags,
)
from csg_serve.server.options import ServerOptions, TlsFiles
from csg_serve.server.tuning import scheduling_command
from csg_serve.triton.config import needs_openvino, repository_flags
from csg_serve.triton.executable import find_triton

IMAGE = "csg-triton:26.07"
"""The image that docs/deploy/Dockerfile makes of NVIDIA's container with Triton 2.71."""

CONTAINER_TRITON = Path("/opt/tritonserver/bin/tritonserver")

SECRET_PLACEHOLDER = "@secret@"
"""Stands for the secret until the command is printed: the shell reads the secret when the command runs."""


def print_command(repository: Path, options: ServerOptions, as_json: bool) -> None:
    """Print the commands that start the server, ready to paste into a shell. Nothing is started.

    Raises:
        UsageError: a port is 0.
    """
    if 0 in options.ports:
        raise UsageError("a printed command needs fixed ports", "give port numbers other than 0")
    commands = {}
    try:
        commands["here"] = _command_here(repository, options)
    except ServerError as error:
        log(f"no command for this machine: {error}")
    commands["container"] = _command_in_container(repository, options)
    if options.secret_file is None:
        log("set CSG_SECRET to the secret of the control API, or name a file with --secret-file")
    if as_json:
        print_json(commands)
    else:
        print("\n\n".join(f"# {name}\n{command}" for name, command in commands.items()))


def _command_here(repository: Path, options: ServerOptions) -> str:
    triton = find_triton(needs_openvino(repository))
    variables = environment(triton, options)
    removed = [f"--unset={name}" for name in os.environ if name not in variables]
    changed = [f"{name}={value}" for name, value in variables.items() if os.environ.get(name) != value]
    endpoints = {name: (host, port) for (name, host), port in zip(options.hosts.items(), options.ports, strict=True)}
    flags = triton_flags(options, str(repository.resolve()), endpoints, SECRET_PLACEHOLDER)
    flags += [*repository_flags(repository, triton.executable), KEEP_ON_LOAD_ERROR]
    if triton.backends:
        flags.append(f"--backend-directory={triton.backends}")
    command = [*scheduling_command(options.tuning), str(triton.executable), *flags]
    return _shell("env", [*removed, *changed, *command], options.secret_file)


def _command_in_container(repository: Path, options: ServerOptions) -> str:
    """Return a `docker run` command that publishes the ports at the addresses the endpoints would have here.

    The container runs as the user who prints the command, who can read the repository and the certificates.
    """
    mounts, tls = {"/models": repository}, None
    if options.tls:
        files = {name: file for name, file in vars(options.tls).items() if file}
        mounts |= {f"/tls/{name}.pem": file for name, file in files.items()}
        tls = TlsFiles(**{name: Path(f"/tls/{name}.pem") for name in files})
    published = zip(options.hosts.items(), options.ports, CONTAINER_PORTS.values(), strict=True)
    run = [
        f"--user={os.getuid()}:{os.getgid()}",
        f"--stop-timeout={options.drain_s + 5}",
        *(
            f"--publish={host}:{port}:{inside}"
            for (name, host), port, inside in published
            if name != "http" or options.expose_http
        ),
        *(f"--volume={file.resolve()}:{inside}:ro" for inside, file in mounts.items()),
        *(f"--env={name}={value}" for name, value in script_variables(options).items()),
        IMAGE,
        "tritonserver",
    ]
    flags = container_flags(replace(options, tls=tls), SECRET_PLACEHOLDER)
    flags += repository_flags(repository, CONTAINER_TRITON)
    return _shell("docker run --rm", [*run, *flags], options.secret_file)


def _shell(start: str, words: list[str], secret_file: Path | None) -> str:
    """Return a command for a POSIX shell, one word a line. The shell reads the secret; it is never printed."""
    secret = f'"$(cat {shlex.quote(str(secret_file.resolve()))})"' if secret_file else '"${CSG_SECRET:?}"'
    lines = [start, *map(shlex.quote, words)]
    return " \\\n  ".join(lines).replace(SECRET_PLACEHOLDER, secret)
