"""The Pythons of this machine that the wheel's server can run with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from csg.errors import ServerError

MINORS = (12, 11, 10)
"""Versions 3.x, the preferred first. The wheel has no numpy 1 for newer ones; ONNX Runtime 1.23, the first that is fast
in fp16 on CPUs, has none for older ones."""

PROBE_S = 20
"""Seconds that a Python gets to describe itself."""

PROBE = """
import json, os, sys
from sysconfig import get_config_var
try:
    import ensurepip, venv
    has_venv = bool(ensurepip.version())
except Exception:  # as on Debian, where it is a package of its own
    has_venv = False
name = "libpython%d.%d.so.1.0" % sys.version_info[:2]
paths = [os.path.join(folder, name) for folder in (get_config_var("LIBDIR") or "", sys.base_prefix + "/lib")]
library = next((path for path in paths if os.path.isfile(path)), None)
print(json.dumps([*sys.version_info[:2], sys.executable, has_venv, library]))
"""
"""A program that describes the Python which runs it: version, where it is (a shim of pyenv runs another one), whether
it has venv with pip, its shared library."""


@dataclass(frozen=True)
class Python:
    """A Python that the server can run with."""

    executable: Path
    """The program."""

    minor: int
    """3.minor."""

    library: Path
    """Its shared library, which Triton's stub loads."""


def newest_python() -> Python:
    """Find the newest Python of this machine that can run the wheel's server.

    It looks at the Python that runs csg, on PATH, in pyenv's and uv's folders, and in /usr.

    Raises:
        ServerError: there is none; the error says what those that were found lack.
    """
    lacking = []
    for minor in MINORS:
        for executable in _candidates(f"python3.{minor}"):
            described = _describe(executable, minor)
            if isinstance(described, Python):
                return described
            if described:
                lacking.append(described)
    found = "; ".join(lacking) or "this machine has none of them"
    raise ServerError(
        f"the wheel's server needs Python 3.10, 3.11 or 3.12: {found}",
        "install one, for example with `uv python install 3.12`, or use NVIDIA's container",
    )


def _candidates(name: str) -> Iterator[Path]:
    """Yield the programs of this name, each once."""
    minor = name.removeprefix("python")
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv", "versions")
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share")
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or data / "uv/python")
    folders = [
        Path(sys.base_prefix, "bin"),
        *(Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder),
        *(version / "bin" for version in sorted(pyenv.glob(f"{minor}.*"), reverse=True)),
        *(version / "bin" for version in sorted(uv.glob(f"cpython-{minor}*"), reverse=True)),
        Path("/usr/local/bin"),
        Path("/usr/bin"),
    ]
    seen = set()
    for executable in (folder / name for folder in folders):
        if os.access(executable, os.X_OK) and (real := executable.resolve()) not in seen:
            seen.add(real)
            yield executable


def _describe(executable: Path, minor: int) -> Python | str | None:
    """Return a Python, or in words what it lacks; None if it does not run or is another version, as pyenv's shims."""
    with suppress(OSError, subprocess.TimeoutExpired, ValueError):
        done = subprocess.run([executable, "-I", "-c", PROBE], capture_output=True, text=True, timeout=PROBE_S)
        *version, real, has_venv, library = json.loads(done.stdout)
        if version != [3, minor]:
            return None
        if not has_venv:
            return f"{executable} has no venv (Debian: apt install python3.{minor}-venv)"
        if not library:
            return f"{executable} has no libpython3.{minor}.so (Debian: apt install libpython3.{minor})"
        return Python(Path(real), minor, Path(library))
    return None
