"""The environment of the wheel's server: a venv in csg's cache, apart from the one that csg runs in.

Triton's Python backend is built for numpy 1, and for certain versions of Python; csg runs with others.

<cache>/server-wheels/                    the downloaded wheels: another environment needs no network
<cache>/server-python3.<minor>-<digest>/  the venv; the digest is that of its requirements
    lib/libpython3.<minor>.so.1.0         link to the Python's shared library
    backends/                             Triton's backends, with the stub for this Python
<cache>/server-python3.<minor>-<digest>.log  the output of the command that failed
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from csg.console import log
from csg.errors import InputError, ServerError, one_line
from csg.files import absolute, atomic_write, cache_dir, temporary_prefix
from csg.locks import cached_folder
from csg_serve.python_backend.sessions import has_gpu
from csg_serve.triton.pythons import MINORS, Python, newest_python

TRITON = "nvidia-pytriton==0.7.0"
"""Triton 2.51. Installed without its dependencies, which its tritonserver does not use."""

NO_BYTECODE = "import sys; sys.dont_write_bytecode = True\n"
"""A .pth file of the server's Python: a polling server loads a model again when bytecode appears in its folder, and
Triton's stub does not heed PYTHONDONTWRITEBYTECODE."""
CHECK = "import numpy, onnx, onnxruntime, PIL.Image, pydantic; assert numpy.__version__.startswith('1.')"
"""What an environment must be able to do."""

Command = list[str | Path]

OTHER_TARGETS = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_PYTHON")
"""Settings of pip that would install elsewhere; all others apply."""


@dataclass(frozen=True)
class ServerEnvironment:
    """A venv with the wheel's server."""

    folder: Path
    """The venv."""

    minor: int
    """Its Python is 3.minor."""

    @property
    def python(self) -> Path:
        """Its Python."""
        return self.folder / "bin/python"

    @property
    def backends(self) -> Path:
        """Triton's backends."""
        return self.folder / "backends"

    @property
    def packages(self) -> Path:
        """Its site-packages."""
        return self.folder / f"lib/python3.{self.minor}/site-packages"

    @property
    def triton(self) -> Path:
        """The wheel's folder for Triton."""
        return self.packages / "pytriton/tritonserver"

    @property
    def library(self) -> Path:
        """Its Python's shared library, a link."""
        return self.folder / f"lib/libpython3.{self.minor}.so.1.0"

    @property
    def usable(self) -> bool:
        """Whether it exists, and the Python that it was created with."""
        return self.python.exists() and self.library.exists()


def existing_environment(openvino: bool = False) -> ServerEnvironment | None:
    """Return the environment of the wheel's server if it was created; arguments and errors as `server_environment`."""
    cache = _cache()
    digest = _digest(_wanted(openvino))
    candidates = (ServerEnvironment(cache / f"server-python3.{minor}-{digest}", minor) for minor in MINORS)
    return next((one for one in candidates if one.usable), None)


def server_environment(openvino: bool) -> ServerEnvironment:
    """Return the environment of the wheel's server; it is created on first use, which takes about a minute.

    Args:
        openvino: a model needs OpenVINO, which is also installed where csg's own environment has it.

    Raises:
        InputError: the cache's path holds characters that the server can't start from.
        ServerError: this machine has no Python for it, or the packages can't be had.
        OSError: the cache can't be written.
    """
    if existing := existing_environment(openvino):
        return existing
    wanted, python = _wanted(openvino), newest_python()
    name = f"server-python3.{python.minor}-{_digest(wanted)}"
    found = ServerEnvironment(_cache() / name, python.minor)
    if found.folder.is_dir() and not found.usable:  # its Python was removed
        shutil.rmtree(found.folder)
    cached_folder(name, lambda fresh: _create(fresh, found, python, wanted))
    return found


def _cache() -> Path:
    """Return the folder of the environments."""
    cache = absolute(cache_dir())
    if str(cache) != shlex.quote(str(cache)):  # Triton starts its Python stubs through a shell
        raise InputError(
            f"the wheel's server does not start below {str(cache)!r}",
            "set CSG_CACHE to a path without spaces and quotes",
        )
    return cache


def _wanted(openvino: bool) -> list[str]:
    return requirements(openvino or importlib.util.find_spec("openvino") is not None)


def _digest(wanted: list[str]) -> str:
    return hashlib.sha256(" ".join([TRITON, *wanted, NO_BYTECODE]).encode()).hexdigest()[:8]


def requirements(openvino: bool) -> list[str]:
    """Return what the server's Python needs beside Triton: what csg's scripts in the Python backend import."""
    gpu = platform.machine() == "x86_64" and has_gpu()
    runtime = "onnxruntime-gpu[cuda,cudnn]>=1.23" if gpu else "onnxruntime>=1.23"
    openvinos = ["openvino>=2025.0"] if openvino else []
    return ["numpy>=1.26,<2", "onnx>=1.17", runtime, "pillow>=11", "pydantic>=2.7", *openvinos]


