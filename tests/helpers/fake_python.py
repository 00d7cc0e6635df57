"""Programs that say they are a Python, for tests of how the server's environment is created."""

import json

SUPPORTED = (99, 98)
"""Versions 3.x of which no machine has a real one."""

SCRIPT = """#!/bin/sh
echo "$@" >> {calls}
case "$*" in
  *"-I -c"*) echo '{described}';;
  *"-m venv"*)
    site="$3/lib/python3.{minor}/site-packages/pytriton/tritonserver"
    mkdir -p "$3/bin" "$site/backends/python" "$site/python_backend_stubs/3.{minor}"
    echo stub > "$site/python_backend_stubs/3.{minor}/triton_python_backend_stub"
    cp "$0" "$3/bin/python";;
  *" download "*) for word in "$@"; do case "$word" in --dest=*) echo wheel > "${{word#--dest=}}/a.whl";; esac; done
    {download}
esac
"""


def fake_python(folder, minor=99, *, has_venv=True, library=True, download=":"):
    """A program that describes itself as Python 3.minor, and creates environments without packages.

    Args:
        folder: where it is written, as python3.<minor>; `calls` there holds the arguments of each call.
        minor: its version.
        has_venv: it has the module venv.
        library: it has a shared library.
        download: shell command that ends `pip download`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, shared = folder / f"python3.{minor}", folder / f"libpython3.{minor}.so.1.0"
    shared.touch()
    described = json.dumps([3, minor, str(path), has_venv, str(shared) if library else None])
    path.write_text(SCRIPT.format(calls=folder / "calls", described=described, minor=minor, download=download))
    path.chmod(0o755)
    return path