def clean_environment() -> dict[str, str]:
    """Return the environment variables without those that change what a Python imports, or how it runs."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}


def _create(fresh: Path, final: ServerEnvironment, python: Python, wanted: list[str]) -> None:
    """Fill an environment's folder; it is moved to its place afterwards."""
    started = time.monotonic()
    what = ", ".join([TRITON, *wanted])
    log(f"creating the server's environment {final.folder} (once, about a minute) with {python.executable}: {what}")
    _remove_interrupted(fresh, final.folder)
    new = ServerEnvironment(fresh, python.minor)
    run = _Commands(final.folder, temporary=fresh / "downloads")
    run([python.executable, "-m", "venv", fresh, "--without-pip"], "create it")
    run([new.python, "-m", "ensurepip", "--default-pip"], "create it")  # venv would not show its output
    _install(new, wanted, run)
    shutil.copytree(new.triton / "backends", new.backends)
    stub = new.triton / f"python_backend_stubs/3.{python.minor}/triton_python_backend_stub"
    shutil.copy(stub, new.backends / "python")
    new.library.symlink_to(python.library)
    (new.packages / "no_bytecode.pth").write_text(NO_BYTECODE)
    run.output.unlink(missing_ok=True)
    log(f"created the server's environment in {time.monotonic() - started:.0f} s")


def _install(new: ServerEnvironment, wanted: list[str], run: _Commands) -> None:
    """Install the packages, from the wheels of an earlier environment if they suffice, and keep the wheels."""
    wheels = run.environment.with_name("server-wheels")
    pip: Command = [new.python, "-m", "pip", "--no-input"]
    download: Command = [*pip, "download", f"--dest={run.temporary}", "--progress-bar=off", "--only-binary=:all:"]
    if wheels.is_dir():
        download.append(f"--find-links={wheels}")
    for packages in (["--no-deps", TRITON], wanted):
        if not (wheels.is_dir() and run.succeeds([*download, "--no-index", *packages])):
            run([*download, *packages], "download the packages", "check the network and pip's configuration, and ")
    downloaded = sorted(run.temporary.glob("*.whl"))
    run([*pip, "install", "--no-index", "--no-deps", "--progress-bar=off", *downloaded], "install the packages")
    run([new.python, "-c", CHECK], "use the packages")
    wheels.mkdir(exist_ok=True)
    for wheel in downloaded:
        wheel.replace(wheels / wheel.name)
    shutil.rmtree(run.temporary)


def _remove_interrupted(fresh: Path, final: Path) -> None:
    """Remove what a process left that was killed while it created this environment."""
    for left in final.parent.glob(f"{temporary_prefix(final)}*"):
        if left.is_dir() and left != fresh:
            shutil.rmtree(left, ignore_errors=True)


class _Commands:
    """Runs the commands that create an environment.

    Args:
        environment: where the environment will be.
        temporary: a folder for temporary files, which is created.
    """

    def __init__(self, environment: Path, temporary: Path):
        self.environment, self.temporary = environment, temporary
        self.output = environment.with_name(f"{environment.name}.log")
        temporary.mkdir()
        variables = {name: value for name, value in clean_environment().items() if name not in OTHER_TARGETS}
        self.variables = variables | {"PIP_USER": "0", "TMPDIR": str(temporary)}

    def succeeds(self, command: Command) -> bool:
        """Run a command; return whether it succeeded."""
        return self._run(command).returncode == 0

    def __call__(self, command: Command, purpose: str, advice: str = "") -> None:
        """Run a command.

        Args:
            command: its words.
            purpose: what it does, for the error.
            advice: what to do if it fails, before its output is named.

        Raises:
            ServerError: it failed; its output is in a file that the error names.
            OSError: the disk is full.
        """
        done = self._run(command)
        if done.returncode == 0:
            return
        if os.strerror(errno.ENOSPC) in done.stdout:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.environment))
        atomic_write(self.output, f"$ {shlex.join(map(str, command))}\n{done.stdout}".encode(errors="replace"))
        raise ServerError(
            f"the server's environment: can't {purpose}: {_reason(done.stdout)}",
            f"{advice}see the output of pip and venv in {self.output}",
        )

    def _run(self, command: Command) -> subprocess.CompletedProcess[str]:
        """Run a command in a process group of its own, which ends with it, or if this process is interrupted."""
        with subprocess.Popen(
            command,
            env=self.variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:
            try:
                output, _ = process.communicate()
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        return subprocess.CompletedProcess(command, process.returncode, output)


def _reason(output: str) -> str:
    """Return the line of a command's output that says most about its failure."""
    if "connection broken by" in output:
        return "pip can't reach a package index"
    lines = [line for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:") for line in lines if line.startswith("ERROR:")]
    return one_line((errors or lines or ["no output"])[-1])
